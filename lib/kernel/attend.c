/* Attention of a batch: what goes in tiles and blocks, in which order, and where the sums go. The same for all levels. */
#include "kernel/attend_batch.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/clones.h"
#include "kernel/expf.h"
#include "util/mem.h"

enum {
	BLOCK = KV_ATTN_BLOCK,
	ROWS = 192,		/* of a tile, about */
	PREPARE = 256,		/* entries in one item of packing */
	STORED = 1 << 18,	/* weights that a tile keeps, at most, until they can be summed: about a cache */
	WAVE = 16,		/* tiles whose sums are kept apart, so that they can be added in order */
	PIECE = 4096,		/* entries in one item of adding up */
};

struct batch {
	struct kv_attn_group g;
	const struct kv_attn_level *how;
	size_t tokens;			/* of a tile */
	size_t wave;			/* the first tile of the wave in hand */
	size_t tiles;			/* and how many it has */
	struct kv_attn_tile *tile;	/* [threads] */
	const struct kv_attn_sums *to;	/* what the list's entries received; NULL: not asked for */
	size_t parts;			/* sums of an entry: two if their mean is wanted, one for each head if those are */
	double *part;			/* [WAVE][parts][n] sums of each of the wave's tiles; NULL: one thread does them in order */
};

static size_t
round_up(size_t n, size_t to)
{
	return (n + to - 1) / to * to;
}

static void
tile_free(struct kv_attn_tile *t)
{
	kv_block_free(t->q);
	kv_block_free(t->s);
	kv_block_free(t->then);
	kv_block_free(t->o);
	kv_block_free(t->top);
	kv_block_free(t->sum);
	kv_block_free(t->share);
	kv_block_free(t->scratch);
}

static bool
tile_new(struct kv_attn_tile *t, const struct kv_attn *a, const struct kv_attn_level *how, size_t rows, size_t blocks)
{
	rows = round_up(rows, how->rows);
	t->rows = rows;
	t->blocks = blocks;
	t->q = kv_block_new(rows, a->d_k * sizeof *t->q);
	t->s = kv_block_new(blocks * rows, KV_ATTN_LD * sizeof *t->s);
	t->then = kv_block_new(blocks, rows * sizeof *t->then);
	t->o = kv_block_new(rows, round_up(a->d_v, how->lanes) * sizeof *t->o);
	t->top = kv_block_new(rows, sizeof *t->top);
	t->sum = kv_block_new(rows, sizeof *t->sum);
	t->share = kv_block_new(rows, sizeof *t->share);
	t->scratch = kv_block_new(how->panel, (a->d_k > a->d_v ? a->d_k : a->d_v) * sizeof *t->scratch);
	return t->q && t->s && t->then && t->o && t->top && t->sum && t->share && t->scratch;
}

static void
prepare(void *arg, size_t item, unsigned thread)
{
	const struct batch *b = arg;
	struct kv_span s = { b->g.all.from + item * PREPARE, b->g.all.from + (item + 1) * PREPARE };

	s.to = s.to < b->g.all.to ? s.to : b->g.all.to;
	b->how->pack(&b->g, s, b->tile[thread].scratch);
}

KV_CLONES static void
scale_row(const float *x, size_t n, float by, float *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] * by;
}

KV_CLONES static void
add_row(const double *x, size_t n, double *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
}

struct kv_span
kv_attn_who(const struct kv_attn_group *g, const struct kv_attn_tile *t, size_t at, size_t n)
{
	const struct kv_span *see = g->see + t->first;
	struct kv_span who = { 0, t->tokens };

	while (who.from < who.to && see[who.from].to <= at)
		who.from++;
	while (who.from < who.to && see[who.to - 1].from >= at + n)
		who.to--;
	return who;
}

void
kv_attn_shares(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_span tokens, size_t b)
{
	const float *then = t->then + b * t->rows;

	for (size_t r = tokens.from * g->heads; r < tokens.to * g->heads; r++)
		t->share[r] = t->sum[r] > 0 ? kv_expf(then[r] - t->top[r]) / (float)t->sum[r] : 0;
}

/* The sums of tile number i of a wave. */
static struct kv_attn_sums
part_of(const struct batch *b, size_t i)
{
	size_t n = b->g.l->n;
	double *p = b->part + i * b->parts * n;
	struct kv_attn_sums s = { 0 };

	if (b->to->sum) {
		s.sum = p;
		s.square = p + n;
		p += 2 * n;
	}
	if (b->to->by_head)
		s.by_head = p;
	return s;
}

static void
tile_begin(const struct kv_attn_group *g, struct kv_attn_tile *t, size_t lanes)
{
	const struct kv_attn *a = g->a;
	size_t rows = t->tokens * g->heads;

	for (size_t i = 0; i < t->tokens; i++)
		scale_row(g->q + (t->first + i) * a->heads * a->d_k, g->heads * a->d_k, a->scale, t->q + i * g->heads * a->d_k);
	memset(t->q + rows * a->d_k, 0, (t->rows - rows) * a->d_k * sizeof *t->q);
	memset(t->o, 0, t->rows * round_up(a->d_v, lanes) * sizeof *t->o);
	for (size_t r = 0; r < t->rows; r++) {
		t->top[r] = -FLT_MAX;
		t->sum[r] = 0;
	}
}

static void
tile_end(const struct kv_attn_group *g, const struct kv_attn_tile *t, size_t lanes)
{
	const struct kv_attn *a = g->a;

	for (size_t r = 0; r < t->tokens * g->heads; r++)
		scale_row(t->o + r * round_up(a->d_v, lanes), a->d_v, t->sum[r] > 0 ? (float)(1 / t->sum[r]) : 0,
			g->out + (t->first + r / g->heads) * a->heads * a->d_v + r % g->heads * a->d_v);
}

static void
attend_tile(void *arg, size_t item, unsigned thread)
{
	const struct batch *b = arg;
	const struct kv_attn_group *g = &b->g;
	struct kv_attn_tile *t = &b->tile[thread];
	struct kv_attn_block x = { 0 };
	struct kv_attn_sums to;
	size_t begin, end;

	t->first = (b->wave + item) * b->tokens;
	t->tokens = g->m - t->first < b->tokens ? g->m - t->first : b->tokens;
	begin = g->all.from + (g->see[t->first].from - g->all.from) / b->how->panel * b->how->panel;
	end = g->see[t->first + t->tokens - 1].to;
	tile_begin(g, t, b->how->lanes);
	for (x.at = begin; x.at < end; x.at += BLOCK, x.b++) {
		x.n = end - x.at < BLOCK ? end - x.at : BLOCK;
		b->how->attend(g, t, x);
	}
	tile_end(g, t, b->how->lanes);
	if (!b->to)
		return;
	to = b->part ? part_of(b, item) : *b->to;
	if (b->part)
		memset(b->part + item * b->parts * g->l->n, 0, b->parts * g->l->n * sizeof *b->part);
	for (x = (struct kv_attn_block){ .at = begin }; x.at < end; x.at += BLOCK, x.b++) {
		x.n = end - x.at < BLOCK ? end - x.at : BLOCK;
		b->how->receive(g, t, x, &to);
	}
}

/* Adds the sums of a wave's tiles, in their order, to those of the list. */
static void
gather(void *arg, size_t item, unsigned thread)
{
	const struct batch *b = arg;
	size_t all = b->g.l->n, at = item * PIECE, n = all - at < PIECE ? all - at : PIECE;

	(void)thread;
	for (size_t t = 0; t < b->tiles; t++) {
		struct kv_attn_sums part = part_of(b, t);

		if (part.sum) {
			add_row(part.sum + at, n, b->to->sum + at);
			add_row(part.square + at, n, b->to->square + at);
		}
		for (size_t h = 0; part.by_head && h < b->g.heads; h++)
			add_row(part.by_head + h * all + at, n, b->to->by_head + h * all + at);
	}
}

static void
attend_tiles(struct kv_pool *pool, struct batch *b)
{
	size_t all = (b->g.m + b->tokens - 1) / b->tokens, most = b->part ? WAVE : all;

	for (b->wave = 0; b->wave < all; b->wave += most) {
		b->tiles = all - b->wave < most ? all - b->wave : most;
		kv_pool_run(pool, b->tiles, attend_tile, b);
		if (b->part)
			kv_pool_run(pool, (b->g.l->n + PIECE - 1) / PIECE, gather, b);
	}
}

static void
look(struct kv_attn_group *g)
{
	g->all = (struct kv_span){ SIZE_MAX, 0 };
	for (size_t i = 0; i < g->m; i++) {
		g->see[i] = kv_attn_visible(g->a, g->l, i);
		g->all.from = g->see[i].from < g->all.from ? g->see[i].from : g->all.from;
		g->all.to = g->see[i].to > g->all.to ? g->see[i].to : g->all.to;
	}
	if (g->all.from > g->all.to)
		g->all.from = g->all.to;
}

static bool
attend_group(struct kv_pool *pool, struct batch *b)
{
	struct kv_attn_group *g = &b->g;
	size_t n, padded;
	bool done, apart;

	look(g);
	n = g->all.to - g->all.from;
	padded = round_up(n, b->how->panel);
	b->parts = b->to ? (b->to->sum ? 2 : 0) + (b->to->by_head ? g->heads : 0) : 0;
	g->k = kv_block_new(padded, g->a->d_k * sizeof *g->k);
	g->v = kv_block_new(padded, round_up(g->a->d_v, b->how->lanes) * sizeof *g->v);
	apart = b->to && kv_pool_threads(pool) > 1;
	b->part = apart ? kv_block_new(g->l->n, WAVE * b->parts * sizeof *b->part) : NULL;
	if ((done = g->k && g->v && (b->part || !apart))) {
		kv_pool_run(pool, (n + PREPARE - 1) / PREPARE, prepare, b);
		attend_tiles(pool, b);
	}
	kv_block_free(g->k);
	kv_block_free(g->v);
	kv_block_free(b->part);
	return done;
}

/* Tokens of a tile, and the blocks that it keeps. Sums are asked for: as many tokens as leave room for their weights. */
static size_t
size_tile(const struct kv_attn *a, size_t heads, size_t *blocks)
{
	size_t tokens = heads < ROWS ? ROWS / heads : 1, most = 1;

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
kv_attend_batch(struct kv_pool *pool, const struct kv_attn *a, const struct kv_attn_level *how, const float *q, size_t m, float *out)
{
	struct batch b = { .g = { .a = a, .m = m, .heads = a->heads / a->kv_heads }, .how = how };
	unsigned threads = kv_pool_threads(pool);
	size_t blocks;
	bool done = true;

	b.tokens = size_tile(a, b.g.heads, &blocks);
	b.g.see = kv_array_new(m, sizeof *b.g.see);
	b.tile = kv_array_new(threads, sizeof *b.tile);
	for (unsigned i = 0; b.tile && i < threads; i++)
		done &= tile_new(&b.tile[i], a, how, b.tokens * b.g.heads, blocks);
	done &= b.g.see && b.tile;
	for (size_t h = 0; done && h < a->kv_heads; h++) {
		b.g.l = &a->list[h];
		b.g.q = q + h * b.g.heads * a->d_k;
		b.g.out = out + h * b.g.heads * a->d_v;
		b.to = a->received ? &a->received[h] : NULL;
		done = attend_group(pool, &b);
	}
	for (unsigned i = 0; b.tile && i < threads; i++)
		tile_free(&b.tile[i]);
	free(b.tile);
	free(b.g.see);
	return done;
}
