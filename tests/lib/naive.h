/*
 * The forward pass once more, in double precision, one loop after the other, as the papers write it: what the engine is measured
 * against. It reads the GGUF file itself and shares with the engine only the reader of files and the values of weight blocks.
 */
#ifndef KV_TESTS_NAIVE_H
#define KV_TESTS_NAIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"

struct naive {
	size_t layers, heads, kv_heads, d, n_embd, n_ff, vocab;
	size_t n;			/* tokens */
	double *logits;			/* [n][vocab] */
	double *hidden;			/* [n][n_embd] after the final norm */
	double *q;			/* [layers][n][heads][d] before RoPE */
	double *k, *v;			/* [layers][n][kv_heads][d] as the cache holds them */
};

/* Entries that later queries no longer find: gone [layers][kv_heads][n], looked at by the tokens `from` and later. NULL: none. */
struct naive_gone {
	const uint8_t *gone;
	size_t from;
};

/* dtype: what K and V are rounded to, enum kvs_dtype. pos [n]: positions, or NULL for 0, 1, … The process ends if memory does. */
void naive_run(const struct kv_gguf *g, const uint32_t *ids, size_t n, const int32_t *pos, unsigned dtype, const struct naive_gone *gone,
	struct naive *out);
void naive_free(struct naive *r);

#endif
