/* Policies by keys, values and surprisal: KeyDiff, expected attention, LagKV, SirLLM; worked examples. */
#include "tap.h"

#include <stdlib.h>

#include "policy_cache.h"
#include "util/half.h"

static const float example_keys[] = { 1, 0, 0, -1, 2, 2, -1, -1, -2, 1, -1, 1, -1, -1, 0, 1 };

/* One KV head, d 4, frequencies 1 and 0.01, halves; entries at 0 1 2 and `last`. */
static struct kv_cache *
example(unsigned heads, int32_t last, bool turns)
{
	struct kvs_geom *g = small_geom(1, heads, 1, 4);
	struct kv_cache *c;
	struct kv_err err;

	g->rope[0].inv_freq[1] = 0.01f;
	g->rope[0].kind = KVS_ROPE_NEOX;
	g->layer[0] = (struct kvs_layer){ turns ? 0 : KVS_NO_ROPE, KVS_F32, KVS_F32, 0 };
	g->attn_scale = 0.5f;
	c = small_cache(g);
	kv_cache_extend(c, 4, &err);
	c->list[0].pos[3] = last;
	c->state.next_pos = last + 1;
	policy_keys(c, 0, 0, example_keys, 4);
	return c;
}

static void
test_keydiff(void)
{
	static const double turned[] = { -.7230, -.7716, -.7113, .7304 }, plain[] = { -.0640, -.6320, -.4818, .3568 };
	struct kv_cache *c = example(1, 6, true);
	double s[4];

	policy_scores(c, "--keydiff", s);
	is_near(policy_apart(s, turned, 4), 0, 5e-5, "cosines of turned keys");
	policy_keeps(c, "--keydiff -k 2", "2 3", "the two unlike the mean");
	policy_cache_free(c);
	c = example(1, 6, false);
	policy_scores(c, "--keydiff", s);
	is_near(policy_apart(s, plain, 4), 0, 5e-5, "without RoPE");
	policy_keeps(c, "--keydiff -k 2", "0 3", "others stay");
	policy_cache_free(c);
}

static struct kv_cache *
expected_example(void)
{
	static const float values[] = { 1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 1, 3, 0, 0, 0 };
	static const float queries[4][8] = { { 9, 9, 9, 9, 9, 9, 9, 9 }, { 1, 0, 0, 1, 0, 1, 1, 0 }, { -1, 0, -2, -1, 1, 1, 0, 0 },
		{ 0, 1, -1, 0, 0, -1, 2, 1 } };
	struct kv_cache *c = example(2, 3, true);
	struct kv_err err;

	kv_rows_put(&c->list[0].v, 0, 4, values, 4, &err);
	kv_queries_add(c, 0, 4, 4, 0, 0, queries[0], &err);
	return c;
}

static void
test_expected_attention(void)
{
	struct kv_cache *c = expected_example();
	double s[4];
	struct kv_err err = { 0 };

	policy_scores(c, "--expected-attention --sinks 1 --future 2", s);
	is_near(policy_apart(s + 1, (double[]){ .5407, .6589, .7913 }, 3), 0, 1e-4, "expected weights times norms of values");
	ok(isinf(s[0]), "the sink is protected");
	policy_scores(c, "--expected-attention --sinks 1 --future 2 --eps 1", s);
	is_near(policy_apart(s + 1, (double[]){ .5407 + 2, .6589 + sqrt(2), .7913 + 3 }, 3), 0, 1e-4, "--eps comes before the norm");
	policy_scores(c, "--expected-attention --sinks 1 --future 2 --last 3", s);
	is_near(policy_apart(s + 1, (double[]){ .5407, .6589, .7913 }, 3), 0, 1e-4, "the query of the sink did not count");
	policy_keeps(c, "--expected-attention --sinks 1 --future 2 -k 3", "0 2 3", "three stay");
	policy_cache_free(c);
	c = expected_example();
	c->queries[0].w = 0;
	is_int(small_run(&kv_stage_evict, "--expected-attention -k 4", c, 1, NULL, &err), KV_EFIT, "%s", err.text);
	ok(strstr(err.text, "last=512"), "512 queries are asked for");
	policy_cache_free(c);
}

/* The definition in other words: for one block against the next, f64 throughout, ranks by counting. */
static void
lag_block(const double *k, const double *v, uint32_t lag, uint32_t d, double *rank)
{
	double spread[2][16];

	for (int what = 0; what < 2; what++) {
		const double *x = what ? v : k;
		double sum = 0;

		for (uint32_t r = 0; r < lag; r++) {
			double z[16], mean = 0, squares = 0;

			for (uint32_t i = 0; i < d; i++) {
				double lo = INFINITY, hi = -INFINITY;

				for (uint32_t n = lag; n < 2 * lag; n++) {
					lo = fmin(lo, x[n * d + i]);
					hi = fmax(hi, x[n * d + i]);
				}
				z[i] = (x[r * d + i] - lo) / (hi - lo);
				mean += z[i] / d;
			}
			for (uint32_t i = 0; i < d; i++)
				squares += (z[i] - mean) * (z[i] - mean);
			sum += spread[what][r] = exp(sqrt(squares / (d - 1)));
		}
		for (uint32_t r = 0; r < lag; r++)
			spread[what][r] /= sum;
	}
	for (uint32_t r = 0; r < lag; r++) {
		rank[r] = 0;
		for (uint32_t o = 0; o < lag; o++)
			rank[r] += spread[0][o] + spread[1][o] < spread[0][r] + spread[1][r];
		rank[r] /= lag;
	}
}

static void
test_lagkv(void)
{
	enum { N = 25, D = 8, LAG = 5, SINKS = 2 };	/* blocks at 2, 7, 12, 17; the last and its tail score 1 */
	struct kvs_geom *g = small_geom(1, 1, 1, D);
	struct kv_cache *c;
	double k[N * D], v[N * D], s[N], want[N];
	float row[D];
	struct kv_err err;

	g->layer[0] = (struct kvs_layer){ KVS_NO_ROPE, KVS_F32, KVS_F32, 0 };
	c = small_cache(g);
	small_feed(c, N);
	kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, &err);
	for (uint32_t r = 0; r < N; r++)
		for (int what = 0; what < 2; what++) {
			kv_rows_get(what ? &c->list[0].v : &c->list[0].k, r, row);
			for (int i = 0; i < D; i++)
				(what ? v : k)[r * D + (uint32_t)i] = (double)row[i];
		}
	for (int i = 0; i < N; i++)
		want[i] = i < SINKS ? INFINITY : 1;
	for (uint32_t b = 0; b < 3; b++)
		lag_block(k + (SINKS + b * LAG) * D, v + (SINKS + b * LAG) * D, LAG, D, want + SINKS + b * LAG);
	policy_scores(c, "--lagkv --sinks 2 --lag 5", s);
	is_near(policy_apart(s + SINKS, want + SINKS, N - SINKS), 0, 1e-6, "ranks inside the blocks");
	policy_scores(c, "--lagkv --sinks 2 --lag 12", s);
	ok(s[2] <= 0 && fabs(s[24] - 22 / 23.) < 1e-6, "too short for two blocks: the newer the better");
	policy_cache_free(c);
}

/* Nothing in the next block varies: every channel is without a range, no entry is worth more than another. */
static void
test_lagkv_constant(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 1, 1, 4));
	struct kv_err err;
	double s[9];
	float ones[9 * 4];

	c->geom.layer[0].rope = KVS_NO_ROPE;
	small_feed(c, 9);
	for (size_t i = 0; i < 36; i++)
		ones[i] = 1;
	kv_rows_put(&c->list[0].k, 0, 9, ones, 4, &err);
	kv_rows_put(&c->list[0].v, 0, 9, ones, 4, &err);
	policy_scores(c, "--lagkv --sinks 0 --lag 3", s);
	ok(s[0] <= 0 && s[1] > s[0] && s[2] > s[1] && s[2] < 1, "ranks by age then");
	policy_cache_free(c);
}

static struct kv_cache *
surprises(const float *nll, uint32_t n)
{
	struct kv_cache *c = small_cache(small_geom(2, 2, 2, 2));

	small_feed(c, n);
	for (uint32_t i = 0; i < n; i++)
		c->nll.v[i] = f32_bits(nll[i]);
	return c;
}

static void
test_sirllm(void)
{
	static const float e[] = { 5, .2f, 3, 2.5f, .1f };
	struct kv_cache *c = surprises(e, 5);
	float nll[3] = { 0 };
	char s[100];
	double sum;

	policy_keeps(c, "--sirllm -k 3 --sinks 1 --decay 0.7", "0 2 4", "the overlap with the sink goes to the newest");
	is_str(small_sources(c, 1, 1, s, sizeof s), "0 2 4", "the same everywhere");
	kv_cache_nll(c, 0, &nll[0]);
	kv_cache_nll(c, 2, &nll[1]);
	kv_cache_nll(c, 4, &nll[2]);
	ok(fabsf(nll[0] - 3.5f) < 1e-6f && fabsf(nll[1] - 2.1f) < 1e-6f && fabsf(nll[2] - .07f) < 1e-6f, "decay");
	sum = c->nll_sum;
	policy_evict(c, "--sirllm -k 5 --sinks 1 --decay 0.5");
	kv_cache_nll(c, 2, &nll[1]);
	ok(fabsf(nll[1] - 1.05f) < 1e-6f, "decay, although nothing had to go");
	is_near(c->nll_sum, sum, 0, "the perplexity stays what it was");
	policy_evict(c, "--sirllm -k 5 --sinks 1 --decay 0.5 --dry-run");
	kv_cache_nll(c, 2, &nll[1]);
	ok(fabsf(nll[1] - 1.05f) < 1e-6f, "--dry-run does not decay");
	policy_cache_free(c);
}

static void
test_sirllm_edges(void)
{
	static const float e[] = { -1, 1, 4, 3, 2 };
	struct kv_cache *c = surprises(e, 5);
	struct kv_err err = { 0 };
	double s[5];

	policy_scores(c, "--sirllm --sinks 0", s);
	ok(isinf(s[0]), "no surprisal is the largest");
	policy_scores(c, "--sirllm --sinks 0 --first-nll 0", s);
	ok(s[0] <= 0, "or none at all");
	policy_evict(c, "--sirllm --sinks 0 -k 5 --decay 0.5");
	ok(bits_f32(c->nll.v[0]) < 0, "decay leaves it none");
	is_int(small_run(&kv_stage_evict, "--sirllm -k 3", c, 1, NULL, &err), KV_EUSAGE, "%s", err.text);
	policy_keeps(c, "--sirllm --sinks 0 --recent 2 -k 4 --first-nll 0", "1 2 3 4", "two by surprisal, which are not given twice, then the newest");
	policy_cache_free(c);
}

int
main(void)
{
	test_keydiff();
	test_expected_attention();
	test_lagkv();
	test_lagkv_constant();
	test_sirllm();
	test_sirllm_edges();
	return done_testing();
}
