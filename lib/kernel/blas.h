/*
 * OpenBLAS, which the generic level multiplies with. It is loaded when it is first needed: other levels, and tools that have nothing to
 * multiply, do without it and without the threads that it starts.
 */
#ifndef KV_KERNEL_BLAS_H
#define KV_KERNEL_BLAS_H

#include <stdbool.h>
#include <stddef.h>

#include "util/err.h"

/* KV_EIO, with the loader's own words. From several threads at once, and again: fine. */
enum kv_status kv_blas_load(struct kv_err *err);
/* Its name and version; NULL as long as it is not loaded. */
const char *kv_blas_name(void);

/* c [m][n] = alpha a b + beta c, on one thread; a [m][k], b [k][n] or, b_turned, [n][k]; rows lda, ldb, ldc floats apart. Only once it is loaded. */
void kv_blas_multiply(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, bool b_turned, size_t ldb,
	float beta, float *c, size_t ldc);

#endif
