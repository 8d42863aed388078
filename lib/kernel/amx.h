/*
 * What the files of the level amx share. Included by them alone.
 *
 * A tile is 16 rows of 64 bytes. A product of tiles adds to sums [16 rows][16 columns] in f32 the products of 32 numbers in bf16 each: those of the
 * left tile [16 rows][32] and of the right one, whose rows are pairs of numbers of every column, [16 pairs][16 columns][2].
 */
#ifndef KV_KERNEL_AMX_H
#define KV_KERNEL_AMX_H

#if defined __AMX_BF16__
#include <immintrin.h>

#include "kernel/avx2.h"

enum {
	KV_AMX_SIDE = 16,			/* rows of a tile, columns of sums */
	KV_AMX_DEPTH = 32,			/* numbers that one product takes */
	KV_AMX_TILE = KV_AMX_SIDE * KV_AMX_DEPTH,	/* numbers of a tile in bf16 */
	KV_AMX_BLOCK = 2 * KV_AMX_SIDE,		/* sums are made in 2 x 2 tiles: so many rows and columns */
};

bool kv_amx_matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add);
bool kv_amx_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);

/*
 * Tiles must be configured in every thread that uses them, and are given back so that they need not be saved when threads change. (The
 * table is constant: to gcc 12 _tile_loadconfig reads eight bytes of it, and stores to the others may be lost.)
 */
static inline void
kv_amx_begin(void)
{
	static const struct {
		_Alignas(64) uint8_t palette;
		uint8_t start_row, reserved[14];
		uint16_t row_bytes[16];
		uint8_t rows[16];
	} all = { 1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 } };

	_Static_assert(sizeof all == 64, "the layout of the instruction");
	_tile_loadconfig(&all);
}

static inline void
kv_amx_end(void)
{
	_tile_release();
}

/* Between stores and tiles that load what was stored: gcc 12 does not know that they read memory. */
#define KV_AMX_STORED() __asm__ volatile("" ::: "memory")

/* 32 numbers in bf16, rounded to nearest even; NaN stays NaN, what is subnormal becomes 0. */
static inline __m512i
kv_amx_narrow(__m512 first, __m512 last)
{
	return (__m512i)_mm512_cvtne2ps_pbh(last, first);
}

/* a and b of sixteen columns as pairs: a row of a right tile. */
static inline __m512i
kv_amx_pairs(__m512 a, __m512 b)
{
	const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
		17, 1, 16, 0);

	return _mm512_permutexvar_epi16(turns, kv_amx_narrow(a, b));
}

/* Rows [16][32] of a left tile as columns: a right tile. */
static inline void
kv_amx_turn(const uint16_t *rows, uint16_t *tile)
{
	enum { HALF = KV_AMX_DEPTH / 2 };

	for (size_t i = 0; i < KV_AMX_SIDE; i += 8)
		for (size_t j = 0; j < KV_AMX_DEPTH; j += HALF) {
			__m256i r[8];

			for (size_t k = 0; k < 8; k++)
				r[k] = _mm256_loadu_si256((const __m256i *)(const void *)(rows + (i + k) * KV_AMX_DEPTH + j));
			kv_avx2_transpose(r);
			for (size_t k = 0; k < 8; k++)
				_mm256_storeu_si256((__m256i *)(void *)(tile + (j / 2 + k) * KV_AMX_DEPTH + 2 * i), r[k]);
		}
}

/* Sums of two by two tiles, ld floats from row to row: tiles 0 to 3. */
static inline void
kv_amx_load(const float *sum, size_t ld)
{
	_tile_loadd(0, sum, ld * sizeof *sum);
	_tile_loadd(1, sum + KV_AMX_SIDE, ld * sizeof *sum);
	_tile_loadd(2, sum + KV_AMX_SIDE * ld, ld * sizeof *sum);
	_tile_loadd(3, sum + KV_AMX_SIDE * ld + KV_AMX_SIDE, ld * sizeof *sum);
}

static inline void
kv_amx_store(float *sum, size_t ld)
{
	_tile_stored(0, sum, ld * sizeof *sum);
	_tile_stored(1, sum + KV_AMX_SIDE, ld * sizeof *sum);
	_tile_stored(2, sum + KV_AMX_SIDE * ld, ld * sizeof *sum);
	_tile_stored(3, sum + KV_AMX_SIDE * ld + KV_AMX_SIDE, ld * sizeof *sum);
}

static inline void
kv_amx_clear(void)
{
	_tile_zero(0);
	_tile_zero(1);
	_tile_zero(2);
	_tile_zero(3);
}

/*
 * To the sums the products of `steps` left tiles, one behind another, and of those `below`, with pairs of right tiles, `next` numbers from pair
 * to pair.
 */
static inline __attribute__((always_inline)) void
kv_amx_multiply(const uint16_t *left, size_t below, const uint16_t *right, size_t next, size_t steps)
{
	for (; steps; steps--, left += KV_AMX_TILE, right += next) {
		_tile_loadd(4, left, 64);
		_tile_loadd(6, right, 64);
		_tile_dpbf16ps(0, 4, 6);
		_tile_loadd(7, right + KV_AMX_TILE, 64);
		_tile_dpbf16ps(1, 4, 7);
		_tile_loadd(5, left + below, 64);
		_tile_dpbf16ps(2, 5, 6);
		_tile_dpbf16ps(3, 5, 7);
	}
}

#endif
#endif
