/* What the files of the level avx2 share. Included by them alone: everything here needs its instructions. */
#ifndef KV_KERNEL_AVX2_H
#define KV_KERNEL_AVX2_H

#if defined __AVX2__
#include <immintrin.h>

#include "kernel/ops.h"

enum { KV_AVX2_GROUP = 4, KV_AVX2_BLOCK = 32, KV_AVX2_ROWS = 16 };

/*
 * 32 inputs of four tokens in eight bits: x = d q, |q| <= 127, and s = d times the sum of the q, for weights that have a minimum. A batch is
 * [groups of four tokens][blocks]. Tokens that are missing in the last group are zeros.
 */
struct kv_avx2_act {
	int8_t q[KV_AVX2_GROUP][KV_AVX2_BLOCK];
	float d[KV_AVX2_GROUP], s[KV_AVX2_GROUP];
};

/* 16 rows of 32 inputs: codes [step][half][8 rows][4 inputs], w = d code + m. */
struct kv_avx2_panel {
	_Alignas(64) uint8_t q[KV_AVX2_BLOCK / 4][2][32];
	float d[KV_AVX2_ROWS], m[KV_AVX2_ROWS];
};

/* Rows first … of w, all their blocks. What would be behind the last row repeats it; nobody looks at its results. */
void kv_avx2_unpack(const struct kv_weight *w, size_t first, struct kv_avx2_panel *o);

/* x [m][blocks * 32] -> out [(m + 3) / 4][blocks] */
void kv_avx2_quantise(struct kv_pool *pool, const float *x, size_t m, size_t blocks, struct kv_avx2_act *out);

/* Matrix products over quantised activations, or over f32 ones for weights in F16; false: this type has no kernel here. */
bool kv_avx2_has_few(uint32_t type);
bool kv_avx2_has_many(uint32_t type);
void kv_avx2_few(struct kv_pool *pool, const struct kv_weight *w, const struct kv_avx2_act *a, const float *x, size_t m, float *y, bool add);

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

/* The whole product: quantised, by kv_avx2_few or, for more tokens, by `many`; of a type that has no kernel, the generic one. */
bool kv_avx2_matmul_with(kv_avx2_rows *many, struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add);

/* The table of a level that differs from avx2 in its products. */
#define KV_AVX2_OPS(name, product, attention) { \
	.level = name, .batch = 512, .embed = kv_generic_embed, .rmsnorm = kv_generic_rmsnorm, .matmul = product, \
	.add_bias = kv_generic_add_bias, .rope = kv_generic_rope, .attend = attention, .activate = kv_generic_activate, \
}

/* Attention of one token over rows in f16; other rows, and batches, are left to the generic table. */
bool kv_avx2_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);
/* Attention of a batch; of one token, as above. */
bool kv_avx2_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);
bool kv_avx512_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);

static inline float
kv_avx2_sum(__m256 v)
{
	__m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	a = _mm_add_ps(a, _mm_movehl_ps(a, a));
	return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}

/* Sixteen bytes of nibbles as 32 codes: the low ones, then the high ones. */
static inline __m256i
kv_avx2_nibbles(const uint8_t *p)
{
	__m128i x = _mm_loadu_si128((const __m128i *)(const void *)p);

	return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(x, 4), x), _mm256_set1_epi8(15));
}

static inline float
kv_avx2_half(const uint8_t *p)
{
	return _cvtsh_ss((unsigned short)(p[0] | p[1] << 8));
}

#endif
#endif
