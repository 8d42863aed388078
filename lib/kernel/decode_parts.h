/*
 * What attention of one token is made of where there are vectors: rows widened, keys turned and multiplied, four of them with a few query
 * heads at a time. For files of a level alone.
 */
#ifndef KV_KERNEL_DECODE_PARTS_H
#define KV_KERNEL_DECODE_PARTS_H

#if defined __AVX2__
#include <string.h>

#include "kernel/attend.h"
#include "kernel/avx2.h"
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

/* The first and the second numbers of KV_LANES pairs, in the order that is cheapest: with eight lanes that of pairs 0 1 4 5 2 3 6 7. */
KV_INLINE void
take_apart(kv_vec y, kv_vec z, kv_vec *first, kv_vec *second)
{
#if defined __AVX512F__
	const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);

	*first = _mm512_permutex2var_ps(y, even, z);
	*second = _mm512_permutex2var_ps(y, _mm512_add_epi32(even, _mm512_set1_epi32(1)), z);
#else
	*first = _mm256_shuffle_ps(y, z, 0x88);
	*second = _mm256_shuffle_ps(y, z, 0xdd);
#endif
}

/* The same in order: KV_LANES cosines, and as many sines. */
KV_INLINE void
split(kv_vec y, kv_vec z, kv_vec *c, kv_vec *s)
{
	take_apart(y, z, c, s);
#if !defined __AVX512F__
	*c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(*c), 0xd8));
	*s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(*s), 0xd8));
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
	__m256 u[KEYS];

	for (size_t j = 0; j < KEYS; j++)
#if defined __AVX512F__
		u[j] = _mm256_add_ps(_mm512_castps512_ps256(v[j][h]), _mm512_extractf32x8_ps(v[j][h], 1));
#else
		u[j] = v[j][h];
#endif
	return kv_avx2_four_sums(u);
}

/* KV_LANES codes that begin a byte. */
KV_INLINE kv_vec
codes(const uint8_t *p, unsigned bits)
{
#if defined __AVX512F__
	/* Of an index into sixteen numbers only the lowest four bits count: what is above them need not be cleared. */
	const __m512 four = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
	const __m512 two = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
	int32_t word;

	if (bits == 8)
		return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
	if (bits == 4) {
		const __m512i from = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);	/* bit of the eight bytes */
		int64_t eight;

		memcpy(&eight, p, sizeof eight);
		return _mm512_permutexvar_ps(_mm512_multishift_epi64_epi8(from, _mm512_set1_epi64(eight)), four);
	}
	memcpy(&word, p, sizeof word);
	return _mm512_permutexvar_ps(_mm512_srlv_epi32(_mm512_set1_epi32(word),
		_mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)), two);
#else
	uint32_t four;
	int16_t two;
	__m256i x;

	if (bits == 8) {
		x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
	} else if (bits == 4) {
		memcpy(&four, p, sizeof four);
		x = _mm256_srlv_epi32(_mm256_set1_epi32((int)four), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
	} else {
		memcpy(&two, p, sizeof two);
		x = _mm256_srlv_epi32(_mm256_set1_epi16(two), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
	}
	return _mm256_cvtepi32_ps(bits == 8 ? x : _mm256_and_si256(x, _mm256_set1_epi32((1 << bits) - 1)));
#endif
}

/* As many pairs of codes, as take_apart gives them. */
KV_INLINE void
code_pairs(const uint8_t *p, unsigned bits, kv_vec *first, kv_vec *second)
{
#if defined __AVX512F__
	const __m512i low = _mm512_set1_epi32(255);
	const __m512 number = bits == 4 ? _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
		: _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
	__m512i x;
	int64_t eight;

	if (bits == 8) {
		x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
		*first = _mm512_cvtepi32_ps(_mm512_and_si512(x, low));
		*second = _mm512_cvtepi32_ps(_mm512_srli_epi32(x, 8));
		return;
	}
	if (bits == 4) {
		x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
	} else {
		memcpy(&eight, p, sizeof eight);
		x = _mm512_multishift_epi64_epi8(_mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60), _mm512_set1_epi64(eight));
	}
	*first = _mm512_permutexvar_ps(x, number);
	*second = _mm512_permutexvar_ps(_mm512_srli_epi32(x, bits), number);
#else
	const __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
	uint32_t four;
	__m256i x;

	if (bits == 8) {
		__m128i sixteen = _mm_loadu_si128((const __m128i *)(const void *)p);

		x = _mm256_cvtepu16_epi32(_mm_shuffle_epi8(sixteen, _mm_setr_epi8(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15)));
	} else if (bits == 4) {
		__m128i eight = _mm_loadl_epi64((const __m128i *)(const void *)p);

		x = _mm256_cvtepu8_epi32(_mm_shuffle_epi8(eight, _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1)));
	} else {
		memcpy(&four, p, sizeof four);
		x = _mm256_srlv_epi32(_mm256_set1_epi32((int)four), _mm256_setr_epi32(0, 4, 16, 20, 8, 12, 24, 28));
	}
	*first = _mm256_cvtepi32_ps(_mm256_and_si256(x, mask));
	*second = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(x, (int)bits), mask));
#endif
}

/*
 * Which channels make a pair: neighbours; those n_rot / 2 apart; or neighbours again, all that turn having been taken apart in q, step and min:
 * the first ones of KV_LANES pairs, then their second ones. (Codes come apart by themselves.)
 */
enum pairs { NEIGHBOURS, HALVES, PARTED };

/* Four keys in hand, and the heads whose scores s [heads][ld] = scale times q [heads][d] times keys are wanted. */
struct four {
	const uint8_t *k;	/* KEYS rows of d columns, in f16 or codes … */
	size_t row_bytes;	/* … so far apart */
	const float *step, *min;	/* [d] of codes: x = code * step + min */
	const float *cs;	/* [n_rot/2][2] of each … */
	size_t cs_step;		/* … so far apart */
	size_t d, n_rot;
	float *turned;		/* [KEYS][d] once they are turned */
	const float *q;
	float scale;
	float *s;
	size_t ld;
};

/* Columns i … i + KV_LANES - 1 of key j; bits 0: f16. */
KV_INLINE kv_vec
key_columns(const struct four *f, unsigned bits, size_t j, size_t i)
{
	const uint8_t *row = f->k + j * f->row_bytes;

	if (!bits)
		return widen((const uint16_t *)(const void *)(row + 2 * i));
	return kv_fma(codes(row + i * bits / 8, bits), kv_load(f->step + i), kv_load(f->min + i));
}

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

/* Columns of KV_LANES pairs of key j, from pair i on, as they are: the first ones, and the second ones. */
KV_INLINE void
pair_columns(const struct four *f, unsigned bits, enum pairs pairs, size_t j, size_t i, kv_vec *a, kv_vec *b)
{
	if (pairs == HALVES) {
		*a = key_columns(f, bits, j, i);
		*b = key_columns(f, bits, j, f->n_rot / 2 + i);
		return;
	}
	code_pairs(f->k + j * f->row_bytes + 2 * i * bits / 8, bits, a, b);
	*a = kv_fma(*a, kv_load(f->step + 2 * i), kv_load(f->min + 2 * i));
	*b = kv_fma(*b, kv_load(f->step + 2 * i + KV_LANES), kv_load(f->min + 2 * i + KV_LANES));
}

/* The same, turned. */
KV_INLINE void
turned_columns(const struct four *f, unsigned bits, enum pairs pairs, size_t j, size_t i, kv_vec *x, kv_vec *y)
{
	const float *cs = f->cs + j * f->cs_step + 2 * i;
	kv_vec a, b, c, s;

	pair_columns(f, bits, pairs, j, i, &a, &b);
	if (pairs == HALVES)
		split(kv_load(cs), kv_load(cs + KV_LANES), &c, &s);
	else
		take_apart(kv_load(cs), kv_load(cs + KV_LANES), &c, &s);
	*x = KV_SIMD(fmsub_ps)(a, c, b * s);
	*y = kv_fma(a, s, b * c);
}

/* Of the first heads; keep: there are more, for whom the turned keys are kept. */
KV_INLINE void
first_heads(const struct four *f, unsigned bits, enum pairs pairs, size_t heads, bool keep)
{
	size_t d = f->d, half = f->n_rot / 2, second = pairs == HALVES ? half : KV_LANES;
	kv_vec sum[KEYS][HEADS], x, y;

	for (size_t j = 0; j < KEYS; j++)
		for (size_t h = 0; h < heads; h++)
			sum[j][h] = kv_splat(0);
	for (size_t i = 0; pairs != NEIGHBOURS && i < half; i += KV_LANES)
		for (size_t j = 0; j < KEYS; j++) {
			size_t at = pairs == HALVES ? i : 2 * i;

			turned_columns(f, bits, pairs, j, i, &x, &y);
			take(x, f->q + at, d, heads, sum[j]);
			take(y, f->q + at + second, d, heads, sum[j]);
			if (keep) {
				kv_store(f->turned + j * d + at, x);
				kv_store(f->turned + j * d + at + second, y);
			}
		}
	for (size_t i = pairs == NEIGHBOURS ? 0 : f->n_rot; i < d; i += KV_LANES)
		for (size_t j = 0; j < KEYS; j++) {
			x = key_columns(f, bits, j, i);
			if (i < f->n_rot)
				x = turn_pairs(x, kv_load(f->cs + j * f->cs_step + i));
			take(x, f->q + i, d, heads, sum[j]);
			if (keep)
				kv_store(f->turned + j * d + i, x);
		}
	put(f, (const kv_vec (*)[HEADS])sum, heads);
}

/* Their scores for all heads; of codes, not NEIGHBOURS. Vectors are whole, and each turns or does not. */
KV_INLINE void
four_keys(const struct four *f, unsigned bits, enum pairs pairs, size_t heads)
{
	struct four rest;

	if (heads == 1) {
		first_heads(f, bits, pairs, 1, false);
	} else if (heads == 2) {
		first_heads(f, bits, pairs, 2, false);
	} else if (heads == 3) {
		first_heads(f, bits, pairs, 3, false);
	} else if (HEADS > 3 && !bits && heads == HEADS) {
		first_heads(f, bits, pairs, HEADS, false);
	} else {
		first_heads(f, bits, pairs, HEADS, true);
		rest = *f;
		rest.q += HEADS * f->d;
		rest.s += HEADS * f->ld;
		of_turned(rest, heads - HEADS);
	}
}

/* `times` four keys in codes, one behind the other. A function for each kind: with all of them in one, compilers run out of registers. */
#define FOUR_CODED(name, bits, pairs) \
	static __attribute__((noinline)) void \
	name(const struct four *first, size_t times, size_t heads) \
	{ \
		for (struct four f = *first; times; times--, f.k += KEYS * f.row_bytes, f.cs += KEYS * f.cs_step, f.s += KEYS) { \
			fetch(f.k, KEYS * f.row_bytes); \
			fetch(f.cs, KEYS * f.cs_step * sizeof *f.cs); \
			four_keys(&f, bits, pairs, heads); \
		} \
	}
FOUR_CODED(four_2_apart, 2, HALVES)
FOUR_CODED(four_2_parted, 2, PARTED)
FOUR_CODED(four_4_apart, 4, HALVES)
FOUR_CODED(four_4_parted, 4, PARTED)
FOUR_CODED(four_8_apart, 8, HALVES)
FOUR_CODED(four_8_parted, 8, PARTED)

#endif
#endif
