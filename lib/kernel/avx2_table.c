/* The level avx2: activations in eight bits, in blocks of 32, times codes read in place. The rest is the generic table's. */
#include "kernel/ops.h"

#if defined __AVX2__
#include <string.h>

#include "kernel/avx2.h"
#include "kernel/generic.h"
#include "kernel/quant.h"
#include "util/mem.h"

struct quantising {
	const float *x;
	size_t m, blocks;
	struct kv_avx2_act *out;
};

static inline __m256
magnitude(__m256 v)
{
	return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

static inline float
largest(__m256 v)
{
	__m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));

	a = _mm_max_ps(a, _mm_movehl_ps(a, a));
	return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

static inline int
sum_of(__m256i v)
{
	__m128i a = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));

	a = _mm_add_epi32(a, _mm_shuffle_epi32(a, 0x4e));
	return _mm_cvtsi128_si32(_mm_add_epi32(a, _mm_shuffle_epi32(a, 0xb1)));
}

/* 32 values of token t. What is too small to have a finite reciprocal counts as zero. */
static inline void
quantise_block(const float *x, size_t t, struct kv_avx2_act *o)
{
	__m256 a = _mm256_loadu_ps(x), b = _mm256_loadu_ps(x + 8), c = _mm256_loadu_ps(x + 16), d = _mm256_loadu_ps(x + 24);
	float top = largest(_mm256_max_ps(_mm256_max_ps(magnitude(a), magnitude(b)), _mm256_max_ps(magnitude(c), magnitude(d))));
	__m256 by = _mm256_set1_ps(top > 1e-30f ? 127 / top : 0);
	__m256i p = _mm256_cvtps_epi32(_mm256_mul_ps(a, by)), q = _mm256_cvtps_epi32(_mm256_mul_ps(b, by));
	__m256i r = _mm256_cvtps_epi32(_mm256_mul_ps(c, by)), s = _mm256_cvtps_epi32(_mm256_mul_ps(d, by));
	__m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(p, q), _mm256_packs_epi32(r, s));
	int first;

	_mm256_storeu_si256((__m256i *)(void *)o->q[t], _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
	o->d[t] = top > 1e-30f ? top / 127 : 0;
	first = sum_of(_mm256_add_epi32(p, q));
	o->first[t] = o->d[t] * (float)first;
	o->s[t] = o->d[t] * (float)(first + sum_of(_mm256_add_epi32(r, s)));
}

static void
quantise_group(void *arg, size_t item, unsigned thread)
{
	const struct quantising *z = arg;
	size_t first = item * KV_AVX2_GROUP, tokens = z->m - first < KV_AVX2_GROUP ? z->m - first : KV_AVX2_GROUP;
	struct kv_avx2_act *o = z->out + item * z->blocks;

	(void)thread;
	if (tokens < KV_AVX2_GROUP)
		memset(o, 0, z->blocks * sizeof *o);
	for (size_t t = 0; t < tokens; t++)
		for (size_t b = 0; b < z->blocks; b++)
			quantise_block(z->x + ((first + t) * z->blocks + b) * KV_AVX2_BLOCK, t, o + b);
}

void
kv_avx2_quantise(struct kv_pool *pool, const float *x, size_t m, size_t blocks, struct kv_avx2_act *out)
{
	struct quantising z = { x, m, blocks, out };
	size_t groups = (m + KV_AVX2_GROUP - 1) / KV_AVX2_GROUP;

	if (groups == 1)
		quantise_group(&z, 0, 0);
	else
		kv_pool_run(pool, groups, quantise_group, &z);
}

static bool
by_panels(kv_avx2_rows *many, struct kv_pool *pool, struct kv_avx2_batch b)
{
	const struct kv_weight *w = b.w;

	if (!(b.panel = kv_block_new(kv_pool_threads(pool), w->n_in / KV_AVX2_BLOCK * sizeof *b.panel)))
		return false;
	kv_pool_run(pool, (w->n_out + KV_AVX2_ROWS - 1) / KV_AVX2_ROWS, many, &b);
	kv_block_free(b.panel);
	return true;
}

bool
kv_avx2_matmul_with(const struct kv_avx2_products *how, struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m,
	float *y, bool add)
{
	size_t blocks = w->n_in / KV_AVX2_BLOCK;
	struct kv_few few = how->few(w->type);
	bool numbers = kv_wtype_info(w->type)->values == 1, is_few = few.multiply && m <= few.most, done = true;
	struct kv_avx2_act *a;

	if (numbers && !is_few)
		return how->floats(pool, w, x, m, y, add);
	if (w->n_in % KV_AVX2_BLOCK || !(is_few || kv_avx2_codes(w->type) != KV_AVX2_NONE))
		return kv_generic_matmul(pool, w, x, m, y, add);
	if (numbers)
		return kv_avx2_multiply_few(pool, few, w, NULL, x, m, y, add);
	if (!(a = kv_block_new((m + KV_AVX2_GROUP - 1) / KV_AVX2_GROUP, blocks * sizeof *a)))
		return false;
	kv_avx2_quantise(pool, x, m, blocks, a);
	if (is_few)
		done = kv_avx2_multiply_few(pool, few, w, a, x, m, y, add);
	else
		done = by_panels(how->codes, pool, (struct kv_avx2_batch){ w, a, m, y, add, NULL });
	kv_block_free(a);
	return done;
}

static bool
matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add)
{
	static const struct kv_avx2_products how = { kv_avx2_few, kv_avx2_many, kv_avx2_floats };

	return kv_avx2_matmul_with(&how, pool, w, x, m, y, add);
}

const struct kv_ops kv_ops_avx2 = KV_AVX2_OPS("avx2", matmul, kv_avx2_flash);
#endif
