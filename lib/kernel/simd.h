/*
 * Vectors of f32, as wide as the flags of the file allow: sixteen numbers with AVX-512, eight with AVX2. For files of a level alone. Sums and
 * products of vectors are written as such, fused ones by name.
 */
#ifndef KV_KERNEL_SIMD_H
#define KV_KERNEL_SIMD_H

#if defined __AVX2__
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define KV_INLINE static inline __attribute__((always_inline))

#if defined __AVX512F__
enum { KV_LANES = 16 };
typedef __m512 kv_vec;
#define KV_SIMD(name) _mm512_##name
#else
enum { KV_LANES = 8 };
typedef __m256 kv_vec;
#define KV_SIMD(name) _mm256_##name
#endif

KV_INLINE kv_vec
kv_load(const float *p)
{
	return KV_SIMD(loadu_ps)(p);
}

KV_INLINE void
kv_store(float *p, kv_vec v)
{
	KV_SIMD(storeu_ps)(p, v);
}

KV_INLINE kv_vec
kv_splat(float x)
{
	return KV_SIMD(set1_ps)(x);
}

/* a b + c, rounded once */
KV_INLINE kv_vec
kv_fma(kv_vec a, kv_vec b, kv_vec c)
{
	return KV_SIMD(fmadd_ps)(a, b, c);
}

/* The larger; of a NaN in b, that. */
KV_INLINE kv_vec
kv_larger(kv_vec a, kv_vec b)
{
	return KV_SIMD(max_ps)(a, b);
}

/* Lanes in a fixed order: halves, quarters … */
KV_INLINE float
kv_lanes_sum(kv_vec v)
{
#if defined __AVX512F__
	__m256 u = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
	__m256 u = v;
#endif
	__m128 a = _mm_add_ps(_mm256_castps256_ps128(u), _mm256_extractf128_ps(u, 1));

	a = _mm_add_ps(a, _mm_movehl_ps(a, a));
	return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

KV_INLINE float
kv_lanes_max(kv_vec v)
{
#if defined __AVX512F__
	__m256 u = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
#else
	__m256 u = v;
#endif
	__m128 a = _mm_max_ps(_mm256_castps256_ps128(u), _mm256_extractf128_ps(u, 1));

	a = _mm_max_ps(a, _mm_movehl_ps(a, a));
	return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

/* p [KV_LANES] += v */
KV_INLINE void
kv_add_wide(double *p, kv_vec v)
{
#if defined __AVX512F__
	_mm512_storeu_pd(p, _mm512_add_pd(_mm512_loadu_pd(p), _mm512_cvtps_pd(_mm512_castps512_ps256(v))));
	_mm512_storeu_pd(p + 8, _mm512_add_pd(_mm512_loadu_pd(p + 8), _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1))));
#else
	_mm256_storeu_pd(p, _mm256_add_pd(_mm256_loadu_pd(p), _mm256_cvtps_pd(_mm256_castps256_ps128(v))));
	_mm256_storeu_pd(p + 4, _mm256_add_pd(_mm256_loadu_pd(p + 4), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1))));
#endif
}

/* e^x as in kernel/expf.h for x <= 88; 0 below -87. */
KV_INLINE kv_vec
kv_exp(kv_vec x)
{
	const kv_vec least = kv_splat(-87), shift = kv_splat(0x1.8p23f);
	kv_vec c = kv_larger(least, x), t = kv_fma(c, kv_splat(1.44269504f), shift), n = t - shift, r = kv_fma(n, kv_splat(-0.693147182f), c);
	kv_vec p = kv_fma(kv_splat(0.00138146023f), r, kv_splat(0.00836871564f));

	p = kv_fma(p, r, kv_splat(0.041668389f));
	p = kv_fma(p, r, kv_splat(0.166665211f));
	p = kv_fma(p, r, kv_splat(0.49999994f));
	p = kv_fma(p, r * r, r + kv_splat(1));
#if defined __AVX512F__
	p = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
	return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ), p);
#else
	p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
	return _mm256_and_ps(_mm256_cmp_ps(x, least, _CMP_NLT_UQ), p);
#endif
}

#endif
#endif
