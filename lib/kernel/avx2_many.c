/*
 * Products for a batch: a panel of sixteen rows is unpacked once and used for all tokens, four at a time. Products of codes and activations
 * are summed in sixteen bits over a block of 32, where they fit, then in f32.
 */
#include "kernel/ops.h"

#if defined __AVX2__
#include <string.h>

#include "kernel/avx2.h"
#include "kernel/quant.h"
#include "util/le.h"

enum { ROWS = KV_AVX2_ROWS, STEPS = KV_AVX2_BLOCK / 4 };

/* Sixteen bytes of nibbles as 32 codes: the low ones, then the high ones. */
static inline __m256i
nibbles(const uint8_t *p)
{
	__m256i x = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));

	return _mm256_and_si256(_mm256_srlv_epi32(x, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4)), _mm256_set1_epi8(15));
}

/* 32 codes of a row, from block b on, and what they are worth: d [2], for the first and the last sixteen of them. */
typedef __m256i load(const uint8_t *row, size_t b, float *d, float *m);

static inline __attribute__((always_inline)) __m256i
load_q4_0(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 18;

	d[0] = kv_avx2_half(p);
	*m = -8 * d[0];
	return nibbles(p + 2);
}

static inline __attribute__((always_inline)) __m256i
load_q4_1(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 20;

	d[0] = kv_avx2_half(p);
	*m = kv_avx2_half(p + 2);
	return nibbles(p + 4);
}

/* Bit j of a word as 16 in byte j. */
static inline __m256i
fifth_bits(const uint8_t *p)
{
	const __m256i spread = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
	const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201);
	__m256i x = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)le32_get(p)), spread);

	return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(x, bit), bit), _mm256_set1_epi8(16));
}

static inline __attribute__((always_inline)) __m256i
load_q5_0(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 22;

	d[0] = kv_avx2_half(p);
	*m = -16 * d[0];
	return _mm256_or_si256(nibbles(p + 6), fifth_bits(p + 2));
}

static inline __attribute__((always_inline)) __m256i
load_q5_1(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 24;

	d[0] = kv_avx2_half(p);
	*m = kv_avx2_half(p + 2);
	return _mm256_or_si256(nibbles(p + 8), fifth_bits(p + 4));
}

static inline __attribute__((always_inline)) __m256i
load_q8_0(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b * 34;

	d[0] = kv_avx2_half(p);
	*m = 0;
	return _mm256_loadu_si256((const __m256i *)(const void *)(p + 2));
}

static inline __attribute__((always_inline)) __m256i
load_q4_k(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b / 8 * 144;
	__m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16 + b % 8 / 2 * 32));
	int scale, min;

	kv_scale_min(p + 4, (int)(b % 8), &scale, &min);
	d[0] = kv_avx2_half(p) * (float)scale;
	*m = -kv_avx2_half(p + 2) * (float)min;
	return _mm256_and_si256(b % 2 ? _mm256_srli_epi16(codes, 4) : codes, _mm256_set1_epi8(15));
}

static inline __attribute__((always_inline)) __m256i
load_q5_k(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b / 8 * 176;
	__m256i codes = _mm256_loadu_si256((const __m256i *)(const void *)(p + 48 + b % 8 / 2 * 32));
	__m256i high = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16)), bit = _mm256_set1_epi8((char)(1 << b % 8));
	int scale, min;

	kv_scale_min(p + 4, (int)(b % 8), &scale, &min);
	d[0] = kv_avx2_half(p) * (float)scale;
	*m = -kv_avx2_half(p + 2) * (float)min;
	codes = _mm256_and_si256(b % 2 ? _mm256_srli_epi16(codes, 4) : codes, _mm256_set1_epi8(15));
	return _mm256_or_si256(codes, _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(high, bit), bit), _mm256_set1_epi8(16)));
}

/* 32 of the 256 codes of Q6_K, from -32: number g of eight. */
static inline __m256i
codes_of_q6_k(const uint8_t *w, size_t g)
{
	const uint8_t *low = w + g / 4 * 64 + g % 2 * 32, *high = w + 128 + g / 4 * 32;
	__m256i l = _mm256_loadu_si256((const __m256i *)(const void *)low), h = _mm256_loadu_si256((const __m256i *)(const void *)high);

	if (g % 4 >= 2)
		l = _mm256_srli_epi16(l, 4);
	h = _mm256_srl_epi16(h, _mm_cvtsi32_si128((int)(g % 4) * 2));
	l = _mm256_and_si256(l, _mm256_set1_epi8(15));
	h = _mm256_slli_epi16(_mm256_and_si256(h, _mm256_set1_epi8(3)), 4);
	return _mm256_sub_epi8(_mm256_or_si256(l, h), _mm256_set1_epi8(32));
}

static inline __attribute__((always_inline)) __m256i
load_q6_k(const uint8_t *row, size_t b, float *d, float *m)
{
	const uint8_t *p = row + b / 8 * 210, *scale = p + 192 + b % 8 * 2;

	d[0] = kv_avx2_half(p + 208) * (float)(int8_t)scale[0];
	d[1] = kv_avx2_half(p + 208) * (float)(int8_t)scale[1];
	*m = 0;
	return codes_of_q6_k(p, b % 8);
}

enum kv_avx2_codes
kv_avx2_codes(uint32_t type)
{
	switch (type) {
	case KV_W_Q4_0: case KV_W_Q4_1: case KV_W_Q4_K: return KV_AVX2_FOUR;
	case KV_W_Q5_0: case KV_W_Q5_1: case KV_W_Q5_K: return KV_AVX2_FIVE;
	case KV_W_Q8_0: return KV_AVX2_SIGNED;
	case KV_W_Q6_K: return KV_AVX2_HALVES;
	default: return KV_AVX2_NONE;
	}
}

static inline __attribute__((always_inline)) void
unpack(load *from, const struct kv_weight *w, size_t first, size_t at, size_t n, struct kv_avx2_panel *o)
{
	for (size_t half = 0; half < 2; half++) {
		const uint8_t *row[8];

		for (size_t i = 0; i < 8; i++) {
			size_t r = first + 8 * half + i;

			row[i] = w->data + (r < w->n_out ? r : w->n_out - 1) * w->row_bytes;
		}
		for (size_t b = 0; b < n; b++) {
			__m256i r[8];

#pragma GCC unroll 8
			for (size_t i = 0; i < 8; i++) {
				float d[2] = { 0 };

				r[i] = from(row[i], at + b, d, &o[b].m[8 * half + i]);
				o[b].d[0][8 * half + i] = d[0];
				o[b].d[1][8 * half + i] = d[1];
			}
			kv_avx2_transpose(r);
			for (size_t k = 0; k < STEPS; k++)
				_mm256_store_si256((__m256i *)(void *)o[b].q[k][half], r[k]);
		}
	}
}

void
kv_avx2_unpack(const struct kv_weight *w, size_t first, size_t at, size_t n, struct kv_avx2_panel *o)
{
	switch (w->type) {
	case KV_W_Q4_0: unpack(load_q4_0, w, first, at, n, o); break;
	case KV_W_Q4_1: unpack(load_q4_1, w, first, at, n, o); break;
	case KV_W_Q5_0: unpack(load_q5_0, w, first, at, n, o); break;
	case KV_W_Q5_1: unpack(load_q5_1, w, first, at, n, o); break;
	case KV_W_Q8_0: unpack(load_q8_0, w, first, at, n, o); break;
	case KV_W_Q4_K: unpack(load_q4_k, w, first, at, n, o); break;
	case KV_W_Q5_K: unpack(load_q5_k, w, first, at, n, o); break;
	case KV_W_Q6_K: unpack(load_q6_k, w, first, at, n, o); break;
	default: break;	/* no type of kv_avx2_codes */
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

/*
 * The products of some steps, summed in sixteen bits: 8 steps of 2 products of at most 15 * 127, or 4 steps of at most 31 * 127, or of 32 * 127
 * where codes have a sign, stay below 2^15.
 */
static inline __attribute__((always_inline)) void
dot_steps(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t from, size_t to, bool has_sign, __m256i s[KV_AVX2_GROUP][2])
{
	const __m256i one = _mm256_set1_epi16(1);

#pragma GCC unroll 8
	for (size_t k = from; k < to; k++) {
		__m256i w0 = _mm256_load_si256((const __m256i *)(const void *)w->q[k][0]), size0 = has_sign ? _mm256_abs_epi8(w0) : w0;
		__m256i w1 = _mm256_load_si256((const __m256i *)(const void *)w->q[k][1]), size1 = has_sign ? _mm256_abs_epi8(w1) : w1;

#pragma GCC unroll 4
		for (size_t t = 0; t < KV_AVX2_GROUP; t++) {
			__m256i x = four_inputs(a->q[t] + 4 * k);
			__m256i p = _mm256_maddubs_epi16(size0, has_sign ? _mm256_sign_epi8(x, w0) : x);
			__m256i q = _mm256_maddubs_epi16(size1, has_sign ? _mm256_sign_epi8(x, w1) : x);

			s[t][0] = k > from ? _mm256_add_epi16(s[t][0], p) : p;
			s[t][1] = k > from ? _mm256_add_epi16(s[t][1], q) : q;
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

/* out [4][16] += d times the products of codes, and m, if there is one, times the activations */
static inline __attribute__((always_inline)) void
add_products(__m256i s[KV_AVX2_GROUP][2], const float *d, const float *m, const struct kv_avx2_act *a, float out[KV_AVX2_GROUP][ROWS])
{
#pragma GCC unroll 4
	for (size_t t = 0; t < KV_AVX2_GROUP; t++)
		for (size_t h = 0; h < 2; h++) {
			__m256 by = _mm256_mul_ps(_mm256_load_ps(d + 8 * h), _mm256_set1_ps(a->d[t])), sum = _mm256_load_ps(out[t] + 8 * h);

			if (m)
				sum = _mm256_fmadd_ps(_mm256_load_ps(m + 8 * h), _mm256_set1_ps(a->s[t]), sum);
			_mm256_store_ps(out[t] + 8 * h, _mm256_fmadd_ps(_mm256_cvtepi32_ps(s[t][h]), by, sum));
		}
}

/* out [4][16] = four tokens times a panel of n blocks */
static inline __attribute__((always_inline)) void
multiply(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, enum kv_avx2_codes codes, float out[KV_AVX2_GROUP][ROWS])
{
	memset(out, 0, KV_AVX2_GROUP * sizeof *out);
	for (size_t b = 0; b < n; b++, w++, a++) {
		__m256i s[KV_AVX2_GROUP][2];

		switch (codes) {
		case KV_AVX2_FOUR:
			dot_steps(w, a, 0, STEPS, false, s);
			add_products(s, w->d[0], w->m, a, out);
			break;
		case KV_AVX2_FIVE:
			dot_steps(w, a, 0, STEPS / 2, false, s);
			add_products(s, w->d[0], NULL, a, out);
			dot_steps(w, a, STEPS / 2, STEPS, false, s);
			add_products(s, w->d[0], w->m, a, out);
			break;
		case KV_AVX2_HALVES:
			dot_steps(w, a, 0, STEPS / 2, true, s);
			add_products(s, w->d[0], NULL, a, out);
			dot_steps(w, a, STEPS / 2, STEPS, true, s);
			add_products(s, w->d[1], NULL, a, out);
			break;
		default:
			dot_eight_bits(w, a, s);
			add_products(s, w->d[0], NULL, a, out);
			break;
		}
	}
}

typedef void multiplying(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float out[KV_AVX2_GROUP][ROWS]);

static void
multiply_four(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float out[KV_AVX2_GROUP][ROWS])
{
	multiply(w, a, n, KV_AVX2_FOUR, out);
}

static void
multiply_five(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float out[KV_AVX2_GROUP][ROWS])
{
	multiply(w, a, n, KV_AVX2_FIVE, out);
}

static void
multiply_signed(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float out[KV_AVX2_GROUP][ROWS])
{
	multiply(w, a, n, KV_AVX2_SIGNED, out);
}

static void
multiply_halves(const struct kv_avx2_panel *w, const struct kv_avx2_act *a, size_t n, float out[KV_AVX2_GROUP][ROWS])
{
	multiply(w, a, n, KV_AVX2_HALVES, out);
}

void
kv_avx2_many(void *arg, size_t item, unsigned thread)
{
	const struct kv_avx2_batch *z = arg;
	const struct kv_weight *w = z->w;
	size_t blocks = w->n_in / KV_AVX2_BLOCK, first = item * ROWS, rows = w->n_out - first < ROWS ? w->n_out - first : ROWS;
	struct kv_avx2_panel *panel = z->panel + thread * blocks;
	static multiplying *const by[] = { [KV_AVX2_FOUR] = multiply_four, [KV_AVX2_FIVE] = multiply_five,
		[KV_AVX2_SIGNED] = multiply_signed, [KV_AVX2_HALVES] = multiply_halves };
	multiplying *times = by[kv_avx2_codes(w->type)];
	_Alignas(32) float out[KV_AVX2_GROUP][ROWS];

	kv_avx2_unpack(w, first, 0, blocks, panel);
	for (size_t at = 0; at < z->m; at += KV_AVX2_GROUP) {
		size_t tokens = z->m - at < KV_AVX2_GROUP ? z->m - at : KV_AVX2_GROUP;

		times(panel, z->a + at / KV_AVX2_GROUP * blocks, blocks, out);
		for (size_t t = 0; t < tokens; t++) {
			float *y = z->y + (at + t) * w->n_out + first;

			for (size_t r = 0; r < rows; r++)
				y[r] = z->add ? y[r] + out[t][r] : out[t][r];
		}
	}
}
#endif
