/*
 * What the kernels for a few tokens share: a row of weights is unpacked once for some of them, and four rows are added up at a time. For the
 * files avx2_few.c and avx512_few.c alone.
 */
#ifndef KV_KERNEL_FEW_H
#define KV_KERNEL_FEW_H

#if defined __AVX2__
#include "kernel/avx2.h"

enum { KV_FEW_TOGETHER = 4 };	/* tokens that share the unpacking of a row, at most */

/* Products of a row of n blocks with each of m tokens, in eight sums. Unpacked once for all of them; m is a constant where this is inlined. */
typedef void kv_few_sums(const uint8_t *row, size_t n, const struct kv_few_token *x, size_t m, __m256 *out);

/* Four rows at a time; a row's sum is the same wherever it stands among them, and a token's with whomever it comes. */
static inline __attribute__((always_inline)) void
kv_few_rows(kv_few_sums *sums, const uint8_t *p, size_t row_bytes, size_t rows, size_t n, const struct kv_few_token *x, size_t m,
	float out[][KV_FEW_ROWS])
{
	for (size_t first = 0; first < rows; first += 4) {
		__m256 v[4][KV_FEW_TOGETHER] = { { _mm256_setzero_ps() } };

		for (size_t r = 0; r < 4 && first + r < rows; r++, p += row_bytes)
			sums(p, n, x, m, v[r]);
		for (size_t t = 0; t < m; t++)
			_mm_storeu_ps(out[t] + first, kv_avx2_four_sums((__m256[4]){ v[0][t], v[1][t], v[2][t], v[3][t] }));
	}
}

/* Blocks of four bits, `size` bytes each: the scale; a minimum, or else -8 times the scale is one; from byte `codes` on, codes. */
struct kv_few_nibbles {
	size_t size, codes;
};

/* Sums of a type of such blocks, by a level's sums_nibbles. */
#define KV_FEW_NIBBLES(name, size, codes) \
	static inline __attribute__((always_inline)) void \
	sums_##name(const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out) \
	{ \
		sums_nibbles((struct kv_few_nibbles){ size, codes }, p, n, x, m, out); \
	}

/* The multiplication (struct kv_few) whose sums are sums_NAME, `together` tokens at a time: 2 or KV_FEW_TOGETHER. */
#define KV_FEW_KERNEL(name, together) \
	static void \
	name(const uint8_t *p, size_t row_bytes, size_t rows, size_t n, const struct kv_few_token *x, size_t m, float out[][KV_FEW_ROWS]) \
	{ \
		size_t t = 0; \
		for (; t + together <= m; t += together) \
			kv_few_rows(sums_##name, p, row_bytes, rows, n, x + t, together, out + t); \
		for (; together > 2 && t + 2 <= m; t += 2) \
			kv_few_rows(sums_##name, p, row_bytes, rows, n, x + t, 2, out + t); \
		for (; t < m; t++) \
			kv_few_rows(sums_##name, p, row_bytes, rows, n, x + t, 1, out + t); \
	}

#endif
#endif
