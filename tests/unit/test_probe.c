/*
 * Attention of a chunk and of a probe, by query head: against the same weights worked out in double precision from recorded queries and the
 * cache's keys, against each other, and what a probe leaves behind: nothing.
 */
#include "model/forward.h"

#include <math.h>
#include <stdlib.h>

#include "tap.h"
#include "kernel/quant.h"
#include "model/sample.h"
#include "small_cache.h"
#include "synth.h"
#include "weights.h"

enum { OLD = 37, NEW = 21 };

struct rig {
	struct kv_buf file;
	struct kv_model *m;
	struct kv_pool *pool;
	struct kv_engine *e;
	struct kv_cache *c;
	uint32_t ids[OLD + NEW];
};

static void
must(enum kv_status rc, const struct kv_err *err)
{
	if (rc != KV_OK) {
		printf("Bail out! %s\n", err->text);
		exit(1);
	}
}

static void
rig_open(struct rig *r, const struct synth *s, enum kvs_dtype dtype, unsigned threads)
{
	struct kv_err err = { 0 };
	struct kv_gguf *g;
	struct kv_rng rng;

	*r = (struct rig){ .pool = kv_pool_new(threads) };
	if (!synth_make(s, &r->file))
		abort();
	must(kv_gguf_mem(r->file.p, r->file.len, &g, &err), &err);
	must(kv_model_from(g, dtype, &r->m, &err), &err);
	must(kv_engine_new(r->m, &kv_ops_generic, r->pool, &r->e, &err), &err);
	must(kv_cache_new(&r->m->geom, &r->c, &err), &err);
	kv_rng_seed(&rng, 5);
	for (int i = 0; i < OLD + NEW; i++)
		r->ids[i] = (uint32_t)(kv_rng_next(&rng) * r->m->geom.n_vocab);
}

static void
rig_close(struct rig *r)
{
	kv_cache_free(r->c);
	kv_engine_free(r->e);
	kv_pool_free(r->pool);
	kv_model_free(r->m);
	kv_buf_free(&r->file);
}

static void
feed(struct rig *r, size_t from, size_t n, const struct kv_observe *see)
{
	struct kv_err err = { 0 };

	must(kv_forward(r->e, r->c, r->ids + from, n, see, &err), &err);
}

/* Lists of different lengths, and positions that have little to do with sources. */
static void
thin_out(struct kv_cache *c)
{
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		for (unsigned h = 0; h < c->geom.n_heads_kv; h++) {
			struct kv_list *list = kv_cache_list(c, l, h);
			uint32_t keep[OLD], n = 0;
			struct kv_err err = { 0 };

			for (uint32_t i = 0; i < list->n; i++)
				if ((i * 7 + l * 3 + h * 5) % 4)
					keep[n++] = i;
			must(kv_list_keep(list, keep, n, &err), &err);
			for (uint32_t i = 0; i < n; i++)
				list->pos[i] = (int32_t)i;
		}
	c->state.next_pos = OLD;
}

/* Largest difference between the recorded sums and those of all recorded queries, as a share of the queries. */
static double
sums_distance(const struct kv_cache *c, const struct kv_sums *s)
{
	unsigned group = c->geom.n_heads / c->geom.n_heads_kv;
	double worst = 0;

	for (unsigned layer = 0; layer < c->geom.n_layers; layer++)
		for (unsigned head = 0; head < c->geom.n_heads; head++) {
			const struct kv_sums_list *l = &s->list[layer * c->geom.n_heads_kv + head / group];
			double sum[OLD] = { 0 }, weight[OLD + NEW];

			for (uint32_t w = 0; w < c->queries[layer].w; w++) {
				attention_weights(c, layer, head, w, weight);
				for (uint32_t j = 0; j < l->cols; j++)
					sum[j] += weight[j];
			}
			for (uint32_t j = 0; j < l->cols; j++)
				worst = fmax(worst, fabs(sum[j] - (double)l->sum[head % group * l->cols + j]) / s->queries);
		}
	return worst;
}

/* Are two records the same, bit for bit? */
static bool
same_sums(const struct kv_cache *c, const struct kv_sums *a, const struct kv_sums *b)
{
	size_t n = (size_t)c->geom.n_layers * c->geom.n_heads_kv;
	bool same = a->there && b->there && a->queries == b->queries && a->rows == b->rows;

	for (size_t i = 0; same && i < n; i++)
		same = a->list[i].cols == b->list[i].cols &&
			!memcmp(a->list[i].sum, b->list[i].sum, (size_t)a->rows * a->list[i].cols * sizeof(float));
	return same;
}

/* All that a snapshot says, and what it does not. */
static void
bytes_of(struct kv_cache *c, struct kv_buf *out)
{
	kv_cache_drop_sums(c);
	small_save(c, KVS_PACK_RAW, out);
	kv_buf_add(out, &c->state, sizeof c->state);
}

static void
test_model(const char *what, const struct synth *s, enum kvs_dtype dtype)
{
	struct kv_observe see = { .last = NEW, .received = true, .nll = true };
	struct kv_buf before = { 0 }, after = { 0 };
	struct kv_err err = { 0 };
	struct kv_sums looked;
	struct rig r;

	rig_open(&r, s, dtype, 1);
	feed(&r, 0, OLD, &see);
	thin_out(r.c);
	bytes_of(r.c, &before);
	must(kv_probe(r.e, r.c, r.ids + OLD, NEW, false, &err), &err);
	looked = r.c->sums[KV_SUMS_PROBE];
	is_int(looked.queries, NEW, "%s: queries of the probe", what);
	is_int(looked.at, OLD, "%s: its position", what);
	r.c->sums[KV_SUMS_PROBE] = (struct kv_sums){ 0 };
	bytes_of(r.c, &after);
	ok(before.len == after.len && !memcmp(before.p, after.p, before.len), "%s: a probe leaves the cache as it was", what);

	see.chunk = true;
	feed(&r, OLD, NEW, &see);
	is_int(r.c->sums[KV_SUMS_CHUNK].at, OLD, "%s: the chunk's first source", what);
	is_int(r.c->state.tail, NEW, "%s: what is new", what);
	is_near(sums_distance(r.c, &r.c->sums[KV_SUMS_CHUNK]), 0, 1e-5, "%s: the chunk's sums are those of its queries", what);
	ok(same_sums(r.c, &looked, &r.c->sums[KV_SUMS_CHUNK]), "%s: a probe of the same tokens saw the same", what);
	r.c->sums[KV_SUMS_PROBE] = looked;
	kv_buf_free(&before);
	kv_buf_free(&after);
	rig_close(&r);
}

static void
test_models(void)
{
	struct synth s;

	synth_defaults(&s, "llama", KV_W_F32, 1);
	test_model("llama", &s, KVS_F32);
	test_model("llama, rows in f16", &s, KVS_F16);
	s.window = 11;
	test_model("a window", &s, KVS_F32);
	synth_defaults(&s, "qwen3", KV_W_Q4_1, 2);
	s.softcap = 3;
	test_model("qwen3 with a soft cap", &s, KVS_F32);
	s.heads_kv = s.heads;
	test_model("no groups", &s, KVS_BF16);
	synth_defaults(&s, "qwen2", KV_W_Q8_0, 3);
	s.rope = SYNTH_YARN;
	test_model("qwen2 with YaRN", &s, KVS_F32);
}

/* A round in several batches is one round. */
static void
test_batches(void)
{
	struct kv_observe see = { .chunk = true };
	struct kv_err err = { 0 };
	struct kv_sums whole, parts;
	struct synth s;
	struct rig r;
	double worst = 0;

	synth_defaults(&s, "llama", KV_W_F32, 4);
	rig_open(&r, &s, KVS_F32, 1);
	feed(&r, 0, OLD, &see);
	ok(r.c->sums[KV_SUMS_CHUNK].there && !r.c->sums[KV_SUMS_CHUNK].list[0].cols, "nothing is old: a record without columns");
	feed(&r, OLD, NEW, &see);
	whole = r.c->sums[KV_SUMS_CHUNK];
	r.c->sums[KV_SUMS_CHUNK] = (struct kv_sums){ 0 };
	kv_cache_free(r.c);
	must(kv_cache_new(&r.m->geom, &r.c, &err), &err);
	feed(&r, 0, OLD, &see);
	kv_cache_begin_round(r.c);
	ok(!r.c->sums[KV_SUMS_CHUNK].there, "a round begins without the sums of the one before");
	must(kv_probe(r.e, r.c, r.ids, 3, false, &err), &err);
	must(kv_cache_new_sums(r.c, KV_SUMS_CHUNK, NEW, OLD, &err), &err);
	feed(&r, OLD, 9, &see);
	feed(&r, OLD + 9, 1, &see);
	feed(&r, OLD + 10, NEW - 10, &see);
	kv_cache_end_round(r.c, NEW);
	parts = r.c->sums[KV_SUMS_CHUNK];
	is_int(r.c->state.tail, NEW, "all of the round is new");
	ok(r.c->sums[KV_SUMS_PROBE].there, "what a probe saw at its beginning is still there");
	for (size_t i = 0; i < (size_t)r.m->geom.n_layers * r.m->geom.n_heads_kv; i++) {
		is_int(parts.list[i].cols, OLD, "list %zu: old entries alone", i);
		for (size_t j = 0; j < (size_t)parts.rows * OLD; j++)
			worst = fmax(worst, fabs((double)parts.list[i].sum[j] - (double)whole.list[i].sum[j]));
	}
	is_near(worst, 0, 1e-5 * NEW, "three batches see what one sees");
	feed(&r, 0, 1, NULL);
	ok(!r.c->sums[KV_SUMS_CHUNK].there && !r.c->sums[KV_SUMS_PROBE].there, "one more token and the sums are gone");
	r.c->sums[KV_SUMS_CHUNK] = whole;
	rig_close(&r);
}

static void
test_nothing(void)
{
	struct kv_err err = { 0 };
	struct synth s;
	struct rig r;

	synth_defaults(&s, "llama", KV_W_F32, 6);
	rig_open(&r, &s, KVS_F16, 1);
	must(kv_probe(r.e, r.c, r.ids, NEW, true, &err), &err);
	ok(r.c->sums[KV_SUMS_PROBE].there && r.c->sums[KV_SUMS_PROBE].all && !r.c->sums[KV_SUMS_PROBE].list[0].cols,
		"a probe over nothing: a record without columns");
	is_int(r.c->state.consumed, 0, "and nothing read");
	feed(&r, 0, OLD, NULL);
	r.c->state.next_pos = INT32_MAX - 3;
	ok(kv_probe(r.e, r.c, r.ids, 4, true, &err) == KV_EFIT, "a probe that would stand beyond the last position: %s", err.text);
	rig_close(&r);
}

static void
test_threads(void)
{
	struct kv_sums first = { 0 };
	struct rig one;

	for (unsigned threads = 1; threads <= 4; threads++) {
		struct kv_observe see = { .chunk = true };
		struct kv_err err = { 0 };
		struct synth s;
		struct rig r;

		synth_defaults(&s, "qwen3", SYNTH_MIXED, 7);
		rig_open(&r, &s, KVS_F16, threads);
		feed(&r, 0, OLD, &see);
		must(kv_probe(r.e, r.c, r.ids, NEW, true, &err), &err);
		if (threads == 1) {
			first = r.c->sums[KV_SUMS_PROBE];
			one = r;
			continue;
		}
		ok(same_sums(r.c, &first, &r.c->sums[KV_SUMS_PROBE]), "%u threads see what one sees", threads);
		rig_close(&r);
	}
	rig_close(&one);
}

int
main(void)
{
	test_models();
	test_batches();
	test_nothing();
	test_threads();
	return done_testing();
}
