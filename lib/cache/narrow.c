/* Rows narrowed to the channels of a mask. */
#include <stdlib.h>
#include <string.h>

#include "cache/segment_parts.h"
#include "util/mem.h"

/* Columns of s that the mask's channels are in, [mask->n_kept]. */
static void
columns(const struct kv_segment *s, const struct kv_mask *mask, uint16_t *col)
{
	for (uint32_t c = 0, j = 0; c < mask->n_kept; c++) {
		while (s->mask && s->mask->channel[j] != mask->channel[c])
			j++;
		col[c] = s->mask ? (uint16_t)j : mask->channel[c];
	}
}

/* Elements of `size` bytes, n rows of them. */
static void
gather(const uint8_t *from, uint32_t width, const uint16_t *col, uint32_t kept, size_t size, uint32_t n, uint8_t *to)
{
	for (uint32_t i = 0; i < n; i++, from += width * size)
		for (uint32_t c = 0; c < kept; c++, to += size)
			memcpy(to, from + col[c] * size, size);
}

static void
gather_codes(const struct kv_segment *s, const uint16_t *col, struct kv_segment *out)
{
	unsigned bits = s->code.bits, most = (1u << bits) - 1;

	memset(out->data, 0, (size_t)out->n * out->row_bytes);
	for (uint32_t i = 0; i < out->n; i++) {
		const uint8_t *from = s->data + (size_t)i * s->row_bytes;
		uint8_t *to = out->data + (size_t)i * out->row_bytes;

		for (uint32_t c = 0; c < out->width; c++)
			to[c * bits / 8] |= (uint8_t)(((unsigned)from[col[c] * bits / 8] >> col[c] * bits % 8 & most) << c * bits % 8);
	}
}

static enum kv_status
check_narrow(const struct kv_segment *s, const struct kv_mask *mask, struct kv_err *err)
{
	if (!kv_mask_within(mask, s->mask))
		return kv_fail(err, KV_EFIT, "channels that were dropped before cannot come back");
	if (s->code.scheme == KVS_PER_ROW)
		return kv_fail(err, KV_EFIT, "codes in groups of channels cannot be narrowed exactly");
	if (!mask->values && s->rotated == mask->pairs)
		return kv_fail(err, KV_EFIT, s->rotated ? "keys that are turned already, under a mask of whole rotary pairs" :
			"keys before RoPE cannot lose one channel of a rotary pair");
	return KV_OK;
}

static enum kv_status
narrow(const struct kv_segment *s, uint32_t a, uint32_t b, const void *arg, struct kv_segment *out, struct kv_err *err)
{
	struct kv_mask *mask = *(struct kv_mask *const *)arg;
	uint16_t col[KVS_MAX_DIM];
	struct kv_segment part, like;
	size_t scale = kvs_dtype_size(s->code.scale_dtype);
	enum kv_status rc;

	if ((rc = check_narrow(s, mask, err)) != KV_OK || (rc = kv_segment_pick(s, NULL, a, b - a, &part, err)) != KV_OK)
		return rc;
	columns(s, mask, col);
	like = part;
	like.width = mask->n_kept;
	like.row_bytes = s->dtype == KVS_CODES ? (like.width * s->code.bits + 7) / 8 : like.width * (uint32_t)kvs_dtype_size(s->dtype);
	like.mask = mask;
	if ((rc = kv_segment_room(&like, part.n, part.n_groups, out, err)) != KV_OK)
		goto out;
	if (s->dtype != KVS_CODES) {
		gather(part.data, part.width, col, out->width, kvs_dtype_size(s->dtype), part.n, out->data);
		goto out;
	}
	gather_codes(&part, col, out);
	memcpy(out->group_end, part.group_end, part.n_groups * sizeof *part.group_end);
	gather(part.scales, part.width, col, out->width, scale, part.n_groups, out->scales);
	gather(part.minima, part.width, col, out->width, scale, part.n_groups, out->minima);
out:
	kv_segment_free(&part);
	return rc;
}

enum kv_status
kv_rows_narrow(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, const struct kv_mask *mask, struct kv_err *err)
{
	struct kv_mask *copy;
	enum kv_status rc;

	if ((rc = kv_mask_copy(mask, &copy, err)) != KV_OK)
		return rc;
	rc = kv_rows_change(r, n, from, to, narrow, &copy, err);
	kv_mask_free(copy);
	return rc;
}

struct given {
	struct kv_mask *mask;
	const float *x;		/* [rows from `from` on][width] */
	uint32_t from, width;
	uint8_t dtype;
	bool rotated;
};

static enum kv_status
put(const struct kv_segment *s, uint32_t a, uint32_t b, const void *arg, struct kv_segment *out, struct kv_err *err)
{
	const struct given *g = arg;
	struct kv_segment like = {
		.dtype = g->dtype, .rotated = g->rotated, .mask = g->mask, .width = g->width, .row_bytes = g->width * (uint32_t)kvs_dtype_size(g->dtype),
	};
	bool good = true;
	enum kv_status rc;

	if ((rc = kv_segment_room(&like, b - a, 0, out, err)) != KV_OK)
		return rc;
	for (uint32_t i = a; i < b; i++)
		good &= kv_numbers_put(out->data + (size_t)(i - a) * out->row_bytes, out->dtype,
			g->x + (size_t)(s->first + i - g->from) * g->width, g->width);
	if (good)
		return KV_OK;
	kv_segment_free(out);
	return kv_fail_range(g->dtype, err);
}

enum kv_status
kv_rows_put_narrow(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, const struct kv_mask *mask, bool rotated, const float *x,
	struct kv_err *err)
{
	struct given g = { NULL, x, from, mask ? mask->n_kept : r->width, r->dtype, rotated };
	enum kv_status rc;

	if (rotated != (mask && !mask->values && !mask->pairs))
		return kv_fail(err, KV_EFIT, rotated ? "keys that are turned, under a mask of whole rotary pairs" :
			"keys before RoPE cannot lose one channel of a rotary pair");
	if (mask && (rc = kv_mask_copy(mask, &g.mask, err)) != KV_OK)
		return rc;
	rc = kv_rows_change(r, n, from, to, put, &g, err);
	kv_mask_free(g.mask);
	return rc;
}
