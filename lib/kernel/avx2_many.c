/*
 * Products for a batch: a panel of sixteen rows is unpacked once and used for all tokens, four at a time. Products of codes and activations
 * are summed in sixteen bits over a block of 32, where they fit, then in f32.
 */
#include "kernel/ops.h"

#if defined __AVX2__
#include <string.h>

#include "kernel/avx2.h"
#include "kernel/quant.h"

enum { ROWS = KV_AVX2_ROWS, STEPS = KV_AVX2_BLOCK / 4 };

/* 32 codes of a row, from block b on, and what they are worth. */
typedef __m256i load(const uint8_t *row, size_t b, float *d, float *m);

static __m256i
load_q4_0(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 18;

	*d = kv_avx2_half(p);
	*m = -8 * *d;
	return kv_avx2_nibbles(p + 2);
}

static __m256i
load_q4_1(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 20;

	*d = kv_avx2_half(p);
	*m = kv_avx2_half(p + 2);
	return kv_avx2_nibbles(p + 4);
}

static __m256i
load_q8_0(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 34;

	*d = kv_avx2_half(p);
	*m = 0;
	return _mm256_loadu_si256((const __m256i *)(const void *)(p + 2));
}

static __m256i
load_q4_k(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b / 8 * 144;
	__m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16 + b % 8 / 2 * 32));
	int scale, min;

	kv_scale_min(p + 4, (int)(b % 8), &scale, &min);
	*d = kv_avx2_half(p) * (float)scale;
	*m = -kv_avx2_half(p + 2) * (float)min;
	return _mm256_and_si256(b % 2 ? _mm256_srli_epi16(codes, 4) : codes, _mm256_set1_epi8(15));
}

static load *
load_of(uint32_t type)
{
	switch (type) {
	case KV_W_Q4_0: return load_q4_0;
	case KV_W_Q4_1: return load_q4_1;
	case KV_W_Q8_0: return load_q8_0;
	case KV_W_Q4_K: return load_q4_k;
	default: return NULL;
	}
}

bool
kv_avx2_has_many(uint32_t type)
{
	return load_of(type) != NULL;
}

/* Eight rows of eight words become eight columns. */
static inline void
transpose(__m256i r[8])
{
	__m256i a[8], b[8];

	for (size_t i = 0; i < 4; i++) {
		a[2 * i] = _mm256_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
		a[2 * i + 1] = _mm256_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
	}
	for (size_t i = 0; i < 8; i += 4)
		for (size_t k = 0; k < 2; k++) {
			b[i + 2 * k] = _mm256_unpacklo_epi64(a[i + k], a[i + 2 + k]);
			b[i + 2 * k + 1] = _mm256_unpackhi_epi64(a[i + k], a[i + 2 + k]);
		}
	for (size_t i = 0; i < 4; i++) {
		r[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
		r[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
	}
}

void
kv_avx2_unpack(const struct kv_weight *w, size_t first, struct kv_avx2_panel *o)
{
	load *from = load_of(w->type);

	for (size_t b = 0; b < w->n_in / KV_AVX2_BLOCK; b++)
		for (size_t half = 0; half < 2; half++) {
			__m256i r[8];

			for (size_t i = 0; i < 8; i++) {
				size_t row = first + 8 * half + i < w->n_out ? first + 8 * half + i : w->n_out - 1;

				r[i] = from(w->data + row * w->row_bytes, b, &o[b].d[8 * half + i], &o[b].m[8 * half + i]);
			}
			transpose(r);
			for (size_t k = 0; k < STEPS; k++)
				_mm256_store_si256((__m256i *)(void *)o[b].q[k][half], r[k]);
		}
}

static inline __m256i
four_inputs(const int8_t *q)
{
	int32_t word;

	memcpy(&word, q, sizeof word);
	return _mm256_set1_epi32(word);
}

/* gcc 12 reorders these sums and then runs out of registers: each step is made opaque to it. */
#define IN_ORDER(v) __asm__("" : "+x"(v))

/* Four bits: 8 steps of 2 products of at most 15 * 127 stay below 2^15. */
static inline __attribute__((always_inline)) void
dot_four_bits(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, __m256i s[KV_AVX2_GROUP][2])
{
	const __m256i one = _mm256_set1_epi16(1);

#pragma GCC unroll 8
	for (size_t k = 0; k < STEPS; k++) {
		__m256i w0 = _mm256_load_si256((const __m256i *)(const void *)w->q[k][0]);
		__m256i w1 = _mm256_load_si256((const __m256i *)(const void *)w->q[k][1]);

#pragma GCC unroll 4
		for (size_t t = 0; t < KV_AVX2_GROUP; t++) {
			__m256i x = four_inputs(a->q[t] + 4 * k), p = _mm256_maddubs_epi16(w0, x), q = _mm256_maddubs_epi16(w1, x);

			s[t][0] = k ? _mm256_add_epi16(s[t][0], p) : p;
			s[t][1] = k ? _mm256_add_epi16(s[t][1], q) : q;
			IN_ORDER(s[t][0]);
			IN_ORDER(s[t][1]);
		}
	}
#pragma GCC unroll 4
	for (size_t t = 0; t < KV_AVX2_GROUP; t++)
		for (size_t h = 0; h < 2; h++)
			s[t][h] = _mm256_madd_epi16(s[t][h], one);
}

/* Eight bits with a sign: two products of at most 128 * 127 fit, no more. */
static inline __attribute__((always_inline)) void
dot_eight_bits(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, __m256i s[KV_AVX2_GROUP][2])
{
	const __m256i one = _mm256_set1_epi16(1);

	for (size_t t = 0; t < KV_AVX2_GROUP; t++)
		s[t][0] = s[t][1] = _mm256_setzero_si256();
	for (size_t k = 0; k < STEPS; k++)
		for (size_t h = 0; h < 2; h++) {
			__m256i c = _mm256_load_si256((const __m256i *)(const void *)w->q[k][h]), size = _mm256_abs_epi8(c);

#pragma GCC unroll 4
			for (size_t t = 0; t < KV_AVX2_GROUP; t++) {
				__m256i p = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four_inputs(a->q[t] + 4 * k), c));

				s[t][h] = _mm256_add_epi32(s[t][h], _mm256_madd_epi16(p, one));
				IN_ORDER(s[t][h]);
			}
		}
}

/* out [4][16] = four tokens times a panel of n blocks */
static inline __attribute__((always_inline)) void
multiply(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, bool eight_bits, float out[KV_AVX2_GROUP][ROWS])
{
	memset(out, 0, KV_AVX2_GROUP * sizeof *out);
	for (size_t b = 0; b < n; b++, w++, a++) {
		__m256i s[KV_AVX2_GROUP][2];

		if (eight_bits)
			dot_eight_bits(w, a, s);
		else
			dot_four_bits(w, a, s);
#pragma GCC unroll 4
		for (size_t t = 0; t < KV_AVX2_GROUP; t++)
			for (size_t h = 0; h < 2; h++) {
				__m256 d = _mm256_mul_ps(_mm256_load_ps(w->d + 8 * h), _mm256_set1_ps(a->d[t]));
				__m256 sum = _mm256_fmadd_ps(_mm256_load_ps(w->m + 8 * h), _mm256_set1_ps(a->s[t]), _mm256_load_ps(out[t] + 8 * h));

				_mm256_store_ps(out[t] + 8 * h, _mm256_fmadd_ps(_mm256_cvtepi32_ps(s[t][h]), d, sum));
			}
	}
}

static void
multiply_four_bits(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float out[KV_AVX2_GROUP][ROWS])
{
	multiply(w, a, n, false, out);
}

static void
multiply_eight_bits(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float out[KV_AVX2_GROUP][ROWS])
{
	multiply(w, a, n, true, out);
}

void
kv_avx2_many(void *arg, size_t item, unsigned thread)
{
	const struct kv_avx2_batch *z = arg;
	const struct kv_weight *w = z->w;
	size_t blocks = w->n_in / KV_AVX2_BLOCK, first = item * ROWS, rows = w->n_out - first < ROWS ? w->n_out - first : ROWS;
	struct kv_avx2_panel *panel = z->panel + thread * blocks;
	_Alignas(32) float out[KV_AVX2_GROUP][ROWS];

	kv_avx2_unpack(w, first, panel);
	for (size_t at = 0; at < z->m; at += KV_AVX2_GROUP) {
		size_t tokens = z->m - at < KV_AVX2_GROUP ? z->m - at : KV_AVX2_GROUP;

		if (w->type == KV_W_Q8_0)
			multiply_eight_bits(panel, z->a + at / KV_AVX2_GROUP * blocks, blocks, out);
		else
			multiply_four_bits(panel, z->a + at / KV_AVX2_GROUP * blocks, blocks, out);
		for (size_t t = 0; t < tokens; t++) {
			float *y = z->y + (at + t) * w->n_out + first;

			for (size_t r = 0; r < rows; r++)
				y[r] = z->add ? y[r] + out[t][r] : out[t][r];
		}
	}
}
#endif
