/* Segments of rows: looking at them, cutting them, putting others in their place. */
#include "cache/segments.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "cache/segment_parts.h"
#include "util/mem.h"
#include "util/search.h"

size_t
kv_rows_segments(const struct kv_rows *r, uint32_t n)
{
	return r->n_seg + (n > r->front);
}

struct kv_segment
kv_rows_segment(const struct kv_rows *r, uint32_t n, size_t i)
{
	if (i < r->n_seg)
		return r->seg[i];
	return (struct kv_segment){
		.first = r->front, .n = n - r->front, .dtype = r->dtype, .width = r->width,
		.row_bytes = r->width * (uint32_t)kvs_dtype_size(r->dtype), .data = r->data,
	};
}

struct kv_segment
kv_rows_segment_of(const struct kv_rows *r, uint32_t n, uint32_t row)
{
	size_t lo = 0, hi = r->n_seg;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->seg[mid].first + r->seg[mid].n <= row)
			lo = mid + 1;
		else
			hi = mid;
	}
	return kv_rows_segment(r, n, lo);
}

bool
kv_rows_rotated(const struct kv_rows *r, uint32_t row)
{
	return row < r->front && kv_rows_segment_of(r, r->front, row).rotated;
}

bool
kv_rows_exact(const struct kv_rows *r)
{
	bool exact = true;

	for (size_t i = 0; i < r->n_seg; i++)
		exact &= !r->seg[i].mask && r->seg[i].dtype != KVS_CODES;
	return exact;
}

bool
kv_rows_plain(const struct kv_rows *r)
{
	return !r->n_seg;
}

enum kv_status
kv_rows_rebuild(struct kv_rows *r, struct kv_err *err)
{
	size_t size = r->width * kvs_dtype_size(r->dtype);
	float x[KVS_MAX_DIM];
	enum kv_status rc;

	if ((rc = kv_rows_load(r, err)) != KV_OK)
		return rc;
	for (size_t k = 0; k < r->n_seg; k++) {
		struct kv_segment *s = &r->seg[k];

		if (!s->mask || !s->mask->map || s->whole)
			continue;
		if (!(s->whole = kv_block_new(s->n, size)))
			return kv_fail_mem(err, "rows of the cache");
		for (uint32_t i = 0; i < s->n; i++) {
			kv_rows_get(r, s->first + i, x);
			kv_numbers_put(s->whole + i * size, r->dtype, x, r->width);
		}
	}
	return KV_OK;
}

bool
kv_segment_alike(const struct kv_segment *a, const struct kv_segment *b)
{
	const struct kv_coding *c = &a->code, *d = &b->code;

	return a->dtype == b->dtype && a->rotated == b->rotated && a->width == b->width && kv_mask_same(a->mask, b->mask) &&
		c->scheme == d->scheme && c->bits == d->bits && c->scale_dtype == d->scale_dtype && c->group == d->group &&
		c->residual == d->residual;
}

/* Bytes of the scales of one group of rows, or of one row. */
static size_t
scale_stride(const struct kv_segment *s)
{
	size_t size = kvs_dtype_size(s->code.scale_dtype);

	return s->code.scheme == KVS_PER_CHANNEL ? s->width * size : s->code.scheme == KVS_PER_ROW ? s->width / s->code.group * size : 0;
}

size_t
kv_segment_scale_bytes(const struct kv_segment *s)
{
	return scale_stride(s) * (s->code.scheme == KVS_PER_CHANNEL ? s->n_groups : s->n);
}

void
kv_segment_free(struct kv_segment *s)
{
	kv_mask_free(s->mask);
	kv_block_free(s->data);
	kv_block_free(s->whole);
	free(s->group_end);
	free(s->scales);
	free(s->minima);
}

enum kv_status
kv_segment_room(const struct kv_segment *like, uint32_t n, uint32_t n_groups, struct kv_segment *out, struct kv_err *err)
{
	struct kv_segment s = *like;

	s.mask = kv_mask_share(like->mask);
	s.n = n;
	s.n_groups = n_groups;
	s.group_end = NULL;
	s.scales = s.minima = s.whole = NULL;
	s.data = kv_block_new(n, s.row_bytes);
	if (s.dtype == KVS_CODES) {
		s.group_end = n_groups ? kv_array_new(n_groups, sizeof *s.group_end) : NULL;
		s.scales = kv_array_new(kv_segment_scale_bytes(&s), 1);
		s.minima = kv_array_new(kv_segment_scale_bytes(&s), 1);
	}
	if (!s.data || (s.dtype == KVS_CODES && (!s.scales || !s.minima || (n_groups && !s.group_end)))) {
		kv_segment_free(&s);
		return kv_fail_mem(err, "rows of the cache");
	}
	*out = s;
	return KV_OK;
}

/* The i-th row to be picked, counted from the segment's first. */
static uint32_t
picked(const struct kv_segment *s, const uint32_t *keep, uint32_t a, uint32_t i)
{
	return keep ? keep[i] - s->first : a + i;
}

/* Groups of rows that have a row among those picked; where out is given they get their scales there, and how far they go. */
static uint32_t
pick_groups(const struct kv_segment *s, const uint32_t *keep, uint32_t a, uint32_t n, struct kv_segment *out)
{
	size_t stride = scale_stride(s);
	uint32_t groups = 0;

	for (uint32_t i = 0; i < n; groups++) {
		uint32_t g = kv_segment_group(s, picked(s, keep, a, i));

		while (i < n && picked(s, keep, a, i) < s->group_end[g])
			i++;
		if (!out)
			continue;
		out->group_end[groups] = i;
		memcpy(out->scales + groups * stride, s->scales + g * stride, stride);
		memcpy(out->minima + groups * stride, s->minima + g * stride, stride);
	}
	return groups;
}

enum kv_status
kv_segment_pick(const struct kv_segment *s, const uint32_t *keep, uint32_t a, uint32_t n, struct kv_segment *out, struct kv_err *err)
{
	bool by_channel = s->code.scheme == KVS_PER_CHANNEL, by_row = s->code.scheme == KVS_PER_ROW;
	size_t size = s->row_bytes, stride = scale_stride(s);
	uint32_t groups = by_channel ? pick_groups(s, keep, a, n, NULL) : 0;
	enum kv_status rc = kv_segment_room(s, n, groups, out, err);

	for (uint32_t i = 0, run; rc == KV_OK && i < n; i += run) {
		uint32_t from = picked(s, keep, a, i);

		for (run = 1; i + run < n && picked(s, keep, a, i + run) == from + run; run++)
			;
		memcpy(out->data + i * size, s->data + from * size, run * size);
		if (by_row) {
			memcpy(out->scales + i * stride, s->scales + from * stride, run * stride);
			memcpy(out->minima + i * stride, s->minima + from * stride, run * stride);
		}
	}
	if (rc == KV_OK && by_channel)
		pick_groups(s, keep, a, n, out);
	return rc;
}

/* The rows of b behind those of a. */
static enum kv_status
join(const struct kv_segment *a, const struct kv_segment *b, struct kv_segment *out, struct kv_err *err)
{
	size_t rows = (size_t)a->n * a->row_bytes, scales = kv_segment_scale_bytes(a);
	enum kv_status rc = kv_segment_room(a, a->n + b->n, a->n_groups + b->n_groups, out, err);

	if (rc != KV_OK)
		return rc;
	memcpy(out->data, a->data, rows);
	memcpy(out->data + rows, b->data, (size_t)b->n * b->row_bytes);
	if (a->dtype != KVS_CODES)
		return KV_OK;
	memcpy(out->scales, a->scales, scales);
	memcpy(out->scales + scales, b->scales, kv_segment_scale_bytes(b));
	memcpy(out->minima, a->minima, scales);
	memcpy(out->minima + scales, b->minima, kv_segment_scale_bytes(b));
	for (uint32_t i = 0; i < out->n_groups; i++)
		out->group_end[i] = i < a->n_groups ? a->group_end[i] : a->n + b->group_end[i - a->n_groups];
	return KV_OK;
}

/* What a list's rows are to be: segments that are new, and such as stay where they are. */
struct pieces {
	struct piece {
		struct kv_segment s;
		bool old;
	} *p;
	size_t n;
};

static void
pieces_free(struct pieces *p)
{
	for (size_t i = 0; p->p && i < p->n; i++)
		if (!p->p[i].old)
			kv_segment_free(&p->p[i].s);
	free(p->p);
}

static enum kv_status
add_piece(struct pieces *all, struct kv_segment s, bool old, struct kv_err *err)
{
	struct piece *last = all->n ? &all->p[all->n - 1] : NULL;
	struct kv_segment both;
	enum kv_status rc = KV_OK;

	if (!s.n) {
		if (!old)
			kv_segment_free(&s);
		return KV_OK;
	}
	if (!last || !kv_segment_alike(&last->s, &s)) {
		all->p[all->n++] = (struct piece){ s, old };
		return KV_OK;
	}
	rc = join(&last->s, &s, &both, err);
	if (!old)
		kv_segment_free(&s);
	if (rc != KV_OK)
		return rc;
	if (!last->old)
		kv_segment_free(&last->s);
	*last = (struct piece){ both, false };
	return KV_OK;
}

/* Rows a … b - 1 of a segment, changed; what is before and behind them is cut off as it is. */
static enum kv_status
add_changed(struct pieces *all, const struct kv_segment *s, uint32_t a, uint32_t b, kv_segment_change *change, const void *how,
	struct kv_err *err)
{
	struct kv_segment part;
	enum kv_status rc;

	if (a >= b)
		return add_piece(all, *s, true, err);
	if (a && ((rc = kv_segment_pick(s, NULL, 0, a, &part, err)) != KV_OK || (rc = add_piece(all, part, false, err)) != KV_OK))
		return rc;
	if ((rc = change(s, a, b, how, &part, err)) != KV_OK || (rc = add_piece(all, part, false, err)) != KV_OK)
		return rc;
	if (b < s->n && ((rc = kv_segment_pick(s, NULL, b, s->n - b, &part, err)) != KV_OK || (rc = add_piece(all, part, false, err)) != KV_OK))
		return rc;
	return KV_OK;
}

static bool
holds(const struct pieces *all, const uint8_t *data)
{
	bool found = false;

	for (size_t i = 0; i < all->n; i++)
		found |= all->p[i].old && all->p[i].s.data == data;
	return found;
}

void
kv_rows_find_tail(struct kv_rows *r)
{
	struct kv_segment *last = r->n_seg ? &r->seg[r->n_seg - 1] : NULL;

	r->front = last ? last->first + last->n : 0;
	if (!last || last->mask || last->dtype != r->dtype)
		return;
	assert(!r->data && last->width == r->width);
	r->data = last->data;
	r->cap = r->data ? last->n : 0;
	r->front = last->first;
	if (!--r->n_seg) {
		free(r->seg);
		r->seg = NULL;
	}
}

/* The pieces take the place of what r holds; plain rows are now of this type. */
static void
install(struct kv_rows *r, struct pieces *all, struct kv_segment *seg, uint8_t dtype)
{
	uint32_t first = 0, cap = holds(all, r->data) ? r->cap : 0;
	const uint8_t *tail = r->data;

	for (size_t i = 0; i < r->n_seg; i++)
		if (!holds(all, r->seg[i].data))
			kv_segment_free(&r->seg[i]);
	if (!cap)
		kv_block_free(r->data);
	free(r->seg);
	r->dtype = dtype;
	r->data = NULL;
	r->cap = 0;
	r->seg = seg;
	r->n_seg = all->n;
	for (size_t i = 0; i < all->n; first += seg[i++].n) {
		seg[i] = all->p[i].s;
		seg[i].first = first;
	}
	kv_rows_find_tail(r);
	if (cap && r->data == tail)
		r->cap = cap;
	free(all->p);
}

static enum kv_status
change_rows(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, kv_segment_change *change, const void *how, uint8_t dtype,
	struct kv_err *err)
{
	struct pieces all = { 0 };
	struct kv_segment *seg = NULL;
	enum kv_status rc;

	if ((rc = kv_rows_load(r, err)) != KV_OK)
		return rc;
	all.p = kv_array_new(3 * (r->n_seg + 1), sizeof *all.p);
	seg = kv_array_new(3 * (r->n_seg + 1), sizeof *seg);
	if (!all.p || !seg)
		rc = kv_fail_mem(err, "rows of the cache");
	for (size_t i = 0; rc == KV_OK && i < kv_rows_segments(r, n); i++) {
		struct kv_segment s = kv_rows_segment(r, n, i);
		uint32_t a = from < s.first ? 0 : from - s.first < s.n ? from - s.first : s.n;
		uint32_t b = to < s.first ? 0 : to - s.first < s.n ? to - s.first : s.n;

		rc = add_changed(&all, &s, a, b, change, how, err);
	}
	if (rc != KV_OK) {
		pieces_free(&all);
		free(seg);
		return rc;
	}
	install(r, &all, seg, dtype);
	return KV_OK;
}

enum kv_status
kv_rows_change(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, kv_segment_change *change, const void *how, struct kv_err *err)
{
	return from < to ? change_rows(r, n, from, to, change, how, r->dtype, err) : KV_OK;
}

static enum kv_status
same(const struct kv_segment *s, uint32_t a, uint32_t b, const void *how, struct kv_segment *out, struct kv_err *err)
{
	(void)how;
	return kv_segment_pick(s, NULL, a, b - a, out, err);
}

enum kv_status
kv_rows_merge(struct kv_rows *r, uint32_t n, struct kv_err *err)
{
	bool apart = true;

	for (size_t i = 1; i < kv_rows_segments(r, n); i++) {
		struct kv_segment a = kv_rows_segment(r, n, i - 1), b = kv_rows_segment(r, n, i);

		apart &= !kv_segment_alike(&a, &b);
	}
	return apart ? KV_OK : kv_rows_change(r, n, 0, n, same, NULL, err);
}

enum kv_status
kv_rows_code(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, const struct kv_coding *how, struct kv_err *err)
{
	return kv_rows_change(r, n, from, to, kv_segment_code, how, err);
}

static enum kv_status
uncode(const struct kv_segment *s, uint32_t a, uint32_t b, const void *dtype, struct kv_segment *out, struct kv_err *err)
{
	return s->dtype == KVS_CODES ? kv_segment_plain(s, a, b, dtype, out, err) : kv_segment_pick(s, NULL, a, b - a, out, err);
}

enum kv_status
kv_rows_uncode(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, struct kv_err *err)
{
	return kv_rows_change(r, n, from, to, uncode, &r->dtype, err);
}

static enum kv_status
convert(const struct kv_segment *s, uint32_t a, uint32_t b, const void *dtype, struct kv_segment *out, struct kv_err *err)
{
	return s->dtype == KVS_CODES ? kv_segment_pick(s, NULL, a, b - a, out, err) : kv_segment_plain(s, a, b, dtype, out, err);
}

enum kv_status
kv_rows_convert(struct kv_rows *r, uint32_t n, unsigned dtype, struct kv_err *err)
{
	uint8_t to = (uint8_t)dtype;

	return change_rows(r, n, 0, n, convert, &to, to, err);
}

struct kept {
	const uint32_t *keep;	/* [n] */
	uint32_t n;
};

static enum kv_status
keep(const struct kv_segment *s, uint32_t a, uint32_t b, const void *arg, struct kv_segment *out, struct kv_err *err)
{
	const struct kept *k = arg;
	uint32_t from = (uint32_t)kv_first_from(k->keep, k->n, s->first + a), to = (uint32_t)kv_first_from(k->keep, k->n, s->first + b);

	return kv_segment_pick(s, k->keep + from, 0, to - from, out, err);
}

enum kv_status
kv_rows_keep_segments(struct kv_rows *r, uint32_t n_rows, const uint32_t *which, uint32_t n, struct kv_err *err)
{
	return kv_rows_change(r, n_rows, 0, n_rows, keep, &(struct kept){ which, n }, err);
}

uint32_t
kv_rows_groups_cut(const struct kv_rows *r, const uint32_t *which, uint32_t n)
{
	struct kept k = { which, n };
	uint32_t cut = 0;

	for (size_t i = 0; i < r->n_seg; i++) {
		const struct kv_segment *s = &r->seg[i];

		for (uint32_t g = 0; g < s->n_groups; g++) {
			uint32_t first = g ? s->group_end[g - 1] : 0, end = s->group_end[g];
			uint32_t kept = (uint32_t)(kv_first_from(k.keep, k.n, s->first + end) - kv_first_from(k.keep, k.n, s->first + first));

			cut += kept && kept < end - first;
		}
	}
	return cut;
}

/* Is a mask like that of segment i among those of the segments before it? */
static bool
mask_known(const struct kv_rows *r, size_t i)
{
	bool known = false;

	for (size_t k = 0; k < i; k++)
		known |= kv_mask_same(r->seg[k].mask, r->seg[i].mask);
	return known;
}

struct kv_rows_bytes
kv_rows_bytes(const struct kv_rows *r, uint32_t n)
{
	struct kv_rows_bytes b = { .full = (uint64_t)n * r->width * kvs_dtype_size(r->dtype) };

	for (size_t i = 0; i < kv_rows_segments(r, n); i++) {
		struct kv_segment s = kv_rows_segment(r, n, i);

		b.rows += (uint64_t)s.n * s.row_bytes;
		b.scales += 2 * kv_segment_scale_bytes(&s);
		if (s.mask && !mask_known(r, i))
			b.masks += kv_mask_bytes(s.mask);
	}
	return b;
}
