/*
 * The product of numbers that attention and weights in f32 share: a few rows times a panel of columns, as many as the processor's
 * registers have sums for. For files of a level alone.
 */
#ifndef KV_KERNEL_SIMD_PRODUCT_H
#define KV_KERNEL_SIMD_PRODUCT_H

#if defined __AVX2__
#include "kernel/avx2.h"
#include "kernel/simd.h"

/* KV_ROWS * KV_VECTORS registers: of 16, or of 32 where they are wide. */
enum { KV_ROWS = 6, KV_VECTORS = KV_LANES == 8 ? 2 : 4, KV_PANEL = KV_VECTORS * KV_LANES };

/* c [KV_ROWS][vectors] = a [KV_ROWS][n] b [n][vectors], plus by_r c where there is a by. */
KV_INLINE void
kv_product(const float *a, size_t ld_a, const float *b, size_t ld_b, size_t n, const float *by, float *c, size_t ld_c, size_t vectors)
{
	kv_vec sum[KV_ROWS][KV_VECTORS];

#pragma GCC unroll 6
	for (size_t r = 0; r < KV_ROWS; r++)
#pragma GCC unroll 4
		for (size_t v = 0; v < vectors; v++)
			if (by)
				sum[r][v] = kv_splat(by[r]) * kv_load(c + r * ld_c + v * KV_LANES);
			else
				sum[r][v] = kv_splat(0);
	for (size_t i = 0; i < n; i++, a++, b += ld_b) {
		kv_vec x[KV_VECTORS];

#pragma GCC unroll 4
		for (size_t v = 0; v < vectors; v++)
			x[v] = kv_load(b + v * KV_LANES);
#pragma GCC unroll 6
		for (size_t r = 0; r < KV_ROWS; r++) {
			kv_vec y = kv_splat(a[r * ld_a]);

#pragma GCC unroll 4
			for (size_t v = 0; v < vectors; v++)
				sum[r][v] = kv_fma(x[v], y, sum[r][v]);
		}
	}
#pragma GCC unroll 6
	for (size_t r = 0; r < KV_ROWS; r++)
#pragma GCC unroll 4
		for (size_t v = 0; v < vectors; v++)
			kv_store(c + r * ld_c + v * KV_LANES, sum[r][v]);
}

/* The same for width columns, rounded up to whole vectors. */
static inline void
kv_multiply(const float *a, size_t ld_a, const float *b, size_t ld_b, size_t n, const float *by, float *c, size_t ld_c, size_t width)
{
	for (size_t at = 0; at < width; at += KV_PANEL)
		switch ((width - at + KV_LANES - 1) / KV_LANES) {
		case 1: kv_product(a, ld_a, b + at, ld_b, n, by, c + at, ld_c, 1); break;
#if defined __AVX512F__
		case 2: kv_product(a, ld_a, b + at, ld_b, n, by, c + at, ld_c, 2); break;
		case 3: kv_product(a, ld_a, b + at, ld_b, n, by, c + at, ld_c, 3); break;
#endif
		default: kv_product(a, ld_a, b + at, ld_b, n, by, c + at, ld_c, KV_VECTORS); break;
		}
}

/* Rows [KV_PANEL][n], ld apart, as a panel [n][KV_PANEL]. */
static inline void
kv_transpose(const float *rows, size_t ld, size_t n, float *panel)
{
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		for (size_t j = 0; j < KV_PANEL; j += 8) {
			__m256i r[8];

			for (size_t k = 0; k < 8; k++)
				r[k] = _mm256_loadu_si256((const __m256i *)(const void *)(rows + (j + k) * ld + i));
			kv_avx2_transpose(r);
			for (size_t k = 0; k < 8; k++)
				_mm256_storeu_si256((__m256i *)(void *)(panel + (i + k) * KV_PANEL + j), r[k]);
		}
	for (; i < n; i++)
		for (size_t j = 0; j < KV_PANEL; j++)
			panel[i * KV_PANEL + j] = rows[j * ld + i];
}

#endif
#endif
