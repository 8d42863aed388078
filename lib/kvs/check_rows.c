/* Masks, scales, keys and values, list after list: no hole, no overlap, nothing that nobody declared. */
#include "kvs/check_rows.h"

#include <inttypes.h>
#include <string.h>

#include "util/le.h"

enum { MASK_RECORD = 4, MASK_PAIRS = 1, MASK_VALUES = 2, MASK_MAP = 4, NO_CHUNK_BIT = 0x7fffffff };

static enum kv_status
close_list(struct kvs_check_rows *c, struct kv_err *err)
{
	uint32_t n = c->entries[c->list];
	size_t layer = c->list / c->geom->n_heads_kv, head = c->list % c->geom->n_heads_kv;

	if (c->quant_waits)
		return kv_fail(err, KV_ECORRUPT, "scales of layer %zu head %zu without their chunk", layer, head);
	if (c->k.rows != n || c->v.rows != n)
		return kv_fail(err, KV_ECORRUPT, "layer %zu head %zu has %" PRIu32 " rows of keys and %" PRIu32 " of values for %" PRIu32 " entries",
			layer, head, c->k.rows, c->v.rows, n);
	c->k = c->v = (struct kvs_check_side){ 0 };
	c->masks.len = 0;
	c->list++;
	return KV_OK;
}

static enum kv_status
go_to_list(struct kvs_check_rows *c, const struct kvs_tag *tag, struct kv_err *err)
{
	size_t list = (size_t)tag->layer * c->geom->n_heads_kv + tag->head;
	enum kv_status rc;

	if (tag->layer >= c->geom->n_layers || tag->head >= c->geom->n_heads_kv)
		return kv_fail(err, KV_ECORRUPT, "there is no such layer or head");
	if (list < c->list)
		return kv_fail(err, KV_ECORRUPT, "is out of order");
	while (c->list < list)
		if ((rc = close_list(c, err)) != KV_OK)
			return rc;
	return KV_OK;
}

static enum kv_status
check_mask(struct kvs_check_rows *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	uint8_t record[MASK_RECORD] = { 0 };
	struct kvs_mask m;
	enum kv_status rc;

	if (c->k.chunks || c->v.chunks || c->quant_waits || h->tag.chunk != c->masks.len / MASK_RECORD + 1 || h->tag.chunk > UINT16_MAX)
		return kv_fail(err, KV_ECORRUPT, "is out of order");
	if ((rc = kvs_mask_get(raw, (size_t)h->raw_len, c->geom, h->tag.layer, &m, err)) != KV_OK)
		return rc;
	le16_put(record, (uint16_t)m.n_kept);
	record[2] = (uint8_t)((m.pairs ? MASK_PAIRS : 0) | (m.values ? MASK_VALUES : 0));
	kv_buf_add(&c->masks, record, sizeof record);
	return c->masks.failed ? kv_fail_mem(err, "masks") : KV_OK;
}

/* Directly behind its mask, as far as critical frames go. */
static enum kv_status
check_map(struct kvs_check_rows *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	uint8_t *record = c->masks.len ? c->masks.p + c->masks.len - MASK_RECORD : NULL;
	struct kvs_map m;
	enum kv_status rc;

	if (c->k.chunks || c->v.chunks || !record || h->tag.chunk != c->masks.len / MASK_RECORD || record[2] & MASK_MAP)
		return kv_fail(err, KV_ECORRUPT, "is out of order");
	if ((rc = kvs_map_get(raw, (size_t)h->raw_len, c->geom, &m, err)) != KV_OK)
		return rc;
	if (!(record[2] & MASK_PAIRS) || le16_get(record) != m.n_kept)
		return kv_fail(err, KV_ECORRUPT, "does not go with its mask");
	record[2] |= MASK_MAP;
	return KV_OK;
}

/* The side that a chunk continues; keys are complete before values begin. */
static enum kv_status
find_side(struct kvs_check_rows *c, bool values, uint32_t chunk, struct kvs_check_side **side, struct kv_err *err)
{
	struct kvs_check_side *s = values ? &c->v : &c->k;

	if (chunk != s->chunks || (!values && c->v.chunks))
		return kv_fail(err, KV_ECORRUPT, "is out of order");
	if (values && c->k.rows != c->entries[c->list])
		return kv_fail(err, KV_ECORRUPT, "values begin after %" PRIu32 " of %" PRIu32 " rows of keys", c->k.rows, c->entries[c->list]);
	*side = s;
	return KV_OK;
}

static enum kv_status
hold_quant(struct kvs_check_rows *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	struct kvs_check_side *side;
	enum kv_status rc;

	c->quant_values = h->tag.chunk >> 31;
	if ((rc = find_side(c, c->quant_values, h->tag.chunk & NO_CHUNK_BIT, &side, err)) != KV_OK)
		return rc;
	c->quant.len = 0;
	kv_buf_add(&c->quant, raw, (size_t)h->raw_len);
	c->quant_waits = true;
	return c->quant.failed ? kv_fail_mem(err, "scales") : KV_OK;
}

/* Do the rows agree with the mask that they name? */
static enum kv_status
check_width(const struct kvs_check_rows *c, const struct kvs_rows *r, bool values, struct kv_err *err)
{
	const uint8_t *record;
	bool pairs;

	if (!r->mask)
		return KV_OK;
	if (r->mask > c->masks.len / MASK_RECORD)
		return kv_fail(err, KV_ECORRUPT, "mask %u is not there", r->mask);
	record = c->masks.p + (size_t)MASK_RECORD * (r->mask - 1u);
	pairs = record[2] & MASK_PAIRS;
	if (values != (record[2] & MASK_VALUES) / MASK_VALUES || le16_get(record) != r->width)
		return kv_fail(err, KV_ECORRUPT, "rows of %u do not fit mask %u", r->width, r->mask);
	/* A lone channel of a pair cannot be rotated later; a whole pair must not be rotated yet. */
	if (!values && r->rotated != !pairs)
		return kv_fail(err, KV_ECORRUPT, "rows are %srotated, the pairs of mask %u are %s", r->rotated ? "" : "not ", r->mask,
			pairs ? "complete" : "broken");
	return KV_OK;
}

static enum kv_status
check_quant(struct kvs_check_rows *c, const struct kvs_rows *r, bool values, struct kv_err *err)
{
	struct kvs_quant q;
	enum kv_status rc;

	if (c->quant_waits != (r->dtype == KVS_CODES) || (c->quant_waits && c->quant_values != values))
		return kv_fail(err, KV_ECORRUPT, c->quant_waits ? "scales stand before a chunk that is not theirs" : "codes without scales");
	if (!c->quant_waits)
		return KV_OK;
	c->quant_waits = false;
	if ((rc = kvs_quant_get(c->quant.p, c->quant.len, r, &q, err)) != KV_OK && err)
		return kv_err_in(err, "its scales");
	return rc;
}

static enum kv_status
check_chunk(struct kvs_check_rows *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	bool values = h->type == KVS_VALS;
	uint32_t n = c->entries[c->list];
	struct kvs_check_side *side;
	struct kvs_rows r;
	enum kv_status rc;

	if ((rc = find_side(c, values, h->tag.chunk, &side, err)) != KV_OK ||
	    (rc = kvs_rows_head_get(raw, (size_t)h->raw_len, c->geom, values, &r, err)) != KV_OK)
		return rc;
	if (r.first_row != side->rows || r.n_rows > n - side->rows)
		return kv_fail(err, KV_ECORRUPT, "rows %" PRIu32 " to %" PRIu64 " where %" PRIu32 " of %" PRIu32 " are there", r.first_row,
			(uint64_t)r.first_row + r.n_rows, side->rows, n);
	if (side->open && !memcmp(raw + 8, side->last + 8, sizeof side->last - 8))
		return kv_fail(err, KV_ECORRUPT, "the chunk before it is not full");
	if ((rc = check_width(c, &r, values, err)) != KV_OK || (rc = check_quant(c, &r, values, err)) != KV_OK)
		return rc;
	side->rows += r.n_rows;
	side->chunks++;
	side->open = r.n_rows < kvs_rows_per_chunk(r.row_bytes);
	memcpy(side->last, raw, sizeof side->last);
	return KV_OK;
}

enum kv_status
kvs_check_rows_frame(struct kvs_check_rows *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	enum kv_status rc = go_to_list(c, &h->tag, err);

	if (rc != KV_OK)
		return rc;
	if (h->type == KVS_KEYS || h->type == KVS_VALS)
		return check_chunk(c, h, raw, err);
	if (c->quant_waits)
		return kv_fail(err, KV_ECORRUPT, "scales before it without their chunk");
	if (h->type == KVS_CMSK)
		return check_mask(c, h, raw, err);
	return h->type == KVS_CMAP ? check_map(c, h, raw, err) : hold_quant(c, h, raw, err);
}

enum kv_status
kvs_check_rows_end(struct kvs_check_rows *c, struct kv_err *err)
{
	size_t n = (size_t)c->geom->n_layers * c->geom->n_heads_kv;
	enum kv_status rc;

	while (c->list < n)
		if ((rc = close_list(c, err)) != KV_OK)
			return rc;
	return KV_OK;
}

void
kvs_check_rows_free(struct kvs_check_rows *c)
{
	kv_buf_free(&c->masks);
	kv_buf_free(&c->quant);
}
