/* The attention that the entries of a list received: it grows and is cut with them. */
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "util/mem.h"

enum kv_status
kv_received_reserve(struct kv_received *r, uint32_t cap, struct kv_err *err)
{
	void *p;

	if (cap <= r->cap && r->count)
		return KV_OK;
	if (!(p = kv_array_resize(r->sum, cap, sizeof *r->sum)))
		return kv_fail_mem(err, "received attention");
	r->sum = p;
	if (!(p = kv_array_resize(r->square, cap, sizeof *r->square)))
		return kv_fail_mem(err, "received attention");
	r->square = p;
	if (!(p = kv_array_resize(r->count, cap, sizeof *r->count)))
		return kv_fail_mem(err, "received attention");
	r->count = p;
	r->cap = cap;
	return KV_OK;
}

enum kv_status
kv_received_new(uint32_t cap, struct kv_received **out, struct kv_err *err)
{
	struct kv_received *r = kv_array_new(1, sizeof *r);
	enum kv_status rc;

	if (!r)
		return kv_fail_mem(err, "received attention");
	if ((rc = kv_received_reserve(r, cap, err)) != KV_OK) {
		kv_received_free(r);
		return rc;
	}
	kv_received_clear(r, 0, cap);
	*out = r;
	return KV_OK;
}

void
kv_received_free(struct kv_received *r)
{
	if (!r)
		return;
	free(r->sum);
	free(r->square);
	free(r->count);
	free(r);
}

void
kv_received_clear(struct kv_received *r, uint32_t first, uint32_t m)
{
	if (!m)
		return;
	memset(r->sum + first, 0, m * sizeof *r->sum);
	memset(r->square + first, 0, m * sizeof *r->square);
	memset(r->count + first, 0, m * sizeof *r->count);
}

void
kv_received_keep(struct kv_received *r, const uint32_t *keep, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		r->sum[i] = r->sum[keep[i]];
		r->square[i] = r->square[keep[i]];
		r->count[i] = r->count[keep[i]];
	}
}

/* How many of the m newest tokens' queries could see entry i? Their sources and positions ascend one by one. */
static uint32_t
seen_by(const struct kv_list *l, uint32_t i, uint32_t m, uint32_t window)
{
	uint32_t oldest = l->n - m, from = i > oldest ? i - oldest : 0;
	int64_t to = window ? (int64_t)l->pos[i] + window - l->pos[oldest] : m;

	to = to < m ? to : m;
	return to > from ? (uint32_t)(to - from) : 0;
}

enum kv_status
kv_received_add(struct kv_list *l, uint32_t m, uint32_t window, const double *sum, const double *square, struct kv_err *err)
{
	uint32_t first = l->src[l->n - m];
	struct kv_received *r = l->received;
	enum kv_status rc;

	if (!r) {
		if ((rc = kv_received_new(l->cap, &r, err)) != KV_OK)
			return rc;
		l->received = r;
		r->from = first;
	} else if (r->to != first) {
		kv_received_clear(r, 0, l->n);
		r->from = first;
	}
	r->to = first + m;
	for (uint32_t i = 0; i < l->n; i++) {
		r->sum[i] = (float)((double)r->sum[i] + sum[i]);
		r->square[i] = (float)((double)r->square[i] + square[i]);
		r->count[i] += seen_by(l, i, m, window);
	}
	return KV_OK;
}
