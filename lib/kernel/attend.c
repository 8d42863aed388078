/*
 * Attention of a batch, a tile of queries at a time against blocks of keys, with a running maximum and sum (FlashAttention): the
 * scores of a tile never take more than one block. The query heads of a kv head stand in one tile, its keys are turned once for all.
 */
#include "kernel/attend.h"

#include <cblas.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/clones.h"
#include "kernel/expf.h"
#include "kernel/generic.h"
#include "util/mem.h"

enum {
	TILE = 192,	/* rows (tokens times query heads of the group) of a tile, about */
	BLOCK = 512,	/* keys of a block */
	PREPARE = 256,	/* keys in one item of conversion */
};

/* The work on one kv head. */
struct group {
	const struct kv_attn *a;
	const struct kv_attn_list *l;
	const float *q;		/* [m][heads][d_k], at the group's first head */
	size_t m, heads;	/* heads: of the group */
	float *out;		/* [m][heads][d_v], likewise */
	struct kv_span *see;	/* [m] */
	struct kv_span all;	/* what any query sees */
	float *k, *v;		/* [all.to - all.from][d_k], [d_v]: f32, keys turned */
	size_t tokens;		/* of a tile */
	struct tile *tile;	/* [threads] */
};

struct tile {
	float *q;		/* [rows][d_k] row = token * heads + head */
	float *s;		/* [rows][BLOCK] scores, then weights */
	float *o;		/* [rows][d_v] weighted values so far … */
	float *top;		/* [rows] … relative to this maximum */
	double *sum;		/* [rows] of the weights */
};

static void
tile_free(struct tile *t)
{
	kv_block_free(t->q);
	kv_block_free(t->s);
	kv_block_free(t->o);
	kv_block_free(t->top);
	kv_block_free(t->sum);
}

static bool
tile_new(struct tile *t, size_t rows, size_t d_k, size_t d_v)
{
	t->q = kv_block_new(rows, d_k * sizeof *t->q);
	t->s = kv_block_new(rows, BLOCK * sizeof *t->s);
	t->o = kv_block_new(rows, d_v * sizeof *t->o);
	t->top = kv_block_new(rows, sizeof *t->top);
	t->sum = kv_block_new(rows, sizeof *t->sum);
	return t->q && t->s && t->o && t->top && t->sum;
}

static void
prepare(void *arg, size_t item, unsigned thread)
{
	const struct group *g = arg;
	struct kv_span s = { g->all.from + item * PREPARE, g->all.from + (item + 1) * PREPARE };

	(void)thread;
	if (s.to > g->all.to)
		s.to = g->all.to;
	kv_attn_keys(g->a, g->l, s, g->k + item * PREPARE * g->a->d_k);
	kv_attn_values(g->a, g->l, s, g->v + item * PREPARE * g->a->d_v);
}

KV_CLONES static void
scale_row(float *o, size_t n, float by)
{
	for (size_t i = 0; i < n; i++)
		o[i] *= by;
}

/* Scores s [n] of one row become weights; those outside [from, to) become 0. What was summed before is brought to the new maximum. */
static void
soften(const struct kv_attn *a, float *s, size_t n, size_t from, size_t to, float *top, double *sum, float *o)
{
	float highest;

	if (from >= to) {
		memset(s, 0, n * sizeof *s);
		return;
	}
	memset(s, 0, from * sizeof *s);
	memset(s + to, 0, (n - to) * sizeof *s);
	if (a->softcap > 0)
		kv_attn_soft_cap(s + from, to - from, a->softcap);
	highest = kv_attn_top(s + from, to - from);
	if (highest > *top) {
		float by = kv_expf(*top - highest);

		*sum *= (double)by;
		scale_row(o, a->d_v, by);
		*top = highest;
	}
	*sum += kv_attn_exp(s + from, to - from, *top);
}

static size_t
clip(size_t x, size_t at, size_t n)
{
	return x <= at ? 0 : x - at < n ? x - at : n;
}

/* One block of keys, ranks at … at + n - 1, for the tokens first … first + tokens - 1 of a tile. */
static void
attend_block(const struct group *g, struct tile *t, size_t first, size_t tokens, size_t at, size_t n)
{
	const struct kv_attn *a = g->a;
	blasint rows = (blasint)(tokens * g->heads), d_k = (blasint)a->d_k, d_v = (blasint)a->d_v;
	const float *k = g->k + (at - g->all.from) * a->d_k, *v = g->v + (at - g->all.from) * a->d_v;

	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, (blasint)n, d_k, a->scale, t->q, d_k, k, d_k, 0, t->s, BLOCK);
	for (size_t r = 0; r < tokens * g->heads; r++) {
		struct kv_span see = g->see[first + r / g->heads];

		soften(a, t->s + r * BLOCK, n, clip(see.from, at, n), clip(see.to, at, n), &t->top[r], &t->sum[r], t->o + r * a->d_v);
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, d_v, (blasint)n, 1, t->s, BLOCK, v, d_v, 1, t->o, d_v);
}

static void
attend_tile(void *arg, size_t item, unsigned thread)
{
	const struct group *g = arg;
	const struct kv_attn *a = g->a;
	struct tile *t = &g->tile[thread];
	size_t first = item * g->tokens, tokens = g->m - first < g->tokens ? g->m - first : g->tokens;
	struct kv_span see = g->see[first];

	for (size_t i = 0; i < tokens; i++) {
		memcpy(t->q + i * g->heads * a->d_k, g->q + (first + i) * a->heads * a->d_k, g->heads * a->d_k * sizeof *t->q);
		if (g->see[first + i].from < see.from)
			see.from = g->see[first + i].from;
		if (g->see[first + i].to > see.to)
			see.to = g->see[first + i].to;
	}
	memset(t->o, 0, tokens * g->heads * a->d_v * sizeof *t->o);
	for (size_t r = 0; r < tokens * g->heads; r++) {
		t->top[r] = -FLT_MAX;
		t->sum[r] = 0;
	}
	for (size_t at = see.from; at < see.to; at += BLOCK)
		attend_block(g, t, first, tokens, at, see.to - at < BLOCK ? see.to - at : BLOCK);
	for (size_t r = 0; r < tokens * g->heads; r++)
		if (t->sum[r] > 0)
			scale_row(t->o + r * a->d_v, a->d_v, (float)(1 / t->sum[r]));
	for (size_t i = 0; i < tokens; i++)
		memcpy(g->out + (first + i) * a->heads * a->d_v, t->o + i * g->heads * a->d_v, g->heads * a->d_v * sizeof *t->o);
}

static bool
attend_group(struct kv_pool *pool, struct group *g)
{
	size_t n;
	bool done;

	g->all = (struct kv_span){ SIZE_MAX, 0 };
	for (size_t i = 0; i < g->m; i++) {
		g->see[i] = kv_attn_visible(g->a, g->l, i);
		if (g->see[i].from < g->all.from)
			g->all.from = g->see[i].from;
		if (g->see[i].to > g->all.to)
			g->all.to = g->see[i].to;
	}
	n = g->all.to > g->all.from ? g->all.to - g->all.from : 0;
	g->k = kv_block_new(n, g->a->d_k * sizeof *g->k);
	g->v = kv_block_new(n, g->a->d_v * sizeof *g->v);
	if ((done = g->k && g->v)) {
		kv_pool_run(pool, (n + PREPARE - 1) / PREPARE, prepare, g);
		kv_pool_run(pool, (g->m + g->tokens - 1) / g->tokens, attend_tile, g);
	}
	kv_block_free(g->k);
	kv_block_free(g->v);
	return done;
}

bool
kv_generic_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	struct group g = { .a = a, .m = m, .heads = a->heads / a->kv_heads };
	unsigned threads = kv_pool_threads(pool);
	bool done = true;

	openblas_set_num_threads(1);
	if (m == 1)
		return kv_attend_one(pool, a, q, out);
	g.tokens = g.heads < TILE ? TILE / g.heads : 1;
	g.see = kv_array_new(m, sizeof *g.see);
	g.tile = kv_array_new(threads, sizeof *g.tile);
	for (unsigned i = 0; g.tile && i < threads; i++)
		done &= tile_new(&g.tile[i], g.tokens * g.heads, a->d_k, a->d_v);
	done &= g.see && g.tile;
	for (size_t h = 0; done && h < a->kv_heads; h++) {
		g.l = &a->list[h];
		g.q = q + h * g.heads * a->d_k;
		g.out = out + h * g.heads * a->d_v;
		done = attend_group(pool, &g);
	}
	for (unsigned i = 0; g.tile && i < threads; i++)
		tile_free(&g.tile[i]);
	free(g.tile);
	free(g.see);
	return done;
}
