/* The whole model: prefill, decoding at some depths, and what observing costs. */
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/forward.h"

enum { BATCH = 512, DECODED = 4, STREAM = 96 << 20 };

struct rig {
	struct kv_model *m;
	struct kv_engine *e;
	struct kv_cache *c;
	float *logits;
	uint32_t ids[BATCH];
	size_t n;			/* tokens of a run, in batches */
	struct kv_observe see;
	size_t depth;			/* entries that are there before */
	bool bounds;			/* what is slower than it should be is marked */
};

static void
must(enum kv_status rc, const struct kv_err *err)
{
	if (rc != KV_OK) {
		fprintf(stderr, "bench: %s\n", err->text);
		exit(1);
	}
}

/* A cache of so many entries with rows that nobody computed: only their number matters here. */
static void
fill(struct rig *r)
{
	struct kv_err err = { 0 };
	size_t width = r->m->geom.d_k > r->m->geom.d_v ? r->m->geom.d_k : r->m->geom.d_v;
	float *rows = bench_alloc(r->depth + 1, width * sizeof *rows);

	kv_cache_free(r->c);
	r->c = NULL;
	must(kv_cache_new(&r->m->geom, &r->c, &err), &err);
	for (size_t i = 0; i < r->depth * width; i++)
		rows[i] = bench_random();
	for (size_t at = 0; at < r->depth; at += BATCH) {
		uint32_t n = (uint32_t)(r->depth - at < BATCH ? r->depth - at : BATCH);

		must(kv_cache_extend(r->c, n, &err), &err);
		for (size_t i = 0; i < (size_t)r->m->geom.n_layers * r->m->geom.n_heads_kv; i++) {
			must(kv_rows_put(&r->c->list[i].k, (uint32_t)at, n, rows + at * width, width, &err), &err);
			must(kv_rows_put(&r->c->list[i].v, (uint32_t)at, n, rows + at * width, width, &err), &err);
		}
		must(kv_cache_add_tokens(r->c, r->ids, n, &err), &err);
	}
	free(rows);
}

/* n tokens more, in batches. */
static void
read_on(void *arg)
{
	struct rig *r = arg;
	struct kv_err err = { 0 };

	for (size_t at = 0; at < r->n; at += BATCH)
		must(kv_forward(r->e, r->c, r->ids, r->n - at < BATCH ? r->n - at : BATCH, &r->see, &err), &err);
}

static void
decode(void *arg)
{
	struct rig *r = arg;
	struct kv_err err = { 0 };

	for (size_t i = 0; i < DECODED; i++) {
		must(kv_forward(r->e, r->c, r->ids + i, 1, &r->see, &err), &err);
		must(kv_logits(r->e, r->c->hidden, r->logits, &err), &err);
	}
}

static double
weight_bytes(const struct kv_model *m)
{
	double bytes = (double)m->output.n_out * (double)m->output.row_bytes;

	for (uint32_t l = 0; l < m->geom.n_layers; l++) {
		const struct kv_block *b = &m->block[l];
		const struct kv_weight *w[] = { &b->q, &b->k, &b->v, &b->o, &b->gate, &b->up, &b->down };

		for (size_t i = 0; i < sizeof w / sizeof *w; i++)
			bytes += (double)w[i]->n_out * (double)w[i]->row_bytes;
	}
	return bytes;
}

/* A stretch of memory larger than any cache, read once. */
static void
stream(void *arg)
{
	typedef uint64_t words __attribute__((vector_size(64)));
	const words *p = arg;
	words x[4] = { 0 };
	volatile uint64_t sink;

	for (size_t i = 0; i < STREAM / sizeof *p; i += 4)
		for (size_t k = 0; k < 4; k++)
			x[k] ^= p[i + k];
	sink = x[0][0] ^ x[1][1] ^ x[2][2] ^ x[3][3];
	(void)sink;
}

static void
bench_decode(struct rig *r)
{
	void *memory = aligned_alloc(64, STREAM);
	struct job job[] = { { decode, r, 0 }, { stream, memory, 0 } };
	double bytes = weight_bytes(r->m), at_zero = 0;
	char what[80];

	if (!memory)
		must(KV_ENOMEM, &(struct kv_err){ .text = "no memory" });
	memset(memory, 1, STREAM);
	for (r->depth = 0; r->depth <= 4096; r->depth = r->depth ? r->depth * 8 : 512) {
		double rate, token;

		fill(r);
		bench_in_turn(job, 2, 15);
		token = job[0].best / DECODED;
		rate = bytes / token / (STREAM / job[1].best);
		snprintf(what, sizeof what, "decoding behind %zu entries", r->depth);
		if (!r->depth) {
			at_zero = token;
			bench_print(&(struct figure){ "reading memory", STREAM / job[1].best * 1e-9, "GB/s", 0, NULL, 0, false });
			bench_print(&(struct figure){ what, 1 / token, "tokens/s", rate, "of the bandwidth, for weights", r->bounds ? 0.6 : 0, false });
		} else {
			bench_print(&(struct figure){ what, 1 / token, "tokens/s", at_zero / token, "of that without", 0, false });
		}
	}
	free(memory);
}

static void
bench_prefill(struct rig *r, bool longest)
{
	static const struct { size_t n; unsigned rounds; } runs[] = { { 512, 3 }, { 2048, 1 }, { 8192, 1 } };
	char what[80];

	for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
		struct job job = { read_on, r, 0 };
		double best = 1e9;

		if (runs[i].n > 2048 && !longest)
			continue;
		r->n = runs[i].n;
		r->depth = 0;
		for (unsigned k = 0; k < runs[i].rounds; k++) {
			fill(r);
			bench_in_turn(&job, 1, 1);
			best = job.best < best ? job.best : best;
		}
		snprintf(what, sizeof what, "prefill of %zu tokens", runs[i].n);
		bench_print(&(struct figure){ what, best, "s", 0, NULL, 0, false });
	}
}

/* One batch at the mean depth of a prefill of 8,192, plain and observed. */
static void
bench_observing(struct rig *r)
{
	static const struct { const char *what; struct kv_observe see; double bound; } kinds[] = {
		{ "512 tokens behind 3584, nothing observed", { 0 }, 0 },
		{ "  last 32 queries", { .last = 32 }, 1.03 },
		{ "  attention received", { .received = true }, 1.12 },
	};
	double best[3] = { 1e9, 1e9, 1e9 };

	r->n = BATCH;
	r->depth = 3584;
	for (unsigned round = 0; round < 5; round++)
		for (size_t i = 0; i < 3; i++) {
			struct job job = { read_on, r, 0 };

			r->see = kinds[i].see;
			fill(r);
			bench_in_turn(&job, 1, 1);
			best[i] = job.best < best[i] ? job.best : best[i];
		}
	for (size_t i = 0; i < 3; i++)
		bench_print(&(struct figure){ kinds[i].what, best[i], "s", i ? best[i] / best[0] : 0, "times as long", r->bounds ? kinds[i].bound : 0, true });
	r->see = (struct kv_observe){ 0 };
}

void
bench_model(const struct kv_ops *ops, const char *path, bool longest)
{
	struct rig r = { .bounds = strcmp(ops->level, "generic") };
	struct kv_err err = { 0 };

	must(kv_model_open(path, KVS_F16, &r.m, &err), &err);
	must(kv_engine_new(r.m, ops, NULL, &r.e, &err), &err);
	r.logits = bench_alloc(r.m->geom.n_vocab, sizeof *r.logits);
	for (size_t i = 0; i < BATCH; i++)
		r.ids[i] = (uint32_t)(i * 7919 % r.m->geom.n_vocab);
	bench_prefill(&r, longest);
	bench_decode(&r);
	bench_observing(&r);
	kv_cache_free(r.c);
	kv_engine_free(r.e);
	kv_model_free(r.m);
	free(r.logits);
}
