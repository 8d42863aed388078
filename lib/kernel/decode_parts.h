/*
 * What attention of one token is made of where there are vectors: rows widened, keys turned and multiplied, four of them with a few query
 * heads at a time. For files of a level alone.
 */
#ifndef KV_KERNEL_DECODE_PARTS_H
#define KV_KERNEL_DECODE_PARTS_H

#if defined __AVX2__
#include "kernel/attend.h"
#include "kernel/simd.h"

enum {
	F16 = 2,
	KEYS = 4, HEADS = KV_LANES == 8 ? 3 : 4,	/* that are multiplied at a time: a register for each sum */
	WIDTH = 4 * KV_LANES, ROWS = 32,	/* channels and rows of the values in hand */
	AHEAD = 4096,	/* bytes: what the processor foresees by itself ends with a page */
};

KV_INLINE kv_vec
widen(const uint16_t *p)
{
#if defined __AVX512F__
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
#else
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
#endif
}

/* n bytes that will be read soon. */
KV_INLINE void
fetch(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i += 64)
		_mm_prefetch((const char *)p + AHEAD + i, _MM_HINT_T0);
}

/* KV_LANES cosines, and as many sines, from their pairs. */
KV_INLINE void
split(kv_vec y, kv_vec z, kv_vec *c, kv_vec *s)
{
#if defined __AVX512F__
	const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);

	*c = _mm512_permutex2var_ps(y, even, z);
	*s = _mm512_permutex2var_ps(y, _mm512_add_epi32(even, _mm512_set1_epi32(1)), z);
#else
	*c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0x88)), 0xd8));
	*s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0xdd)), 0xd8));
#endif
}

/* Pairs of neighbours (x, y): (x c - y s, y c + x s). z: c and s of each */
KV_INLINE kv_vec
turn_pairs(kv_vec x, kv_vec z)
{
	kv_vec crossed = KV_SIMD(permute_ps)(x, 0xb1) * KV_SIMD(movehdup_ps)(z);

	return KV_SIMD(fmaddsub_ps)(x, KV_SIMD(moveldup_ps)(z), crossed);
}

/* The sums of the lanes of a vector of each key. */
KV_INLINE __m128
four_sums(const kv_vec (*v)[HEADS], size_t h)
{
	__m256 u[KEYS], a;

	for (size_t j = 0; j < KEYS; j++)
#if defined __AVX512F__
		u[j] = _mm256_add_ps(_mm512_castps512_ps256(v[j][h]), _mm512_extractf32x8_ps(v[j][h], 1));
#else
		u[j] = v[j][h];
#endif
	a = _mm256_hadd_ps(_mm256_hadd_ps(u[0], u[1]), _mm256_hadd_ps(u[2], u[3]));
	return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}

/* Four keys in hand, and the heads whose scores s [heads][ld] = scale times q [heads][d] times keys are wanted. */
struct four {
	const uint16_t *k;	/* [KEYS][d] */
	const float *cs;	/* [KEYS][n_rot/2][2] */
	size_t d, n_rot;
	float *turned;		/* [KEYS][d] once they are turned */
	const float *q;
	float scale;
	float *s;
	size_t ld;
};

KV_INLINE void
take(kv_vec x, const float *q, size_t d, size_t heads, kv_vec sum[HEADS])
{
#pragma GCC unroll 4
	for (size_t h = 0; h < heads; h++)
		sum[h] = kv_fma(x, kv_load(q + h * d), sum[h]);
}

KV_INLINE void
put(const struct four *f, const kv_vec (*sum)[HEADS], size_t heads)
{
	for (size_t h = 0; h < heads; h++)
		_mm_storeu_ps(f->s + h * f->ld, _mm_mul_ps(four_sums(sum, h), _mm_set1_ps(f->scale)));
}

/* Of some heads, from keys that are turned. */
KV_INLINE void
few_turned(const struct four *f, size_t heads)
{
	kv_vec sum[KEYS][HEADS];

	for (size_t j = 0; j < KEYS; j++)
		for (size_t h = 0; h < heads; h++)
			sum[j][h] = kv_splat(0);
	for (size_t i = 0; i < f->d; i += KV_LANES)
		for (size_t j = 0; j < KEYS; j++)
			take(kv_load(f->turned + j * f->d + i), f->q + i, f->d, heads, sum[j]);
	put(f, (const kv_vec (*)[HEADS])sum, heads);
}

KV_INLINE void
of_turned(struct four f, size_t heads)
{
	for (; heads; heads -= heads < HEADS ? heads : HEADS, f.q += HEADS * f.d, f.s += HEADS * f.ld)
		switch (heads) {
		case 1: few_turned(&f, 1); break;
		case 2: few_turned(&f, 2); break;
#if defined __AVX512F__
		case 3: few_turned(&f, 3); break;
#endif
		default: few_turned(&f, HEADS); break;
		}
}

#endif
#endif
