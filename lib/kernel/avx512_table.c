/*
 * The level avx512: products for a batch by VNNI, whose sums of four products need no more care for sixteen bits. A panel of sixteen rows is
 * unpacked as at the level avx2.
 */
#include "kernel/ops.h"

#if defined __AVX512VNNI__
#include <string.h>

#include "kernel/avx2.h"
#include "kernel/generic.h"
#include "kernel/quant.h"

enum { ROWS = KV_AVX2_ROWS, GROUP = KV_AVX2_GROUP, GROUPS = 2, STEPS = KV_AVX2_BLOCK / 4 };

/* Codes with a sign become codes from 0 to 255, with a minimum: w = d (code - 128). */
static void
lift(struct kv_avx2_panel *p, size_t n)
{
	for (; n; n--, p++) {
		for (size_t k = 0; k < STEPS; k++) {
			__m512i *q = (__m512i *)(void *)p->q[k][0];

			_mm512_store_si512(q, _mm512_xor_si512(_mm512_load_si512(q), _mm512_set1_epi8(-128)));
		}
		_mm512_storeu_ps(p->m, _mm512_mul_ps(_mm512_loadu_ps(p->d[0]), _mm512_set1_ps(-128)));
	}
}

/* s [tokens] = products of codes and activations of the steps [from, to) */
static inline __attribute__((always_inline)) void
dot(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, size_t from, size_t to, size_t tokens, __m512i *s)
{
#pragma GCC unroll 8
	for (size_t t = 0; t < tokens; t++)
		s[t] = _mm512_setzero_si512();
#pragma GCC unroll 8
	for (size_t k = from; k < to; k++) {
		__m512i codes = _mm512_load_si512(w->q[k][0]);

#pragma GCC unroll 8
		for (size_t t = 0; t < tokens; t++) {
			int32_t word;

			memcpy(&word, a[t / GROUP * n].q[t % GROUP] + 4 * k, sizeof word);
			s[t] = _mm512_dpbusd_epi32(s[t], codes, _mm512_set1_epi32(word));
		}
	}
}

/* out [groups * 4][16] = groups of four tokens, n blocks of activations apart, times a panel; halves: whose sixteens have scales */
static inline __attribute__((always_inline)) void
multiply(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, size_t groups, bool halves, float (*out)[ROWS])
{
	__m512 acc[GROUPS * GROUP];

	for (size_t t = 0; t < groups * GROUP; t++)
		acc[t] = _mm512_setzero_ps();
	for (size_t b = 0; b < n; b++, w++, a++)
		for (size_t half = 0; half < (halves ? 2 : 1); half++) {
			__m512 d = _mm512_loadu_ps(w->d[half]), m = halves ? _mm512_mul_ps(d, _mm512_set1_ps(-128)) : _mm512_loadu_ps(w->m);
			__m512i s[GROUPS * GROUP];

			dot(w, a, n, half * STEPS / 2, halves ? (half + 1) * STEPS / 2 : STEPS, groups * GROUP, s);
#pragma GCC unroll 8
			for (size_t t = 0; t < groups * GROUP; t++) {
				const struct kv_avx2_act *x = a + t / GROUP * n;
				float sum = !halves ? x->s[t % GROUP] : half ? x->s[t % GROUP] - x->first[t % GROUP] : x->first[t % GROUP];

				acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(sum), acc[t]);
				acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[t]), _mm512_mul_ps(d, _mm512_set1_ps(x->d[t % GROUP])), acc[t]);
			}
		}
	for (size_t t = 0; t < groups * GROUP; t++)
		_mm512_storeu_ps(out[t], acc[t]);
}

typedef void multiplying(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float (*out)[ROWS]);

static void
multiply_4(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float (*out)[ROWS])
{
	multiply(w, a, n, 1, false, out);
}

static void
multiply_8(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float (*out)[ROWS])
{
	multiply(w, a, n, 2, false, out);
}

static void
multiply_halves_4(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float (*out)[ROWS])
{
	multiply(w, a, n, 1, true, out);
}

static void
multiply_halves_8(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float (*out)[ROWS])
{
	multiply(w, a, n, 2, true, out);
}

static void
many(void *arg, size_t item, unsigned thread)
{
	const struct kv_avx2_batch *z = arg;
	const struct kv_weight *w = z->w;
	size_t blocks = w->n_in / KV_AVX2_BLOCK, first = item * ROWS, rows = w->n_out - first < ROWS ? w->n_out - first : ROWS;
	struct kv_avx2_panel *panel = z->panel + thread * blocks;
	static multiplying *const by[2][2] = { { multiply_4, multiply_8 }, { multiply_halves_4, multiply_halves_8 } };
	enum kv_avx2_codes codes = kv_avx2_codes(w->type);
	__mmask16 mask = (__mmask16)((1u << rows) - 1);
	float out[GROUPS * GROUP][ROWS];

	kv_avx2_unpack(w, first, 0, blocks, panel);
	if (codes == KV_AVX2_SIGNED || codes == KV_AVX2_HALVES)
		lift(panel, blocks);
	for (size_t at = 0; at < z->m; at += GROUPS * GROUP) {
		size_t tokens = z->m - at < GROUPS * GROUP ? z->m - at : GROUPS * GROUP;

		by[codes == KV_AVX2_HALVES][tokens > GROUP](panel, z->a + at / GROUP * blocks, blocks, out);
		for (size_t t = 0; t < tokens; t++) {
			float *y = z->y + (at + t) * w->n_out + first;
			__m512 v = _mm512_loadu_ps(out[t]);

			_mm512_mask_storeu_ps(y, mask, z->add ? _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), v) : v);
		}
	}
}

static bool
matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add)
{
	static const struct kv_avx2_products how = { kv_avx512_few, many, kv_avx512_floats };

	return kv_avx2_matmul_with(&how, pool, w, x, m, y, add);
}

const struct kv_ops kv_ops_avx512 = KV_AVX2_OPS("avx512", matmul, kv_avx512_flash);
#endif
