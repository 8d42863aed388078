/* What the files of the level avx2 share. Included by them alone: everything here needs its instructions. */
#ifndef KV_KERNEL_AVX2_H
#define KV_KERNEL_AVX2_H

#if defined __AVX2__
#include <immintrin.h>
#include <string.h>

#include "kernel/ops.h"

enum {
	KV_AVX2_GROUP = 4, KV_AVX2_BLOCK = 32, KV_AVX2_ROWS = 16,
	KV_AVX2_FEW = 16,	/* at most so many tokens are few (struct kv_few) */
	KV_FEW_ROWS = 16,	/* rows that are still near for the next ones */
};

/*
 * 32 inputs of four tokens in eight bits: x = d q, |q| <= 127, and s = d times the sum of the q, for weights that have a minimum; first, the
 * same of the first sixteen. A batch is [groups of four tokens][blocks]. Tokens that are missing in the last group are zeros.
 */
struct kv_avx2_act {
	int8_t q[KV_AVX2_GROUP][KV_AVX2_BLOCK];
	float d[KV_AVX2_GROUP], s[KV_AVX2_GROUP], first[KV_AVX2_GROUP];
};

/* 16 rows of 32 inputs: codes [step][half][8 rows][4 inputs], w = d code + m; of some types each sixteen inputs have a scale of their own. */
struct kv_avx2_panel {
	_Alignas(64) uint8_t q[KV_AVX2_BLOCK / 4][2][32];
	float d[2][KV_AVX2_ROWS], m[KV_AVX2_ROWS];
};

/* What the codes of a type are: without a sign, of four or five bits; with one, of eight bits; with one, from -32 on, and two scales a block. */
enum kv_avx2_codes { KV_AVX2_NONE, KV_AVX2_FOUR, KV_AVX2_FIVE, KV_AVX2_SIGNED, KV_AVX2_HALVES };

/* Rows first … of w, their blocks [at, at + n). What would be behind the last row repeats it; nobody looks at its results. */
void kv_avx2_unpack(const struct kv_weight *w, size_t first, size_t at, size_t n, struct kv_avx2_panel *o);

/* x [m][blocks * 32] -> out [(m + 3) / 4][blocks] */
void kv_avx2_quantise(struct kv_pool *pool, const float *x, size_t m, size_t blocks, struct kv_avx2_act *out);

enum kv_avx2_codes kv_avx2_codes(uint32_t type);

/*
 * One token: activations in eight bits [blocks][32], their scale and the sum that a minimum is multiplied with [blocks][2], that sum of each half
 * [blocks][2], zeros behind the last block to a multiple of four; and as they were.
 */
struct kv_few_token {
	int8_t *q;
	float *ds, *halves;
	const float *x;
};

/*
 * How a level multiplies the weights of a type with a few tokens, at most `most` of them: for more, unpacking into panels pays. Up to KV_FEW_ROWS
 * rows of n blocks, row_bytes apart. With `halves` blocks, codes of four bits: in q the first sixteen activations of so many blocks stand
 * together, then their second sixteen, as the low nibbles of those blocks and their high ones do.
 */
struct kv_few {
	void (*multiply)(const uint8_t *p, size_t row_bytes, size_t rows, size_t n, const struct kv_few_token *x, size_t m,
		float out[][KV_FEW_ROWS]);	/* NULL: there is none */
	size_t halves, most;
};
struct kv_few kv_avx2_few(uint32_t type);
struct kv_few kv_avx512_few(uint32_t type);
/* Products of few tokens, of quantised activations with codes or of x with numbers (then a may be NULL). */
bool kv_avx2_multiply_few(struct kv_pool *pool, struct kv_few how, const struct kv_weight *w, const struct kv_avx2_act *a, const float *x, size_t m,
	float *y, bool add);

/* The product of a batch, sixteen rows of w an item of the pool. */
struct kv_avx2_batch {
	const struct kv_weight *w;
	const struct kv_avx2_act *a;		/* [(m + 3) / 4][n_in / 32] */
	size_t m;
	float *y;				/* [m][n_out] */
	bool add;
	struct kv_avx2_panel *panel;		/* [threads][n_in / 32] */
};

typedef void kv_avx2_rows(void *batch, size_t item, unsigned thread);
kv_avx2_rows kv_avx2_many;

/* The product of a batch with weights that are numbers: F32, F16, BF16. */
typedef bool kv_floats(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add);
kv_floats kv_avx2_floats, kv_avx512_floats;

/* How a level multiplies: few tokens; many whose activations are in eight bits with codes; and numbers with numbers. */
struct kv_avx2_products {
	struct kv_few (*few)(uint32_t type);
	kv_avx2_rows *codes;
	kv_floats *floats;
};

/* The whole product by one of these; of a shape that has no kernel, the generic one. */
bool kv_avx2_matmul_with(const struct kv_avx2_products *how, struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m,
	float *y, bool add);

/* The table of a level that differs from avx2 in its products. */
#define KV_AVX2_OPS(name, product, attention) { \
	.level = name, .batch = 512, .embed = kv_generic_embed, .rmsnorm = kv_generic_rmsnorm, .matmul = product, \
	.add_bias = kv_generic_add_bias, .rope = kv_generic_rope, .attend = attention, .activate = kv_generic_activate, \
}

/* Attention of one token over rows in f16; other rows, and batches, are left to the generic table. */
bool kv_avx2_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);
bool kv_avx512_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);
/* Attention of a batch; of one token, as above. */
bool kv_avx2_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);
bool kv_avx512_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);

/* Eight rows of eight words become eight columns. */
static inline __attribute__((always_inline)) void
kv_avx2_transpose(__m256i r[8])
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

/* The sums of the eight lanes of each. */
static inline __m128
kv_avx2_four_sums(const __m256 v[4])
{
	__m256 a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));

	return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}

static inline float
kv_avx2_half(const uint8_t *p)
{
	return _cvtsh_ss((unsigned short)(p[0] | p[1] << 8));
}

#endif
#endif
