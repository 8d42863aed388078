/*
 * Attention of a batch by tiles. Scores must not suffer from bf16: keys and queries are each the sum of two numbers in bf16, and only the product
 * of the two small ones is left out, some 2^-16 of the whole. Values and the weights that multiply them are rounded to bf16; sums of
 * weights, and what entries receive, are of the weights before.
 */
#include "kernel/ops.h"

#if defined __AMX_BF16__
#include "kernel/amx.h"
#include "kernel/flash.h"

enum { SIDE = KV_AMX_SIDE, DEPTH = KV_AMX_DEPTH, TILE = KV_AMX_TILE, SQUARE = KV_AMX_BLOCK, STEPS = KV_ATTN_BLOCK / DEPTH };

/* 32 numbers as the sum of two in bf16. */
static inline void
split(const float *x, uint16_t *high, uint16_t *low)
{
	const __m512i mask = _mm512_set1_epi32((int32_t)0xffff0000);
	__m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + SIDE);
	__m512 p = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), mask));
	__m512 q = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(b), mask));

	_mm512_storeu_si512(high, kv_amx_narrow(p, q));
	_mm512_storeu_si512(low, kv_amx_narrow(_mm512_sub_ps(a, p), _mm512_sub_ps(b, q)));
}

/* Sixteen rows [16][d] as left tiles [2][d / 32]: what is high, then what is low. */
static void
split_queries(const float *x, size_t d, uint16_t *tiles)
{
	for (size_t k = 0; k < d / DEPTH; k++)
		for (size_t r = 0; r < SIDE; r++)
			split(x + r * d + k * DEPTH, tiles + k * TILE + r * DEPTH, tiles + (d / DEPTH + k) * TILE + r * DEPTH);
}

/* 32 keys [32][d] as right tiles [2][d / 32][2]. */
static void
split_keys(const float *x, size_t d, uint16_t *tiles)
{
	uint16_t part[2][TILE];

	for (size_t side = 0; side < 2; side++)
		for (size_t k = 0; k < d / DEPTH; k++) {
			for (size_t r = 0; r < SIDE; r++)
				split(x + (side * SIDE + r) * d + k * DEPTH, part[0] + r * DEPTH, part[1] + r * DEPTH);
			for (size_t i = 0; i < 2; i++)
				kv_amx_turn(part[i], tiles + ((i * (d / DEPTH) + k) * 2 + side) * TILE);
		}
}

/* 32 values [32][d] as right tiles [d / 16]. */
static void
narrow_values(const float *x, size_t d, uint16_t *tiles)
{
	for (size_t c = 0; c < d; c += SIDE, tiles += TILE)
		for (size_t j = 0; j < DEPTH; j += 2)
			_mm512_storeu_si512(tiles + j / 2 * DEPTH, kv_amx_pairs(_mm512_loadu_ps(x + j * d + c), _mm512_loadu_ps(x + (j + 1) * d + c)));
}

static void
pack_tiles(const struct kv_attn_group *g, struct kv_span s, float *scratch)
{
	size_t d_k = g->a->d_k, d_v = g->a->d_v;
	uint16_t *k = (uint16_t *)(void *)g->k, *v = (uint16_t *)(void *)g->v;

	for (struct kv_span x = { s.from, s.from + PANEL }; x.from < s.to; x.from += PANEL, x.to += PANEL) {
		size_t n = (x.to < s.to ? x.to : s.to) - x.from, at = x.from - g->all.from;

		x.to = x.from + n;
		kv_attn_keys(g->a, g->l, x, scratch);
		memset(scratch + n * d_k, 0, (PANEL - n) * d_k * sizeof *scratch);
		for (size_t j = 0; j < PANEL; j += DEPTH)
			split_keys(scratch + j * d_k, d_k, k + (at + j) * 2 * d_k);
		kv_attn_values(g->a, g->l, x, scratch);
		memset(scratch + n * d_v, 0, (PANEL - n) * d_v * sizeof *scratch);
		for (size_t j = 0; j < PANEL; j += DEPTH)
			narrow_values(scratch + j * d_v, d_v, v + (at + j) * d_v);
	}
}

/* The tile's queries where they are: two numbers in bf16 take the room of one in f32. */
static void
pack_queries(const struct kv_attn_group *g, struct kv_attn_tile *t)
{
	size_t d = g->a->d_k;

	for (size_t r = 0; r < t->rows; r += SIDE) {
		memcpy(t->scratch, t->q + r * d, SIDE * d * sizeof *t->q);
		split_queries(t->scratch, d, (uint16_t *)(void *)(t->q + r * d));
	}
}

/* s [32] rows, LD apart: scores of as many queries with keys [lo, end) */
static void
score(const uint16_t *q, const uint16_t *k, size_t d, size_t lo, size_t end, float *s)
{
	size_t steps = d / DEPTH, below = 2 * steps * TILE, low = steps * TILE;

	for (size_t j = lo; j < end; j += SQUARE) {
		const uint16_t *keys = k + j * 2 * d;

		kv_amx_clear();
		kv_amx_multiply(q, below, keys + 2 * low, 2 * TILE, steps);
		kv_amx_multiply(q + low, below, keys, 2 * TILE, steps);
		kv_amx_multiply(q, below, keys, 2 * TILE, steps);
		kv_amx_store(s + j, LD);
	}
}

/* o [32][d] = by times o, plus the weights s of entries [lo, end) times their values */
static void
weigh(const float *s, size_t lo, size_t end, const uint16_t *v, size_t d, const float *by, float *o)
{
	_Alignas(64) uint16_t weights[2][STEPS][TILE];
	size_t next = d / SIDE * TILE;

	for (size_t r = 0; r < SQUARE; r++) {
		for (size_t j = lo; j < end; j += DEPTH)
			_mm512_storeu_si512(weights[r / SIDE][(j - lo) / DEPTH] + r % SIDE * DEPTH,
				kv_amx_narrow(_mm512_loadu_ps(s + r * LD + j), _mm512_loadu_ps(s + r * LD + j + SIDE)));
		for (size_t c = 0; by[r] != 1 && c < d; c += SIDE)
			kv_store(o + r * d + c, kv_splat(by[r]) * kv_load(o + r * d + c));
	}
	KV_AMX_STORED();
	for (size_t c = 0; c < d; c += SQUARE) {
		kv_amx_load(o + c, d);
		kv_amx_multiply(weights[0][0], STEPS * TILE, v + lo / DEPTH * next + c / SIDE * TILE, next, (end - lo) / DEPTH);
		kv_amx_store(o + c, d);
	}
}

static void
attend_by_tiles(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x)
{
	size_t rank = x.at - g->all.from, d_k = g->a->d_k, d_v = g->a->d_v;
	const uint16_t *q = (const uint16_t *)(const void *)t->q, *k = (const uint16_t *)(const void *)g->k + rank * 2 * d_k;
	const uint16_t *v = (const uint16_t *)(const void *)g->v + rank * d_v;

	if (!x.b)
		pack_queries(g, t);
	KV_AMX_STORED();
	kv_amx_begin();
	for (size_t r = 0; r < t->tokens * g->heads; r += SQUARE) {
		struct kv_span see = rows_see(g, t, x, r, SQUARE);
		size_t end = (see.to + PANEL - 1) / PANEL * PANEL;
		float *s = t->s + (x.b % t->blocks * t->rows + r) * LD, by[SQUARE];

		if (see.from >= see.to)
			continue;
		score(q + r * 2 * d_k, k, d_k, see.from, end, s);
		soften_rows(g, t, x, r, SQUARE, see.from, end, by);
		weigh(s, see.from, end, v, d_v, by, t->o + r * d_v);
	}
	kv_amx_end();
}

static const struct kv_attn_level tiles = { SQUARE, PANEL, KV_LANES, pack_tiles, attend_by_tiles, receive };

/* One token, and heads that do not fill tiles, go as at the level avx512. */
bool
kv_amx_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	bool fits = a->d_k % DEPTH == 0 && a->d_v % SQUARE == 0;

	return m == 1 ? kv_avx2_attend(pool, a, q, m, out) : kv_attend_batch(pool, a, fits ? &tiles : &flash, q, m, out);
}
#endif
