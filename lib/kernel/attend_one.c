/*
 * Attention of one token's queries. The entries are cut into chunks of fixed ranks; each gives its own maximum, sum and weighted
 * values, which are merged in order (as in Flash-Decoding), so that the result does not depend on the number of threads.
 */
#include "kernel/attend.h"

#include <float.h>
#include <string.h>

#include "kernel/clones.h"
#include "kernel/expf.h"
#include "kernel/products.h"
#include "util/mem.h"

enum { CHUNK = KV_ATTN_CHUNK };

struct one {
	const struct kv_attn *a;
	const struct kv_attn_parts *parts;
	const float *q;		/* [heads][d_k] */
	size_t group;		/* query heads of a kv head */
	size_t chunks;		/* of the longest list */
	float *top;		/* [heads][chunks] */
	double *sum;		/* [heads][chunks] 0 = nothing visible */
	float *o;		/* [heads][chunks][d_v] */
	float *rows;		/* [threads][CHUNK][max(d_k, d_v)] */
	float *p;		/* [threads][group][CHUNK] weights; if sums are asked for, [heads][chunks][CHUNK]: they stay */
	float *share;		/* [chunks][heads] what a weight of a chunk counts: 1 / the head's sum, at the head's maximum */
	size_t width;		/* max(d_k, d_v) */
};

/* o [d] += sum of p_j rows_j, in order of j */
KV_CLONES static void
weigh(const float *p, const float *rows, size_t n, size_t d, float *o)
{
	size_t j = 0;

	for (; j + 4 <= n; j += 4, rows += 4 * d)
		for (size_t i = 0; i < d; i++)
			o[i] = o[i] + p[j] * rows[i] + p[j + 1] * rows[d + i] + p[j + 2] * rows[2 * d + i] + p[j + 3] * rows[3 * d + i];
	for (; j < n; j++, rows += d)
		for (size_t i = 0; i < d; i++)
			o[i] += p[j] * rows[i];
}

static void
scores(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *q, size_t heads, float *rows, float *s,
	size_t ld)
{
	kv_attn_keys(a, l, v, rows);
	for (size_t h = 0; h < heads; h++)
		kv_product(q + h * a->d_k, rows, v.to - v.from, a->d_k, a->scale, s + h * ld);
}

static void
weigh_values(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *p, size_t ld, size_t heads, float *rows,
	float *o, size_t ld_o)
{
	kv_attn_values(a, l, v, rows);
	for (size_t h = 0; h < heads; h++)
		weigh(p + h * ld, rows, v.to - v.from, a->d_v, o + h * ld_o);
}

static double
soften(float *s, size_t n, float *top)
{
	*top = kv_attn_top(s, n);
	return kv_attn_exp(s, n, *top);
}

const struct kv_attn_parts kv_attn_generic = { scores, weigh_values, soften };

/* What is visible of chunk c of group g. */
static struct kv_span
span_of(const struct one *s, size_t g, size_t c)
{
	struct kv_span v = kv_attn_visible(s->a, &s->a->list[g], 0);

	v.from = v.from > c * CHUNK ? v.from : c * CHUNK;
	v.to = v.to < (c + 1) * CHUNK ? v.to : (c + 1) * CHUNK;
	return v;
}

/* The weights of chunk c for the first head of group g; those of the next stand so many further on. */
static float *
weights_of(const struct one *s, size_t g, size_t c, unsigned thread)
{
	return s->p + (s->a->received ? g * s->group * s->chunks + c : thread * s->group) * CHUNK;
}

static size_t
weights_apart(const struct one *s)
{
	return s->a->received ? s->chunks * CHUNK : CHUNK;
}

static void
attend_chunk(void *arg, size_t item, unsigned thread)
{
	const struct one *s = arg;
	const struct kv_attn *a = s->a;
	size_t g = item % s->a->kv_heads, c = item / s->a->kv_heads;
	const struct kv_attn_list *l = &a->list[g];
	struct kv_span v = span_of(s, g, c);
	float *rows = s->rows + thread * CHUNK * s->width, *p = weights_of(s, g, c, thread);

	if (v.from >= v.to)
		return;
	s->parts->scores(a, l, v, s->q + g * s->group * a->d_k, s->group, rows, p, weights_apart(s));
	for (size_t j = 0; j < s->group; j++) {
		size_t at = (g * s->group + j) * s->chunks + c, n = v.to - v.from;
		float *score = p + j * weights_apart(s);

		if (a->softcap > 0)
			kv_attn_soft_cap(score, n, a->softcap);
		s->sum[at] = s->parts->soften(score, n, &s->top[at]);
	}
	for (size_t j = 0; j < s->group; j++)
		memset(s->o + ((g * s->group + j) * s->chunks + c) * a->d_v, 0, a->d_v * sizeof *s->o);
	s->parts->weigh(a, l, v, p, weights_apart(s), s->group, rows, s->o + (g * s->group * s->chunks + c) * a->d_v, s->chunks * a->d_v);
}

/* out [d_v] of head h from its chunks */
static void
merge(const struct one *s, size_t h, float *out)
{
	const float *top = s->top + h * s->chunks, *o = s->o + h * s->chunks * s->a->d_v;
	const double *sum = s->sum + h * s->chunks;
	size_t d = s->a->d_v;
	float highest = -FLT_MAX;
	double total = 0;

	memset(out, 0, d * sizeof *out);
	for (size_t c = 0; c < s->chunks; c++)
		if (sum[c] > 0 && top[c] > highest)
			highest = top[c];
	for (size_t c = 0; c < s->chunks; c++) {
		float part = sum[c] > 0 ? kv_expf(top[c] - highest) : 0;

		if (part == 0)
			continue;
		total += sum[c] * (double)part;
		for (size_t i = 0; i < d; i++)
			out[i] += o[c * d + i] * part;
	}
	for (size_t i = 0; i < d && total > 0; i++)
		out[i] /= (float)total;
	for (size_t c = 0; c < s->chunks && s->share; c++)
		s->share[c * s->a->heads + h] = sum[c] > 0 ? kv_expf(top[c] - highest) / (float)total : 0;
}

static void
receive_chunk(void *arg, size_t item, unsigned thread)
{
	const struct one *s = arg;
	size_t g = item % s->a->kv_heads, c = item / s->a->kv_heads;
	const struct kv_attn_sums *to = &s->a->received[g];
	struct kv_span v = span_of(s, g, c);
	float *a = s->rows + thread * CHUNK * s->width;
	const float *p = weights_of(s, g, c, thread), *share = s->share + c * s->a->heads + g * s->group;

	if (v.from >= v.to)
		return;
	for (size_t h = 0; to->by_head && h < s->group; h++)
		for (size_t j = v.from; j < v.to; j++)
			to->by_head[h * s->a->list[g].n + j] += (double)(share[h] * p[h * weights_apart(s) + j - v.from]);
	if (!to->sum)
		return;
	kv_attn_mean(p, weights_apart(s), s->group, share, v.to - v.from, a);
	for (size_t j = v.from; j < v.to; j++, a++) {
		to->sum[j] += (double)*a;
		to->square[j] += (double)*a * (double)*a;
	}
}

bool
kv_attend_one(struct kv_pool *pool, const struct kv_attn *a, const struct kv_attn_parts *parts, const float *q, float *out)
{
	struct one s = { .a = a, .parts = parts, .q = q, .group = a->heads / a->kv_heads, .width = a->d_k > a->d_v ? a->d_k : a->d_v };
	size_t threads = kv_pool_threads(pool), longest = 1, cells, kept;
	bool done = false;

	for (size_t g = 0; g < a->kv_heads; g++)
		if (a->list[g].n > longest)
			longest = a->list[g].n;
	s.chunks = (longest + CHUNK - 1) / CHUNK;
	cells = a->heads * s.chunks;
	s.top = kv_block_new(cells, sizeof *s.top);
	s.sum = kv_block_new(cells, sizeof *s.sum);
	s.o = kv_block_new(cells, a->d_v * sizeof *s.o);
	s.rows = kv_block_new(threads * CHUNK, s.width * sizeof *s.rows);
	kept = a->received ? cells : threads * s.group;
	s.p = kv_block_new(kept, CHUNK * sizeof *s.p);
	if (a->received)
		s.share = kv_block_new(cells, sizeof *s.share);
	if (!s.top || !s.sum || !s.o || !s.rows || !s.p || (a->received && !s.share))
		goto out;
	for (size_t i = 0; i < cells; i++)
		s.sum[i] = 0;
	kv_pool_run(pool, a->kv_heads * s.chunks, attend_chunk, &s);
	for (size_t h = 0; h < a->heads; h++)
		merge(&s, h, out + h * a->d_v);
	if (a->received)
		kv_pool_run(pool, a->kv_heads * s.chunks, receive_chunk, &s);
	done = true;
out:
	kv_block_free(s.top);
	kv_block_free(s.sum);
	kv_block_free(s.o);
	kv_block_free(s.rows);
	kv_block_free(s.p);
	kv_block_free(s.share);
	return done;
}
