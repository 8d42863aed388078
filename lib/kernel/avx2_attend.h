/* What attention at the level avx2 shares: included by its files alone. */
#ifndef KV_KERNEL_AVX2_ATTEND_H
#define KV_KERNEL_AVX2_ATTEND_H

#if defined __AVX2__
#include "kernel/attend.h"
#include "kernel/avx2.h"

enum { KV_AVX2_KEYS = 4, KV_AVX2_HEADS = 3 };

/*
 * The same over rows in segments, narrow or in codes; scratch space as in kernel/attend.h. False, and nothing done: there is no kernel for
 * rows of this kind.
 */
bool kv_avx2_segment_scores(const struct kv_attn *a, const struct kv_attn_list *l, const struct kv_attn_segment *seg, struct kv_span v,
	const float *q, size_t heads, float *rows, float *s, size_t ld);
bool kv_avx2_segment_weigh(const struct kv_attn *a, const struct kv_attn_segment *seg, struct kv_span v, const float *p, size_t ld, size_t heads,
	float *rows, float *o, size_t ld_o);

static inline __m256
kv_avx2_widen(const uint16_t *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* s [heads][ld] = scale times q [heads][d] times four keys [4][d], for at most KV_AVX2_HEADS heads; d in whole vectors */
static inline __attribute__((always_inline)) void
kv_avx2_few_products(const float *k, const float *q, size_t d, size_t heads, float scale, float *s, size_t ld)
{
	__m256 sum[KV_AVX2_HEADS][KV_AVX2_KEYS];

	for (size_t h = 0; h < heads; h++)
		for (size_t j = 0; j < KV_AVX2_KEYS; j++)
			sum[h][j] = _mm256_setzero_ps();
	for (size_t i = 0; i < d; i += 8)
		for (size_t j = 0; j < KV_AVX2_KEYS; j++) {
			__m256 x = _mm256_loadu_ps(k + j * d + i);

			for (size_t h = 0; h < heads; h++)
				sum[h][j] = _mm256_fmadd_ps(x, _mm256_loadu_ps(q + h * d + i), sum[h][j]);
		}
	for (size_t h = 0; h < heads; h++) {
		__m256 a = _mm256_hadd_ps(_mm256_hadd_ps(sum[h][0], sum[h][1]), _mm256_hadd_ps(sum[h][2], sum[h][3]));
		__m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

		_mm_storeu_ps(s + h * ld, _mm_mul_ps(four, _mm_set1_ps(scale)));
	}
}

static inline void
kv_avx2_products(const float *k, const float *q, size_t d, size_t heads, float scale, float *s, size_t ld)
{
	for (size_t h = 0; h < heads; h += KV_AVX2_HEADS)
		switch (heads - h) {
		case 1: kv_avx2_few_products(k, q + h * d, d, 1, scale, s + h * ld, ld); break;
		case 2: kv_avx2_few_products(k, q + h * d, d, 2, scale, s + h * ld, ld); break;
		default: kv_avx2_few_products(k, q + h * d, d, 3, scale, s + h * ld, ld); break;
		}
}

#endif
#endif
