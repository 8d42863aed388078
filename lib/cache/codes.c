/* Rows in codes: the quantiser of KIVI (Liu et al. 2402.02750, the authors' code) and the way back (formats/kvs.md, section 10.3). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache/segment_parts.h"
#include "util/half.h"
#include "util/le.h"
#include "util/mem.h"
#include "util/search.h"

static unsigned
code_at(const uint8_t *row, unsigned bits, uint32_t j)
{
	return (unsigned)row[j * bits / 8] >> j * bits % 8 & ((1u << bits) - 1);
}

static void
code_put(uint8_t *row, unsigned bits, uint32_t j, unsigned code)
{
	row[j * bits / 8] |= (uint8_t)(code << j * bits % 8);
}

/* Scales and minima. */
static float
number_at(const uint8_t *p, unsigned dtype, size_t i)
{
	return dtype == KVS_F16 ? f16_to_f32(le16_get(p + 2 * i)) : lef32_get(p + 4 * i);
}

static void
number_put(uint8_t *p, unsigned dtype, size_t i, float x)
{
	if (dtype == KVS_F16)
		le16_put(p + 2 * i, f32_to_f16(x));
	else
		lef32_put(p + 4 * i, x);
}

uint32_t
kv_segment_group(const struct kv_segment *s, uint32_t i)
{
	return (uint32_t)kv_first_from(s->group_end, s->n_groups, (uint64_t)i + 1);
}

static void
decode_row(const struct kv_segment *s, uint32_t i, float *out)
{
	const struct kv_coding *c = &s->code;
	const uint8_t *row = s->data + (size_t)i * s->row_bytes;
	bool by_channel = c->scheme == KVS_PER_CHANNEL;
	size_t at = by_channel ? (size_t)kv_segment_group(s, i) * s->width : (size_t)i * (s->width / c->group);

	for (uint32_t j = 0; j < s->width; j++) {
		size_t cell = at + (by_channel ? j : j / c->group);

		out[j] = (float)code_at(row, c->bits, j) * number_at(s->scales, c->scale_dtype, cell) + number_at(s->minima, c->scale_dtype, cell);
	}
}

void
kv_segment_get(const struct kv_segment *s, uint32_t i, float *out)
{
	if (s->dtype == KVS_CODES)
		decode_row(s, i, out);
	else
		kv_numbers_get(s->data + (size_t)i * s->row_bytes, s->dtype, s->width, out);
}

/* Numbers that share a scale and a minimum: some rows and channels of x. */
struct group_of {
	const float *x;		/* [rows][width] */
	uint32_t width;
	uint32_t row, rows;
	uint32_t from, to;	/* channels from … to - 1 */
};

/* Its codes, row 0 of x being row `first` of out; scale and minimum go to the place `cell` of theirs. */
static enum kv_status
code_group(const struct group_of *g, struct kv_segment *out, uint32_t first, size_t cell, struct kv_err *err)
{
	const struct kv_coding *how = &out->code;
	float top = (float)((1u << how->bits) - 1), low = INFINITY, high = -INFINITY, scale, min;

	for (uint32_t i = g->row; i < g->row + g->rows; i++)
		for (uint32_t j = g->from; j < g->to; j++) {
			float x = g->x[(size_t)i * g->width + j];

			low = x < low ? x : low;
			high = x > high ? x : high;
		}
	number_put(out->scales, how->scale_dtype, cell, (high - low) / top);
	number_put(out->minima, how->scale_dtype, cell, low);
	scale = number_at(out->scales, how->scale_dtype, cell);
	min = number_at(out->minima, how->scale_dtype, cell);
	if (!isfinite(scale) || !isfinite(min))
		return kv_fail(err, KV_EFIT, "a range that scales of %s cannot hold", kvs_dtype_name(how->scale_dtype));
	for (uint32_t i = g->row; i < g->row + g->rows && scale > 0; i++)
		for (uint32_t j = g->from; j < g->to; j++) {
			float t = (g->x[(size_t)i * g->width + j] - min) / scale;

			code_put(out->data + (size_t)(first + i) * out->row_bytes, how->bits, j, (unsigned)lrintf(t < 0 ? 0 : t > top ? top : t));
		}
	return KV_OK;
}

/* Rows first … first + rows - 1 of out from x [rows][width]: a group of rows, or any number of rows with groups of channels. */
static enum kv_status
code_rows(const float *x, struct kv_segment *out, uint32_t first, uint32_t rows, struct kv_err *err)
{
	uint32_t width = out->width, group = out->code.group;
	enum kv_status rc = KV_OK;

	if (out->code.scheme == KVS_PER_CHANNEL)
		for (uint32_t j = 0; j < width && rc == KV_OK; j++)
			rc = code_group(&(struct group_of){ x, width, 0, rows, j, j + 1 }, out, first, (size_t)(first / group) * width + j, err);
	else
		for (uint32_t i = 0; i < rows && rc == KV_OK; i++)
			for (uint32_t b = 0; b < width / group && rc == KV_OK; b++)
				rc = code_group(&(struct group_of){ x, width, i, 1, b * group, (b + 1) * group }, out, first,
					(size_t)(first + i) * (width / group) + b, err);
	return rc;
}

static enum kv_status
check_finite(const float *x, uint32_t rows, uint32_t width, uint32_t entry, struct kv_err *err)
{
	for (uint32_t i = 0; i < rows; i++)
		for (uint32_t j = 0; j < width; j++)
			if (!isfinite(x[(size_t)i * width + j]))
				return kv_fail(err, KV_EFIT, "entry %u has a number that is not finite", entry + i);
	return KV_OK;
}

enum kv_status
kv_segment_code(const struct kv_segment *s, uint32_t a, uint32_t b, const void *arg, struct kv_segment *out, struct kv_err *err)
{
	const struct kv_coding *how = arg;
	struct kv_segment desc = *s;
	uint32_t n = b - a, step = how->group;
	float *x = NULL;
	enum kv_status rc;

	if (s->dtype == KVS_CODES)
		return kv_segment_pick(s, NULL, a, n, out, err);
	if (how->scheme == KVS_PER_ROW && s->width % how->group)
		return kv_fail(err, KV_EFIT, "groups of %u do not divide rows of %u channels", how->group, s->width);
	desc.dtype = KVS_CODES;
	desc.code = *how;
	desc.row_bytes = (s->width * how->bits + 7) / 8;
	if ((rc = kv_segment_room(&desc, n, how->scheme == KVS_PER_CHANNEL ? (n + step - 1) / step : 0, out, err)) != KV_OK)
		return rc;
	memset(out->data, 0, (size_t)n * out->row_bytes);
	if (!(x = kv_block_new(step < n ? step : n, s->width * sizeof *x)))
		rc = kv_fail_mem(err, "rows of the cache");
	for (uint32_t at = 0, rows; rc == KV_OK && at < n; at += rows) {
		rows = n - at < step ? n - at : step;
		for (uint32_t i = 0; i < rows; i++)
			kv_segment_get(s, a + at + i, x + (size_t)i * s->width);
		if ((rc = check_finite(x, rows, s->width, s->first + a + at, err)) == KV_OK)
			rc = code_rows(x, out, at, rows, err);
		if (out->group_end)
			out->group_end[at / step] = at + rows;
	}
	kv_block_free(x);
	if (rc != KV_OK)
		kv_segment_free(out);
	return rc;
}

enum kv_status
kv_segment_plain(const struct kv_segment *s, uint32_t a, uint32_t b, const void *arg, struct kv_segment *out, struct kv_err *err)
{
	unsigned dtype = *(const uint8_t *)arg;
	struct kv_segment desc = *s;
	float x[KVS_MAX_DIM];
	bool good = true;
	enum kv_status rc;

	desc.dtype = (uint8_t)dtype;
	desc.code = (struct kv_coding){ 0 };
	desc.row_bytes = s->width * (uint32_t)kvs_dtype_size(dtype);
	if ((rc = kv_segment_room(&desc, b - a, 0, out, err)) != KV_OK)
		return rc;
	for (uint32_t i = a; i < b; i++) {
		kv_segment_get(s, i, x);
		good &= kv_numbers_put(out->data + (size_t)(i - a) * out->row_bytes, dtype, x, s->width);
	}
	if (good)
		return KV_OK;
	kv_segment_free(out);
	return kv_fail_range(dtype, err);
}
