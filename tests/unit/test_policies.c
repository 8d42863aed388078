/* Policies: TOVA and the rows it goes by, those that go by age, Knorm, random. */
#include "tap.h"

#include <stdlib.h>

#include "policy/plan.h"
#include "policy_cache.h"
#include "util/mem.h"

static const float tova1[] = { .40f, .05f, .10f, .25f, .20f, .30f, .15f, .05f, .30f, .20f };
static const float tova2[] = { .50f, .22f, .18f, .06f, .04f, .40f, .26f, .24f, .06f, .04f };
static const float tova3[] = { .40f, .05f, .10f, .25f, .20f, .10f, .50f, .20f, .15f, .05f };

static void
test_tova(void)
{
	static const struct {
		const float *rows;
		unsigned heads_kv;
		const char *line, *head0, *head1;
	} row[] = {
		{ tova1, 1, "--tova -k 3", "0 3 4", NULL },
		{ tova2, 1, "--tova -k 3", "0 1 2", NULL },
		{ tova3, 1, "--tova -k 3", "0 1 3", NULL },
		{ tova1, 2, "--tova -k 3", "0 3 4", "0 3 4" },
		{ tova3, 2, "--tova -k 3", "0 1 3", "0 1 3" },
		{ tova1, 2, "--tova -k 3 --scope head", "0 3 4", "0 3 4" },
		{ tova3, 2, "--tova -k 3 --scope head", "0 3 4", "1 2 3" },
		{ tova2, 1, "--tova -k 3 --protect-last 1", "0 1 4", NULL },
		{ tova2, 1, "--tova -k 60%", "0 1 2", NULL },
	};
	char s[100];

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct kv_cache *c = policy_rows(2, row[i].heads_kv, 5, 1, row[i].rows);

		policy_keeps(c, row[i].line, row[i].head0, row[i].line);
		if (row[i].head1)
			is_str(small_sources(c, 0, 1, s, sizeof s), row[i].head1, "the other head");
		kv_cache_free(c);
	}
}

/* Rows are renormalised over the survivors, so cutting twice may differ from cutting once. */
static void
test_not_composing(void)
{
	static const float rows[] = { .45f, .05f, .10f, .40f, .15f, .30f, .40f, .15f };
	struct kv_cache *c = policy_rows(2, 1, 4, 1, rows);

	policy_keeps(c, "--tova -k 2", "0 3", "once");
	kv_cache_free(c);
	c = policy_rows(2, 1, 4, 1, rows);
	policy_keeps(c, "--tova -k 3", "0 2 3", "the first of two cuts");
	policy_keeps(c, "--tova -k 2", "0 2", "the second keeps another");
	kv_cache_free(c);
}

static const float example_keys[] = { 1, 0, 0, -1, 2, 2, -1, -1, -2, 1, -1, 1, -1, -1, 0, 1 };
static const float example_query[] = { -1, -1, -2, -1 };

/* One head, d 4, frequencies 1 and 0.01; entries at 0 1 2 6, or 0 1 2 3 if compact. kind 0: no RoPE. */
static struct kv_cache *
rope_example(unsigned kind, bool compact, int32_t shift)
{
	struct kvs_geom *g = small_geom(1, 1, 1, 4);
	struct kv_cache *c;
	struct kv_err err;

	g->rope[0].inv_freq[1] = 0.01f;
	g->rope[0].kind = kind ? kind : KVS_ROPE_NORM;
	g->layer[0] = (struct kvs_layer){ kind ? 0 : KVS_NO_ROPE, KVS_F32, KVS_F32, 0 };
	g->attn_scale = 0.5f;
	c = small_cache(g);
	c->state.next_pos = shift;
	kv_cache_extend(c, 4, &err);
	if (!compact)
		c->list[0].pos[3] = c->state.next_pos = shift + 6;
	c->state.next_pos = c->list[0].pos[3] + 1;
	policy_keys(c, 0, 0, example_keys, 4);
	kv_queries_add(c, 0, 1, 1, 3, c->list[0].pos[3], example_query, &err);
	return c;
}

static void
get_row(struct kv_cache *c, float *row)
{
	struct kv_turns *t;
	struct kv_err err;
	float *keys;

	kv_turns_new(c, &t, &err);
	kv_keys_turned(c, t, 0, 0, &keys, &err);
	kv_attention_rows(c, t, 0, 0, 0, 1, keys, row, &err);
	kv_block_free(keys);
	kv_turns_free(t);
}

static void
is_row(const float *row, const float *want, uint32_t n, double tol, const char *what)
{
	double worst = 0;

	for (uint32_t i = 0; i < n; i++)
		worst = fmax(worst, fabs((double)row[i] - (double)want[i]));
	is_near(worst, 0, tol, "%s", what);
}

static void
test_rotation(void)
{
	static const struct {
		const char *name;
		unsigned kind;
		bool compact;
		float row[4];
		const char *keep;
	} variant[] = {
		{ "halves", KVS_ROPE_NEOX, false, { .282393f, .021158f, .110215f, .586234f }, "0 3" },
		{ "adjacent pairs", KVS_ROPE_NORM, false, { .108496f, .299834f, .401592f, .190079f }, "1 2" },
		{ "halves, compact", KVS_ROPE_NEOX, true, { .282575f, .542613f, .027426f, .147386f }, "0 1" },
		{ "no rotation", 0, false, { .167405f, .101536f, .455054f, .276004f }, "2 3" },
	};
	static const float turned[] = { 1, 0, 0, -1, 1.9221f, 2.0099f, 1.1426f, -.9800f, 1.7416f, .9798f, -1.4024f, 1.0198f, -.9602f, -1.0582f, .2794f,
		.9382f };
	struct kv_turns *t;
	struct kv_err err;
	float row[4], *keys;

	for (size_t i = 0; i < sizeof variant / sizeof *variant; i++) {
		struct kv_cache *c = rope_example(variant[i].kind, variant[i].compact, 0);

		get_row(c, row);
		is_row(row, variant[i].row, 4, 1e-6, variant[i].name);
		policy_keeps(c, "--tova -k 2", variant[i].keep, variant[i].name);
		kv_cache_free(c);
		if (!variant[i].kind)
			continue;
		c = rope_example(variant[i].kind, variant[i].compact, 1000);
		get_row(c, row);
		is_row(row, variant[i].row, 4, 1e-4, "a thousand positions further on");
		policy_keeps(c, "--tova -k 2", variant[i].keep, "the same kept set there");
		kv_cache_free(c);
	}
	struct kv_cache *c = rope_example(KVS_ROPE_NEOX, false, 0);
	kv_turns_new(c, &t, &err);
	kv_keys_turned(c, t, 0, 0, &keys, &err);
	is_row(keys, turned, 16, 5e-5, "the rotated keys themselves");
	kv_block_free(keys);
	kv_turns_free(t);
	kv_cache_free(c);
}

static void
test_rows(void)
{
	struct kv_cache *c = rope_example(KVS_ROPE_NEOX, false, 0);
	float row[4], other[4];
	float sum = 0;

	c->geom.rope[0].n_rot = 2;	/* pairs (0, 1) of the head, channels 2 and 3 pass through */
	get_row(c, row);
	c->geom.rope[0].kind = KVS_ROPE_NORM;
	get_row(c, other);
	is_row(row, other, 4, 0, "one pair is the same either way");
	c->geom.rope[0].n_rot = 4;
	c->geom.rope[0].magnitude = 1.2f;
	get_row(c, row);
	c->geom.rope[0].magnitude = 1;
	for (int i = 0; i < 4; i++)
		c->queries[0].q[i] *= 1.44f;
	get_row(c, other);
	is_row(row, other, 4, 1e-6, "the attention factor counts twice");
	c->queries[0].src[0] = 2;
	get_row(c, row);
	ok(row[3] == 0 && row[2] > 0, "causality goes by source index");
	c->queries[0].src[0] = 3;
	c->geom.layer[0].window = 5;
	get_row(c, row);
	ok(row[0] == 0 && row[1] == 0 && row[2] > 0, "the window goes by position: 6 - 1 is outside, 6 - 2 inside");
	for (int i = 0; i < 4; i++)
		sum += row[i];
	is_near(sum, 1, 1e-6, "what is left sums to one");
	c->list[0].src[0] = 1;
	c->queries[0].src[0] = 0;
	get_row(c, row);
	ok(row[0] == 0 && row[3] == 0, "a query that sees nothing pays nothing");
	kv_cache_free(c);
}

static void
test_softcap(void)
{
	static const float rows[] = { .7f, .2f, .1f };
	struct kv_cache *c = policy_rows(1, 1, 3, 1, rows);
	float row[3];
	double e[3], sum = 0;

	c->geom.attn_softcap = 1.5f;
	get_row(c, row);
	for (int i = 0; i < 3; i++)
		sum += e[i] = exp(1.5 * tanh(log((double)rows[i]) / 1.5));
	for (int i = 0; i < 3; i++)
		is_near((double)row[i], e[i] / sum, 1e-6, "soft cap, entry %d", i);
	kv_cache_free(c);
}

static void
test_by_age(void)
{
	static const struct {
		uint32_t n;
		const char *line, *keep;
	} row[] = {
		{ 5, "--streaming --sinks 1 -k 3", "0 3 4" },
		{ 12, "--streaming -k 8", "0 1 2 3 8 9 10 11" },
		{ 12, "--streaming -k 5", "0 1 2 3 11" },
		{ 5, "--window -k 3", "2 3 4" },
		{ 5, "--window --sinks 1 -k 3", "0 3 4" },
		{ 5, "--window -k 100%", "0 1 2 3 4" },
	};
	struct kv_cache *c;

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		c = small_cache(small_geom(2, 2, 2, 4));
		small_feed(c, row[i].n);
		policy_keeps(c, row[i].line, row[i].keep, row[i].line);
		kv_cache_free(c);
	}
	c = small_cache(small_geom(1, 1, 1, 4));
	small_feed(c, 10);
	policy_evict(c, "--window -k 6");
	policy_keeps(c, "--window --sinks 1 -k 3", "7 8 9", "window: a sink is a token of the text, and it is gone");
	small_feed(c, 3);
	policy_keeps(c, "--streaming --sinks 1 -k 3", "7 11 12", "streaming: a sink is the first entry there is");
	kv_cache_free(c);
}

static void
test_knorm(void)
{
	static const float norm[] = { -1.4142136f, -3.1622777f, -2.6457513f, -1.7320508f };
	struct kv_cache *c = rope_example(KVS_ROPE_NEOX, false, 0);
	const struct kv_scene s = { c, NULL, NULL };
	double score[4];
	float as_float[4];
	struct kv_err err;

	kv_policy_find("knorm")->score(&s, 0, 0, score, &err);
	for (int i = 0; i < 4; i++)
		as_float[i] = (float)score[i];
	is_row(as_float, norm, 4, 1e-6, "norms of the keys");
	policy_keeps(c, "--knorm -k 2", "0 3", "the small ones stay");
	kv_cache_free(c);
}

static void
test_random(void)
{
	struct kv_cache *c = small_cache(small_geom(2, 2, 2, 4)), *d;
	char a[400], b[400];

	small_feed(c, 60);
	d = small_copy(c);
	policy_evict(c, "--random -k 20 --random-seed 7");
	policy_evict(d, "--random -k 40 --random-seed 7");
	policy_evict(d, "--random -k 20 --random-seed 7");
	is_str(small_sources(c, 1, 1, a, sizeof a), small_sources(d, 1, 1, b, sizeof b), "earlier evictions do not matter");
	ok(strcmp(a, small_sources(c, 0, 1, b, sizeof b)) && strcmp(a, small_sources(c, 1, 0, b, sizeof b)), "layers and heads differ");
	kv_cache_free(d);
	kv_cache_free(c);
	c = small_cache(small_geom(2, 2, 2, 4));
	small_feed(c, 60);
	policy_evict(c, "--random -k 20 --random-seed 8");
	ok(strcmp(a, small_sources(c, 1, 1, b, sizeof b)), "seeds differ");
	kv_cache_free(c);
}

int
main(void)
{
	test_tova();
	test_not_composing();
	test_rotation();
	test_rows();
	test_softcap();
	test_by_age();
	test_knorm();
	test_random();
	return done_testing();
}
