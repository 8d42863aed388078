/*
 * The engine against the naive forward pass in double precision. Tolerances are shares of the spread of what is compared: 3e-5 for rows in
 * f32 (the engine sums in f32); with f16 and bf16 rows a sum that falls on the other side of a tie moves an element by one unit
 * in its last place, 2^-11 and 2^-8 of it, so 3e-3 and 3e-2.
 */
#include "model/forward.h"

#include <stdlib.h>

#include "tap.h"
#include "kernel/quant.h"
#include "levels.h"
#include "model/sample.h"
#include "naive.h"
#include "synth.h"

enum { N = 41 };

struct rig {
	struct kv_buf file;
	struct kv_model *m;
	struct kv_pool *pool;
	struct kv_engine *e;
	struct kv_cache *c;
	float *logits;
	uint32_t ids[N];
};

static bool
rig_cache(struct rig *r)
{
	struct kv_err err = { 0 };

	kv_cache_free(r->c);
	r->c = NULL;
	return kv_cache_new(&r->m->geom, &r->c, &err) == KV_OK;
}

static bool
rig_open_with(struct rig *r, const struct synth *s, const struct kv_ops *ops, enum kvs_dtype dtype, unsigned threads)
{
	struct kv_err err = { 0 };
	struct kv_gguf *g;
	struct kv_rng rng;

	*r = (struct rig){ 0 };
	if (!synth_make(s, &r->file) || kv_gguf_mem(r->file.p, r->file.len, &g, &err) != KV_OK ||
		kv_model_from(g, dtype, &r->m, &err) != KV_OK ||
		kv_engine_new(r->m, ops, r->pool = kv_pool_new(threads), &r->e, &err) != KV_OK || !rig_cache(r)) {
		printf("# %s\n", err.text);
		return false;
	}
	r->logits = malloc(r->m->geom.n_vocab * sizeof *r->logits);
	kv_rng_seed(&rng, 99);
	for (int i = 0; i < N; i++)
		r->ids[i] = (uint32_t)(kv_rng_next(&rng) * r->m->geom.n_vocab);
	return r->logits != NULL;
}

static bool
rig_open(struct rig *r, const struct synth *s, enum kvs_dtype dtype, unsigned threads)
{
	return rig_open_with(r, s, &kv_ops_generic, dtype, threads);
}

static void
rig_close(struct rig *r)
{
	kv_cache_free(r->c);
	kv_engine_free(r->e);
	kv_pool_free(r->pool);
	kv_model_free(r->m);
	kv_buf_free(&r->file);
	free(r->logits);
}

/* Largest difference between got and want, as a share of want's root mean square. */
static double
distance(const float *got, const double *want, size_t n)
{
	double square = 0, most = 0;

	for (size_t i = 0; i < n; i++) {
		square += want[i] * want[i];
		most = fmax(most, fabs((double)got[i] - want[i]));
		if (!isfinite(got[i]))
			return INFINITY;
	}
	return most / sqrt(square / (double)n);
}

static double
tolerance(enum kvs_dtype dtype)
{
	return dtype == KVS_F32 ? 3e-5 : dtype == KVS_F16 ? 3e-3 : 3e-2;
}

/* Reads ids[0..n) in batches of the given sizes (the last one repeats); the worst distance of the logits at the ends of the batches. */
static double
read_in(struct rig *r, const struct naive *want, size_t n, const size_t *batch, size_t n_batches)
{
	struct kv_observe see = { .last = 7, .nll = true };
	struct kv_err err = { 0 };
	double worst = 0;
	size_t at = 0;

	if (!rig_cache(r))
		return INFINITY;
	for (size_t k = 0; at < n; k++) {
		size_t m = batch[k < n_batches ? k : n_batches - 1];

		m = m < n - at ? m : n - at;
		if (kv_forward(r->e, r->c, r->ids + at, m, &see, &err) != KV_OK || kv_logits(r->e, r->c->hidden, r->logits, &err) != KV_OK) {
			printf("# %s\n", err.text);
			return INFINITY;
		}
		at += m;
		worst = fmax(worst, distance(r->logits, want->logits + (at - 1) * want->vocab, want->vocab));
	}
	return worst;
}

/* Keys and values of all lists against the reference's. */
static double
rows_distance(const struct rig *r, const struct naive *want)
{
	double worst = 0;
	float got[KVS_MAX_DIM];

	for (unsigned l = 0; l < want->layers; l++)
		for (unsigned h = 0; h < want->kv_heads; h++) {
			const struct kv_list *list = kv_cache_list(r->c, l, h);

			for (uint32_t i = 0; i < list->n; i++) {
				size_t at = ((l * want->n + list->src[i]) * want->kv_heads + h) * want->d;

				kv_rows_get(&list->k, i, got);
				worst = fmax(worst, distance(got, want->k + at, want->d));
				kv_rows_get(&list->v, i, got);
				worst = fmax(worst, distance(got, want->v + at, want->d));
			}
		}
	return worst;
}

/* The record of the last queries: layer by layer, [heads][w][d]. */
static double
queries_distance(const struct rig *r, const struct naive *want)
{
	double worst = 0;

	for (size_t l = 0; l < want->layers; l++) {
		const struct kv_queries *q = &r->c->queries[l];

		for (size_t h = 0; h < want->heads; h++)
			for (size_t i = 0; i < q->w; i++)
				worst = fmax(worst, distance(q->q + (h * q->w + i) * want->d,
					want->q + ((l * want->n + q->src[i]) * want->heads + h) * want->d, want->d));
		if (q->w != 7 || q->src[6] != N - 1 || q->pos[0] != N - 7)
			worst = INFINITY;
	}
	return worst;
}

static double
nll_distance(const struct rig *r, const struct naive *want)
{
	double worst = 0;
	float got;

	if (kv_cache_nll(r->c, 0, &got))	/* nothing foretells the first token */
		return INFINITY;
	for (uint32_t i = 1; i < N; i++) {
		const double *z = want->logits + (i - 1) * want->vocab;
		double sum = 0;

		for (size_t k = 0; k < want->vocab; k++)
			sum += exp(z[k]);
		if (!kv_cache_nll(r->c, i, &got))
			return INFINITY;
		worst = fmax(worst, fabs((double)got - (log(sum) - z[r->ids[i]])));
	}
	return worst;
}

/* One model in every way of cutting its text into batches. */
static void
test_model(const char *what, const struct synth *s, enum kvs_dtype dtype)
{
	struct rig r;
	struct naive want = { 0 };
	double tol = tolerance(dtype);

	if (!ok(rig_open(&r, s, dtype, 1), "%s: opens", what)) {
		rig_close(&r);
		return;
	}
	naive_run(r.m->gguf, r.ids, N, NULL, dtype, NULL, &want);
	is_near(read_in(&r, &want, N, (size_t[]){ N }, 1), 0, tol, "%s: one batch", what);
	is_near(rows_distance(&r, &want), 0, 3 * tol, "%s: keys and values", what);
	is_near(queries_distance(&r, &want), 0, 3 * tol, "%s: recorded queries", what);
	is_near(nll_distance(&r, &want), 0, 10 * tol, "%s: surprisals", what);
	is_near(read_in(&r, &want, N, (size_t[]){ 30, 1 }, 2), 0, tol, "%s: prefill, then one by one", what);
	is_near(read_in(&r, &want, N, (size_t[]){ 3, 17, 5 }, 3), 0, tol, "%s: uneven batches", what);
	is_near(nll_distance(&r, &want), 0, 10 * tol, "%s: surprisals over the borders of batches", what);
	is_near(queries_distance(&r, &want), 0, 3 * tol, "%s: recorded queries over the borders of batches", what);
	naive_free(&want);
	rig_close(&r);
}

static void
test_architectures(void)
{
	struct synth s;

	synth_defaults(&s, "llama", KV_W_F32, 1);
	test_model("llama f32", &s, KVS_F32);
	test_model("llama f32, rows in f16", &s, KVS_F16);
	test_model("llama f32, rows in bf16", &s, KVS_BF16);
	s.bias = true;
	s.tied = false;
	s.half_norms = true;
	test_model("llama with every bias, untied, norms in F16", &s, KVS_F32);
	s.fused_qkv = true;
	test_model("llama with fused q, k, v", &s, KVS_F32);
	synth_defaults(&s, "qwen2", KV_W_Q8_0, 2);
	test_model("qwen2 Q8_0", &s, KVS_F32);
	synth_defaults(&s, "qwen3", KV_W_Q4_0, 3);
	test_model("qwen3 Q4_0", &s, KVS_F32);
	s.heads_kv = 1;
	test_model("qwen3 with one kv head", &s, KVS_F16);
	synth_defaults(&s, "llama", SYNTH_MIXED, 4);
	s.tied = false;
	test_model("llama of mixed types", &s, KVS_F32);
	synth_defaults(&s, "qwen3", SYNTH_MIXED, 5);
	test_model("qwen3 of mixed types", &s, KVS_F16);
}

static void
test_types(void)
{
	static const uint32_t types[] = { KV_W_F16, KV_W_BF16, KV_W_Q4_1, KV_W_Q5_0, KV_W_Q5_1, KV_W_Q4_K, KV_W_Q5_K, KV_W_Q6_K };

	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		struct synth s;
		struct rig r;
		struct naive want = { 0 };

		synth_defaults(&s, i % 2 ? "qwen2" : "llama", types[i], 10 + i);
		s.layers = 1;
		if (!ok(rig_open(&r, &s, KVS_F32, 1), "%s: opens", kv_wtype_name(types[i]))) {
			rig_close(&r);
			continue;
		}
		naive_run(r.m->gguf, r.ids, N, NULL, KVS_F32, NULL, &want);
		is_near(read_in(&r, &want, N, (size_t[]){ N - 2, 1 }, 2), 0, tolerance(KVS_F32), "%s: logits", kv_wtype_name(types[i]));
		naive_free(&want);
		rig_close(&r);
	}
}

static void
test_variants(void)
{
	struct synth s;

	synth_defaults(&s, "llama", KV_W_Q4_1, 20);
	s.window = 9;
	test_model("a window of 9", &s, KVS_F32);
	s.window = 1;
	test_model("a window of 1: every token sees only itself", &s, KVS_F32);
	s.window = 0;
	s.softcap = 2;
	s.final_softcap = 5;
	test_model("soft caps", &s, KVS_F32);
	synth_defaults(&s, "llama", KV_W_Q5_0, 21);
	s.rope = SYNTH_LLAMA3;
	test_model("Llama 3's factors", &s, KVS_F32);
	s.rope = SYNTH_LINEAR;
	test_model("linear scaling", &s, KVS_F32);
	synth_defaults(&s, "qwen2", KV_W_F16, 22);
	s.rope = SYNTH_YARN;
	test_model("YaRN", &s, KVS_F32);
}

/* What every level that runs here makes of a whole model, by batches and one by one: eight bits for activations, or bf16 for everything. */
static void
test_levels(void)
{
	const struct kv_ops *ops[KV_N_LEVELS];
	size_t n = levels_here(ops);
	struct synth s;
	struct rig r;

	synth_defaults(&s, "llama", KV_W_Q4_1, 40);
	s.d_head = 32;	/* fills tiles */
	for (size_t i = 1; i < n; i++) {
		struct naive want = { 0 };
		double logits, rows, on, most = strcmp(ops[i]->level, "amx") ? 0.25 : 0.1;

		if (ok(rig_open_with(&r, &s, ops[i], KVS_F16, 2), "%s: opens", ops[i]->level)) {
			naive_run(r.m->gguf, r.ids, N, NULL, KVS_F16, NULL, &want);
			logits = read_in(&r, &want, N, (size_t[]){ N }, 1);
			rows = rows_distance(&r, &want);
			on = read_in(&r, &want, N, (size_t[]){ 38, 1 }, 2);
			ok(logits < most && rows < most && on < 0.25, "%s: logits %.3f, keys and values %.3f, then one by one %.3f", ops[i]->level, logits,
				rows, on);
			naive_free(&want);
		}
		rig_close(&r);
	}
}

/* All that a run leaves behind, as bytes. */
static void
collect(struct rig *r, struct kv_buf *out)
{
	const struct kvs_geom *g = &r->m->geom;

	kv_buf_add(out, r->c->hidden, g->n_embd * sizeof *r->c->hidden);
	kv_buf_add(out, r->logits, g->n_vocab * sizeof *r->logits);
	kv_buf_add(out, r->c->nll.v, r->c->nll.n * sizeof *r->c->nll.v);
	for (unsigned l = 0; l < g->n_layers; l++)
		for (unsigned h = 0; h < g->n_heads_kv; h++) {
			const struct kv_list *list = kv_cache_list(r->c, l, h);

			kv_buf_add(out, list->k.data, list->n * g->d_k * kvs_dtype_size(list->k.dtype));
			kv_buf_add(out, list->v.data, list->n * g->d_v * kvs_dtype_size(list->v.dtype));
			kv_buf_add(out, list->received->sum, list->n * sizeof *list->received->sum);
			kv_buf_add(out, list->received->square, list->n * sizeof *list->received->square);
		}
}

static void
test_threads(void)
{
	struct kv_buf first = { 0 };

	for (unsigned threads = 1; threads <= 3; threads++) {
		struct kv_observe see = { .last = 4, .nll = true, .received = true };
		struct kv_err err = { 0 };
		struct kv_buf got = { 0 };
		struct synth s;
		struct rig r;
		bool good;

		synth_defaults(&s, "qwen3", SYNTH_MIXED, 30);
		good = rig_open(&r, &s, KVS_F16, threads) && kv_forward(r.e, r.c, r.ids, N - 3, &see, &err) == KV_OK;
		for (int i = N - 3; good && i < N; i++)
			good = kv_forward(r.e, r.c, r.ids + i, 1, &see, &err) == KV_OK;
		if (good && kv_logits(r.e, r.c->hidden, r.logits, &err) == KV_OK)
			collect(&r, threads == 1 ? &first : &got);
		if (threads > 1)
			ok(first.len && got.len == first.len && !memcmp(got.p, first.p, got.len), "%u threads leave the bytes of one", threads);
		kv_buf_free(&got);
		rig_close(&r);
	}
	kv_buf_free(&first);
}

/* Heads that have lost different entries go on as a model that cannot see those. */
static void
test_evicted(void)
{
	enum { CUT = 25 };
	struct kv_err err = { 0 };
	struct naive want = { 0 };
	struct synth s;
	struct rig r;
	uint8_t *gone;
	bool good = true;

	synth_defaults(&s, "llama", KV_W_F32, 40);
	if (!ok(rig_open(&r, &s, KVS_F32, 2), "a model to evict from"))
		return;
	gone = calloc((size_t)s.layers * s.heads_kv, N);
	good = gone && kv_forward(r.e, r.c, r.ids, CUT, NULL, &err) == KV_OK;
	for (unsigned i = 0; good && i < s.layers * s.heads_kv; i++) {
		uint32_t keep[CUT], n = 0;

		for (uint32_t j = 0; j < CUT; j++)
			if ((gone[i * N + j] = j % 3 == i % 3 || j < i))
				continue;
			else
				keep[n++] = j;
		good = kv_list_keep(&r.c->list[i], keep, n, &err) == KV_OK;
	}
	naive_run(r.m->gguf, r.ids, N, NULL, KVS_F32, &(struct naive_gone){ gone, CUT }, &want);
	for (int i = CUT; good && i < N; i += 4) {
		good = kv_forward(r.e, r.c, r.ids + i, 4, NULL, &err) == KV_OK && kv_logits(r.e, r.c->hidden, r.logits, &err) == KV_OK;
		is_near(good ? distance(r.logits, want.logits + (i + 3) * (int)want.vocab, want.vocab) : 1, 0, tolerance(KVS_F32),
			"after eviction, token %d", i + 3);
	}
	ok(good, "heads with different entries go on");
	is_near(rows_distance(&r, &want), 0, 3 * tolerance(KVS_F32), "their rows too");
	free(gone);
	naive_free(&want);
	rig_close(&r);
}

/* Reads ids[from..to) in batches of m. */
static bool
feed_in(struct rig *r, int from, int to, int m, const struct kv_observe *see)
{
	struct kv_err err = { 0 };

	for (int at = from; at < to; at += m)
		if (kv_forward(r->e, r->c, r->ids + at, (size_t)(to - at < m ? to - at : m), see, &err) != KV_OK) {
			printf("# %s\n", err.text);
			return false;
		}
	return true;
}

/* What every entry received, all lists in a row: [3][entries] sums, squares, counts. */
static double *
received(const struct rig *r, size_t *n)
{
	size_t lists = (size_t)r->m->geom.n_layers * r->m->geom.n_heads_kv, all = kv_cache_entries(r->c), at = 0;
	double *v = calloc(3 * all + 1, sizeof *v);

	for (size_t i = 0; i < lists; i++) {
		const struct kv_list *l = &r->c->list[i];

		for (uint32_t j = 0; j < l->n; j++, at++) {
			v[at] = (double)l->received->sum[j];
			v[all + at] = (double)l->received->square[j];
			v[2 * all + at] = l->received->count[j];
		}
	}
	*n = all;
	return v;
}

static void
test_received(uint32_t window)
{
	const struct kv_observe see = { .received = true };
	struct synth s;
	struct rig r;
	double *once, *twice, total = 0, worst = 0, most_square = 0;
	size_t n, lists;
	bool counts = true;

	synth_defaults(&s, "llama", KV_W_F32, 70);
	s.window = window;
	if (!ok(rig_open(&r, &s, KVS_F32, 2), "a model to watch, window %u", window))
		return;
	lists = (size_t)s.layers * s.heads_kv;
	ok(feed_in(&r, 0, N, N, &see), "one batch");
	once = received(&r, &n);
	is_int((int64_t)n, (int64_t)(lists * N), "every entry has a record");
	for (size_t i = 0; i < n; i++) {
		uint32_t src = (uint32_t)(i % N), after = N - src;

		total += once[i];
		most_square = fmax(most_square, once[n + i] - once[i]);
		counts &= once[2 * n + i] == (window && window < after ? window : after);
	}
	is_near(total / (double)(lists * N), 1, 1e-6, "each query of each kv head gives 1 in all");
	ok(counts, "counts are those of the queries that see the entry");
	ok(most_square < 1e-6, "no square of a share is more than the share");
	for (int m = 1; m < N; m += 6) {
		rig_cache(&r);
		ok(feed_in(&r, 0, N, m, &see), "batches of %d", m);
		twice = received(&r, &n);
		for (size_t i = 0; i < 3 * n; i++)
			worst = fmax(worst, fabs(twice[i] - once[i]) / fmax(1, once[i]));
		free(twice);
	}
	is_near(worst, 0, 2e-5, "batches of any size leave the same");
	free(once);
	rig_close(&r);
}

/* Squares need a judge of their own: at the first layer, of one token at a time, they are the square of what was added. */
static void
test_received_squares(void)
{
	const struct kv_observe see = { .received = true };
	struct synth s;
	struct rig r;
	double worst = 0, square[N] = { 0 }, before[N] = { 0 };

	synth_defaults(&s, "qwen3", KV_W_F32, 71);
	if (!ok(rig_open(&r, &s, KVS_F32, 1), "a model to watch step by step"))
		return;
	for (int i = 0; i < N && feed_in(&r, i, i + 1, 1, &see); i++)
		for (int j = 0; j <= i; j++) {
			double now = (double)r.c->list[0].received->sum[j];

			square[j] += (now - before[j]) * (now - before[j]);
			before[j] = now;
		}
	for (int j = 0; j < N; j++)
		worst = fmax(worst, fabs(square[j] - (double)r.c->list[0].received->square[j]));
	is_near(worst, 0, 1e-5, "squares are those of what each step added");
	rig_close(&r);
}

/* What entries have received stays theirs when others go; a gap in the record begins it anew. */
static void
test_received_cut(void)
{
	const struct kv_observe see = { .received = true };
	const uint32_t keep[] = { 0, 3, 4, 9, 19 };
	struct kv_err err = { 0 };
	struct synth s;
	struct rig r;
	struct kv_list *l;
	bool same = true;
	float sum[20], square[20];

	synth_defaults(&s, "llama", KV_W_F32, 72);
	if (!ok(rig_open(&r, &s, KVS_F32, 1) && feed_in(&r, 0, 20, 20, &see), "a model to cut"))
		return;
	l = kv_cache_list(r.c, 1, 1);
	memcpy(sum, l->received->sum, sizeof sum);
	memcpy(square, l->received->square, sizeof square);
	ok(kv_list_keep(l, keep, 5, &err) == KV_OK, "five stay");
	for (int i = 0; i < 5; i++)
		same &= l->received->sum[i] == sum[keep[i]] && l->received->square[i] == square[keep[i]] &&
			l->received->count[i] == 20 - keep[i];
	ok(same, "with what they had received");
	ok(feed_in(&r, 20, 23, 3, &see) && l->received->from == 0 && l->received->to == 23, "three more queries are counted");
	is_int(l->received->count[4], 4, "by the entry before them");
	is_int(l->received->count[7], 1, "and by the last, itself");
	ok(feed_in(&r, 23, 30, 7, NULL) && l->received->to == 23, "what is not watched leaves the record where it was");
	is_near(l->received->sum[14] + l->received->sum[8], 0, 0, "with nothing for the new");
	ok(feed_in(&r, 30, N, 2, &see) && l->received->from == 30 && l->received->to == N, "watched again, it begins anew");
	is_int(l->received->count[0], N - 30, "for the old, too");
	rig_close(&r);
}

/* Positions are the state's, not a count of rows; only their differences matter. */
static void
test_positions(void)
{
	struct kv_err err = { 0 };
	struct naive want = { 0 };
	struct synth s;
	struct rig r;
	int32_t pos[N];

	synth_defaults(&s, "llama", KV_W_F32, 50);
	if (!ok(rig_open(&r, &s, KVS_F32, 1), "a model to move"))
		return;
	for (int i = 0; i < N; i++)
		pos[i] = i < 20 ? 700 + i : 900 + i;
	naive_run(r.m->gguf, r.ids, N, pos, KVS_F32, NULL, &want);
	r.c->state.next_pos = 700;
	ok(kv_forward(r.e, r.c, r.ids, 20, NULL, &err) == KV_OK, "a text that begins at position 700");
	r.c->state.next_pos = 920;
	ok(kv_forward(r.e, r.c, r.ids + 20, N - 20, NULL, &err) == KV_OK, "and leaps to 920");
	ok(kv_logits(r.e, r.c->hidden, r.logits, &err) == KV_OK, "logits");
	/* the f32 angle at 900 is off by up to 3e-5 */
	is_near(distance(r.logits, want.logits + (N - 1) * want.vocab, want.vocab), 0, 10 * tolerance(KVS_F32), "the reference agrees");
	is_int(kv_cache_list(r.c, 1, 1)->pos[20], 920, "positions are recorded");
	is_int(kv_cache_list(r.c, 1, 1)->src[20], 20, "sources go on counting");
	naive_free(&want);
	rig_close(&r);
}

static void
test_refusals(void)
{
	struct kv_err err = { 0 };
	struct synth s;
	struct rig r;

	synth_defaults(&s, "llama", KV_W_F32, 60);
	if (!ok(rig_open(&r, &s, KVS_F16, 1), "a model"))
		return;
	is_int(kv_forward(r.e, r.c, (uint32_t[]){ 1, r.m->geom.n_vocab }, 2, NULL, &err), KV_EFIT, "a token id beyond the vocabulary");
	is_int(kv_cache_longest(r.c), 0, "nothing was appended");
	is_int(kv_forward(r.e, r.c, r.ids, 0, NULL, &err), KV_OK, "no tokens, no work");
	r.c->state.next_pos = INT32_MAX - 3;
	is_int(kv_forward(r.e, r.c, r.ids, 5, NULL, &err), KV_EFIT, "positions end");
	r.c->geom.d_k = 8;
	is_int(kv_forward(r.e, r.c, r.ids, 5, NULL, &err), KV_EFIT, "a cache of another shape");
	rig_close(&r);
}

int
main(void)
{
	test_architectures();
	test_types();
	test_variants();
	test_levels();
	test_threads();
	test_evicted();
	test_received(0);
	test_received(7);
	test_received_squares();
	test_received_cut();
	test_positions();
	test_refusals();
	return done_testing();
}
