/* Rows of K or V of one list: held in the frames they came in, or numbers in a block. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "cache/segment_parts.h"
#include "kvs/codec.h"
#include "kvs/payload.h"
#include "util/half.h"
#include "util/in.h"
#include "util/le.h"
#include "util/mem.h"

enum kv_status
kv_held_add(struct kv_held **list, size_t *n, const struct kvs_frame *f, struct kv_err *err)
{
	struct kv_held *p, h = { .head = f->head, .payload = f->payload };

	/* Doubling at powers of two: a list of a million tokens has some hundred frames. */
	if (!(*n & (*n - 1))) {
		if (!(p = kv_array_resize(*list, *n ? 2 * *n : 1, sizeof *p)))
			return kv_fail_mem(err, "a frame");
		*list = p;
	}
	if (f->block) {
		h.block = *f->block;
		*f->block = NULL;
	} else if (!f->in || !(h.map = kv_in_share(f->in))) {
		if (f->head.enc_len > SIZE_MAX || !(h.block = kv_block_new((size_t)f->head.enc_len, 1)))
			return kv_fail_mem(err, "a frame");
		h.payload = memcpy(h.block, f->payload, (size_t)f->head.enc_len);
	}
	(*list)[(*n)++] = h;
	return KV_OK;
}

void
kv_held_drop(struct kv_held *h)
{
	kv_block_free(h->block);
	kv_map_forget(h->map, h->payload, (size_t)h->head.enc_len);
	kv_map_drop(h->map);
}

void
kv_held_free(struct kv_held *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		kv_held_drop(&list[i]);
	free(list);
}

static size_t
row_bytes(const struct kv_rows *r)
{
	return r->width * kvs_dtype_size(r->dtype);
}

enum kv_status
kv_held_open(const struct kv_held *h, const uint8_t **raw, uint8_t **scratch, struct kv_err *err)
{
	struct kvs_frame f = { .head = h->head, .payload = h->payload };
	enum kv_status rc;

	*scratch = NULL;
	if (h->head.codec == KVS_CODEC_RAW) {
		*raw = h->payload;
		return KV_OK;
	}
	if (!(*scratch = kv_block_new((size_t)h->head.raw_len, 1)))
		return kv_fail_mem(err, "rows of the cache");
	if ((rc = kvs_decode(&f, *scratch, err)) != KV_OK) {
		kv_block_free(*scratch);
		return rc;
	}
	*raw = *scratch;
	return KV_OK;
}

/* Copies those of keep[*i..n) that lie among the rows first … first + n_rows - 1; *i and *dst move on. */
static void
copy_kept(uint8_t **dst, const uint8_t *rows, size_t size, uint32_t first, uint32_t n_rows, const uint32_t *keep, uint32_t n, uint32_t *i)
{
	while (*i < n && keep[*i] - first < n_rows) {
		uint32_t from = keep[*i] - first, run = 1;

		while (*i + run < n && keep[*i + run] == keep[*i] + run && from + run < n_rows)
			run++;
		memcpy(*dst, rows + from * size, run * size);
		*dst += run * size;
		*i += run;
	}
}

/* Copies the plain rows keep[0..n), counted from the first of them: those that are loaded, or straight out of the held frames. */
static enum kv_status
copy_rows(const struct kv_rows *r, const uint32_t *keep, uint32_t n, uint8_t *dst, struct kv_err *err)
{
	size_t size = row_bytes(r);
	uint32_t i = 0, first = 0;

	if (r->data)
		copy_kept(&dst, r->data, size, 0, UINT32_MAX, keep, n, &i);
	for (size_t h = 0; h < r->n_held && i < n; h++) {
		uint32_t rows_here = (uint32_t)((r->held[h].head.raw_len - KVS_ROWS_HEADER) / size);
		const uint8_t *rows;
		uint8_t *scratch;
		enum kv_status rc;

		if (keep[i] - first < rows_here) {
			if ((rc = kv_held_open(&r->held[h], &rows, &scratch, err)) != KV_OK)
				return rc;
			copy_kept(&dst, rows + KVS_ROWS_HEADER, size, first, rows_here, keep, n, &i);
			kv_block_free(scratch);
			kv_map_forget(r->held[h].map, r->held[h].payload, (size_t)r->held[h].head.enc_len);
		}
		first += rows_here;
	}
	assert(i == n);
	return KV_OK;
}

enum kv_status
kv_rows_left(const struct kv_rows *r, uint32_t first, uint32_t n, uint8_t *dst, struct kv_err *err)
{
	return copy_rows(r, r->left + first, n, dst, err);
}

/* The same into a block of cap rows that takes the place of what is there. */
static enum kv_status
gather(struct kv_rows *r, const uint32_t *keep, uint32_t n, uint32_t cap, struct kv_err *err)
{
	uint8_t *data = kv_block_new(cap, row_bytes(r));
	enum kv_status rc;

	if (!data)
		return kv_fail_mem(err, "rows of the cache");
	if ((rc = copy_rows(r, keep, n, data, err)) == KV_OK)
		kv_rows_replace(r, data, cap);
	else
		kv_block_free(data);
	return rc;
}

enum kv_status
kv_rows_gather_left(struct kv_rows *r, struct kv_err *err)
{
	return gather(r, r->left, r->n_left, r->n_left > r->cap ? r->n_left : r->cap, err);
}

/* Are all rows plain, and in frames that can be copied from as they are? */
static bool
is_raw(const struct kv_rows *r)
{
	bool raw = r->n_held && !r->front;

	for (size_t h = 0; h < r->n_held && raw; h++)
		raw = r->held[h].head.codec == KVS_CODEC_RAW;
	return raw;
}

/* Notes what is left; whoever needs the rows, or writes them, copies them then. */
static enum kv_status
leave(struct kv_rows *r, const uint32_t *keep, uint32_t n, struct kv_err *err)
{
	if (!r->left) {
		if (!(r->left = kv_array_new(n, sizeof *r->left)))
			return kv_fail_mem(err, "rows of the cache");
		if (n)
			memcpy(r->left, keep, n * sizeof *keep);
	} else {
		for (uint32_t i = 0; i < n; i++)
			r->left[i] = r->left[keep[i]];
	}
	r->n_left = n;
	return KV_OK;
}

void
kv_rows_replace(struct kv_rows *r, uint8_t *data, uint32_t cap)
{
	kv_block_free(r->data);
	kv_held_free(r->held, r->n_held);
	free(r->left);
	r->data = data;
	r->cap = cap;
	r->held = NULL;
	r->n_held = 0;
	r->left = NULL;
	r->n_left = 0;
}

/* Rows first … are in data. */
static void
close_up(struct kv_rows *r, uint32_t first, const uint32_t *keep, uint32_t n)
{
	size_t size = row_bytes(r);

	for (uint32_t i = 0, run; i < n; i += run) {
		for (run = 1; i + run < n && keep[i + run] == keep[i] + run; run++)
			;
		if (keep[i] - first != i)
			memmove(r->data + i * size, r->data + (keep[i] - first) * size, run * size);
	}
}

enum kv_status
kv_rows_keep(struct kv_rows *r, uint32_t n_rows, const uint32_t *keep, uint32_t n, struct kv_err *err)
{
	uint32_t front = r->front;
	enum kv_status rc;

	if (is_raw(r))
		return leave(r, keep, n, err);
	if (front) {
		if (n < front || keep[front - 1] != front - 1)
			return kv_rows_keep_segments(r, n_rows, keep, n, err);
		if ((rc = kv_rows_load(r, err)) != KV_OK)
			return rc;
	}
	if (r->data && n - front >= r->cap / 2) {
		close_up(r, front, keep + front, n - front);
		return KV_OK;
	}
	return gather(r, keep + front, n - front, n - front, err);
}

void
kv_rows_free(struct kv_rows *r)
{
	for (size_t i = 0; i < r->n_seg; i++)
		kv_segment_free(&r->seg[i]);
	free(r->seg);
	r->seg = NULL;
	r->n_seg = r->front = 0;
	kv_rows_replace(r, NULL, 0);
}

/* Moves the first n plain rows into a block with room for cap. */
static enum kv_status
move_rows(struct kv_rows *r, uint32_t n, uint32_t cap, struct kv_err *err)
{
	size_t size = row_bytes(r);
	uint8_t *data = kv_block_new(cap, size);

	if (!data)
		return kv_fail_mem(err, "rows of the cache");
	if (n)
		memcpy(data, r->data, n * size);
	kv_rows_replace(r, data, cap);
	return KV_OK;
}

void
kv_rows_expect(struct kv_rows *r, uint32_t need)
{
	if (r->n_held && need - r->front > r->cap)
		r->cap = need - r->front;
}

enum kv_status
kv_rows_reserve(struct kv_rows *r, uint32_t n, uint32_t need, struct kv_err *err)
{
	enum kv_status rc;

	if (!r->n_held && need - r->front <= r->cap)
		return KV_OK;
	return (rc = kv_rows_load(r, err)) == KV_OK && need - r->front > r->cap ? move_rows(r, n - r->front, need - r->front, err) : rc;
}

void
kv_numbers_get(const uint8_t *p, unsigned dtype, uint32_t n, float *out)
{
	switch (dtype) {
	case KVS_F32:
		for (uint32_t i = 0; i < n; i++)
			out[i] = lef32_get(p + 4 * i);
		break;
	case KVS_F16:
		for (uint32_t i = 0; i < n; i++)
			out[i] = f16_to_f32(le16_get(p + 2 * i));
		break;
	case KVS_BF16:
		for (uint32_t i = 0; i < n; i++)
			out[i] = bf16_to_f32(le16_get(p + 2 * i));
		break;
	}
}

bool
kv_numbers_put(uint8_t *p, unsigned dtype, const float *x, uint32_t n)
{
	bool good = true;

	for (uint32_t i = 0; i < n; i++) {
		if (dtype == KVS_F32) {
			lef32_put(p + 4 * i, x[i]);
			continue;
		}
		uint16_t h = dtype == KVS_F16 ? f32_to_f16(x[i]) : f32_to_bf16(x[i]);
		uint16_t infinite = dtype == KVS_F16 ? 0x7c00 : 0x7f80;

		good &= (h & 0x7fff) != infinite || !isfinite(x[i]);
		le16_put(p + 2 * i, h);
	}
	return good;
}

enum kv_status
kv_fail_range(unsigned dtype, struct kv_err *err)
{
	return kv_fail(err, KV_EFIT, "a number beyond the range of %s: take --dtype %s", kvs_dtype_name(dtype),
		dtype == KVS_F16 ? "bf16" : "f32");
}

/* A row of a segment at full width. */
static void
get_widened(const struct kv_rows *r, uint32_t row, float *out)
{
	struct kv_segment s = kv_rows_segment_of(r, r->front, row);
	float x[KVS_MAX_DIM];

	kv_segment_get(&s, row - s.first, s.mask ? x : out);
	if (s.mask)
		kv_mask_widen(s.mask, r->dtype, x, out);
}

void
kv_rows_get(const struct kv_rows *r, uint32_t row, float *out)
{
	assert(!r->n_held);
	if (row < r->front)
		get_widened(r, row, out);
	else
		kv_numbers_get(r->data + (row - r->front) * row_bytes(r), r->dtype, r->width, out);
}

enum kv_status
kv_rows_put(struct kv_rows *r, uint32_t first, uint32_t n, const float *x, size_t ld, struct kv_err *err)
{
	size_t size = row_bytes(r);
	uint32_t at = first - r->front;
	bool good = true;

	assert(!r->n_held && first >= r->front && at <= r->cap && n <= r->cap - at);
	for (uint32_t i = 0; i < n; i++)
		good &= kv_numbers_put(r->data + (at + i) * size, r->dtype, x + i * ld, r->width);
	return good ? KV_OK : kv_fail_range(r->dtype, err);
}
