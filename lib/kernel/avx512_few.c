/*
 * Products for a few tokens at the level avx512, whose products of four are one instruction: four blocks of nibbles at a time, two of bytes.
 * Types that are not here are multiplied as at the level avx2.
 */
#include "kernel/ops.h"

#if defined __AVX512VNNI__
#include "kernel/few.h"
#include "kernel/quant.h"
#include "util/le.h"

/* The first `blocks` of four of them, as 32 words and those that are left. */
static inline __attribute__((always_inline)) void
load_blocks(struct kv_few_nibbles kind, const uint8_t *p, size_t blocks, __m512i *words, __m128i *rest)
{
	*rest = _mm_setzero_si128();
	if (blocks < 4) {
		*words = _mm512_maskz_loadu_epi16((__mmask32)((1u << (blocks * kind.size / 2)) - 1), p);
		return;
	}
	*words = _mm512_loadu_si512(p);
	if (kind.size == 20)
		*rest = _mm_loadu_si128((const __m128i *)(const void *)(p + 64));
	else
		*rest = _mm_loadl_epi64((const __m128i *)(const void *)(p + 64));
}

/* [4 blocks][8 words of codes] */
static inline __attribute__((always_inline)) __m512i
codes_of(struct kv_few_nibbles kind, __m512i words, __m128i rest)
{
	_Alignas(64) uint16_t from[32];

#pragma GCC unroll 32
	for (size_t i = 0; i < 32; i++)
		from[i] = (uint16_t)(i / 8 * kind.size / 2 + kind.codes / 2 + i % 8);
	return _mm512_permutex2var_epi16(words, _mm512_load_si512(from), _mm512_castsi128_si512(rest));
}

/* [4 blocks][2]: the scale and what is behind it, or again the scale */
static inline __attribute__((always_inline)) __m256
heads_of(struct kv_few_nibbles kind, __m512i words)
{
	const short b = (short)(kind.size / 2), next = kind.codes == 2 ? 0 : 1;
	__m512i from = _mm512_castsi128_si512(_mm_setr_epi16(0, next, b, (short)(b + next), (short)(2 * b), (short)(2 * b + next), (short)(3 * b),
		(short)(3 * b + next)));

	return _mm256_cvtph_ps(_mm512_castsi512_si128(_mm512_permutexvar_epi16(from, words)));
}

/* The sums of one token. */
struct sums {
	__m512 dot;
	__m256 min;
};

/* Lanes 0 … 3 of every 128 bits are a block's: low nibbles and high ones go into the same sums, for q has their activations in that order. */
static inline __attribute__((always_inline)) void
add_nibbles(struct kv_few_nibbles kind, const uint8_t *p, size_t at, size_t blocks, const struct kv_few_token *x, size_t m, struct sums *to)
{
	const __m512i nibble = _mm512_set1_epi8(15), scales = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
	__m512i words, codes, low, high;
	__m128i rest;
	__m256 heads;

	load_blocks(kind, p + at * kind.size, blocks, &words, &rest);
	codes = codes_of(kind, words, rest);
	low = _mm512_and_si512(codes, nibble);
	high = _mm512_and_si512(_mm512_srli_epi16(codes, 4), nibble);
	heads = heads_of(kind, words);
	for (size_t t = 0; t < m; t++) {
		const int8_t *q = x[t].q + at * KV_AVX2_BLOCK;
		__m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, _mm512_loadu_si512(q));
		__m256 worth = _mm256_mul_ps(heads, _mm256_loadu_ps(x[t].ds + 2 * at));

		sum = _mm512_dpbusd_epi32(sum, high, _mm512_loadu_si512(q + 64));
		to[t].min = _mm256_add_ps(to[t].min, worth);
		to[t].dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_permutexvar_ps(scales, _mm512_castps256_ps512(worth)), to[t].dot);
	}
}

/* All products and, `lowest` times over, the minima, which are every other lane. */
static inline __m256
total(const struct sums *s, float lowest)
{
	__m256 low = _mm512_castps512_ps256(s->dot), high = _mm512_extractf32x8_ps(s->dot, 1);
	__m256 m = _mm256_blend_ps(_mm256_setzero_ps(), _mm256_mul_ps(s->min, _mm256_set1_ps(lowest)), 0xaa);

	return _mm256_add_ps(m, _mm256_add_ps(low, high));
}

static inline __attribute__((always_inline)) void
sums_nibbles(struct kv_few_nibbles kind, const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	struct sums s[KV_FEW_TOGETHER] = { { _mm512_setzero_ps(), _mm256_setzero_ps() } };
	size_t b = 0;

	for (; b + 4 <= n; b += 4)
		add_nibbles(kind, p, b, 4, x, m, s);
	if (b < n)
		add_nibbles(kind, p, b, n - b, x, m, s);
	for (size_t t = 0; t < m; t++)
		out[t] = total(&s[t], kind.codes == 2 ? -8 : 1);
}

KV_FEW_NIBBLES(q4_0, 18, 2)
KV_FEW_NIBBLES(q4_1, 20, 4)

/* Codes with a sign of two blocks as codes without: w = d (code - 128). w NULL: only one is left. */
static inline __attribute__((always_inline)) void
add_bytes(const uint8_t *v, const uint8_t *w, size_t at, const struct kv_few_token *x, size_t m, struct sums *to)
{
	const __m512i scales = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
	__m256i low = _mm256_loadu_si256((const __m256i *)(const void *)(v + 2));
	__m256i high = w ? _mm256_loadu_si256((const __m256i *)(const void *)(w + 2)) : _mm256_setzero_si256();
	__m512i codes = _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), _mm512_set1_epi8(-128));
	__m128i words = _mm_unpacklo_epi32(_mm_cvtsi32_si128((int32_t)le32_get(v)), w ? _mm_cvtsi32_si128((int32_t)le32_get(w)) : _mm_setzero_si128());
	__m128 heads = _mm_cvtph_ps(_mm_shufflelo_epi16(words, 0xa0));

	for (size_t t = 0; t < m; t++) {
		__m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes, _mm512_loadu_si512(x[t].q + at * KV_AVX2_BLOCK));
		__m256 worth = _mm256_zextps128_ps256(_mm_mul_ps(heads, _mm_loadu_ps(x[t].ds + 2 * at)));

		to[t].min = _mm256_add_ps(to[t].min, worth);
		to[t].dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_permutexvar_ps(scales, _mm512_castps256_ps512(worth)), to[t].dot);
	}
}

static inline __attribute__((always_inline)) void
sums_q8_0(const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	struct sums s[KV_FEW_TOGETHER] = { { _mm512_setzero_ps(), _mm256_setzero_ps() } };
	size_t b = 0;

	for (; b + 2 <= n; b += 2)
		add_bytes(p + b * 34, p + (b + 1) * 34, b, x, m, s);
	if (b < n)
		add_bytes(p + b * 34, NULL, b, x, m, s);
	for (size_t t = 0; t < m; t++)
		out[t] = total(&s[t], -128);
}

KV_FEW_KERNEL(q4_0, KV_FEW_TOGETHER)
KV_FEW_KERNEL(q4_1, KV_FEW_TOGETHER)
KV_FEW_KERNEL(q8_0, KV_FEW_TOGETHER)

struct kv_few
kv_avx512_few(uint32_t type)
{
	switch (type) {
	case KV_W_Q4_0: return (struct kv_few){ q4_0, 4, 8 };
	case KV_W_Q4_1: return (struct kv_few){ q4_1, 4, 8 };
	case KV_W_Q8_0: return (struct kv_few){ q8_0, 1, 6 };
	default: return kv_avx2_few(type);
	}
}
#endif
