/* Policies by the votes of recorded queries: SnapKV, PyramidKV, AdaKV, Scissorhands, ChunkKV; worked examples. */
#include "tap.h"

#include <stdlib.h>

#include "policy/policy.h"
#include "policy_cache.h"

/*
 * n entries and a window of 2 whose votes for the prefix [heads][n - 2] are known: both queries pay alike, what is left over goes to
 * themselves. Votes must sum to less than one; the true ones are these.
 */
static struct kv_cache *
cache_of_votes(unsigned heads, unsigned heads_kv, uint32_t n, const float *votes)
{
	float *rows = calloc((size_t)heads * 2 * n, sizeof *rows);
	struct kv_cache *c;

	for (unsigned h = 0; h < heads; h++)
		for (uint32_t w = 0; w < 2; w++) {
			float *row = rows + (h * 2 + w) * (size_t)n, rest = 1;

			for (uint32_t i = 0; i + 2 < n; i++)
				rest -= row[i] = votes[h * (size_t)(n - 2) + i];
			row[n - 2] = w ? rest / 2 : rest;
			row[n - 1] = w ? rest / 2 : 0;
		}
	c = policy_rows(heads, heads_kv, n, 2, rows);
	free(rows);
	return c;
}

/* A tenth of the worked numbers, so that they fit into a row of attention. */
static const float prefix[] = { .4f, .05f, .01f, .175f, .15f };
static const float two_heads[] = { 0, .8f, 0, 0, 0, 0, 0, 0, .9f, 0 };

static void
test_snapkv(void)
{
	static const struct {
		const char *line, *keep;
		double score[5];
	} row[] = {
		{ "--snapkv --last 2 --pool none", "0 3 4 5 6", { .4, .05, .01, .175, .15 } },
		{ "--snapkv --last 2 --pool avg:3", "0 1 3 5 6", { .15, .15333, .07833, .11167, .10833 } },
		{ "--snapkv --last 2 --pool max:3", "0 1 4 5 6", { .4, .4, .175, .175, .175 } },
	};
	double s[7];
	char line[80];

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct kv_cache *c = cache_of_votes(1, 1, 7, prefix);

		policy_scores(c, row[i].line, s);
		is_near(policy_apart(s, row[i].score, 5), 0, 1e-5, "%s: votes", row[i].line);
		ok(isinf(s[5]) && isinf(s[6]), "%s: the window is protected", row[i].line);
		snprintf(line, sizeof line, "%s -k 7", row[i].line);
		policy_keeps(c, line, "0 1 2 3 4 5 6", "as many as there are");
		snprintf(line, sizeof line, "%s -k 5", row[i].line);
		policy_keeps(c, line, row[i].keep, line);
		policy_cache_free(c);
	}
}

static void
test_groups(void)
{
	static const double avg[] = { .13333, .13333, .28333, .15, .15 }, first[] = { .4, .4, .45, .45, .45 }, most[] = { .8, .8, .9, .9, .9 };
	struct kv_cache *c = cache_of_votes(2, 1, 7, two_heads);
	double s[7];

	policy_scores(c, "--snapkv --last 2 --pool avg:3", s);
	is_near(policy_apart(s, avg, 5), 0, 1e-5, "averages: joining and pooling commute");
	policy_scores(c, "--snapkv --last 2 --pool max:3", s);
	is_near(policy_apart(s, first, 5), 0, 1e-5, "maxima: the group is joined first");
	policy_scores(c, "--snapkv --last 2 --pool max:3 --gqa max", s);
	is_near(policy_apart(s, most, 5), 0, 1e-5, "--gqa max");
	policy_keeps(c, "--snapkv --last 2 --pool max:3 -k 3", "4 5 6", "of a plateau the newest stays");
	policy_cache_free(c);
}

/* Rounding after the softmax and after each reduction: every number a bf16, many of them equal. */
static void
test_score_dtype(void)
{
	struct kv_cache *c = cache_of_votes(1, 1, 7, prefix);
	double s[7];

	policy_scores(c, "--snapkv --last 2 --pool none --score-dtype bf16", s);
	is_near(s[0], 0.400390625, 0, "0.4 as bf16");
	policy_scores(c, "--snapkv --last 2 --pool avg:3 --score-dtype f16", s);
	is_near(s[0] * 0x1p13, rint(s[0] * 0x1p13), 1e-4, "an average as f16");
	policy_cache_free(c);
}

static void
test_window(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 2, 1, 4));
	struct kv_err err = { 0 };
	char s[100];

	small_feed(c, 40);
	is_int(small_run(&kv_stage_evict, "--snapkv -k 36", c, 1, NULL, &err), KV_EFIT, "too few queries: %s", err.text);
	ok(strstr(err.text, "--observe last=32"), "the option is named");
	is_int(small_run(&kv_stage_evict, "--snapkv -k 40", c, 1, NULL, &err), KV_OK, "unless nothing has to go");
	is_int(small_run(&kv_stage_evict, "--snapkv -k 31", c, 1, NULL, &err), KV_EUSAGE, "-k below the window: %s", err.text);
	is_int(small_run(&kv_stage_evict, "--snapkv -k 50 --pool max:4", c, 1, NULL, &err), KV_EUSAGE, "%s", err.text);
	is_int(small_run(&kv_stage_evict, "--tova -k 5 --pool max:3", c, 1, NULL, &err), KV_EUSAGE, "%s", err.text);
	policy_evict(c, "--window -k 20");
	small_feed(c, 1);
	c->queries[0].w = 3;	/* the newest was not recorded: 37 38 39 were */
	for (int i = 0; i < 3; i++)
		c->queries[0].src[i] = 37 + (uint32_t)i;
	policy_evict(c, "--snapkv --last 2 -k 3");
	is_str(small_sources(c, 0, 0, s, sizeof s), "38 39 40", "what came after the voters stays with them");
	policy_cache_free(c);
}

/* Entries of every layer after --pyramidkv; n tokens of a model of many layers and one head of two channels. */
static void
pyramid(uint32_t n, unsigned layers, const char *line, uint32_t *out)
{
	struct kv_cache *c = small_cache(small_geom(layers, 1, 1, 2));
	struct kv_err err;
	char all[120];

	small_feed(c, n);
	for (unsigned l = 0; l < layers; l++) {
		float *q = calloc(64 * 2, sizeof *q);

		kv_queries_add(c, l, 64, 64, n - 64, (int32_t)n - 64, q, &err);
		free(q);
	}
	snprintf(all, sizeof all, "--pyramidkv %s", line);
	policy_evict(c, all);
	for (unsigned l = 0; l < layers; l++)
		out[l] = c->list[l].n;
	policy_cache_free(c);
}

static void
test_pyramidkv(void)
{
	static const uint32_t kvpress[] = { 3994, 3868, 3743, 3617 };
	uint32_t k[32], total = 0;
	unsigned wrong = 0;

	pyramid(4096, 32, "--last 8 -k 128", k);
	for (unsigned l = 0; l < 32; l++) {
		total += k[l];
		wrong += k[l] != 242 - 7 * l;
	}
	is_int(wrong, 0, "242, 235 … 25");
	is_int(k[16], 130, "layer 16");
	is_int(total, 4272, "more than 32 times 128, as the steps are rounded down");
	pyramid(200, 4, "--last 8 -k 128", k);
	ok(k[0] == 128 && k[3] == 128, "a short text gets the same everywhere");
	pyramid(250, 4, "--last 8 -k 128", k);
	ok(k[0] == 242 && k[3] <= k[2] && k[1] < k[0], "the largest budget fits: %u %u %u %u", k[0], k[1], k[2], k[3]);
	pyramid(300, 1, "--last 8 -k 128", k);
	is_int(k[0], 242, "one layer: no steps");
	pyramid(4096, 32, "--alloc kvpress --last 64 -k 1024", k);
	ok(k[0] == 1024 && k[31] == 1024, "kvpress falls back to SnapKV");
	pyramid(8192, 32, "--alloc kvpress --last 64 -k 2048", k);
	total = 0;
	for (unsigned l = 0; l < 32; l++)
		total += k[l];
	ok(!memcmp(k, kvpress, sizeof kvpress) && k[29] == 353 && k[30] == 228 && k[31] == 102, "kvpress: 3994 … 102");
	is_int(total, 32 * 2048, "kvpress: the mean is exact");
	pyramid(1927, 30, "--alloc kvpress --last 64 --beta 2 -k 481", k);
	is_int(k[29], 241, "kvpress: 721.5 - 29 (481 / 29) is a little more than 240.5");
}

/* Numbers of the worked example, scaled so that a row holds them; two KV heads. */
static const float ada[] = { .27f, .24f, .21f, .18f, .03f, .15f, .015f, .012f, .009f, .006f };

static void
test_adakv(void)
{
	static const struct {
		const char *line, *head0, *head1;
	} row[] = {
		{ "--alpha 0", "0 1 2 3 4 5 6", "0 5 6" },
		{ "--alpha 0.2", "0 1 2 3 5 6", "0 5 6" },
		{ "--alpha 0.5", "0 1 2 3 5 6", "0 1 5 6" },
		{ "--alpha 1", "0 1 2 5 6", "0 1 2 5 6" },
		{ "--alloc kvpress --alpha 0", "0 1 2 3 4 5 6", "0 5 6" },
		{ "--alloc kvpress --alpha 0.2", "0 1 2 3 4 5 6", "0 5 6" },
		{ "--alloc kvpress --alpha 0.8", "0 1 2 3 5 6", "0 1 5 6" },
		{ "--alloc kvpress --alpha 1", "0 1 2 5 6", "0 1 2 5 6" },
	};
	static const float same[] = { .3f, .25f, .2f, .15f, .05f, .3f, .25f, .2f, .15f, .05f };
	char line[100];

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		snprintf(line, sizeof line, "--adakv --last 2 --pool none %s -k 5", row[i].line);
		policy_keeps_two(cache_of_votes(2, 2, 7, ada), line, row[i].head0, row[i].head1);
	}
	policy_keeps_two(cache_of_votes(2, 2, 7, same), "--adakv --last 2 --pool none --alpha 0 -k 4", "0 1 5 6", "0 1 5 6");
	policy_keeps_two(cache_of_votes(2, 2, 7, same), "--adakv --last 2 --pool none --alloc kvpress -k 4 --sinks 1", "0 1 5 6", "0 1 5 6");
}

/* The matrix of attention that the examples of H2O and Scissorhands share. */
static const float matrix[25] = { 1, 0, 0, 0, 0, .6f, .4f, 0, 0, 0, .5f, .1f, .4f, 0, 0, .3f, .12f, .4f, .18f, 0, .2f, .1f, .3f, .15f, .25f };

static void
test_scissorhands(void)
{
	static const double rate[] = { 2 / 3., 0, 1, 0 }, unimportant[] = { 0, -3, 0, -2 };
	struct kv_cache *c = policy_rows(1, 1, 5, 3, matrix + 10);
	double s[5];
	float other[15];

	policy_scores(c, "--scissorhands --recent 1", s);
	is_near(policy_apart(s, rate, 4), 0, 1e-7, "rates: .2 is not above 1 / 5");
	ok(isinf(s[4]), "the recent one is protected");
	policy_scores(c, "--scissorhands --recent 0 --last 1", s);
	is_near(policy_apart(s, (double[]){ 0, 0, 1, 0, 1 }, 5), 0, 0, "--last 1: one row judges");
	policy_keeps(c, "--scissorhands --recent 1 -k 3", "0 2 4", "two go");
	policy_cache_free(c);
	/* Exactly even is neither important nor unimportant, but a softmax does not hit it exactly. */
	memcpy(other, matrix + 10, sizeof other);
	other[10] = .21f;
	other[14] = .24f;
	c = policy_rows(1, 1, 5, 3, other);
	policy_scores(c, "--scissorhands --recent 1 --reading a", s);
	is_near(policy_apart(s, unimportant, 4), 0, 0, "unimportant events");
	policy_keeps(c, "--scissorhands --recent 1 -k 3 --reading a", "0 2 4", "the same in the other reading");
	policy_cache_free(c);
}

static void
test_chunkkv(void)
{
	static const double score[] = { .9, 0, .1, .1, .5, .4, .3 };
	struct kv_scene s = { .opts = &(struct kv_policy_opts){ .chunk_len = 2 } };
	float as_float[7];
	uint32_t keep[7], want[] = { 0, 1, 4, 5 };
	struct kv_choice ch = { 7, 3, 0, 0, as_float, .9f, keep };
	struct kv_err err;

	for (int i = 0; i < 7; i++)
		as_float[i] = (float)score[i];
	/* Half of four chunks: .45 .1 .45 .3 */
	ch.k = 4;
	kv_policy_find("chunkkv")->keep(&s, 0, 0, &ch, &err);
	ok(ch.k == 4 && !memcmp(keep, want, sizeof want), "chunks 0 and 2 stay whole");
	ch.k = 1;
	kv_policy_find("chunkkv")->keep(&s, 0, 0, &ch, &err);
	ok(ch.k == 2 && keep[0] == 4, "one at least; of equal chunks the newer");
	ch = (struct kv_choice){ 7, 4, 1, 0, as_float, .9f, keep };
	as_float[6] = 1;
	kv_policy_find("chunkkv")->keep(&s, 0, 0, &ch, &err);
	ok(ch.k == 3 && keep[0] == 0 && keep[2] == 6, "what the base protects counts as the largest score and one");
	s.opts = &(struct kv_policy_opts){ .chunk_len = 8 };
	ch = (struct kv_choice){ 7, 3, 0, 0, as_float, .9f, keep };
	kv_policy_find("chunkkv")->keep(&s, 0, 0, &ch, &err);
	ok(ch.k == 3 && keep[0] == 0 && keep[1] == 4 && keep[2] == 6, "shorter than a chunk: the base alone");
}

static void
test_chunkkv_base(void)
{
	struct kv_cache *c = small_cache(small_geom(2, 2, 2, 4));
	struct kv_err err = { 0 };

	small_feed(c, 95);
	is_int(small_run(&kv_stage_evict, "--chunkkv --base adakv -k 40", c, 1, NULL, &err), KV_EUSAGE, "%s", err.text);
	is_int(small_run(&kv_stage_evict, "--chunkkv --base knorm -k 40 --last 4", c, 1, NULL, &err), KV_EUSAGE, "%s", err.text);
	policy_evict(c, "--chunkkv --base knorm -k 40 --chunk-len 10");
	ok((c->list[0].n == 40 || c->list[0].n == 35) && c->list[0].n == c->list[1].n && kv_list_same(&c->list[0], &c->list[1]),
		"four of ten chunks, the same in all heads: %u", c->list[0].n);
	policy_cache_free(c);
}

int
main(void)
{
	test_snapkv();
	test_groups();
	test_score_dtype();
	test_window();
	test_pyramidkv();
	test_adakv();
	test_scissorhands();
	test_chunkkv();
	test_chunkkv_base();
	return done_testing();
}
