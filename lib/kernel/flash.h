/*
 * Attention of a batch with vectors: six rows of a tile at a time against a block of keys. Their scores, which become weights, fit the
 * nearest cache; keys come in panels, values as rows. How keys are packed and scored is the level's; in f32, as here, they are [d_k][PANEL], so
 * that both products are one kernel. For files of a level alone.
 */
#ifndef KV_KERNEL_FLASH_H
#define KV_KERNEL_FLASH_H

#if defined __AVX2__
#include <float.h>
#include <string.h>

#include "kernel/attend_batch.h"
#include "kernel/expf.h"
#include "kernel/simd_product.h"

enum { ROWS = KV_ROWS, VECTORS = KV_VECTORS, PANEL = KV_PANEL, LD = KV_ATTN_LD, FOLD = 8 };

/*
 * Scores of one row from lo on, of which those in [from, to) count, become weights up to end; the others become 0. The factor that brings
 * what was summed before to the new maximum.
 */
static float
soften(const struct kv_attn *a, float *s, size_t lo, size_t from, size_t to, size_t end, float *top, double *sum)
{
	kv_vec high[2] = { kv_splat(*top), kv_splat(*top) }, total[2] = { kv_splat(0), kv_splat(0) }, at;
	float before = *top, by;
	size_t last = (to + 2 * KV_LANES - 1) / (2 * KV_LANES) * (2 * KV_LANES), j;

	if (from >= to) {
		memset(s + lo, 0, (end - lo) * sizeof *s);
		return 1;
	}
	if (a->softcap > 0)
		kv_attn_soft_cap(s + from, to - from, a->softcap);
	for (j = lo; j < from; j++)
		s[j] = -FLT_MAX;
	for (j = to; j < last; j++)
		s[j] = -FLT_MAX;
	for (j = lo; j < last; j += 2 * KV_LANES)
		for (size_t i = 0; i < 2; i++)
			high[i] = kv_larger(high[i], kv_load(s + j + i * KV_LANES));
	*top = kv_lanes_max(kv_larger(high[0], high[1]));
	at = kv_splat(*top);
	for (j = lo; j < last; j += 2 * KV_LANES)
		for (size_t i = 0; i < 2; i++) {
			kv_vec w = kv_exp(kv_load(s + j + i * KV_LANES) - at);

			kv_store(s + j + i * KV_LANES, w);
			total[i] += w;
		}
	if (last < end)
		memset(s + last, 0, (end - last) * sizeof *s);
	by = before < *top ? kv_expf(before - *top) : 1;
	*sum = *sum * (double)by + (double)kv_lanes_sum(total[0] + total[1]);
	return by;
}

/* Scores of n rows from r on become weights; by [n] brings what was summed before to the new maxima. */
static void
soften_rows(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x, size_t r, size_t n, size_t lo, size_t end, float *by)
{
	float *s = t->s + (x.b % t->blocks * t->rows + r) * LD, *then = t->then + x.b % t->blocks * t->rows;

	for (size_t i = 0; i < n; i++) {
		if (r + i < t->tokens * g->heads) {
			struct kv_span see = g->see[t->first + (r + i) / g->heads];

			by[i] = soften(g->a, s + i * LD, lo, kv_attn_clip(see.from, x.at, x.n), kv_attn_clip(see.to, x.at, x.n), end, &t->top[r + i],
				&t->sum[r + i]);
		} else {
			by[i] = 1;
		}
		then[r + i] = t->top[r + i];
	}
}

/* What n rows from r on see of a block: from a multiple of PANEL on. */
static struct kv_span
rows_see(const struct kv_attn_group *g, const struct kv_attn_tile *t, struct kv_attn_block x, size_t r, size_t n)
{
	size_t rows = t->tokens * g->heads, last = r + n < rows ? r + n - 1 : rows - 1;
	struct kv_span s;

	s.from = kv_attn_clip(g->see[t->first + r / g->heads].from, x.at, x.n) / PANEL * PANEL;
	s.to = kv_attn_clip(g->see[t->first + last / g->heads].to, x.at, x.n);
	return s;
}

/* One panel of keys, rows [PANEL][d_k], is packed to g->k from the at-th on. */
typedef void pack_panel(const struct kv_attn_group *g, float *rows, size_t at);
/* s [ROWS] LD apart: scores of rows q of a tile with whole panels, those of the keys [from, to) that are packed. */
typedef void score_rows(const struct kv_attn_group *g, const float *q, size_t from, size_t to, float *s);

static void
pack_f32(const struct kv_attn_group *g, float *rows, size_t at)
{
	kv_transpose(rows, g->a->d_k, g->a->d_k, g->k + at * g->a->d_k);
}

static void
score_f32(const struct kv_attn_group *g, const float *q, size_t from, size_t to, float *s)
{
	size_t d = g->a->d_k;

	for (size_t j = from; j < to; j += PANEL)
		kv_multiply(q, d, g->k + j * d, PANEL, d, NULL, s + j - from, LD, PANEL);
}

/* Rows r … of a tile against entries [lo, hi) of a block, lo the first of a panel. */
KV_INLINE void
attend_rows(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x, size_t r, size_t lo, size_t hi, score_rows *score)
{
	const struct kv_attn *a = g->a;
	size_t rank = x.at - g->all.from, d_v = (a->d_v + KV_LANES - 1) / KV_LANES * KV_LANES, end = (hi + PANEL - 1) / PANEL * PANEL;
	float *s = t->s + (x.b % t->blocks * t->rows + r) * LD, by[ROWS];

	score(g, t->q + r * a->d_k, rank + lo, rank + end, s + lo);
	soften_rows(g, t, x, r, ROWS, lo, end, by);
	kv_multiply(s + lo, LD, g->v + (rank + lo) * d_v, d_v, hi - lo, by, t->o + r * d_v, d_v, d_v);
}

KV_INLINE void
attend_with(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x, score_rows *score)
{
	for (size_t r = 0; r < t->tokens * g->heads; r += ROWS) {
		struct kv_span s = rows_see(g, t, x, r, ROWS);

		if (s.from < s.to)
			attend_rows(g, t, x, r, s.from, s.to, score);
	}
}

static void
attend(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x)
{
	attend_with(g, t, x, score_f32);
}

static void
pack_values(const struct kv_attn_group *g, struct kv_span x, float *scratch)
{
	size_t d = g->a->d_v, padded = (d + KV_LANES - 1) / KV_LANES * KV_LANES, n = x.to - x.from;
	float *v = g->v + (x.from - g->all.from) * padded;

	if (padded == d) {
		kv_attn_values(g->a, g->l, x, v);
		return;
	}
	kv_attn_values(g->a, g->l, x, scratch);
	memset(v, 0, n * padded * sizeof *v);
	for (size_t j = 0; j < n; j++)
		memcpy(v + j * padded, scratch + j * d, d * sizeof *v);
}

static void
pack_with(const struct kv_attn_group *g, struct kv_span s, float *scratch, pack_panel *keys)
{
	size_t d = g->a->d_k;

	for (struct kv_span x = { s.from, 0 }; x.from < s.to; x.from += PANEL) {
		x.to = s.to - x.from < PANEL ? s.to : x.from + PANEL;
		kv_attn_keys(g->a, g->l, x, scratch);
		memset(scratch + (x.to - x.from) * d, 0, (PANEL - (x.to - x.from)) * d * sizeof *scratch);
		keys(g, scratch, x.from - g->all.from);
		pack_values(g, x, scratch);
	}
}

static void
pack(const struct kv_attn_group *g, struct kv_span s, float *scratch)
{
	pack_with(g, s, scratch, pack_f32);
}

/* sum and square [PANEL] of the means over the heads, token by token; w [tokens][heads] rows LD apart */
static void
receive_mean(const float *w, const float *share, size_t heads, size_t tokens, double *sum, double *square)
{
	const kv_vec each = kv_splat(1 / (float)heads);

	for (size_t i = 0; i < tokens; i += FOLD) {
		kv_vec part[VECTORS], squares[VECTORS];

		for (size_t v = 0; v < VECTORS; v++)
			part[v] = squares[v] = kv_splat(0);
		for (size_t t = i; t < tokens && t < i + FOLD; t++) {
			kv_vec mean[VECTORS];

			for (size_t v = 0; v < VECTORS; v++)
				mean[v] = kv_splat(0);
			for (size_t h = 0; h < heads; h++, w += LD)
				for (size_t v = 0; v < VECTORS; v++)
					mean[v] = kv_fma(kv_splat(share[t * heads + h]), kv_load(w + v * KV_LANES), mean[v]);
			for (size_t v = 0; v < VECTORS; v++) {
				mean[v] *= each;
				part[v] += mean[v];
				squares[v] = kv_fma(mean[v], mean[v], squares[v]);
			}
		}
		for (size_t v = 0; v < VECTORS; v++) {
			kv_add_wide(sum + v * KV_LANES, part[v]);
			kv_add_wide(square + v * KV_LANES, squares[v]);
		}
	}
}

/* sum [PANEL] of one head's */
static void
receive_head(const float *w, const float *share, size_t heads, size_t tokens, double *sum)
{
	for (size_t i = 0; i < tokens; i += FOLD) {
		kv_vec part[VECTORS];

		for (size_t v = 0; v < VECTORS; v++)
			part[v] = kv_splat(0);
		for (size_t t = i; t < tokens && t < i + FOLD; t++, w += heads * LD)
			for (size_t v = 0; v < VECTORS; v++)
				part[v] = kv_fma(kv_splat(share[t * heads]), kv_load(w + v * KV_LANES), part[v]);
		for (size_t v = 0; v < VECTORS; v++)
			kv_add_wide(sum + v * KV_LANES, part[v]);
	}
}

static void
add_to(double *to, const double *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] += from[i];
}

/* Panel by panel: who sees something of one has weights, or zeros, for all of it. */
static void
receive(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x, const struct kv_attn_sums *to)
{
	size_t heads = g->heads;

	kv_attn_shares(g, t, kv_attn_who(g, t, x.at, x.n), x.b);
	for (size_t j = 0; j < x.n; j += PANEL) {
		size_t n = x.n - j < PANEL ? x.n - j : PANEL;
		struct kv_span who = kv_attn_who(g, t, x.at + j, n);
		size_t row = who.from * heads, tokens = who.to - who.from;
		const float *w = t->s + (x.b * t->rows + row) * LD + j, *share = t->share + row;

		if (to->sum) {
			double sum[PANEL] = { 0 }, square[PANEL] = { 0 };

			receive_mean(w, share, heads, tokens, sum, square);
			add_to(to->sum + x.at + j, sum, n);
			add_to(to->square + x.at + j, square, n);
		}
		for (size_t h = 0; to->by_head && h < heads; h++) {
			double sum[PANEL] = { 0 };

			receive_head(w + h * LD, share + h, heads, tokens, sum);
			add_to(to->by_head + h * g->l->n + x.at + j, sum, n);
		}
	}
}

static const struct kv_attn_level flash = { ROWS, PANEL, KV_LANES, pack, attend, receive };

#endif
#endif
