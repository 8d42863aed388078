/*
 * Attention of a batch at the level avx512: scores are products of integers of sixteen bits, of which one instruction does twice as many as of
 * f32. Each query and each key has a scale of its own, by which its norm and its largest number are as large as they may be: no sum of products
 * leaves 32 bits (Cauchy and Schwarz), and the error is some 2^-16 of the norms' product. Of one token, as at avx2.
 */
#include "kernel/ops.h"

#if defined __AVX512VNNI__
#include <math.h>

#include "kernel/avx2.h"
#include "kernel/flash.h"

/* sqrt(2^31), less what rounding adds to the norm of at most 1,024 numbers; and the largest integer. */
static const float most_norm = 46300, most = 32767;

/* x [n], whole vectors, becomes integers, two in the room of each of the first n / 2 numbers. What one of them is worth; NaN if x is not finite. */
static float
to_integers(float *x, size_t n)
{
	kv_vec square = kv_splat(0), largest = kv_splat(0);
	float norm, by;

	for (size_t i = 0; i < n; i += KV_LANES) {
		kv_vec v = kv_load(x + i);

		square = kv_fma(v, v, square);
		largest = kv_larger(largest, _mm512_abs_ps(v));
	}
	norm = sqrtf(kv_lanes_sum(square));
	by = norm < 1e-30f ? 0 : fminf(most_norm / norm, most / kv_lanes_max(largest));
	for (size_t i = 0; i < n; i += KV_LANES) {
		__m512i v = _mm512_cvtps_epi32(kv_load(x + i) * kv_splat(by));

		_mm256_storeu_si256((__m256i *)(void *)(x + i / 2), _mm512_cvtsepi32_epi16(v));
	}
	if (!isfinite(norm))
		return NAN;
	return by > 0 ? 1 / by : 0;
}

/* Keys of a panel: [d_k / 2][PANEL] pairs of integers, and what one of each key is worth [PANEL]. */
static void
pack_integers(const struct kv_attn_group *g, float *rows, size_t at)
{
	size_t d = g->a->d_k;
	float *panel = g->k + at * d;

	for (size_t j = 0; j < PANEL; j++)
		panel[d / 2 * PANEL + j] = to_integers(rows + j * d, d);
	kv_transpose(rows, d, d / 2, panel);
}

typedef int32_t sixteen __attribute__((vector_size(64)));	/* gcc 12 keeps an array of these in registers, of __m512i not */

/* s [ROWS][PANEL] = q [ROWS][d] times a panel of keys. Each query has, last, what one of its integers is worth. */
static void
multiply_integers(const float *q, size_t d, const float *panel, float *s)
{
	const float *worth = panel + d / 2 * PANEL;
	sixteen sum[ROWS][VECTORS];
	__m512i x[VECTORS];

#pragma GCC unroll 6
	for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 4
		for (size_t v = 0; v < VECTORS; v++)
			sum[r][v] = (sixteen)_mm512_setzero_si512();
	for (size_t i = 0; i < d / 2; i++, panel += PANEL) {
#pragma GCC unroll 4
		for (size_t v = 0; v < VECTORS; v++)
			x[v] = _mm512_loadu_si512(panel + v * KV_LANES);
#pragma GCC unroll 6
		for (size_t r = 0; r < ROWS; r++) {
			__m512i y = _mm512_castps_si512(_mm512_set1_ps(q[r * d + i]));

#pragma GCC unroll 4
			for (size_t v = 0; v < VECTORS; v++)
				sum[r][v] = (sixteen)_mm512_dpwssd_epi32((__m512i)sum[r][v], x[v], y);
		}
	}
#pragma GCC unroll 6
	for (size_t r = 0; r < ROWS; r++)
#pragma GCC unroll 4
		for (size_t v = 0; v < VECTORS; v++)
			kv_store(s + r * LD + v * KV_LANES, _mm512_cvtepi32_ps((__m512i)sum[r][v]) * (kv_load(worth + v * KV_LANES) * kv_splat(q[r * d + d - 1])));
}

static void
score_integers(const struct kv_attn_group *g, const float *q, size_t from, size_t to, float *s)
{
	for (size_t j = from; j < to; j += PANEL)
		multiply_integers(q, g->a->d_k, g->k + j * g->a->d_k, s + j - from);
}

static void
pack_with_integers(const struct kv_attn_group *g, struct kv_span s, float *scratch)
{
	pack_with(g, s, scratch, pack_integers);
}

static void
attend_integers(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x)
{
	size_t d = g->a->d_k;

	for (size_t r = 0; !x.b && r < t->rows; r++)
		t->q[r * d + d - 1] = to_integers(t->q + r * d, d);
	attend_with(g, t, x, score_integers);
}

bool
kv_avx512_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	static const struct kv_attn_level integers = { ROWS, PANEL, KV_LANES, pack_with_integers, attend_integers, receive };

	if (m == 1)
		return kv_avx512_attend(pool, a, q, m, out);
	return kv_attend_batch(pool, a, a->d_k % KV_LANES ? &flash : &integers, q, m, out);
}
#endif
