/*
 * Products for a batch by tiles: the tokens are the left operand, in bf16 once for the whole product; a panel of 32 rows of weights is the
 * right one, unpacked from the mapping a chunk of inputs at a time, which stays in the nearest cache for all tokens. Sums are f32, and wait in
 * y while the next chunk is unpacked.
 */
#include "kernel/ops.h"

#if defined __AMX_BF16__
#include <string.h>

#include "kernel/amx.h"
#include "kernel/quant.h"
#include "util/mem.h"

enum { SIDE = KV_AMX_SIDE, DEPTH = KV_AMX_DEPTH, TILE = KV_AMX_TILE, BLOCK = KV_AMX_BLOCK, MOST = 18 };	/* MOST: steps of DEPTH inputs in a chunk */

struct scratch {
	_Alignas(64) uint16_t panel[MOST][2][TILE];	/* right tiles */
	uint16_t rows[TILE];				/* a left tile of weights */
	float numbers[SIDE][MOST * DEPTH];		/* rows of weights that are numbers, … */
	struct kv_avx2_panel codes[MOST];		/* … or those that are codes */
	float sums[BLOCK][BLOCK];			/* what does not fit y */
};

struct batch {
	const struct kv_weight *w;
	const float *x;		/* [m][n_in] */
	uint16_t *left;		/* [m, in blocks of 32 / 16][steps][TILE] x as left tiles; what is missing is 0 */
	size_t m, steps, chunk;	/* chunk: steps at a time */
	float *y;		/* [m][n_out] */
	bool add;
	struct scratch *scratch;	/* [threads] */
};

/* Inputs of sixteen tokens, item by item. */
static void
pack(void *arg, size_t item, unsigned thread)
{
	const struct batch *z = arg;
	size_t first = item * SIDE, tokens = first >= z->m ? 0 : z->m - first < SIDE ? z->m - first : SIDE, n = z->w->n_in;
	uint16_t *tile = z->left + item * z->steps * TILE;

	(void)thread;
	for (size_t k = 0; k < z->steps; k++, tile += TILE) {
		uint32_t there = n - k * DEPTH < DEPTH ? (1u << (n - k * DEPTH)) - 1 : UINT32_MAX;

		for (size_t t = 0; t < tokens; t++) {
			const float *x = z->x + (first + t) * n + k * DEPTH;
			__m512 a = _mm512_maskz_loadu_ps((__mmask16)(there & 0xffff), x), b = _mm512_maskz_loadu_ps((__mmask16)(there >> 16), x + 16);

			_mm512_storeu_si512(tile + t * DEPTH, kv_amx_narrow(a, b));
		}
		memset(tile + tokens * DEPTH, 0, (SIDE - tokens) * DEPTH * sizeof *tile);
	}
}

/* 32 inputs of sixteen rows of codes. */
static void
widen(const struct kv_avx2_panel *p, bool halves, uint16_t *tile)
{
	const __m512 m = halves ? _mm512_setzero_ps() : _mm512_loadu_ps(p->m);

	for (int k = 0; k < DEPTH / 4; k++) {
		const __m512 d = _mm512_loadu_ps(p->d[halves && k >= DEPTH / 8]);
		const __m512i q = _mm512_loadu_si512(p->q[k][0]);
		__m512 w[4];

		w[0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(q, 24), 24)), d, m);
		w[1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(q, 16), 24)), d, m);
		w[2] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(q, 8), 24)), d, m);
		w[3] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_srai_epi32(q, 24)), d, m);
		for (int i = 0; i < 2; i++)
			_mm512_storeu_si512(tile + (2 * k + i) * DEPTH, kv_amx_pairs(w[2 * i], w[2 * i + 1]));
	}
}

/* Steps [at, at + n) of sixteen rows, one behind another beside those of the other sixteen. */
static void
unpack_codes(const struct kv_weight *w, size_t first, size_t at, size_t n, struct scratch *s, size_t side)
{
	kv_avx2_unpack(w, first, at, n, s->codes);
	for (size_t k = 0; k < n; k++)
		widen(&s->codes[k], kv_avx2_codes(w->type) == KV_AVX2_HALVES, s->panel[k][side]);
}

static void
unpack_numbers(const struct kv_weight *w, size_t first, size_t at, size_t n, struct scratch *s, size_t side)
{
	const struct kv_wtype_info *type = kv_wtype_info(w->type);
	size_t width = w->n_in - at * DEPTH < n * DEPTH ? w->n_in - at * DEPTH : n * DEPTH;

	for (size_t r = 0; r < SIDE; r++) {
		size_t row = first + r < w->n_out ? first + r : w->n_out - 1;

		kv_dequant(w->type, w->data + row * w->row_bytes + at * DEPTH / type->values * type->bytes, width, s->numbers[r]);
		memset(s->numbers[r] + width, 0, (n * DEPTH - width) * sizeof *s->numbers[r]);
	}
	for (size_t k = 0; k < n; k++) {
		for (size_t r = 0; r < SIDE; r++) {
			const float *x = s->numbers[r] + k * DEPTH;

			_mm512_storeu_si512(s->rows + r * DEPTH, kv_amx_narrow(_mm512_loadu_ps(x), _mm512_loadu_ps(x + DEPTH / 2)));
		}
		kv_amx_turn(s->rows, s->panel[k][side]);
	}
}

/* What there is of a block of y into or out of [32][32]. */
static void
copy(const float *from, size_t ld_from, size_t rows, size_t columns, float *to, size_t ld_to)
{
	for (size_t i = 0; i < rows; i++)
		memcpy(to + i * ld_to, from + i * ld_from, columns * sizeof *to);
}

/* All tokens times the steps [at, at + n) of the panel, whose first row is `first`. */
static void
multiply(const struct batch *z, size_t first, size_t at, size_t n, struct scratch *s)
{
	size_t ld = z->w->n_out, columns = ld - first < BLOCK ? ld - first : BLOCK;
	bool go_on = z->add || at;

	for (size_t t = 0; t < z->m; t += BLOCK) {
		size_t tokens = z->m - t < BLOCK ? z->m - t : BLOCK;
		bool whole = tokens == BLOCK && columns == BLOCK;
		float *y = z->y + t * ld + first;

		if (!go_on) {
			kv_amx_clear();
		} else if (whole) {
			kv_amx_load(y, ld);
		} else {
			memset(s->sums, 0, sizeof s->sums);
			copy(y, ld, tokens, columns, s->sums[0], BLOCK);
			KV_AMX_STORED();
			kv_amx_load(s->sums[0], BLOCK);
		}
		kv_amx_multiply(z->left + (t / SIDE * z->steps + at) * TILE, z->steps * TILE, s->panel[0][0], 2 * TILE, n);
		if (whole) {
			kv_amx_store(y, ld);
		} else {
			kv_amx_store(s->sums[0], BLOCK);
			copy(s->sums[0], BLOCK, tokens, columns, y, ld);
		}
	}
}

static void
panel_rows(void *arg, size_t item, unsigned thread)
{
	const struct batch *z = arg;
	const struct kv_weight *w = z->w;
	struct scratch *s = z->scratch + thread;
	bool codes = kv_avx2_codes(w->type) != KV_AVX2_NONE;

	kv_amx_begin();
	for (size_t at = 0; at < z->steps; at += z->chunk) {
		size_t n = z->steps - at < z->chunk ? z->steps - at : z->chunk;

		for (size_t side = 0; side < 2; side++)
			(codes ? unpack_codes : unpack_numbers)(w, item * BLOCK + side * SIDE, at, n, s, side);
		KV_AMX_STORED();
		multiply(z, item * BLOCK, at, n, s);
	}
	kv_amx_end();
}

bool
kv_amx_matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add)
{
	size_t steps = (w->n_in + DEPTH - 1) / DEPTH, chunks = (steps + MOST - 1) / MOST, groups = (m + BLOCK - 1) / BLOCK * 2;
	struct batch z = { .w = w, .x = x, .m = m, .steps = steps, .chunk = (steps + chunks - 1) / chunks, .y = y, .add = add };
	bool done;

	z.left = kv_block_new(groups, steps * TILE * sizeof *z.left);
	z.scratch = kv_block_new(kv_pool_threads(pool), sizeof *z.scratch);
	if ((done = z.left && z.scratch)) {
		kv_pool_run(pool, groups, pack, &z);
		kv_pool_run(pool, (w->n_out + BLOCK - 1) / BLOCK, panel_rows, &z);
	}
	kv_block_free(z.left);
	kv_block_free(z.scratch);
	return done;
}
#endif
