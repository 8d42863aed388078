/* Which rows of a list are coded, doing it, and what it did to them. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "policy/channel_view.h"
#include "stage/quantise.h"
#include "util/mem.h"

/* The scheme of codes belongs to what is coded: keys have channels of their own size, values have not. */
static struct kv_coding
coding(const struct quantise *how, bool values)
{
	return (struct kv_coding){ .scheme = values ? KVS_PER_ROW : KVS_PER_CHANNEL, .bits = (uint8_t)how->bits, .scale_dtype = KVS_F16,
		.group = (uint32_t)how->group, .residual = (uint32_t)how->residual };
}

enum kv_status
kv_quantise_refuse(const struct quantise_scene *s, size_t item, struct kv_err *err)
{
	const struct kv_rows *rows = quantise_rows(s, item);
	uint32_t n = s->cache->list[item / 2].n;

	for (size_t i = 0; i < kv_rows_segments(rows, n); i++) {
		struct kv_segment seg = kv_rows_segment(rows, n, i);

		if (seg.dtype == KVS_CODES)
			return kv_fail(err, KV_EFIT, "layer %zu: %c is quantised already (kivi, %u bits%s); start from the snapshot before kv-quant",
				item / 2 / s->cache->geom.n_heads_kv, item % 2 ? 'V' : 'K', seg.code.bits,
				seg.code.scheme == (item % 2 ? KVS_PER_ROW : KVS_PER_CHANNEL) ? "" : ", along the other axis");
	}
	return KV_OK;
}

/* Coded rows stand before those to code. Keys go in whole blocks, values one by one as they leave the newest. */
static void
choose_codes(const struct quantise *how, bool values, uint32_t n, uint32_t coded, struct quantise_plan *p)
{
	uint32_t residual = (uint32_t)how->residual, left;

	p->from = how->sinks < n ? (uint32_t)how->sinks : n;
	if (p->from < coded)
		p->from = coded;
	left = n - p->from;
	if (values || !residual)
		p->to = p->from + (left > residual ? left - residual : 0);
	else
		p->to = p->from + left / residual * residual;
}

enum kv_status
kv_quantise_choose(struct quantise_scene *s, size_t item, struct kv_err *err)
{
	const struct kv_rows *rows = quantise_rows(s, item);
	const struct kv_coding want = coding(s->how, item % 2);
	const struct kv_list *l = &s->cache->list[item / 2];
	struct quantise_plan *p = &s->plan[item];
	uint32_t n = l->n, coded = 0;

	for (size_t i = 0; i < kv_rows_segments(rows, n); i++) {
		struct kv_segment seg = kv_rows_segment(rows, n, i);

		if (seg.dtype != KVS_CODES)
			continue;
		p->coded = true;
		coded = seg.first + seg.n;
		if (s->how->mode == QUANTISE_KIVI &&
		    (seg.code.scheme != want.scheme || seg.code.bits != want.bits || seg.code.group != want.group))
			return kv_quantise_refuse(s, item, err);
	}
	p->of_round = coded && l->src[coded - 1] >= s->cache->state.consumed - s->cache->state.tail;
	if (s->how->mode == QUANTISE_KIVI)
		choose_codes(s->how, item % 2, n, coded, p);
	else if (s->how->mode == QUANTISE_RESTORE)
		p->to = coded;
	else
		p->to = rows->dtype == s->how->dtype ? 0 : n;
	return KV_OK;
}

/* Rows from … to - 1 at full width. */
static enum kv_status
copy(const struct kv_rows *rows, const struct quantise_plan *p, float **out, struct kv_err *err)
{
	float *x = kv_block_new(p->to - p->from, rows->width * sizeof *x);

	if (!x)
		return kv_fail_mem(err, "rows");
	for (uint32_t r = p->from; r < p->to; r++)
		kv_rows_get(rows, r, x + (size_t)(r - p->from) * rows->width);
	*out = x;
	return KV_OK;
}

/* Sum over the queries of (q . x)^2, x turned to its position if it is not yet. */
static double
seen(const struct quantise_scene *s, const struct kv_group_queries *q, size_t list, uint32_t row, float *x)
{
	const struct kv_list *l = &s->cache->list[list];
	double sum = 0;

	if (!kv_rows_rotated(&l->k, row))
		kv_turn(s->cache, s->turns, (unsigned)(list / s->cache->geom.n_heads_kv), l->pos[row], x);
	for (size_t i = 0; i < q->n; i++) {
		double z = 0;

		for (uint32_t j = 0; j < l->k.width; j++)
			z += (double)q->q[i * l->k.width + j] * (double)x[j];
		sum += z * z;
	}
	return sum;
}

/* was: the rows as they were before; used up. */
static enum kv_status
measure(const struct quantise_scene *s, size_t item, float *was, struct kv_err *err)
{
	const struct kv_rows *rows = quantise_rows(s, item);
	const struct kvs_geom *g = &s->cache->geom;
	struct quantise_plan *p = &s->plan[item];
	unsigned layer = (unsigned)(item / 2 / g->n_heads_kv), head = (unsigned)(item / 2 % g->n_heads_kv);
	struct kv_group_queries q = { 0 };
	float off[KVS_MAX_DIM];
	enum kv_status rc;

	if (s->turns && item % 2 == 0 && (rc = kv_group_queries_get(s->cache, s->turns, layer, head, UINT32_MAX, &q, err)) != KV_OK)
		return rc;
	for (uint32_t r = p->from; r < p->to; r++) {
		float *x = was + (size_t)(r - p->from) * rows->width;

		kv_rows_get(rows, r, off);
		for (uint32_t j = 0; j < rows->width; j++) {
			off[j] -= x[j];
			p->size += (double)x[j] * (double)x[j];
			p->error += (double)off[j] * (double)off[j];
		}
		if (q.n) {
			p->off += seen(s, &q, item / 2, r, off);
			p->products += seen(s, &q, item / 2, r, x);
		}
	}
	kv_block_free(q.q);
	return KV_OK;
}

static enum kv_status
change(struct quantise_scene *s, size_t item, struct kv_err *err)
{
	const struct kv_coding how = coding(s->how, item % 2);
	const struct quantise_plan *p = &s->plan[item];
	struct kv_rows *rows = quantise_rows(s, item);
	uint32_t n = s->cache->list[item / 2].n;
	unsigned heads = s->cache->geom.n_heads_kv;
	enum kv_status rc;

	switch (s->how->mode) {
	case QUANTISE_KIVI:
		rc = p->to > p->from ? kv_rows_code(rows, n, p->from, p->to, &how, err) : KV_OK;
		break;
	case QUANTISE_RESTORE:
		rc = p->to > p->from ? kv_rows_uncode(rows, n, p->from, p->to, err) : KV_OK;
		break;
	default:
		rc = kv_rows_convert(rows, n, s->how->dtype, err);
	}
	if (rc == KV_EFIT)
		kv_err_in(err, "layer %zu head %zu: %s", item / 2 / heads, item / 2 % heads, item % 2 ? "values" : "keys");
	return rc;
}

static uint64_t
bytes_of(const struct quantise_scene *s, size_t item)
{
	struct kv_rows_bytes b = kv_rows_bytes(quantise_rows(s, item), s->cache->list[item / 2].n);

	return b.rows + b.masks + b.scales;
}

enum kv_status
kv_quantise_apply(struct quantise_scene *s, size_t item, struct kv_err *err)
{
	struct quantise_plan *p = &s->plan[item];
	float *was = NULL;
	enum kv_status rc = KV_OK;

	p->before = bytes_of(s, item);
	if (s->how->report && p->to > p->from)
		rc = copy(quantise_rows(s, item), p, &was, err);
	if (rc == KV_OK)
		rc = change(s, item, err);
	if (rc == KV_OK && was)
		rc = measure(s, item, was, err);
	p->after = bytes_of(s, item);
	kv_block_free(was);
	return rc;
}
