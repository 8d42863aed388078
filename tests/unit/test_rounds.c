/*
 * Rounds of reading inside the process: the first two of CItruS against its fused first step, a twin against the cache it follows, where
 * probes stand, and texts whose source indices have left 31 bits behind, read through and gone on with from a checkpoint.
 */
#include "loop/rounds.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "tap.h"
#include "kernel/quant.h"
#include "loop/twin.h"
#include "model/sample.h"
#include "small_cache.h"
#include "synth.h"
#include "weights.h"

enum { CHUNK = 12 };

struct rig {
	struct kv_buf file;
	struct kv_session s;
	struct kv_cache *c;
	uint32_t ids[8 * CHUNK];
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
rig_open(struct rig *r, enum kvs_dtype dtype)
{
	struct kv_err err = { 0 };
	struct kv_gguf *g;
	struct kv_rng rng;
	struct synth s;

	*r = (struct rig){ .s.ops = &kv_ops_generic };
	synth_defaults(&s, "llama", KV_W_F32, 8);
	if (!synth_make(&s, &r->file))
		abort();
	must(kv_gguf_mem(r->file.p, r->file.len, &g, &err), &err);
	must(kv_model_from(g, dtype, &r->s.model, &err), &err);
	must(kv_engine_new(r->s.model, r->s.ops, NULL, &r->s.engine, &err), &err);
	must(kv_cache_new(&r->s.model->geom, &r->c, &err), &err);
	kv_rng_seed(&rng, 11);
	for (size_t i = 0; i < sizeof r->ids / sizeof *r->ids; i++)
		r->ids[i] = (uint32_t)(kv_rng_next(&rng) * r->s.model->geom.n_vocab);
}

static void
rig_close(struct rig *r)
{
	kv_cache_free(r->c);
	kv_session_close(&r->s);
	kv_buf_free(&r->file);
}

/* Of a text of n tokens at most so many are read. */
static void
read_part(struct rig *r, size_t n, uint64_t most, const struct kv_rounds *rounds)
{
	struct kv_ids ids = { 0 };
	struct kv_source *src;
	struct kv_err err = { 0 };

	for (size_t i = 0; i < n; i++)
		must(kv_ids_add(&ids, r->ids[i], &err), &err);
	must(kv_source_of(&ids, &src, &err), &err);
	must(kv_rounds_read(&r->s, r->c, src, most, rounds, NULL, &err), &err);
	kv_source_close(src);
}

static void
read_text(struct rig *r, size_t n, const struct kv_rounds *rounds)
{
	read_part(r, n, UINT64_MAX, rounds);
}

static const struct kv_opt no_options[] = { { 0 } };

static struct kv_each *
pipeline(const char *text)
{
	struct kv_err err = { 0 };
	struct kv_each *e;

	must(kv_each_new("--each", text, no_options, &e, &err), &err);
	return e;
}

/* The k of the first CHUNK entries that got most attention, from all recorded queries and all heads of a layer. */
static void
best(const struct kv_cache *c, unsigned layer, uint32_t k, bool *stays)
{
	double sum[CHUNK] = { 0 }, weight[2 * CHUNK];

	for (unsigned h = 0; h < c->geom.n_heads; h++)
		for (uint32_t w = 0; w < c->queries[layer].w; w++) {
			attention_weights(c, layer, h, w, weight);
			for (uint32_t i = 0; i < CHUNK; i++)
				sum[i] += weight[i];
		}
	for (uint32_t i = 0; i < CHUNK; i++) {
		uint32_t better = 0;

		for (uint32_t j = 0; j < CHUNK; j++)
			better += sum[j] > sum[i];
		stays[i] = better < k;
	}
}

/* Lists that do not hold what `best` says and all of the second chunk. */
static unsigned
differ(const struct kv_cache *c, const struct kv_cache *fused, uint32_t k)
{
	unsigned wrong = 0;

	for (unsigned l = 0; l < c->geom.n_layers; l++) {
		bool stays[CHUNK];

		best(fused, l, k, stays);
		for (unsigned h = 0; h < c->geom.n_heads_kv; h++) {
			const struct kv_list *list = kv_cache_list(c, l, h);
			uint32_t at = 0;
			bool good = true;

			for (uint32_t i = 0; i < 2 * CHUNK; i++)
				if (i >= CHUNK || stays[i])
					good &= at < list->n && list->src[at++] == i;
			wrong += !good || at != list->n;
		}
	}
	return wrong;
}

/* Their code runs chunk 0 and chunk 1, or chunk 0 and the instruction, in one pass, whose second half ranks the first. */
static void
test_first_step(void)
{
	static const uint32_t budgets[] = { 3, 7, 11, 12, 40 };

	for (size_t b = 0; b < 2 * sizeof budgets / sizeof *budgets; b++) {
		bool by_probe = b % 2;
		uint32_t k = budgets[b / 2], ids[2 * CHUNK], m = by_probe ? 5 : CHUNK;
		struct kv_rounds rounds = { .chunk = CHUNK };
		struct kv_observe see = { .last = m };
		struct kv_err err = { 0 };
		struct kv_cache *fused;
		struct rig r;
		char line[80];

		rig_open(&r, KVS_F32);
		must(kv_cache_new(&r.s.model->geom, &fused, &err), &err);
		memcpy(ids, r.ids, CHUNK * sizeof *ids);
		memcpy(ids + CHUNK, r.ids + (by_probe ? 5 : 1) * CHUNK, m * sizeof *ids);
		must(kv_forward(r.s.engine, fused, ids, CHUNK + m, &see, &err), &err);
		snprintf(line, sizeof line, "kv-evict --citrus=%s -k %u", by_probe ? "probe" : "chunk", k);
		rounds.each = pipeline(line);
		rounds.probe = r.ids + 5 * CHUNK;
		rounds.n_probe = by_probe ? m : 0;
		read_text(&r, 2 * CHUNK, &rounds);
		is_int(differ(r.c, fused, k), 0, "%s: two rounds keep what one pass over both would", line);
		kv_each_free(rounds.each);
		kv_cache_free(fused);
		rig_close(&r);
	}
}

/* Do the m newest entries of two lists hold the same numbers? */
static bool
same_rows(const struct kv_rows *a, uint32_t na, const struct kv_rows *b, uint32_t nb, uint32_t m)
{
	float x[KVS_MAX_DIM], y[KVS_MAX_DIM];

	for (uint32_t i = 1; i <= m; i++) {
		kv_rows_get(a, na - i, x);
		kv_rows_get(b, nb - i, y);
		if (memcmp(x, y, a->width * sizeof *x))
			return false;
	}
	return true;
}

static void
test_twin(void)
{
	struct kv_observe see = { .last = 8, .nll = true };
	struct kv_err err = { 0 };
	struct kv_cache *twin;
	unsigned wrong = 0;
	char a[33], b[33];
	struct rig r;

	rig_open(&r, KVS_F16);
	must(kv_forward(r.s.engine, r.c, r.ids, CHUNK, &see, &err), &err);
	must(kv_twin_new(r.c, &twin, &err), &err);
	is_str(small_digest(twin, a), small_digest(r.c, b), "a twin begins as the same");
	must(small_run(&kv_stage_evict, "--window -k 5", twin, 1, NULL, &err), &err);
	must(small_run(&kv_stage_reposition, "--compact", twin, 1, NULL, &err), &err);
	must(small_run(&kv_stage_evict, "--streaming -k 9", r.c, 1, NULL, &err), &err);
	for (unsigned round = 1; round < 4; round++) {
		uint32_t m = CHUNK - round;

		must(kv_forward(r.s.engine, r.c, r.ids + round * CHUNK, m, &see, &err), &err);
		must(kv_twin_follow(twin, r.c, m, &err), &err);
		for (size_t i = 0; i < (size_t)r.c->geom.n_layers * r.c->geom.n_heads_kv; i++) {
			const struct kv_list *p = &r.c->list[i], *q = &twin->list[i];

			wrong += !same_rows(&p->k, p->n, &q->k, q->n, m) || !same_rows(&p->v, p->n, &q->v, q->n, m);
			for (uint32_t j = 1; j <= m; j++)
				wrong += p->src[p->n - j] != q->src[q->n - j] || q->pos[q->n - j] != twin->state.next_pos - (int32_t)j;
		}
	}
	is_int(wrong, 0, "new entries are the same numbers in both, each at its own positions");
	is_int(twin->state.next_pos, 5 + 11 + 10 + 9, "the twin's next position");
	is_int(r.c->state.next_pos, 12 + 11 + 10 + 9, "and the other's");
	is_int(twin->state.consumed, r.c->state.consumed, "both have read the same");
	is_int(twin->nll_count, r.c->nll_count, "surprisals of both");
	ok(twin->nll_sum == r.c->nll_sum && !memcmp(twin->tokens.v, r.c->tokens.v, r.c->tokens.n * 4), "to the last bit, and ids");
	ok(!memcmp(twin->hidden, r.c->hidden, r.c->geom.n_embd * sizeof *r.c->hidden), "the last hidden state");
	for (unsigned l = 0; l < r.c->geom.n_layers; l++) {
		const struct kv_queries *p = &r.c->queries[l], *q = &twin->queries[l];

		ok(p->w == q->w && !memcmp(p->src, q->src, p->w * 4) && q->pos[7] == twin->state.next_pos - 1 &&
			!memcmp(p->q, q->q, (size_t)p->w * r.c->geom.n_heads * r.c->geom.d_k * sizeof *p->q), "layer %u: recorded queries", l);
	}
	kv_cache_free(twin);
	rig_close(&r);
}

/* A round at a time, its records looked at before the eviction: where the probe stood, and the largest position of all. */
static void
test_positions(void)
{
	enum { KEEP = 10, POT = 40, ASK = 17 };

	for (int fill = 0; fill < 2; fill++) {
		struct kv_rounds rounds = { .probe_all = fill };
		uint32_t most = fill ? POT : KEEP + 2 * CHUNK > KEEP + CHUNK + ASK ? KEEP + 2 * CHUNK : KEEP + CHUNK + ASK;
		unsigned wrong = 0, fullest = 0;
		struct kv_err err = { 0 };
		struct rig r;

		rig_open(&r, KVS_F16);
		rounds.probe = r.ids;
		rounds.n_probe = ASK;
		for (unsigned round = 0; round < 60; round++) {
			uint32_t old = kv_cache_longest(r.c), m = fill ? POT - ASK - old : CHUNK;
			const struct kv_sums *seen = &r.c->sums[KV_SUMS_PROBE];

			rounds.chunk = m;
			read_text(&r, m, &rounds);
			wrong += seen->at != (fill ? old + m : old) || seen->queries != ASK || seen->list[0].cols != (fill ? old + m : old);
			wrong += seen->at + ASK > most || r.c->state.next_pos != (int32_t)(old + m) || old + m > most;
			fullest = seen->at + ASK > fullest ? seen->at + ASK : fullest;
			must(small_run(&kv_stage_evict, fill ? "--infinipot --nuc 0 -k 10" : "--citrus -k 10", r.c, 1, NULL, &err), &err);
			must(small_run(&kv_stage_reposition, "--compact", r.c, 1, NULL, &err), &err);
			wrong += kv_cache_longest(r.c) > KEEP + (fill ? 0 : CHUNK);
		}
		is_int(wrong, 0, "%s: 60 rounds, no position beyond %u", fill ? "a pot" : "chunks", most);
		is_int(fullest, fill ? POT : KEEP + CHUNK + ASK, "the last of the probe comes as far as it may");
		rig_close(&r);
	}
}

static const struct far {
	const char *each;
	struct kv_rounds rounds;
} far_jobs[] = {
	{ "kv-evict --citrus -k 20 | kv-reposition --compact", { .chunk = CHUNK, .n_probe = 7 } },
	{ "kv-evict --infinipot -k 9 --first-nll 0 | kv-reposition --compact", { .fill = 24, .n_probe = 7, .probe_all = true, .history = KV_HISTORY_ALIVE } },
	{ "cat", { .chunk = CHUNK, .n_probe = 7 } },		/* in a shell */
};

static void
note_least(void *arg, uint64_t done, uint64_t of)
{
	uint64_t *least = arg;

	(void)of;
	*least = done < *least ? done : *least;
}

/*
 * A job over the whole text, or what an earlier process of it leaves behind after `first` tokens and one that goes on. What was computed,
 * and which entries are left, counted from where the text begins, is in out.
 */
static void
far_job(const struct far *f, uint64_t begin, uint64_t first, struct rig *r, struct kv_buf *out)
{
	char path[] = "/tmp/test_rounds.XXXXXX";
	struct kv_rounds rounds = f->rounds;
	uint64_t least;
	struct kv_err err = { 0 };

	if (first && (close(mkstemp(path)) || remove(path)))
		abort();
	for (int part = first ? 0 : 1; part < 2; part++) {
		rig_open(r, KVS_F16);
		rounds.feed.observe = (struct kv_observe){ .last = 8, .nll = true, .received = true };
		rounds.probe = r->ids;
		rounds.each = pipeline(f->each);
		rounds.checkpoint = first ? path : NULL;
		rounds.feed.tick = note_least;
		rounds.feed.arg = &least;
		least = UINT64_MAX;
		r->c->state.consumed = r->c->state.hist_first = r->c->tokens.first = (uint32_t)begin;	/* below 2^32 */
		read_part(r, 8 * CHUNK, part ? UINT64_MAX : first, &rounds);
		must(kv_each_end(rounds.each, &err), &err);
		kv_each_free(rounds.each);
		if (!part)
			rig_close(r);
	}
	if (first) {
		ok(least > first / 2, "the second job begins behind token %llu", (unsigned long long)least);
		is_int(remove(path), 0, "it found a checkpoint");
	}
	kv_buf_add(out, r->c->hidden, r->c->geom.n_embd * sizeof *r->c->hidden);
	kv_buf_add(out, &r->c->nll_sum, sizeof r->c->nll_sum);
	for (size_t i = 0; i < (size_t)r->c->geom.n_layers * r->c->geom.n_heads_kv; i++) {
		const struct kv_list *l = &r->c->list[i];

		kv_buf_add(out, l->pos, l->n * sizeof *l->pos);
		for (uint32_t j = 0; j < l->n; j++) {
			uint64_t src = l->src[j] - begin;

			kv_buf_add(out, &src, sizeof src);
		}
	}
}

/* What is computed depends on positions; sources only have to be in order. */
static void
test_far(const struct far *f)
{
	const uint64_t begin[] = { 0, (uint64_t)INT32_MAX - 20, (uint64_t)UINT32_MAX - 8 * CHUNK };
	struct kv_buf near = { 0 };

	for (int i = 0; i < 6; i++) {
		uint64_t at = begin[i / 2];
		struct kv_buf file = { 0 }, got = { 0 };
		struct kv_err err = { 0 };
		struct kv_cache *again;
		const uint32_t one = 1;
		struct rig r;

		far_job(f, at, i % 2 ? 5 * CHUNK : 0, &r, &got);
		if (!i)
			kv_buf_add(&near, got.p, got.len);
		ok(got.len == near.len && !memcmp(got.p, near.p, got.len), "%s: from token %llu on%s: the same numbers, the same entries", f->each,
			(unsigned long long)at, i % 2 ? ", in two jobs" : "");
		is_int((long long)r.c->state.consumed, (long long)at + 8 * CHUNK, "read so far");
		small_save(r.c, KVS_PACK_RAW, &file);
		ok(small_load(&file, &again, &err) == KV_OK, "and a good snapshot: %s", err.text);
		ok(kv_cache_list(again, 0, 0)->src[0] >= at && again->state.next_pos <= 8 * CHUNK, "with its sources, and small positions");
		if (i > 3)
			ok(kv_forward(r.s.engine, r.c, &one, 1, NULL, &err) == KV_EFIT, "not beyond 2^32 tokens: %s", err.text);
		kv_cache_free(again);
		kv_buf_free(&file);
		kv_buf_free(&got);
		rig_close(&r);
	}
	kv_buf_free(&near);
}

int
main(void)
{
	test_first_step();
	test_twin();
	test_positions();
	for (size_t i = 0; i < sizeof far_jobs / sizeof *far_jobs; i++)
		test_far(&far_jobs[i]);
	return done_testing();
}
