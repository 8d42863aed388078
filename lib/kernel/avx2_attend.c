/*
 * Attention of one token over rows in f16, read once for the query heads that share them: four keys at a time are widened and turned into a
 * little scratch space, values are widened as they are added up.
 */
#include "kernel/ops.h"

#if defined __AVX2__
#include "kernel/attend.h"
#include "kernel/avx2.h"
#include "kernel/generic.h"

enum { F16 = 2, KEYS = 4, HEADS = 3, WIDTH = 32 };	/* WIDTH: channels of the values in hand */

static inline __m256
widen(const uint16_t *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* A key as f32 [d], turned; pairs of neighbours. cs [n_rot/2][2] */
static inline void
turn_neighbours(const uint16_t *k, size_t d, unsigned n_rot, const float *cs, float *out)
{
	for (size_t i = 0; i < d; i += 8) {
		__m256 x = widen(k + i);

		if (i < n_rot) {
			__m256 z = _mm256_loadu_ps(cs + i), crossed = _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), _mm256_movehdup_ps(z));

			x = _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(z), crossed);
		}
		_mm256_storeu_ps(out + i, x);
	}
}

/* The same; pairs half of n_rot apart. */
static inline void
turn_halves(const uint16_t *k, size_t d, unsigned n_rot, const float *cs, float *out)
{
	size_t half = n_rot / 2;

	for (size_t i = 0; i < half; i += 8) {
		__m256 y = _mm256_loadu_ps(cs + 2 * i), z = _mm256_loadu_ps(cs + 2 * i + 8), a = widen(k + i), b = widen(k + half + i);
		__m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0x88)), 0xd8));
		__m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0xdd)), 0xd8));

		_mm256_storeu_ps(out + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
		_mm256_storeu_ps(out + half + i, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
	}
	for (size_t i = n_rot; i < d; i += 8)
		_mm256_storeu_ps(out + i, widen(k + i));
}

/* s [heads][ld] of four keys [4][d] */
static inline __attribute__((always_inline)) void
four_keys(const float *k, const float *q, size_t d, size_t heads, float scale, float *s, size_t ld)
{
	__m256 sum[HEADS][KEYS];

	for (size_t h = 0; h < heads; h++)
		for (size_t j = 0; j < KEYS; j++)
			sum[h][j] = _mm256_setzero_ps();
	for (size_t i = 0; i < d; i += 8)
		for (size_t j = 0; j < KEYS; j++) {
			__m256 x = _mm256_loadu_ps(k + j * d + i);

			for (size_t h = 0; h < heads; h++)
				sum[h][j] = _mm256_fmadd_ps(x, _mm256_loadu_ps(q + h * d + i), sum[h][j]);
		}
	for (size_t h = 0; h < heads; h++) {
		__m256 a = _mm256_hadd_ps(_mm256_hadd_ps(sum[h][0], sum[h][1]), _mm256_hadd_ps(sum[h][2], sum[h][3]));
		__m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

		_mm_storeu_ps(s + h * ld, _mm_mul_ps(four, _mm_set1_ps(scale)));
	}
}

static void
scores(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *q, size_t heads, float *rows, float *s,
	size_t ld)
{
	const uint16_t *k = l->k;
	size_t d = a->d_k, n = v.to - v.from, j = 0;

	for (; j + KEYS <= n; j += KEYS) {
		for (size_t i = 0; i < KEYS; i++) {
			const uint16_t *key = k + (v.from + j + i) * d;
			const float *cs = l->angles ? l->angles + (v.from + j + i) * a->n_rot : NULL;

			if (cs && a->neox)
				turn_halves(key, d, a->n_rot, cs, rows + i * d);
			else
				turn_neighbours(key, d, cs ? a->n_rot : 0, cs, rows + i * d);
		}
		for (size_t h = 0; h < heads; h += HEADS)
			switch (heads - h) {
			case 1: four_keys(rows, q + h * d, d, 1, a->scale, s + h * ld + j, ld); break;
			case 2: four_keys(rows, q + h * d, d, 2, a->scale, s + h * ld + j, ld); break;
			default: four_keys(rows, q + h * d, d, 3, a->scale, s + h * ld + j, ld); break;
			}
	}
	if (j < n)
		kv_attn_generic.scores(a, l, (struct kv_span){ v.from + j, v.to }, q, heads, rows, s + j, ld);
}

/* o [heads] over WIDTH channels */
static inline __attribute__((always_inline)) void
add_values(const uint16_t *v, size_t d, size_t n, const float *p, size_t ld, size_t heads, float *o, size_t ld_o)
{
	__m256 sum[HEADS][WIDTH / 8];

	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < WIDTH / 8; i++)
			sum[h][i] = _mm256_setzero_ps();
	for (size_t j = 0; j < n; j++)
		for (size_t i = 0; i < WIDTH / 8; i++) {
			__m256 x = widen(v + j * d + 8 * i);

			for (size_t h = 0; h < heads; h++)
				sum[h][i] = _mm256_fmadd_ps(x, _mm256_set1_ps(p[h * ld + j]), sum[h][i]);
		}
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < WIDTH / 8; i++)
			_mm256_storeu_ps(o + h * ld_o + 8 * i, sum[h][i]);
}

static void
weigh(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *p, size_t ld, size_t heads, float *rows,
	float *o, size_t ld_o)
{
	size_t d = a->d_v, n = v.to - v.from;
	const uint16_t *x = (const uint16_t *)l->v + v.from * d;

	(void)rows;
	for (size_t h = 0; h < heads; h += HEADS)
		for (size_t i = 0; i < d; i += WIDTH)
			switch (heads - h) {
			case 1: add_values(x + i, d, n, p + h * ld, ld, 1, o + h * ld_o + i, ld_o); break;
			case 2: add_values(x + i, d, n, p + h * ld, ld, 2, o + h * ld_o + i, ld_o); break;
			default: add_values(x + i, d, n, p + h * ld, ld, 3, o + h * ld_o + i, ld_o); break;
			}
}

/* Whole vectors of f16 in every list. */
static bool
fits(const struct kv_attn *a)
{
	bool good = a->d_k % 8 == 0 && a->d_v % WIDTH == 0 && a->n_rot % (a->neox ? 16 : 8) == 0;

	for (size_t h = 0; h < a->kv_heads; h++)
		good &= a->list[h].k_dtype == F16 && a->list[h].v_dtype == F16;
	return good;
}

bool
kv_avx2_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	static const struct kv_attn_parts parts = { scores, weigh };

	if (m == 1 && fits(a))
		return kv_attend_one(pool, a, &parts, q, out);
	return kv_generic_attend(pool, a, q, m, out);
}
#endif
