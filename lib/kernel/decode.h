/*
 * Attention of one token over plain rows in f16 with vectors. A row is read once for the query heads that share it: keys are widened and
 * turned, four at a time, as they are multiplied, values widened as they are added up. For files of a level alone.
 */
#ifndef KV_KERNEL_DECODE_H
#define KV_KERNEL_DECODE_H

#if defined __AVX2__
#include <float.h>

#include "kernel/avx2.h"
#include "kernel/decode_segments.h"
#include "kernel/expf.h"

/* Keys k [v.to - v.from][d] in f16, before RoPE. */
static void
plain_scores(const struct kv_attn *a, const struct kv_attn_list *l, const uint16_t *k, struct kv_span v, const float *q, size_t heads,
	float *rows, float *s, size_t ld)
{
	size_t n_rot = l->angles ? a->n_rot : 0, j = v.from;
	struct four f = { .k = (const uint8_t *)k, .row_bytes = a->d_k * sizeof *k, .cs_step = n_rot, .d = a->d_k, .n_rot = n_rot, .turned = rows, .q = q,
		.scale = a->scale, .s = s, .ld = ld };

	for (; j + KEYS <= v.to; j += KEYS, f.k += KEYS * f.row_bytes, f.s += KEYS) {
		fetch(f.k, KEYS * f.row_bytes);
		if (n_rot) {
			f.cs = l->angles + j * n_rot;
			fetch(f.cs, KEYS * n_rot * sizeof *f.cs);
		}
		if (a->neox)
			four_keys(&f, 0, HALVES, heads);
		else
			four_keys(&f, 0, NEIGHBOURS, heads);
	}
	if (j < v.to)
		kv_attn_generic.scores(a, l, (struct kv_span){ j, v.to }, q, heads, rows, f.s, ld);
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
		else if (!segment_scores(a, l, seg, part, q, heads, rows, s, ld))
			kv_attn_generic.scores(a, l, part, q, heads, rows, s, ld);
	}
}

/* s_j [n] = e^(s_j - *top), *top being the largest of them; their sum */
static double
soften(float *s, size_t n, float *top)
{
	size_t whole = n / KV_LANES * KV_LANES;
	kv_vec at = kv_splat(-FLT_MAX), sum = kv_splat(0);
	float rest = 0;

	for (size_t j = 0; j < whole; j += KV_LANES)
		at = kv_larger(at, kv_load(s + j));
	*top = kv_lanes_max(at);
	for (size_t j = whole; j < n; j++)
		*top = s[j] > *top ? s[j] : *top;
	at = kv_splat(*top);
	for (size_t j = 0; j < whole; j += KV_LANES) {
		kv_vec w = kv_exp(kv_load(s + j) - at);

		kv_store(s + j, w);
		sum += w;
	}
	for (size_t j = whole; j < n; j++)
		rest += s[j] = kv_expf(s[j] - *top);
	return (double)(kv_lanes_sum(sum) + rest);
}

/* o [heads] over WIDTH channels, += */
KV_INLINE void
add_values(const uint16_t *v, size_t d, size_t n, const float *p, size_t ld, size_t heads, float *o, size_t ld_o)
{
	kv_vec sum[HEADS][WIDTH / KV_LANES];

	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < WIDTH / KV_LANES; i++)
			sum[h][i] = kv_load(o + h * ld_o + i * KV_LANES);
	for (size_t j = 0; j < n; j++, v += d) {
		fetch(v, WIDTH * sizeof *v);
		for (size_t i = 0; i < WIDTH / KV_LANES; i++) {
			kv_vec x = widen(v + i * KV_LANES);

			for (size_t h = 0; h < heads; h++)
				sum[h][i] = kv_fma(x, kv_splat(p[h * ld + j]), sum[h][i]);
		}
	}
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < WIDTH / KV_LANES; i++)
			kv_store(o + h * ld_o + i * KV_LANES, sum[h][i]);
}

/* So few rows at a time that they are still near for the next channels and heads. */
static void
plain_weigh(size_t d, const uint16_t *x, size_t n, const float *p, size_t ld, size_t heads, float *o, size_t ld_o)
{
	for (size_t j = 0; j < n; j += ROWS, x += ROWS * d, p += ROWS) {
		size_t rows = n - j < ROWS ? n - j : ROWS;

		for (size_t h = 0; h < heads; h += HEADS)
			for (size_t i = 0; i < d; i += WIDTH)
				switch (heads - h) {
				case 1: add_values(x + i, d, rows, p + h * ld, ld, 1, o + h * ld_o + i, ld_o); break;
				case 2: add_values(x + i, d, rows, p + h * ld, ld, 2, o + h * ld_o + i, ld_o); break;
#if defined __AVX512F__
				case 3: add_values(x + i, d, rows, p + h * ld, ld, 3, o + h * ld_o + i, ld_o); break;
#endif
				default: add_values(x + i, d, rows, p + h * ld, ld, HEADS, o + h * ld_o + i, ld_o); break;
				}
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
		else if (!segment_weigh(a, seg, part, p, ld, heads, rows, o, ld_o))
			kv_attn_generic.weigh(a, l, part, p, ld, heads, rows, o, ld_o);
	}
}

static const struct kv_attn_parts decode = { scores, weigh, soften };

/* Whole vectors of f16 in every list, segments aside. */
static bool
fits(const struct kv_attn *a)
{
	bool good = a->d_k % KV_LANES == 0 && a->d_v % WIDTH == 0 && a->n_rot % (a->neox ? 2 * KV_LANES : KV_LANES) == 0;

	for (size_t h = 0; h < a->kv_heads; h++) {
		good &= a->list[h].k_dtype == F16 && a->list[h].v_dtype == F16;
		for (size_t i = 0; KV_LANES > 8 && i < a->list[h].n_v_seg; i++)	/* what narrower vectors can do is left to them */
			good &= has_sums(&a->list[h].v_seg[i]);
	}
	return good;
}

#endif
#endif
