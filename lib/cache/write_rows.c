/* The frames of a list's rows: masks, then keys and values, chunk by chunk, scales before codes (formats/kvs.md, section 10). */
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "cache/segment_parts.h"
#include "kvs/codec.h"
#include "util/le.h"
#include "util/mem.h"

enum { MASK_ID = 14 };			/* its place in the header of a chunk */

struct listing {
	const struct kv_list *l;
	const struct kvs_geom *g;
	uint16_t layer, head;
	struct kvs_writer *w;
	struct kv_buf *buf;
	const struct kv_mask **mask;	/* an array [n_masks] by id - 1, in order of first use */
	size_t n_masks;
};

static enum kv_status
put(struct listing *ls, uint32_t type, uint32_t chunk, struct kv_err *err)
{
	enum kv_status rc;

	if (ls->buf->failed)
		return kv_fail_mem(err, "a frame");
	rc = kvs_writer_put(ls->w, type, (struct kvs_tag){ ls->layer, ls->head, chunk }, ls->buf->p, ls->buf->len, err);
	ls->buf->len = 0;
	return rc;
}

/* The number of a segment's mask; 0: it has none. */
static uint16_t
mask_id(const struct listing *ls, const struct kv_mask *m)
{
	size_t i = 0;

	while (m && i < ls->n_masks && !kv_mask_same(m, ls->mask[i]))
		i++;
	return m ? (uint16_t)(i + 1) : 0;
}

static enum kv_status
number_masks(struct listing *ls, struct kv_err *err)
{
	const struct kv_rows *of[] = { &ls->l->k, &ls->l->v };

	if (!(ls->mask = kv_array_new(of[0]->n_seg + of[1]->n_seg, sizeof *ls->mask)))
		return kv_fail_mem(err, "masks");
	for (unsigned w = 0; w < 2; w++)
		for (size_t i = 0; i < of[w]->n_seg; i++)
			if (mask_id(ls, of[w]->seg[i].mask) > ls->n_masks)
				ls->mask[ls->n_masks++] = of[w]->seg[i].mask;
	if (ls->n_masks > UINT16_MAX)
		return kv_fail(err, KV_EFIT, "a list of more than 65535 masks");
	return KV_OK;
}

static enum kv_status
write_masks(struct listing *ls, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	for (uint32_t id = 1; id <= ls->n_masks && rc == KV_OK; id++) {
		const struct kv_mask *m = ls->mask[id - 1];

		kvs_mask_put(ls->buf, ls->g, ls->layer, m->values, m->bits);
		if ((rc = put(ls, KVS_CMSK, id, err)) != KV_OK || !m->map)
			continue;
		kvs_map_put(ls->buf, &(struct kvs_map){ m->d - m->n_kept, m->n_kept, m->map_dtype, m->map });
		rc = put(ls, KVS_CMAP, id, err);
	}
	return rc;
}

/* Scales of the rows first … first + n - 1 of a segment. A group that the chunk's end cuts stands in both chunks. */
static enum kv_status
write_scales(struct listing *ls, const struct kv_segment *s, const struct kvs_rows *chunk, uint32_t first, uint32_t tag, struct kv_err *err)
{
	bool by_channel = s->code.scheme == KVS_PER_CHANNEL;
	size_t size = kvs_dtype_size(s->code.scale_dtype), stride = (by_channel ? s->width : s->width / s->code.group) * size;
	uint32_t end = first + chunk->n_rows, from = by_channel ? kv_segment_group(s, first) : first, n = s->width / s->code.group;
	uint32_t *rows = NULL;

	if (by_channel) {
		n = kv_segment_group(s, end - 1) + 1 - from;
		if (!(rows = kv_array_new(n, sizeof *rows)))
			return kv_fail_mem(err, "scales");
		for (uint32_t i = 0, at = first; i < n; i++) {
			uint32_t to = s->group_end[from + i] < end ? s->group_end[from + i] : end;

			rows[i] = to - at;
			at = to;
		}
	}
	kvs_quant_put(ls->buf, chunk, n, rows, s->scales + from * stride, s->minima + from * stride);
	free(rows);
	return put(ls, KVS_QUNT, tag, err);
}

/* Rows first … of a segment. */
static enum kv_status
add_rows(struct listing *ls, const struct kv_rows *r, const struct kv_segment *s, uint32_t first, uint32_t n, struct kv_err *err)
{
	size_t size = (size_t)n * s->row_bytes;
	uint8_t *dst = kv_buf_grow(ls->buf, size);

	if (!dst)
		return kv_fail_mem(err, "a frame");
	if (r->left)
		return kv_rows_left(r, first, n, dst, err);
	memcpy(dst, s->data + (size_t)first * s->row_bytes, size);
	return KV_OK;
}

static enum kv_status
write_segment(struct listing *ls, const struct kv_rows *r, const struct kv_segment *s, bool values, uint32_t *chunk, struct kv_err *err)
{
	uint32_t most = kvs_rows_per_chunk(s->row_bytes), type = values ? KVS_VALS : KVS_KEYS;
	struct kvs_rows head = {
		.row_bytes = s->row_bytes, .width = (uint16_t)s->width, .mask = mask_id(ls, s->mask), .dtype = s->dtype, .scheme = s->code.scheme,
		.bits = s->code.bits, .scale_dtype = s->code.scale_dtype, .group = s->code.group, .rotated = s->rotated, .residual = s->code.residual,
	};
	enum kv_status rc;

	for (uint32_t first = 0; first < s->n; first += most, ++*chunk) {
		uint8_t *header;

		head.first_row = s->first + first;
		head.n_rows = s->n - first < most ? s->n - first : most;
		if (s->dtype == KVS_CODES && (rc = write_scales(ls, s, &head, first, *chunk | (uint32_t)values << 31, err)) != KV_OK)
			return rc;
		if ((header = kv_buf_grow(ls->buf, KVS_ROWS_HEADER)))
			kvs_rows_put(header, &head);
		if ((rc = add_rows(ls, r, s, first, head.n_rows, err)) != KV_OK)
			return rc;
		if ((rc = put(ls, type, *chunk, err)) != KV_OK)
			return rc;
	}
	return KV_OK;
}

static enum kv_status
forward(struct listing *ls, const struct kv_held *h, struct kv_err *err)
{
	struct kvs_frame f = { .head = h->head, .payload = h->payload };

	return kvs_writer_forward(ls->w, &f, err);
}

/* A chunk as it was read, whose mask may have another number by now. */
static enum kv_status
forward_masked(struct listing *ls, const struct kv_held *h, uint16_t id, struct kv_err *err)
{
	struct kvs_frame f = { .head = h->head, .payload = h->payload };
	uint8_t head[KVS_ROWS_HEADER], *scratch;
	const uint8_t *raw;
	enum kv_status rc;

	if (h->head.codec == KVS_CODEC_RAW)
		memcpy(head, h->payload, sizeof head);
	else if ((rc = kvs_decode_head(&f, head, sizeof head, err)) != KV_OK)
		return rc;
	if (le16_get(head + MASK_ID) == id)
		return forward(ls, h, err);
	if ((rc = kv_held_open(h, &raw, &scratch, err)) != KV_OK)
		return rc;
	kv_buf_add(ls->buf, raw, (size_t)h->head.raw_len);
	kv_block_free(scratch);
	if (!ls->buf->failed)
		le16_put(ls->buf->p + MASK_ID, id);
	return put(ls, h->head.type, h->head.tag.chunk, err);
}

static enum kv_status
write_held(struct listing *ls, const struct kv_rows *r, struct kv_err *err)
{
	enum kv_status rc = KV_OK;
	size_t seg = 0;
	uint32_t row = 0;

	for (size_t i = 0; i < r->n_held && rc == KV_OK; i++) {
		const struct kv_held *h = &r->held[i];

		while (seg < r->n_seg && row >= r->seg[seg].first + r->seg[seg].n)
			seg++;
		if (seg == r->n_seg || h->head.type == KVS_QUNT) {
			rc = forward(ls, h, err);
			continue;
		}
		row += (uint32_t)((h->head.raw_len - KVS_ROWS_HEADER) / r->seg[seg].row_bytes);
		rc = forward_masked(ls, h, mask_id(ls, r->seg[seg].mask), err);
	}
	return rc;
}

static enum kv_status
write_rows(struct listing *ls, const struct kv_rows *r, bool values, struct kv_err *err)
{
	uint32_t chunk = 0;
	enum kv_status rc = KV_OK;

	if (r->n_held && !r->left)
		return write_held(ls, r, err);
	for (size_t i = 0; i < kv_rows_segments(r, ls->l->n) && rc == KV_OK; i++) {
		struct kv_segment s = kv_rows_segment(r, ls->l->n, i);

		rc = write_segment(ls, r, &s, values, &chunk, err);
	}
	return rc;
}

enum kv_status
kv_list_write(const struct kv_list *l, const struct kvs_geom *g, unsigned layer, unsigned head, struct kvs_writer *w, struct kv_buf *buf,
	struct kv_err *err)
{
	struct listing ls = { .l = l, .g = g, .layer = (uint16_t)layer, .head = (uint16_t)head, .w = w, .buf = buf };
	enum kv_status rc;

	if ((rc = number_masks(&ls, err)) == KV_OK && (rc = write_masks(&ls, err)) == KV_OK && (rc = write_rows(&ls, &l->k, false, err)) == KV_OK)
		rc = write_rows(&ls, &l->v, true, err);
	free(ls.mask);
	return rc;
}
