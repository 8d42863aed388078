/* KEYS and VALS, and what makes their rows readable: CMSK, CMAP and QUNT (formats/kvs.md, section 10). */
#include "kvs/payload.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kvs/frame.h"
#include "util/half.h"
#include "util/le.h"

enum { MASK_HEADER = 16, MAP_HEADER = 16, QUANT_HEADER = 16, MASK_PAIRS = 1, MASK_VALUES = 2 };

uint32_t
kvs_rows_per_chunk(uint32_t row_bytes)
{
	uint32_t r = KVS_CHUNK_ROWS;

	while (r > 1 && (uint64_t)r * row_bytes > KVS_CHUNK_BYTES)
		r /= 2;
	return r;
}

/* Values that a later version may add, before those that contradict each other. */
static enum kv_status
check_known(const uint8_t *p, const struct kvs_rows *r, struct kv_err *err)
{
	if (!kvs_dtype_size(r->dtype) && r->dtype != KVS_CODES)
		return kv_fail(err, KV_EUNSUP, "element type %u is not known to this version", r->dtype);
	if (r->scheme > KVS_PER_ROW)
		return kv_fail(err, KV_EUNSUP, "quantisation scheme %u is not known to this version", r->scheme);
	if (r->bits && r->bits != 2 && r->bits != 4 && r->bits != 8)
		return kv_fail(err, KV_EUNSUP, "codes of %u bits are not known to this version", r->bits);
	if (r->scale_dtype > KVS_F16)
		return kv_fail(err, KV_EUNSUP, "scales of type %u are not known to this version", r->scale_dtype);
	if (r->rotated > 1 || !kvs_all_zero(p + 25, 3) || !kvs_all_zero(p + 32, 32))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	return KV_OK;
}

static enum kv_status
check_codes(const struct kvs_rows *r, struct kv_err *err)
{
	bool codes = r->dtype == KVS_CODES;

	if (codes != (r->scheme != 0) || codes != (r->bits != 0) || codes != (r->scale_dtype != 0) || codes != (r->group != 0) ||
	    (!codes && r->residual))
		return kv_fail(err, KV_ECORRUPT, "element type %u with scheme %u, %u bits, group %" PRIu32, r->dtype, r->scheme, r->bits,
			r->group);
	if (r->scheme == KVS_PER_ROW && r->width % r->group)
		return kv_fail(err, KV_ECORRUPT, "groups of %" PRIu32 " do not divide rows of %u", r->group, r->width);
	return KV_OK;
}

enum kv_status
kvs_rows_head_get(const uint8_t *p, size_t n, const struct kvs_geom *g, bool values, struct kvs_rows *r, struct kv_err *err)
{
	struct kvs_rows v = { 0 };
	uint32_t d = values ? g->d_v : g->d_k, size;
	enum kv_status rc;

	if (n < KVS_ROWS_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.first_row = le32_get(p);
	v.n_rows = le32_get(p + 4);
	v.row_bytes = le32_get(p + 8);
	v.width = le16_get(p + 12);
	v.mask = le16_get(p + 14);
	v.dtype = p[16];
	v.scheme = p[17];
	v.bits = p[18];
	v.scale_dtype = p[19];
	v.group = le32_get(p + 20);
	v.rotated = p[24];
	v.residual = le32_get(p + 28);
	if ((rc = check_known(p, &v, err)) != KV_OK || (rc = check_codes(&v, err)) != KV_OK)
		return rc;
	if (v.mask ? !v.width || v.width >= d : v.width != d)
		return kv_fail(err, KV_ECORRUPT, "rows of %u channels of %" PRIu32 " with mask %u", v.width, d, v.mask);
	if (v.rotated && (values || !v.mask))
		return kv_fail(err, KV_ECORRUPT, "rotated rows without a mask of keys");
	size = v.dtype == KVS_CODES ? (v.width * (uint32_t)v.bits + 7) / 8 : v.width * (uint32_t)kvs_dtype_size(v.dtype);
	if (v.row_bytes != size)
		return kv_fail(err, KV_ECORRUPT, "rows of %" PRIu32 " bytes, their type and width make %" PRIu32, v.row_bytes, size);
	if (!v.n_rows || v.n_rows > kvs_rows_per_chunk(size) || n != KVS_ROWS_HEADER + (uint64_t)v.n_rows * size)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " rows of %" PRIu32, n, v.n_rows, size);
	*r = v;
	return KV_OK;
}

enum kv_status
kvs_rows_get(const uint8_t *p, size_t n, const struct kvs_geom *g, bool values, struct kvs_rows *r, struct kv_err *err)
{
	enum kv_status rc = kvs_rows_head_get(p, n, g, values, r, err);

	if (rc == KV_OK)
		r->data = p + KVS_ROWS_HEADER;
	return rc;
}

void
kvs_rows_put(uint8_t out[KVS_ROWS_HEADER], const struct kvs_rows *r)
{
	memset(out, 0, KVS_ROWS_HEADER);
	le32_put(out, r->first_row);
	le32_put(out + 4, r->n_rows);
	le32_put(out + 8, r->row_bytes);
	le16_put(out + 12, r->width);
	le16_put(out + 14, r->mask);
	out[16] = r->dtype;
	out[17] = r->scheme;
	out[18] = r->bits;
	out[19] = r->scale_dtype;
	le32_put(out + 20, r->group);
	out[24] = r->rotated;
	le32_put(out + 28, r->residual);
}

static size_t
mask_bytes(uint32_t d)
{
	return (size_t)(d + 63) / 64 * 8;
}

static bool
bit(const uint8_t *bits, uint32_t j)
{
	return bits[j / 8] >> j % 8 & 1;
}

bool
kvs_mask_pairs(const struct kvs_geom *g, unsigned layer, const uint8_t *bits)
{
	const struct kvs_rope *r = g->layer[layer].rope == KVS_NO_ROPE ? NULL : &g->rope[g->layer[layer].rope];
	bool whole = true;

	for (uint32_t i = 0; r && i < r->n_rot / 2; i++)
		whole &= r->kind == KVS_ROPE_NORM ? bit(bits, 2 * i) == bit(bits, 2 * i + 1) : bit(bits, i) == bit(bits, i + r->n_rot / 2);
	return whole;
}

static uint32_t
count_kept(const uint8_t *bits, uint32_t d)
{
	uint32_t n = 0;

	for (uint32_t j = 0; j < d; j++)
		n += bit(bits, j);
	return n;
}

enum kv_status
kvs_mask_get(const uint8_t *p, size_t n, const struct kvs_geom *g, unsigned layer, struct kvs_mask *m, struct kv_err *err)
{
	struct kvs_mask v = { 0 };

	if (n < MASK_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	if (p[8] > (MASK_PAIRS | MASK_VALUES) || !kvs_all_zero(p + 9, 7))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	v.d = le32_get(p);
	v.n_kept = le32_get(p + 4);
	v.pairs = p[8] & MASK_PAIRS;
	v.values = p[8] & MASK_VALUES;
	v.bits = p + MASK_HEADER;
	if (v.d != (v.values ? g->d_v : g->d_k) || n != MASK_HEADER + mask_bytes(v.d))
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for a mask of %" PRIu32 " channels", n, v.d);
	if (!v.n_kept || v.n_kept >= v.d || v.n_kept != count_kept(v.bits, v.d) ||
	    v.n_kept != count_kept(v.bits, (uint32_t)mask_bytes(v.d) * 8))
		return kv_fail(err, KV_ECORRUPT, "%" PRIu32 " channels of %" PRIu32 " do not agree with the bits", v.n_kept, v.d);
	if (v.pairs != (!v.values && kvs_mask_pairs(g, layer, v.bits)))
		return kv_fail(err, KV_ECORRUPT, "rotary pairs are %s, the mask says otherwise", v.pairs ? "broken" : "complete");
	*m = v;
	return KV_OK;
}

void
kvs_mask_put(struct kv_buf *out, const struct kvs_geom *g, unsigned layer, bool values, const uint8_t *bits)
{
	uint32_t d = values ? g->d_v : g->d_k;
	uint8_t *p = kv_buf_grow(out, MASK_HEADER + mask_bytes(d));

	if (!p)
		return;
	memset(p, 0, MASK_HEADER);
	le32_put(p, d);
	le32_put(p + 4, count_kept(bits, d));
	p[8] = values ? MASK_VALUES : kvs_mask_pairs(g, layer, bits) ? MASK_PAIRS : 0;
	memcpy(p + MASK_HEADER, bits, mask_bytes(d));
}

/* f16 or f32 [n]: finite, and not negative where that is asked. */
static bool
all_finite(const uint8_t *p, size_t n, unsigned dtype, bool positive)
{
	bool good = true;

	for (size_t i = 0; i < n; i++) {
		float x = dtype == KVS_F16 ? f16_to_f32(le16_get(p + 2 * i)) : lef32_get(p + 4 * i);

		good &= isfinite(x) && (!positive || x >= 0);
	}
	return good;
}

enum kv_status
kvs_map_get(const uint8_t *p, size_t n, const struct kvs_geom *g, struct kvs_map *m, struct kv_err *err)
{
	struct kvs_map v = { 0 };
	size_t numbers;

	if (n < MAP_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.n_dropped = le32_get(p);
	v.n_kept = le32_get(p + 4);
	v.dtype = p[8];
	v.map = p + MAP_HEADER;
	if ((v.dtype != KVS_F32 && v.dtype != KVS_F16) || !kvs_all_zero(p + 9, 7))
		return kv_fail(err, KV_EUNSUP, "element type %u, or a reserved field is set", v.dtype);
	if (!v.n_kept || v.n_kept >= g->d_k || v.n_dropped != g->d_k - v.n_kept)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu32 " channels from %" PRIu32 ", keys have %" PRIu32, v.n_dropped, v.n_kept, g->d_k);
	numbers = v.n_dropped * ((size_t)v.n_kept + 1);
	if (n != MAP_HEADER + numbers * kvs_dtype_size(v.dtype))
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " channels from %" PRIu32, n, v.n_dropped, v.n_kept);
	if (!all_finite(v.map, numbers, v.dtype, false))
		return kv_fail(err, KV_ECORRUPT, "a number that is not finite");
	*m = v;
	return KV_OK;
}

void
kvs_map_put(struct kv_buf *out, const struct kvs_map *m)
{
	size_t bytes = m->n_dropped * ((size_t)m->n_kept + 1) * kvs_dtype_size(m->dtype);
	uint8_t *p = kv_buf_grow(out, MAP_HEADER + bytes);

	if (!p)
		return;
	memset(p, 0, MAP_HEADER);
	le32_put(p, m->n_dropped);
	le32_put(p + 4, m->n_kept);
	p[8] = m->dtype;
	memcpy(p + MAP_HEADER, m->map, bytes);
}

/* u32[n_groups], each 1 … group, together all rows of the chunk; zeros up to 16 bytes. */
static enum kv_status
check_groups(const uint8_t *p, uint32_t n_groups, size_t padded, const struct kvs_rows *chunk, struct kv_err *err)
{
	uint64_t sum = 0;
	bool good = true;

	for (uint32_t i = 0; i < n_groups; i++) {
		uint32_t rows = le32_get(p + 4 * (size_t)i);

		good &= rows && rows <= chunk->group;
		sum += rows;
	}
	if (!good || sum != chunk->n_rows)
		return kv_fail(err, KV_ECORRUPT, "groups of 1 to %" PRIu32 " rows do not add up to %" PRIu32, chunk->group, chunk->n_rows);
	if (!kvs_all_zero(p + 4 * (size_t)n_groups, padded - 4 * (size_t)n_groups))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	return KV_OK;
}

static size_t
group_bytes(const struct kvs_rows *chunk, uint32_t n_groups)
{
	return chunk->scheme == KVS_PER_CHANNEL ? ((size_t)n_groups + 3) / 4 * 16 : 0;
}

enum kv_status
kvs_quant_get(const uint8_t *p, size_t n, const struct kvs_rows *chunk, struct kvs_quant *q, struct kv_err *err)
{
	bool by_channel = chunk->scheme == KVS_PER_CHANNEL;
	size_t counts, table, cells;
	struct kvs_quant v = { 0 };
	enum kv_status rc;

	if (n < QUANT_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.n_groups = le32_get(p);
	v.n_vec = le32_get(p + 4);
	if (!kvs_all_zero(p + 8, 8))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	if (v.n_vec != (by_channel ? chunk->width : chunk->n_rows) ||
	    (by_channel ? v.n_groups > chunk->n_rows : v.n_groups != chunk->width / chunk->group))
		return kv_fail(err, KV_ECORRUPT, "%" PRIu32 " groups of %" PRIu32 " do not fit the chunk", v.n_groups, v.n_vec);
	counts = group_bytes(chunk, v.n_groups);
	cells = (size_t)v.n_groups * v.n_vec;	/* at most 4096 times 1024 */
	table = cells * kvs_dtype_size(chunk->scale_dtype);
	if (n != QUANT_HEADER + counts + 2 * table)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " groups of %" PRIu32, n, v.n_groups, v.n_vec);
	p += QUANT_HEADER;
	v.rows = by_channel ? p : NULL;
	v.scales = p + counts;
	v.minima = v.scales + table;
	if (by_channel && (rc = check_groups(p, v.n_groups, counts, chunk, err)) != KV_OK)
		return rc;
	if (!all_finite(v.scales, cells, chunk->scale_dtype, true) || !all_finite(v.minima, cells, chunk->scale_dtype, false))
		return kv_fail(err, KV_ECORRUPT, "a scale or minimum that is negative or not finite");
	*q = v;
	return KV_OK;
}

void
kvs_quant_put(struct kv_buf *out, const struct kvs_rows *chunk, uint32_t n_groups, const uint32_t *rows, const uint8_t *scales,
	const uint8_t *minima)
{
	bool by_channel = chunk->scheme == KVS_PER_CHANNEL;
	uint32_t n_vec = by_channel ? chunk->width : chunk->n_rows;
	size_t counts = group_bytes(chunk, n_groups), table = (size_t)n_groups * n_vec * kvs_dtype_size(chunk->scale_dtype);
	uint8_t *p = kv_buf_grow(out, QUANT_HEADER + counts + 2 * table);

	if (!p)
		return;
	memset(p, 0, QUANT_HEADER + counts);
	le32_put(p, n_groups);
	le32_put(p + 4, n_vec);
	p += QUANT_HEADER;
	for (uint32_t i = 0; by_channel && i < n_groups; i++)
		le32_put(p + 4 * (size_t)i, rows[i]);
	memcpy(p + counts, scales, table);
	memcpy(p + counts + table, minima, table);
}
