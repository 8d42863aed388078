/*
 * Attention of one token over plain rows in f16, read once for the query heads that share them: four keys at a time are widened and turned into a
 * little scratch space, values are widened as they are added up.
 */
#include "kernel/ops.h"

#if defined __AVX2__
#include "kernel/attend.h"
#include "kernel/avx2_attend.h"
#include "kernel/generic.h"

enum { F16 = 2, WIDTH = 32 };	/* WIDTH: channels of the values in hand */

/* A key as f32 [d], turned; pairs of neighbours. cs [n_rot/2][2] */
static inline void
turn_neighbours(const uint16_t *k, size_t d, unsigned n_rot, const float *cs, float *out)
{
	for (size_t i = 0; i < d; i += 8) {
		__m256 x = kv_avx2_widen(k + i);

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
		__m256 y = _mm256_loadu_ps(cs + 2 * i), z = _mm256_loadu_ps(cs + 2 * i + 8), a = kv_avx2_widen(k + i), b = kv_avx2_widen(k + half + i);
		__m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0x88)), 0xd8));
		__m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0xdd)), 0xd8));

		_mm256_storeu_ps(out + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
		_mm256_storeu_ps(out + half + i, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
	}
	for (size_t i = n_rot; i < d; i += 8)
		_mm256_storeu_ps(out + i, kv_avx2_widen(k + i));
}

/* Keys k [v.to - v.from][d] in f16, before RoPE. */
static void
plain_scores(const struct kv_attn *a, const struct kv_attn_list *l, const uint16_t *k, struct kv_span v, const float *q, size_t heads,
	float *rows, float *s, size_t ld)
{
	size_t d = a->d_k, n = v.to - v.from, j = 0;

	for (; j + KV_AVX2_KEYS <= n; j += KV_AVX2_KEYS) {
		for (size_t i = 0; i < KV_AVX2_KEYS; i++) {
			const uint16_t *key = k + (j + i) * d;
			const float *cs = l->angles ? l->angles + (v.from + j + i) * a->n_rot : NULL;

			if (cs && a->neox)
				turn_halves(key, d, a->n_rot, cs, rows + i * d);
			else
				turn_neighbours(key, d, cs ? a->n_rot : 0, cs, rows + i * d);
		}
		kv_avx2_products(rows, q, d, heads, a->scale, s + j, ld);
	}
	if (j < n)
		kv_attn_generic.scores(a, l, (struct kv_span){ v.from + j, v.to }, q, heads, rows, s + j, ld);
}

static bool
is_plain(const struct kv_attn_segment *s)
{
	return s->dtype == F16 && !s->channel && !s->turned;
}

static void
scores(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *q, size_t heads, float *rows, float *s,
	size_t ld)
{
	size_t front = l->n_k_seg ? l->k_seg[l->n_k_seg - 1].to : 0;
	struct kv_span part;

	for (; v.from < v.to; s += part.to - part.from) {
		const struct kv_attn_segment *seg = kv_attn_part(l->k_seg, l->n_k_seg, &v, &part);

		if (!seg)
			plain_scores(a, l, (const uint16_t *)l->k + (part.from - front) * a->d_k, part, q, heads, rows, s, ld);
		else if (is_plain(seg))
			plain_scores(a, l, (const uint16_t *)(const void *)seg->data + (part.from - seg->from) * a->d_k, part, q, heads, rows, s, ld);
		else if (!kv_avx2_segment_scores(a, l, seg, part, q, heads, rows, s, ld))
			kv_attn_generic.scores(a, l, part, q, heads, rows, s, ld);
	}
}

/* o [heads] over WIDTH channels, += */
static inline __attribute__((always_inline)) void
add_values(const uint16_t *v, size_t d, size_t n, const float *p, size_t ld, size_t heads, float *o, size_t ld_o)
{
	__m256 sum[KV_AVX2_HEADS][WIDTH / 8];

	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < WIDTH / 8; i++)
			sum[h][i] = _mm256_loadu_ps(o + h * ld_o + 8 * i);
	for (size_t j = 0; j < n; j++)
		for (size_t i = 0; i < WIDTH / 8; i++) {
			__m256 x = kv_avx2_widen(v + j * d + 8 * i);

			for (size_t h = 0; h < heads; h++)
				sum[h][i] = _mm256_fmadd_ps(x, _mm256_set1_ps(p[h * ld + j]), sum[h][i]);
		}
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < WIDTH / 8; i++)
			_mm256_storeu_ps(o + h * ld_o + 8 * i, sum[h][i]);
}

static void
plain_weigh(size_t d, const uint16_t *x, size_t n, const float *p, size_t ld, size_t heads, float *o, size_t ld_o)
{
	for (size_t h = 0; h < heads; h += KV_AVX2_HEADS)
		for (size_t i = 0; i < d; i += WIDTH)
			switch (heads - h) {
			case 1: add_values(x + i, d, n, p + h * ld, ld, 1, o + h * ld_o + i, ld_o); break;
			case 2: add_values(x + i, d, n, p + h * ld, ld, 2, o + h * ld_o + i, ld_o); break;
			default: add_values(x + i, d, n, p + h * ld, ld, 3, o + h * ld_o + i, ld_o); break;
			}
}

static void
weigh(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *p, size_t ld, size_t heads, float *rows,
	float *o, size_t ld_o)
{
	size_t d = a->d_v, front = l->n_v_seg ? l->v_seg[l->n_v_seg - 1].to : 0;
	struct kv_span part;

	for (; v.from < v.to; p += part.to - part.from) {
		const struct kv_attn_segment *seg = kv_attn_part(l->v_seg, l->n_v_seg, &v, &part);
		size_t n = part.to - part.from;

		if (!seg)
			plain_weigh(d, (const uint16_t *)l->v + (part.from - front) * d, n, p, ld, heads, o, ld_o);
		else if (is_plain(seg))
			plain_weigh(d, (const uint16_t *)(const void *)seg->data + (part.from - seg->from) * d, n, p, ld, heads, o, ld_o);
		else if (!kv_avx2_segment_weigh(a, seg, part, p, ld, heads, rows, o, ld_o))
			kv_attn_generic.weigh(a, l, part, p, ld, heads, rows, o, ld_o);
	}
}

/* Whole vectors of f16 in every list, segments aside. */
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
