/*
 * What kernels of the levels avx512 and amx include instead of the compiler's <immintrin.h> when they are made for tests on any processor:
 * AVX-512 from SIMDe, what it lacks (0.7.4) from here, tiles from tests/lib/tiles.h. AVX2 stays the processor's.
 */
#ifndef KV_TESTS_EMULATED_IMMINTRIN_H
#define KV_TESTS_EMULATED_IMMINTRIN_H

/* Kernels ask for these; the compiler's own headers and SIMDe must not find them. */
#undef __AVX512F__
#undef __AVX512VNNI__
#undef __AVX512BF16__

#pragma GCC system_header
#include_next <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#define __AVX512F__ 1
#define __AVX512VNNI__ 1
#define __AVX512BF16__ 1

#include <float.h>
#include <string.h>

#include "tiles.h"
#include "util/half.h"

typedef float emulated_ps __attribute__((vector_size(64)));
typedef float emulated_half_ps __attribute__((vector_size(32)));
typedef double emulated_pd __attribute__((vector_size(64)));
typedef uint8_t emulated_quarter_epu8 __attribute__((vector_size(16)));
typedef uint16_t emulated_half_epu16 __attribute__((vector_size(32)));
typedef int32_t emulated_epi32 __attribute__((vector_size(64)));

#define _mm512_cvtepi32_ps(v) ((__m512)__builtin_convertvector((emulated_epi32)(v), emulated_ps))
#define _mm512_cvtepu8_epi32(v) ((__m512i)__builtin_convertvector((emulated_quarter_epu8)(v), emulated_epi32))
#define _mm512_cvtepu16_epi32(v) ((__m512i)__builtin_convertvector((emulated_half_epu16)(v), emulated_epi32))
#define _mm512_cvtps_pd(v) ((__m512d)__builtin_convertvector((emulated_half_ps)(v), emulated_pd))
#define _mm512_srai_epi32(v, n) ((__m512i)((emulated_epi32)(v) >> (n)))

#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps emulated_extractf32x8_ps
static inline __m256
emulated_extractf32x8_ps(__m512 v, int half)
{
	__m256 x;

	memcpy(&x, (const char *)&v + half * sizeof x, sizeof x);
	return x;
}

/* What SIMDe lacks and AVX2 has, by halves. */
#define HALF_OF emulated_extractf32x8_ps
static inline __m512
emulated_halves(__m256 low, __m256 high)
{
	const __m256 x[2] = { low, high };
	__m512 v;

	memcpy(&v, x, sizeof v);
	return v;
}

#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(v) \
	emulated_halves(_mm256_cvtph_ps(_mm256_castsi256_si128(v)), _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)))
#define _mm512_moveldup_ps(v) emulated_halves(_mm256_moveldup_ps(HALF_OF(v, 0)), _mm256_moveldup_ps(HALF_OF(v, 1)))
#define _mm512_movehdup_ps(v) emulated_halves(_mm256_movehdup_ps(HALF_OF(v, 0)), _mm256_movehdup_ps(HALF_OF(v, 1)))
#undef _mm512_permute_ps
#define _mm512_permute_ps(v, how) emulated_halves(_mm256_permute_ps(HALF_OF(v, 0), how), _mm256_permute_ps(HALF_OF(v, 1), how))
#define _mm512_fmaddsub_ps(a, b, c) \
	emulated_halves(_mm256_fmaddsub_ps(HALF_OF(a, 0), HALF_OF(b, 0), HALF_OF(c, 0)), _mm256_fmaddsub_ps(HALF_OF(a, 1), HALF_OF(b, 1), HALF_OF(c, 1)))

#define _mm512_cvtps_epi32(v) \
	((__m512i)emulated_halves((__m256)_mm256_cvtps_epi32(HALF_OF(v, 0)), (__m256)_mm256_cvtps_epi32(HALF_OF(v, 1))))

#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
static inline __m512
emulated_maskz_loadu_ps(__mmask16 mask, const float *p)
{
	emulated_ps v = { 0 };

	for (int i = 0; i < 16; i++)
		if (mask >> i & 1)
			v[i] = p[i];
	return (__m512)v;
}

#undef _mm512_maskz_loadu_epi16
#define _mm512_maskz_loadu_epi16 emulated_maskz_loadu_epi16
static inline __m512i
emulated_maskz_loadu_epi16(__mmask32 mask, const void *p)
{
	uint16_t h[32] = { 0 };
	__m512i v;

	for (int i = 0; i < 32; i++)
		if (mask >> i & 1)
			memcpy(&h[i], (const uint16_t *)p + i, sizeof h[i]);
	memcpy(&v, h, sizeof v);
	return v;
}

#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16(mask, p) _mm512_castsi512_si256(emulated_maskz_loadu_epi16(mask, p))

#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
static inline void
emulated_mask_storeu_ps(float *p, __mmask16 mask, __m512 v)
{
	for (int i = 0; i < 16; i++)
		if (mask >> i & 1)
			p[i] = ((emulated_ps)v)[i];
}

/* SIMDe has these; unrolled by kernels its versions keep a compiler with sanitizers busy for minutes. */
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 emulated_dpbusd_epi32
__attribute__((noinline, unused)) static __m512i
emulated_dpbusd_epi32(__m512i sum, __m512i codes, __m512i numbers)
{
	uint8_t u[64];
	int8_t s[64];
	emulated_epi32 total = (emulated_epi32)sum;

	memcpy(u, &codes, sizeof u);
	memcpy(s, &numbers, sizeof s);
	for (int i = 0; i < 64; i++)
		total[i / 4] += u[i] * s[i];
	return (__m512i)total;
}

#undef _mm512_dpwssd_epi32
#define _mm512_dpwssd_epi32 emulated_dpwssd_epi32
__attribute__((noinline, unused)) static __m512i
emulated_dpwssd_epi32(__m512i sum, __m512i a, __m512i b)
{
	int16_t x[32], y[32];
	emulated_epi32 total = (emulated_epi32)sum;

	memcpy(x, &a, sizeof x);
	memcpy(y, &b, sizeof y);
	for (int i = 0; i < 32; i++)
		total[i / 2] += x[i] * y[i];
	return (__m512i)total;
}

/* a [16] behind b [16], rounded to nearest even; what is subnormal becomes 0. */
#define _mm512_cvtne2ps_pbh emulated_cvtne2ps_pbh
static inline __m512bh
emulated_cvtne2ps_pbh(__m512 a, __m512 b)
{
	uint16_t h[32];
	__m512bh v;

	for (int i = 0; i < 32; i++) {
		float x = ((emulated_ps)(i < 16 ? b : a))[i % 16];

		h[i] = x < FLT_MIN && x > -FLT_MIN ? (uint16_t)(f32_bits(x) >> 16 & 0x8000) : f32_to_bf16(x);
	}
	memcpy(&v, h, sizeof v);
	return v;
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig tiles_config
#define _tile_release tiles_release
#define _tile_loadd tiles_load
#define _tile_stored tiles_store
#define _tile_zero tiles_zero
#define _tile_dpbf16ps tiles_products

#endif
