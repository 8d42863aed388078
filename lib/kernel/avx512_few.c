/*
 * Products for one to four tokens at the level avx512: two blocks at a time, whose products of four are one instruction. Types that are not
 * here are multiplied as at the level avx2.
 */
#include "kernel/ops.h"

#if defined __AVX512VNNI__
#include "kernel/avx2.h"
#include "kernel/quant.h"
#include "util/le.h"

enum { AHEAD = 4096 };	/* bytes ahead of the reading that are asked for */

/* What a block is: so many bytes, the scale first, codes from `codes` on, of so many bits, which stand for code + lowest. */
struct kind {
	size_t size, codes;
	unsigned bits;
	float lowest;		/* 0: the block has a minimum, behind its scale */
};

/* low [32] and high [32] */
static inline __m512i
join(__m256i low, __m256i high)
{
	return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

static inline __m256i
bytes_at(const void *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

/* Sixteen bytes twice: for their low nibbles and for their high ones. */
static inline __m256i
twice(const uint8_t *p)
{
	return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* Of two blocks, as codes without a sign: [block][32]. */
static inline __m512i
codes_at(const uint8_t *v, const uint8_t *w, unsigned bits)
{
	const __m512i turns = _mm512_set_epi32(4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0);

	if (bits == 8)
		return _mm512_xor_si512(join(bytes_at(v), bytes_at(w)), _mm512_set1_epi8(-128));
	return _mm512_and_si512(_mm512_srlv_epi32(join(twice(v), twice(w)), turns), _mm512_set1_epi8(15));
}

/* The blocks at v and w times q [2][32]; ds [2][2]: the scale of the activations, and what a minimum is multiplied with. */
static inline __attribute__((always_inline)) void
add_blocks(struct kind kind, const uint8_t *v, const uint8_t *w, __m512i q, __m128 ds, __m512 *dot, __m128 *min)
{
	const __m512i spread = _mm512_set_epi32(2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0);
	__m128i head = _mm_unpacklo_epi32(_mm_cvtsi32_si128((int32_t)le32_get(v)), _mm_cvtsi32_si128((int32_t)le32_get(w)));
	__m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes_at(v + kind.codes, w + kind.codes, kind.bits), q);
	__m128 worth;

	if (kind.lowest != 0)	/* no minimum: the scale in its place */
		head = _mm_shufflelo_epi16(head, 0xa0);
	worth = _mm_mul_ps(_mm_cvtph_ps(head), ds);
	*min = _mm_add_ps(*min, worth);
	*dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(worth)), *dot);
}

static inline float
total(struct kind kind, __m512 dot, __m128 min)
{
	float m = _mm_cvtss_f32(_mm_movehdup_ps(_mm_add_ps(min, _mm_movehl_ps(min, min))));
	__m256 low = _mm512_castps512_ps256(dot), high = _mm512_extractf32x8_ps(dot, 1);

	return kv_avx2_sum(_mm256_add_ps(low, high)) + (kind.lowest != 0 ? kind.lowest * m : m);
}

static inline __attribute__((always_inline)) void
product(struct kind kind, const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	__m512 dot[2] = { _mm512_setzero_ps(), _mm512_setzero_ps() };
	__m128 min[2] = { _mm_setzero_ps(), _mm_setzero_ps() };
	size_t b = 0;

	for (; b + 2 <= n; b += 2) {
		__m512i q = _mm512_loadu_si512(x->q + b * KV_AVX2_BLOCK);
		__m128 ds = _mm_loadu_ps(x->ds + 2 * b);

#pragma GCC unroll 2
		for (size_t r = 0; r < 2; r++) {
			const uint8_t *v = p[r] + b * kind.size;

			_mm_prefetch((const char *)v + AHEAD, _MM_HINT_T0);
			if (2 * kind.size > 64)
				_mm_prefetch((const char *)v + AHEAD + kind.size, _MM_HINT_T0);
			add_blocks(kind, v, v + kind.size, q, ds, &dot[r], &min[r]);
		}
	}
	for (size_t r = 0; r < 2; r++) {
		if (b < n) {	/* the last one alone: what stands for a second counts nothing */
			const uint8_t *v = p[r] + b * kind.size;
			__m512i q = join(bytes_at(x->q + b * KV_AVX2_BLOCK), _mm256_setzero_si256());
			__m128 ds = _mm_castpd_ps(_mm_load_sd((const double *)(const void *)(x->ds + 2 * b)));

			add_blocks(kind, v, v, q, ds, &dot[r], &min[r]);
		}
		out[r] = total(kind, dot[r], min[r]);
	}
}

static void
product_q4_0(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product((struct kind){ 18, 2, 4, -8 }, p, n, x, out);
}

static void
product_q4_1(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product((struct kind){ 20, 4, 4, 0 }, p, n, x, out);
}

static void
product_q8_0(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product((struct kind){ 34, 2, 8, -128 }, p, n, x, out);
}

kv_few_product *
kv_avx512_few(uint32_t type)
{
	switch (type) {
	case KV_W_Q4_0: return product_q4_0;
	case KV_W_Q4_1: return product_q4_1;
	case KV_W_Q8_0: return product_q8_0;
	default: return kv_avx2_few(type);
	}
}
#endif
