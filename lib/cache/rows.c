/* Rows of K or V of one list: held in the frames they came in, or numbers in a block. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "kvs/codec.h"
#include "kvs/payload.h"
#include "util/half.h"
#include "util/le.h"
#include "util/mem.h"

enum kv_status
kv_held_add(struct kv_held **list, size_t *n, const struct kvs_frame *f, struct kv_err *err)
{
	struct kv_held *p;
	uint8_t *payload;

	/* Doubling at powers of two: a list of a million tokens has some hundred frames. */
	if (!(*n & (*n - 1))) {
		if (!(p = kv_array_resize(*list, *n ? 2 * *n : 1, sizeof *p)))
			return kv_fail_mem(err, "a frame");
		*list = p;
	}
	if (f->block) {
		payload = *f->block;
		*f->block = NULL;
	} else {
		if (f->head.enc_len > SIZE_MAX || !(payload = kv_block_new((size_t)f->head.enc_len, 1)))
			return kv_fail_mem(err, "a frame");
		memcpy(payload, f->payload, (size_t)f->head.enc_len);
	}
	(*list)[(*n)++] = (struct kv_held){ f->head, payload };
	return KV_OK;
}

void
kv_held_free(struct kv_held *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		kv_block_free(list[i].payload);
	free(list);
}

static size_t
row_bytes(const struct kv_rows *r)
{
	return r->width * kvs_dtype_size(r->dtype);
}

/* The rows of one held frame: in place if they are stored as they are, else decoded into *scratch, a block for the caller to free. */
static enum kv_status
open_held(const struct kv_held *h, const uint8_t **rows, uint8_t **scratch, struct kv_err *err)
{
	struct kvs_frame f = { .head = h->head, .payload = h->payload };
	enum kv_status rc;

	*scratch = NULL;
	if (h->head.codec == KVS_CODEC_RAW) {
		*rows = h->payload + KVS_ROWS_HEADER;
		return KV_OK;
	}
	if (!(*scratch = kv_block_new((size_t)h->head.raw_len, 1)))
		return kv_fail_mem(err, "rows of the cache");
	if ((rc = kvs_decode(&f, *scratch, err)) != KV_OK) {
		kv_block_free(*scratch);
		return rc;
	}
	*rows = *scratch + KVS_ROWS_HEADER;
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

/* A new block with the rows kept, loaded or straight out of the held frames. */
static enum kv_status
gather(const struct kv_rows *r, uint32_t n_rows, const uint32_t *keep, uint32_t n, uint8_t **out, struct kv_err *err)
{
	size_t size = row_bytes(r);
	uint8_t *data = kv_block_new(n, size), *dst = data;
	uint32_t i = 0, first = 0;

	if (!data)
		return kv_fail_mem(err, "rows of the cache");
	if (r->data)
		copy_kept(&dst, r->data, size, 0, n_rows, keep, n, &i);
	for (size_t h = 0; h < r->n_held && i < n; h++) {
		uint32_t rows_here = (uint32_t)((r->held[h].head.raw_len - KVS_ROWS_HEADER) / size);
		const uint8_t *rows;
		uint8_t *scratch;
		enum kv_status rc;

		if (keep[i] - first < rows_here) {
			if ((rc = open_held(&r->held[h], &rows, &scratch, err)) != KV_OK) {
				kv_block_free(data);
				return rc;
			}
			copy_kept(&dst, rows, size, first, rows_here, keep, n, &i);
			kv_block_free(scratch);
		}
		first += rows_here;
	}
	assert(i == n);
	*out = data;
	return KV_OK;
}

void
kv_rows_replace(struct kv_rows *r, uint8_t *data, uint32_t cap)
{
	kv_block_free(r->data);
	kv_held_free(r->held, r->n_held);
	r->data = data;
	r->cap = cap;
	r->held = NULL;
	r->n_held = 0;
}

static void
close_up(struct kv_rows *r, const uint32_t *keep, uint32_t n)
{
	size_t size = row_bytes(r);

	for (uint32_t i = 0, run; i < n; i += run) {
		for (run = 1; i + run < n && keep[i + run] == keep[i] + run; run++)
			;
		if (keep[i] != i)
			memmove(r->data + i * size, r->data + keep[i] * size, run * size);
	}
}

enum kv_status
kv_rows_keep(struct kv_rows *r, uint32_t n_rows, const uint32_t *keep, uint32_t n, struct kv_err *err)
{
	enum kv_status rc;
	uint8_t *data = NULL;

	if (r->data && n >= r->cap / 2) {
		close_up(r, keep, n);
		return KV_OK;
	}
	if ((rc = gather(r, n_rows, keep, n, &data, err)) == KV_OK)
		kv_rows_replace(r, data, n);
	return rc;
}

void
kv_rows_free(struct kv_rows *r)
{
	kv_rows_replace(r, NULL, 0);
}

/* Moves n rows, loaded or held, into a block with room for cap. */
static enum kv_status
move_rows(struct kv_rows *r, uint32_t n, uint32_t cap, struct kv_err *err)
{
	size_t size = row_bytes(r);
	uint8_t *data = kv_block_new(cap, size), *dst = data, *scratch;
	const uint8_t *rows;
	enum kv_status rc;

	if (!data)
		return kv_fail_mem(err, "rows of the cache");
	if (r->data)
		memcpy(data, r->data, n * size);
	for (size_t h = 0; h < r->n_held; h++) {
		size_t bytes = (size_t)r->held[h].head.raw_len - KVS_ROWS_HEADER;

		if ((rc = open_held(&r->held[h], &rows, &scratch, err)) != KV_OK) {
			kv_block_free(data);
			return rc;
		}
		memcpy(dst, rows, bytes);
		dst += bytes;
		kv_block_free(scratch);
	}
	kv_rows_replace(r, data, cap);
	return KV_OK;
}

enum kv_status
kv_rows_load(struct kv_rows *r, struct kv_err *err)
{
	uint64_t n = 0;

	if (!r->n_held)
		return KV_OK;
	for (size_t h = 0; h < r->n_held; h++)
		n += (r->held[h].head.raw_len - KVS_ROWS_HEADER) / row_bytes(r);
	return move_rows(r, (uint32_t)n, (uint32_t)n, err);
}

enum kv_status
kv_rows_reserve(struct kv_rows *r, uint32_t n, uint32_t need, struct kv_err *err)
{
	if (!r->n_held && need <= r->cap)
		return KV_OK;
	return move_rows(r, n, need > r->cap ? need : r->cap, err);
}

void
kv_rows_get(const struct kv_rows *r, uint32_t row, float *out)
{
	const uint8_t *p = r->data + row * row_bytes(r);

	assert(!r->n_held);
	switch (r->dtype) {
	case KVS_F32:
		for (uint32_t i = 0; i < r->width; i++)
			out[i] = lef32_get(p + 4 * i);
		break;
	case KVS_F16:
		for (uint32_t i = 0; i < r->width; i++)
			out[i] = f16_to_f32(le16_get(p + 2 * i));
		break;
	case KVS_BF16:
		for (uint32_t i = 0; i < r->width; i++)
			out[i] = bf16_to_f32(le16_get(p + 2 * i));
		break;
	}
}

/* One row; false if a finite number has become infinite. */
static bool
round_row(uint8_t *p, unsigned dtype, const float *x, uint32_t width)
{
	bool good = true;

	for (uint32_t i = 0; i < width; i++) {
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
kv_rows_put(struct kv_rows *r, uint32_t first, uint32_t n, const float *x, size_t ld, struct kv_err *err)
{
	size_t size = row_bytes(r);
	bool good = true;

	assert(!r->n_held && first <= r->cap && n <= r->cap - first);
	for (uint32_t i = 0; i < n; i++)
		good &= round_row(r->data + (first + i) * size, r->dtype, x + i * ld, r->width);
	if (!good)
		return kv_fail(err, KV_EFIT, "a number beyond the range of %s: take --dtype %s", kvs_dtype_name(r->dtype),
			r->dtype == KVS_F16 ? "bf16" : "f32");
	return KV_OK;
}
