/* Policies that go by the round in hand: CItruS and InfiniPot; worked examples, quotas, what is on record and what is not. */
#include "tap.h"

#include <math.h>
#include <stdlib.h>

#include "policy/plan.h"
#include "policy_cache.h"
#include "util/half.h"

static const enum kv_sums_of C = KV_SUMS_CHUNK, P = KV_SUMS_PROBE;

/* A layer of n entries, keys and values zero, ids and surprisals as given. */
static struct kv_cache *
pot(unsigned heads, unsigned heads_kv, uint32_t n, const float *nll)
{
	struct kv_cache *c = small_cache(small_geom(1, heads, heads_kv, 2));
	uint32_t ids[16] = { 0 };
	float zero[2] = { 0 };
	struct kv_err err;

	kv_cache_extend(c, n, &err);
	for (size_t i = 0; i < heads_kv; i++)
		for (uint32_t r = 0; r < n; r++) {
			kv_rows_put(&c->list[i].k, r, 1, zero, 2, &err);
			kv_rows_put(&c->list[i].v, r, 1, zero, 2, &err);
		}
	kv_cache_add_tokens(c, ids, n, &err);
	if (nll)
		kv_cache_add_nll(c, nll, n, &err);
	return c;
}

static const char *
sources(const struct kv_cache *c, unsigned head)
{
	static char s[2][100];

	return small_sources(c, 0, head, s[head], sizeof s[head]);
}

/* Sums of two query heads over the same entries: the rows of one KV head, or those of two. */
static void
two_heads(struct kv_cache *c, enum kv_sums_of which, uint32_t queries, uint32_t cols, const float *first, const float *second)
{
	float both[32];

	memcpy(both, first, cols * sizeof *both);
	memcpy(both + cols, second, cols * sizeof *both);
	policy_sums(c, which, queries, 0, 0, cols, both);
	if (c->geom.n_heads_kv == 2)
		policy_sums(c, which, queries, 0, 1, cols, second);
}

/* The document a b c d | e f | g, two heads, l = 2, k = 2; where what is new. */
static void
test_citrus_example(unsigned heads_kv, const char *line, const char *want, const char *then, const float *g)
{
	static const float e1[] = { .7f, .1f, .3f, .3f }, e2[] = { .3f, .3f, .7f, .3f }, i1[] = { .2f, .9f, .2f, .3f },
		i2[] = { .2f, .7f, .3f, .4f };
	struct kv_cache *c = pot(2, heads_kv, 4, NULL);
	struct kv_err err;
	double s[7];

	kv_cache_extend(c, 2, &err);
	two_heads(c, C, 2, 4, e1, e2);
	two_heads(c, P, 2, 4, i1, i2);
	policy_scores(c, line, s);
	is_near(policy_apart(s, strstr(line, "chunk") ? (double[]){ .25, .1, .25, .15 } : (double[]){ .1, .4, .125, .175 }, 4), 0, 1e-7,
		"%s: importance", line);
	ok(isinf(s[4]) && isinf(s[5]), "the chunk is protected");
	policy_evict(c, line);
	is_str(sources(c, 0), want, "%s", line);
	ok(!c->sums[C].there && !c->sums[P].there, "sums over entries that are gone go with them");
	kv_cache_extend(c, 1, &err);
	two_heads(c, strstr(line, "chunk") ? C : P, 1, 4, g, g);
	policy_evict(c, line);
	is_str(sources(c, 0), then, "the next chunk, of one token");
	is_str(sources(c, heads_kv - 1), then, "all heads of a layer alike");
	kv_cache_free(c);
}

static void
test_citrus_final(void)
{
	static const float u[] = { .3f, .2f, .25f };
	struct kv_cache *c = pot(2, 1, 3, NULL);

	two_heads(c, P, 1, 3, u, u);
	policy_evict(c, "--citrus -k 2");
	is_int(c->list[0].n, 3, "all is new: nothing goes");
	ok(c->sums[P].there, "and the sums stay");
	c->state.tail = 0;
	policy_evict(c, "--citrus -k 2");
	is_str(sources(c, 0), "0 2", "a run with the probe alone leaves nothing protected");
	kv_cache_free(c);
}

static void
test_citrus_budget(void)
{
	static const struct {
		const char *line, *want;
		uint32_t tail, cols;
	} row[] = {
		{ "--citrus -k 3", "2 3 4 5 6 7", 3, 5 },
		{ "--citrus -k 1", "4 5 6 7", 3, 5 },
		{ "--citrus -k 5", "0 1 2 3 4 5 6 7", 3, 5 },
		{ "--citrus -k 40%", "3 4 5 6 7", 3, 5 },		/* of the old */
		{ "--citrus -k 1%", "4 5 6 7", 3, 5 },
		{ "--citrus -k 2 --sinks 1", "0 4 5 6 7", 3, 5 },	/* within k */
		{ "--citrus -k 3 --sinks 1 --recent 2", "0 3 4 5 6 7", 3, 5 },
		{ "--citrus -k 2", "3 4 5 6 7", 0, 5 },			/* what was not seen does not compete either */
		{ "--citrus -k 2", "3 4 5 6 7", 3, 8 },			/* nor what is new, seen or not */
		{ "--citrus -k 1", "0 1 2 3 4 5 6 7", 8, 0 },		/* nothing was old */
		{ "--citrus -k 1%", "0 1 2 3 4 5 6 7", 0, 0 },
	};
	static const float u[] = { 1, 2, 3, 4, 5, 6, 7, 8 };

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct kv_cache *c = pot(1, 1, 8, NULL);

		c->state.tail = row[i].tail;
		policy_sums(c, P, 2, 0, 0, row[i].cols, u);
		policy_keeps(c, row[i].line, row[i].want, row[i].line);
		kv_cache_free(c);
	}
}

/* Of the same sums, the chunk's choice is the probe's. Layers choose by themselves, the heads of one choose alike. */
static void
test_citrus_shared(void)
{
	struct kv_cache *a = small_cache(small_geom(3, 4, 2, 8)), *b;
	char s[100], t[100];
	unsigned layers = 0;
	bool ascends = true;

	small_feed(a, 30);
	policy_probe(a);
	a->state.tail = 6;
	b = small_copy(a);
	for (size_t i = 0; i < 6; i++)
		memcpy(b->sums[C].list[i].sum, a->sums[P].list[i].sum, 2 * 30 * sizeof(float));
	policy_evict(a, "--citrus -k 10");
	policy_evict(b, "--citrus=chunk -k 10");
	for (unsigned l = 0; l < 3; l++) {
		is_str(small_sources(a, l, 0, s, sizeof s), small_sources(b, l, 0, t, sizeof t), "layer %u: one code for both", l);
		ok(kv_list_same(kv_cache_list(a, l, 0), kv_cache_list(a, l, 1)), "its heads share the set");
		layers += l && strcmp(small_sources(a, 0, 0, t, sizeof t), s);
		for (uint32_t r = 1; r < kv_cache_list(a, l, 0)->n; r++)
			ascends &= kv_cache_list(a, l, 0)->src[r - 1] < kv_cache_list(a, l, 0)->src[r];
		is_int(kv_cache_list(a, l, 0)->n, 16, "k and the tail");
	}
	ok(layers == 2 && ascends, "layers differ, sources ascend");
	kv_cache_free(a);
	kv_cache_free(b);
}

/* Two caches that got the same chunk, ranked by different queries: what was old differs, the tail is the same to the last bit. */
static void
test_citrus_individual(void)
{
	struct kv_cache *a = small_cache(small_geom(2, 4, 2, 8)), *b;
	bool same = true, differ = false;
	uint8_t row[2][32];

	small_feed(a, 24);
	policy_probe(a);
	a->state.tail = 5;
	b = small_copy(a);
	policy_evict(a, "--citrus=chunk -k 8");
	policy_evict(b, "--citrus -k 8");
	kv_cache_load(a, KV_LOAD_K | KV_LOAD_V, NULL, NULL);
	kv_cache_load(b, KV_LOAD_K | KV_LOAD_V, NULL, NULL);
	for (size_t i = 0; i < 4; i++) {
		const struct kv_list *x = &a->list[i], *y = &b->list[i];

		for (uint32_t r = 0; r < 13; r++) {
			if (r < 8) {
				differ |= x->src[r] != y->src[r];
				continue;
			}
			for (unsigned values = 0; values < 2; values++) {
				memcpy(row[0], (values ? x->v.data : x->k.data) + (size_t)r * 16, 16);
				memcpy(row[1], (values ? y->v.data : y->k.data) + (size_t)r * 16, 16);
				same &= !memcmp(row[0], row[1], 16) && x->src[r] == y->src[r] && x->pos[r] == y->pos[r];
			}
		}
	}
	ok(same && differ, "C and C_I: one tail, other survivors");
	kv_cache_free(a);
	kv_cache_free(b);
}

static void
refuses(struct kv_cache *c, const char *line, enum kv_status want, const char *says)
{
	struct kv_err err = { 0 };

	is_int(small_run(&kv_stage_evict, line, c, 1, NULL, &err), want, "%s: %s", line, err.text);
	ok(strstr(err.text, says), "it says \"%s\"", says);
}

static void
test_citrus_refusals(void)
{
	static const float u[] = { .1f, .2f, .3f, .4f, .5f, .6f };
	static const uint32_t keep[] = { 0, 1, 2, 4, 5 };
	struct kv_cache *c = pot(2, 2, 6, NULL);
	struct kv_err err;

	refuses(c, "--citrus -k 6", KV_EFIT, "no probe's attention in the snapshot, --citrus needs it: run kv-prefill with --probe");
	policy_sums(c, C, 1, 0, 0, 6, u);
	refuses(c, "--citrus -k 6", KV_EFIT, "--probe");
	policy_evict(c, "--citrus=chunk -k 6");
	policy_sums(c, P, 1, 0, 0, 6, u);
	policy_evict(c, "--citrus -k 6");
	c->sums[P].list[1].missing = true;
	refuses(c, "--citrus -k 6", KV_EFIT, "--probe");
	c->sums[P].list[1].missing = false;
	c->state.tail = 1;
	policy_evict(c, "--citrus -k 3");
	refuses(c, "--citrus -k 2", KV_EFIT, "--probe");	/* the first cut has made them stale */
	refuses(c, "--citrus=last -k 2", KV_EUSAGE, "not by the attention of last");
	refuses(c, "--tova -k 2 --by chunk", KV_EUSAGE, "--by does not go with --tova");
	refuses(c, "--citrus=sum -k 2", KV_EUSAGE, "probe, chunk, last");
	refuses(c, "--citrus -k 0", KV_EUSAGE, "-k");
	kv_cache_free(c);
	c = pot(2, 2, 6, NULL);
	c->state.tail = 0;
	kv_list_keep(&c->list[1], keep, 5, &err);
	policy_sums(c, P, 1, 0, 0, 6, u);
	policy_sums(c, P, 1, 0, 1, 5, u);
	refuses(c, "--citrus -k 3", KV_EFIT, "--scope head");
	policy_evict(c, "--citrus -k 3 --scope head");
	is_str(sources(c, 0), "3 4 5", "head by head");
	is_str(sources(c, 1), "2 4 5", "the other");
	kv_cache_free(c);
}

/* Records by KV head from elsewhere do for means, one by maximum does not. */
static void
test_reduced(void)
{
	static const float u[] = { .1f, .4f, .3f, .2f };
	struct kv_cache *c;

	for (uint8_t reduction = 0; reduction < 3; reduction++) {
		c = pot(4, 2, 4, NULL);
		c->state.tail = 0;
		policy_sums(c, P, 1, 0, 0, 0, NULL);
		c->sums[P].rows = 1;
		c->sums[P].reduction = reduction;
		policy_sums(c, P, 1, 0, 0, 4, u);
		policy_sums(c, P, 1, 0, 1, 4, u);
		if (reduction < 2) {
			double s[4];

			policy_scores(c, "--citrus", s);
			is_near(s[1], reduction ? .1 * 2 : .4, 1e-7, "reduction %u", reduction);
			policy_evict(c, "--citrus -k 2");
			is_str(sources(c, 0), "1 2", "the larger stay");
			policy_sums(c, P, 1, 0, 0, 2, u);
			c->sums[P].rows = 1;
			refuses(c, "--infinipot --nuc 0 -k 1 --gqa max", KV_EFIT, "joined by the mean");
		} else {
			refuses(c, "--citrus -k 2", KV_EFIT, "joined by the maximum");
			policy_evict(c, "--infinipot --nuc 0 -k 2 --gqa max");
			is_str(sources(c, 0), "1 2", "a maximum is what --gqa max asks for");
		}
		kv_cache_free(c);
	}
}

static const float cap_a[] = { .50f, .05f, .20f, .05f, .15f, .05f }, cap_b[] = { .30f, .05f, .05f, .10f, .10f, .40f };
static const float novelty[] = { -1, 2, .1f, 5, .3f, 1 };

static struct kv_cache *
first_cycle(void)
{
	struct kv_cache *c = pot(2, 2, 6, novelty);

	policy_sums(c, P, 2, 0, 0, 6, cap_a);
	policy_sums(c, P, 2, 0, 1, 6, cap_b);
	return c;
}

static void
test_infinipot_example(void)
{
	static const struct { const char *options, *a, *b; } row[] = {
		{ "--first-nll 0", "0 1 2 3", "0 1 3 5" },
		{ "--first-nll 0 --nuc 0", "0 2 4 5", "0 3 4 5" },
		{ "--first-nll 0 --nuc 0%", "0 2 4 5", "0 3 4 5" },
		{ "--first-nll 0 --nuc 25%", "0 2 3 4", "0 3 4 5" },
		{ "--first-nll 0 --nuc 1", "0 2 3 4", "0 3 4 5" },
		{ "--first-nll 0 --nuc 75%", "0 1 3 5", "0 1 3 5" },
		{ "--first-nll 0 --nuc 100%", "1 3 4 5", "1 3 4 5" },
		{ "--first-nll 0 --nuc 9", "1 3 4 5", "1 3 4 5" },
		{ "", "0 2 3 4", "0 3 4 5" },
		{ "--first-nll inf --nuc 50%", "0 2 3 4", "0 3 4 5" },
		{ "--nuc 2", "0 2 3 4", "0 3 4 5" },
		{ "--nuc 25%", "0 2 4 5", "0 3 4 5" },
		{ "--nuc 75%", "0 1 2 3", "0 1 3 5" },
		{ "--nuc 100%", "0 1 3 5", "0 1 3 5" },
		{ "--nuc 0", "0 2 4 5", "0 3 4 5" },
		{ "--nuc 74.99%", "0 2 3 4", "0 3 4 5" },		/* floor(2.9996) */
		{ "--first-nll 0 --recent 1", "0 2 3 5", "0 3 4 5" },	/* one of three places by surprisal */
		{ "--sinks 1 --recent 1 --nuc 50%", "0 2 3 5", "0 3 4 5" },
		{ "--scope layer", "0 3 4 5", "0 3 4 5" },		/* means .400 .050 .125 .075 .125 .225 */
		{ "--gqa max", "0 2 3 4", "0 3 4 5" },
		{ "--nuc 0 --pool avg:3", "0 1 2 3", "0 1 4 5" },
		{ "--nuc 0 --pool max:3", "0 1 2 3", "0 1 4 5" },
	};
	char line[100];

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct kv_cache *c = first_cycle();

		snprintf(line, sizeof line, "--infinipot -k 4 %s", row[i].options);
		policy_keeps_two(c, line, row[i].a, row[i].b);
	}
}

/* Positions after the first cut, then two more tokens and the second. */
static void
test_infinipot_cycles(void)
{
	static const float next[] = { 4, .2f }, a[] = { .40f, .10f, .05f, .05f, .20f, .30f }, b[] = { .20f, .30f, .05f, .25f, .10f, .10f };
	struct kv_cache *c = first_cycle();
	uint32_t ids[2] = { 0 };
	struct kv_err err;
	char s[100];

	policy_evict(c, "--infinipot -k 4 --first-nll 0");
	small_run(&kv_stage_reposition, "--compact", c, 1, NULL, &err);
	is_str(small_positions(c, 0, 1, s, sizeof s), "0 1 2 3", "compacted");
	is_int(c->state.next_pos, 4, "the next token follows");
	kv_cache_extend(c, 2, &err);
	kv_cache_add_tokens(c, ids, 2, &err);
	kv_cache_add_nll(c, next, 2, &err);
	policy_sums(c, P, 2, 0, 0, 6, a);
	policy_sums(c, P, 2, 0, 1, 6, b);
	policy_evict(c, "--infinipot -k 4 --first-nll 0");
	is_str(sources(c, 0), "0 3 6 7", "the second cycle, head A");
	is_str(sources(c, 1), "1 3 5 6", "head B");
	kv_cache_free(c);
}

static void
test_infinipot_first(void)
{
	static const struct { const char *options; bool told; } row[] = { { "", true }, { "--first-nll 0", false }, { "--nuc 0", false },
		{ "--nuc 1", true } };

	for (size_t i = 0; i < 4; i++) {
		struct kv_cache *c = first_cycle();
		struct kv_policy_opts o = { .budget = { 4, 0 }, .first_nll = i == 1, .nuc = { i == 2 ? 0 : 1, 0 }, .scope = KV_SCOPE_HEAD,
			.pool = { KV_POOL_NONE, 1 } };
		struct kv_plan_how how = { &kv_policy_infinipot, &o, NULL, false };
		struct kv_plan *p;
		struct kv_err err;

		ok(kv_plan_make(&how, c, NULL, &p, &err) == KV_OK && !p->remark == !row[i].told, "-v tells of tokens without surprisal: '%s'",
			row[i].options);
		kv_plan_free(p);
		kv_cache_free(c);
	}
}

/* The first cycle: what goes by surprisal is the same everywhere, and it is the top of what the model found surprising. */
static void
test_novel_part(void)
{
	struct kv_cache *c = small_cache(small_geom(3, 4, 2, 8));
	bool in[6][40] = { { false } }, all;
	unsigned wrong = 0;
	float nll, other;

	small_feed(c, 40);
	policy_probe(c);
	policy_evict(c, "--infinipot -k 20 --first-nll 0");
	for (size_t i = 0; i < 6; i++)
		for (uint32_t r = 0; r < c->list[i].n; r++)
			in[i][c->list[i].src[r]] = true;
	for (uint32_t t = 0; t < 40; t++) {
		unsigned larger = 0;

		if (!kv_cache_nll(c, t, &nll))
			nll = 0;
		for (uint32_t u = 0; u < 40; u++) {
			if (!kv_cache_nll(c, u, &other))
				other = 0;
			larger += other > nll || (u > t && !(other < nll));
		}
		all = true;
		for (size_t i = 0; i < 6; i++)
			all &= in[i][t];
		wrong += larger < 10 && !all;
	}
	is_int(wrong, 0, "the ten most surprising stay in every head of every layer");
	is_int(kv_cache_longest(c), 20, "20 stay");
	kv_cache_free(c);
}

/* Without surprisal, without a probe: TOVA head by head. By surprisal alone: SirLLM without sinks. In every cycle. */
static void
test_ends(void)
{
	struct kv_cache *a[4];
	char d[4][33];
	static const char *const line[] = { "--infinipot=last --nuc 0 -k 15", "--tova --scope head -k 15", "--infinipot --nuc 100% --first-nll 0 -k 15",
		"--sirllm --sinks 0 --recent 0 --first-nll 0 -k 15" };

	for (int i = 0; i < 4; i++) {
		a[i] = small_cache(small_geom(2, 4, 2, 8));
		for (int cycle = 0; cycle < 3; cycle++) {
			small_feed(a[i], 20);
			policy_evict(a[i], line[i]);
			if (i == 2)
				ok(kv_list_same(&a[i]->list[0], &a[i]->list[3]), "by surprisal alone all heads are alike");
		}
		small_digest(a[i], d[i]);
		kv_cache_free(a[i]);
	}
	is_str(d[0], d[1], "%s = %s", line[0], line[1]);
	is_str(d[2], d[3], "%s = %s", line[2], line[3]);
}

static void
test_refill(void)
{
	static const struct { struct kvs_obsr round; const char *line; uint32_t n; } row[] = {
		{ { 1, 3, 16, 2, 0 }, "-k 4", 4 },
		{ { 1, 3, 16, 2, 0 }, "-k 4 --last-refill exact", 11 },		/* 16 - 2 - 3 */
		{ { 1, 3, 16, 2, 5 }, "-k 4 --last-refill exact", 8 },
		{ { 1, 0, 16, 2, 5 }, "-k 4 --last-refill exact", 11 },
		{ { 1, 9, 16, 2, 0 }, "-k 4 --last-refill exact", 5 },
		{ { 1, 12, 16, 2, 0 }, "-k 4 --last-refill exact", 4 },		/* never fewer than k */
		{ { 1, 15, 16, 2, 0 }, "-k 4 --last-refill exact", 4 },
		{ { 1, 16, 16, 0, 0 }, "-k 4 --last-refill exact", 4 },		/* more may wait than a pot holds */
		{ { 1, 0, 16, 1, 0 }, "-k 4 --last-refill exact", 14 },		/* no more than there is */
		{ { 1, 3, 16, 2, 0 }, "-k 25% --last-refill exact --nuc 0", 11 },
	};
	char line[100];
	struct kv_cache *c;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		c = small_cache(small_geom(2, 4, 2, 8));
		small_feed(c, 14);
		policy_probe(c);
		c->has_round = true;
		c->round = row[i].round;
		snprintf(line, sizeof line, "--infinipot %s", row[i].line);
		policy_evict(c, line);
		ok(kv_cache_longest(c) == row[i].n && c->list[3].n == row[i].n, "%s, %u wait: %u stay", line, row[i].round.waiting, row[i].n);
		kv_cache_free(c);
	}
	c = first_cycle();
	refuses(c, "--infinipot -k 4 --last-refill exact", KV_EFIT, "run kv-prefill with --fill");
	kv_cache_free(c);
}

static void
test_infinipot_refusals(void)
{
	struct kv_cache *c = pot(2, 2, 6, novelty), *bare = pot(2, 2, 6, NULL);

	refuses(c, "--infinipot -k 4", KV_EFIT, "no probe's attention in the snapshot, --infinipot needs it: run kv-prefill with --probe");
	refuses(c, "--infinipot -k 4 --nuc 3", KV_EFIT, "--probe");
	refuses(c, "--infinipot=last -k 4", KV_EFIT, "--observe last=1");
	refuses(c, "--infinipot -k 4 --nuc-carry recompute", KV_EUNSUP, "--nuc-carry recompute");
	refuses(c, "--infinipot=chunk -k 4", KV_EUSAGE, "not by the attention of chunk");
	refuses(c, "--infinipot -k 4 --nuc 101%", KV_EUSAGE, "--nuc");
	refuses(c, "--infinipot -k 4 --scope model", KV_EUSAGE, "--scope model");
	policy_sums(bare, P, 2, 0, 0, 6, cap_a);
	policy_sums(bare, P, 2, 0, 1, 6, cap_b);
	refuses(bare, "--infinipot -k 4", KV_EFIT, "run kv-prefill with --observe nll");
	refuses(bare, "--infinipot -k 2 --nuc 50%", KV_EFIT, "--observe nll");
	policy_evict(bare, "--infinipot -k 5 --nuc 19%");		/* floor(0.95): nothing goes by surprisal */
	is_int(bare->list[0].n, 5, "no surprisal needed");
	policy_keeps_two(c, "--infinipot -k 4 --nuc 4 --nuc-carry sticky", "0 1 3 5", "0 1 3 5");	/* nor a probe */
	kv_cache_free(bare);
	bare = pot(2, 2, 6, novelty);
	policy_sums(bare, P, 2, 0, 0, 0, NULL);
	policy_sums(bare, P, 2, 0, 1, 0, NULL);
	policy_evict(bare, "--infinipot -k 2");
	is_int(bare->list[1].n, 6, "the probe saw nothing: all stay");
	kv_cache_free(bare);
}

int
main(void)
{
	static const float chunk[] = { .35f, .05f, .10f, .15f }, probe[] = { .30f, .10f, .05f, .20f };

	for (unsigned heads_kv = 1; heads_kv <= 2; heads_kv++) {
		test_citrus_example(heads_kv, "--citrus=chunk -k 2", "0 2 4 5", "0 5 6", chunk);
		test_citrus_example(heads_kv, "--citrus -k 2", "1 3 4 5", "1 5 6", probe);
	}
	test_citrus_final();
	test_citrus_budget();
	test_citrus_shared();
	test_citrus_individual();
	test_citrus_refusals();
	test_reduced();
	test_infinipot_example();
	test_infinipot_cycles();
	test_infinipot_first();
	test_novel_part();
	test_ends();
	test_refill();
	test_infinipot_refusals();
	return done_testing();
}
