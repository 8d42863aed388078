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
	STORED = 1 << 22,	/* weights that a tile keeps, at most, until they can be summed */
	WAVE = 16,	/* tiles whose sums are kept apart, so that they can be added in order */
	FOLD = 4,	/* tokens whose weights are added in f32, before they go into a sum in f64 */
	PIECE = 4096,	/* entries in one item of adding up */
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
	const struct kv_attn_sums *to;	/* what the list's entries received; NULL: not asked for */
	size_t first, tiles;	/* the wave in hand */
	double *part;		/* [WAVE][parts][all.to - all.from] sums of each of its tiles; NULL: not asked for */
	size_t parts;		/* sum and square if they are wanted, then by_head if it is */
};

struct tile {
	size_t rows, blocks;	/* blocks whose weights are kept: 1, or all if sums are asked for */
	float *q;		/* [rows][d_k] row = token * heads + head */
	float *s;		/* [blocks][rows][BLOCK] scores, then weights … */
	float *then;		/* [blocks][rows] … relative to this maximum */
	float *o;		/* [rows][d_v] weighted values so far … */
	float *top;		/* [rows] … relative to this maximum */
	double *sum;		/* [rows] of the weights */
	float *share;		/* [rows] what a weight counts: 1 / the row's sum, at the row's maximum */
	float *mean;		/* [FOLD][BLOCK] */
};

static void
tile_free(struct tile *t)
{
	kv_block_free(t->q);
	kv_block_free(t->s);
	kv_block_free(t->then);
	kv_block_free(t->o);
	kv_block_free(t->top);
	kv_block_free(t->sum);
	kv_block_free(t->share);
	kv_block_free(t->mean);
}

static bool
tile_new(struct tile *t, size_t rows, size_t blocks, size_t d_k, size_t d_v)
{
	t->rows = rows;
	t->blocks = blocks;
	t->q = kv_block_new(rows, d_k * sizeof *t->q);
	t->s = kv_block_new(blocks * rows, BLOCK * sizeof *t->s);
	t->then = kv_block_new(blocks, rows * sizeof *t->then);
	t->o = kv_block_new(rows, d_v * sizeof *t->o);
	t->top = kv_block_new(rows, sizeof *t->top);
	t->sum = kv_block_new(rows, sizeof *t->sum);
	t->share = kv_block_new(rows, sizeof *t->share);
	t->mean = kv_block_new(FOLD, BLOCK * sizeof *t->mean);
	return t->q && t->s && t->then && t->o && t->top && t->sum && t->share && t->mean;
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

/* Block b of keys, ranks at … at + n - 1, for the tokens first … first + tokens - 1 of a tile. */
static void
attend_block(const struct group *g, struct tile *t, size_t first, size_t tokens, size_t b, size_t at, size_t n)
{
	const struct kv_attn *a = g->a;
	blasint rows = (blasint)(tokens * g->heads), d_k = (blasint)a->d_k, d_v = (blasint)a->d_v;
	const float *k = g->k + (at - g->all.from) * a->d_k, *v = g->v + (at - g->all.from) * a->d_v;
	float *s = t->s + b % t->blocks * t->rows * BLOCK;

	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, (blasint)n, d_k, a->scale, t->q, d_k, k, d_k, 0, s, BLOCK);
	for (size_t r = 0; r < tokens * g->heads; r++) {
		struct kv_span see = g->see[first + r / g->heads];

		soften(a, s + r * BLOCK, n, clip(see.from, at, n), clip(see.to, at, n), &t->top[r], &t->sum[r], t->o + r * a->d_v);
		t->then[b % t->blocks * t->rows + r] = t->top[r];
	}
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, d_v, (blasint)n, 1, s, BLOCK, v, d_v, 1, t->o, d_v);
}

/* sum and square [n] take FOLD tokens' weights, mean [FOLD][BLOCK]. */
KV_CLONES static void
fold(const float *mean, size_t n, double *sum, double *square)
{
	const float *a = mean, *b = mean + BLOCK, *c = mean + 2 * BLOCK, *d = mean + 3 * BLOCK;

	for (size_t j = 0; j < n; j++) {
		sum[j] += (double)((a[j] + b[j]) + (c[j] + d[j]));
		square[j] += (double)((a[j] * a[j] + b[j] * b[j]) + (c[j] * c[j] + d[j] * d[j]));
	}
}

/* sum [n] += share_i w_i over so many tokens, whose rows stand ld apart; FOLD of them in f32. */
KV_CLONES static void
add_head(const float *w, size_t ld, const float *share, size_t apart, size_t tokens, size_t n, double *sum)
{
	for (size_t i = 0; i < tokens; i += FOLD) {
		const float *a = w + i * ld, *b = i + 1 < tokens ? a + ld : a, *c = i + 2 < tokens ? a + 2 * ld : a, *d = i + 3 < tokens ? a + 3 * ld : a;
		float sa = share[i * apart], sb = b == a ? 0 : share[(i + 1) * apart], sc = c == a ? 0 : share[(i + 2) * apart];
		float sd = d == a ? 0 : share[(i + 3) * apart];

		for (size_t j = 0; j < n; j++)
			sum[j] += (double)((sa * a[j] + sb * b[j]) + (sc * c[j] + sd * d[j]));
	}
}

/* What the n entries of block b receive from a tile of so many tokens, now that all maxima and sums are known; part [parts], ld apart. */
static void
sum_block(const struct group *g, const struct tile *t, size_t tokens, size_t b, size_t n, double *part, size_t ld)
{
	const float *s = t->s + b * t->rows * BLOCK, *then = t->then + b * t->rows;
	size_t by_head = g->to->sum ? 2 : 0;

	_Static_assert(FOLD == 4, "fold and add_head take four");
	for (size_t r = 0; r < tokens * g->heads; r++)
		t->share[r] = t->sum[r] > 0 ? kv_expf(then[r] - t->top[r]) / (float)t->sum[r] : 0;
	for (size_t h = 0; g->to->by_head && h < g->heads; h++)
		add_head(s + h * BLOCK, g->heads * BLOCK, t->share + h, g->heads, tokens, n, part + (by_head + h) * ld);
	for (size_t i = 0; g->to->sum && i < tokens; i += FOLD) {
		for (size_t k = 0; k < FOLD; k++)
			if (i + k < tokens)
				kv_attn_mean(s + (i + k) * g->heads * BLOCK, BLOCK, g->heads, t->share + (i + k) * g->heads, n, t->mean + k * BLOCK);
			else
				memset(t->mean + k * BLOCK, 0, n * sizeof *t->mean);
		fold(t->mean, n, part, part + ld);
	}
}

static void
sum_tile(const struct group *g, const struct tile *t, size_t tokens, struct kv_span see, double *part)
{
	size_t n = g->all.to - g->all.from;

	memset(part, 0, g->parts * n * sizeof *part);
	for (size_t at = see.from, b = 0; at < see.to; at += BLOCK, b++)
		sum_block(g, t, tokens, b, see.to - at < BLOCK ? see.to - at : BLOCK, part + (at - g->all.from), n);
}

static void
attend_tile(void *arg, size_t item, unsigned thread)
{
	const struct group *g = arg;
	const struct kv_attn *a = g->a;
	struct tile *t = &g->tile[thread];
	size_t first = (g->first + item) * g->tokens, tokens = g->m - first < g->tokens ? g->m - first : g->tokens;
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
	for (size_t at = see.from, b = 0; at < see.to; at += BLOCK, b++)
		attend_block(g, t, first, tokens, b, at, see.to - at < BLOCK ? see.to - at : BLOCK);
	for (size_t r = 0; r < tokens * g->heads; r++)
		if (t->sum[r] > 0)
			scale_row(t->o + r * a->d_v, a->d_v, (float)(1 / t->sum[r]));
	for (size_t i = 0; i < tokens; i++)
		memcpy(g->out + (first + i) * a->heads * a->d_v, t->o + i * g->heads * a->d_v, g->heads * a->d_v * sizeof *t->o);
	if (g->part)
		sum_tile(g, t, tokens, see, g->part + item * g->parts * (g->all.to - g->all.from));
}

/* Where sum p of the list goes. */
static double *
sum_of(const struct group *g, size_t p)
{
	if (g->to->sum && p < 2)
		return (p ? g->to->square : g->to->sum) + g->all.from;
	return g->to->by_head + (p - (g->to->sum ? 2 : 0)) * g->l->n + g->all.from;
}

/* Adds the sums of a wave's tiles, in their order, to those of the list. */
static void
gather(void *arg, size_t item, unsigned thread)
{
	const struct group *g = arg;
	size_t n = g->all.to - g->all.from, end = (item + 1) * PIECE < n ? (item + 1) * PIECE : n;

	(void)thread;
	for (size_t t = 0; t < g->tiles; t++)
		for (size_t p = 0; p < g->parts; p++) {
			const double *part = g->part + (t * g->parts + p) * n;
			double *sum = sum_of(g, p);

			for (size_t j = item * PIECE; j < end; j++)
				sum[j] += part[j];
		}
}

static void
attend_tiles(struct kv_pool *pool, struct group *g)
{
	size_t n = g->all.to - g->all.from, all = (g->m + g->tokens - 1) / g->tokens, wave = g->part ? WAVE : all;

	for (g->first = 0; g->first < all; g->first += wave) {
		g->tiles = all - g->first < wave ? all - g->first : wave;
		kv_pool_run(pool, g->tiles, attend_tile, g);
		if (g->part)
			kv_pool_run(pool, (n + PIECE - 1) / PIECE, gather, g);
	}
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
	if (g->all.from > g->all.to)
		g->all.from = g->all.to;
	n = g->all.to - g->all.from;
	g->k = kv_block_new(n, g->a->d_k * sizeof *g->k);
	g->v = kv_block_new(n, g->a->d_v * sizeof *g->v);
	g->part = g->to ? kv_block_new(n, WAVE * g->parts * sizeof *g->part) : NULL;
	if ((done = g->k && g->v && (g->part || !g->to))) {
		kv_pool_run(pool, (n + PREPARE - 1) / PREPARE, prepare, g);
		attend_tiles(pool, g);
	}
	kv_block_free(g->k);
	kv_block_free(g->v);
	kv_block_free(g->part);
	return done;
}

/* Tokens of a tile, and the blocks that it keeps. Sums are asked for: as many tokens as leave room for their weights. */
static size_t
size_tile(const struct kv_attn *a, size_t heads, size_t *blocks)
{
	size_t tokens = heads < TILE ? TILE / heads : 1, most = 1;

	*blocks = 1;
	if (!a->received)
		return tokens;
	for (size_t h = 0; h < a->kv_heads; h++)
		most = a->list[h].n > most ? a->list[h].n : most;
	*blocks = (most + BLOCK - 1) / BLOCK;
	while (tokens > 1 && tokens * heads * *blocks * BLOCK > STORED)
		tokens /= 2;
	return tokens;
}

bool
kv_generic_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	struct group g = { .a = a, .m = m, .heads = a->heads / a->kv_heads };
	unsigned threads = kv_pool_threads(pool);
	size_t blocks;
	bool done = true;

	openblas_set_num_threads(1);
	if (m == 1)
		return kv_attend_one(pool, a, &kv_attn_generic, q, out);
	g.tokens = size_tile(a, g.heads, &blocks);
	g.see = kv_array_new(m, sizeof *g.see);
	g.tile = kv_array_new(threads, sizeof *g.tile);
	for (unsigned i = 0; g.tile && i < threads; i++)
		done &= tile_new(&g.tile[i], g.tokens * g.heads, blocks, a->d_k, a->d_v);
	done &= g.see && g.tile;
	for (size_t h = 0; done && h < a->kv_heads; h++) {
		g.l = &a->list[h];
		g.q = q + h * g.heads * a->d_k;
		g.out = out + h * g.heads * a->d_v;
		g.to = a->received ? &a->received[h] : NULL;
		g.parts = g.to ? (g.to->sum ? 2 : 0) + (g.to->by_head ? g.heads : 0) : 0;
		done = attend_group(pool, &g);
	}
	for (unsigned i = 0; g.tile && i < threads; i++)
		tile_free(&g.tile[i]);
	free(g.tile);
	free(g.see);
	return done;
}
