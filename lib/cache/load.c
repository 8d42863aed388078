/* Rows out of the frames in which they came: into segments, and into the block of the plain ones. */
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "cache/segment_parts.h"
#include "util/le.h"
#include "util/mem.h"

/* Walks over the held frames: where the rows of the one in hand go. */
struct place {
	size_t seg;			/* n_seg: the plain rows */
	uint32_t first, n;		/* counted from the first row of that segment */
	uint32_t row;			/* of the list, that comes next */
};

static void
step(const struct kv_rows *r, const struct kv_held *h, struct place *p)
{
	size_t size = r->width * kvs_dtype_size(r->dtype);

	while (p->seg < r->n_seg && p->row >= r->seg[p->seg].first + r->seg[p->seg].n)
		p->seg++;
	p->first = p->row - (p->seg < r->n_seg ? r->seg[p->seg].first : r->front);
	p->n = (uint32_t)((h->head.raw_len - KVS_ROWS_HEADER) / (p->seg < r->n_seg ? r->seg[p->seg].row_bytes : size));
	p->row += p->n;
}

static uint32_t
count_rows(const struct kv_rows *r)
{
	struct place p = { 0 };

	for (size_t h = 0; h < r->n_held; h++)
		if (r->held[h].head.type != KVS_QUNT)
			step(r, &r->held[h], &p);
	return p.row;
}

/* Does the first group of q go on where the last of s ends? Then a chunk's end has cut it in two. */
static bool
goes_on(const struct kv_segment *s, const struct kvs_quant *q, size_t stride)
{
	uint32_t last = s->n_groups - 1, rows;

	if (!s->n_groups)
		return false;
	rows = s->group_end[last] - (last ? s->group_end[last - 1] : 0);
	return rows + le32_get(q->rows) <= s->code.group && !memcmp(s->scales + last * stride, q->scales, stride) &&
		!memcmp(s->minima + last * stride, q->minima, stride);
}

/* Puts the bytes in the place of what *to has, behind the first `have`. */
static bool
append(uint8_t **to, size_t have, const uint8_t *from, size_t n)
{
	uint8_t *p = kv_array_resize(*to, have + n, 1);

	if (!p)
		return false;
	memcpy(p + have, from, n);
	*to = p;
	return true;
}

/* Scales and minima of the next chunk of s. */
static enum kv_status
take_scales(struct kv_segment *s, const struct kvs_quant *q, uint32_t rows_before, struct kv_err *err)
{
	size_t size = kvs_dtype_size(s->code.scale_dtype), stride = q->rows ? q->n_vec * size : q->n_groups * size;
	size_t cells = q->rows ? q->n_groups : q->n_vec, have = q->rows ? s->n_groups : rows_before, skip = 0;
	uint32_t end = rows_before, *ends;

	if (q->rows) {
		skip = goes_on(s, q, stride);
		if (!(ends = kv_array_resize(s->group_end, have + cells, sizeof *ends)))
			return kv_fail_mem(err, "scales");
		s->group_end = ends;
		s->n_groups -= (uint32_t)skip;
		for (uint32_t g = 0; g < q->n_groups; g++)
			ends[s->n_groups++] = end += le32_get(q->rows + 4 * (size_t)g);
	}
	if (!append(&s->scales, have * stride, q->scales + skip * stride, (cells - skip) * stride) ||
		!append(&s->minima, have * stride, q->minima + skip * stride, (cells - skip) * stride))
		return kv_fail_mem(err, "scales");
	return KV_OK;
}

/* A chunk of rows and, where they are codes, the frame of scales before it. */
static enum kv_status
take_chunk(struct kv_rows *r, const struct place *p, const struct kv_held *h, const struct kv_held *scales, uint8_t *plain, struct kv_err *err)
{
	struct kv_segment *s = p->seg < r->n_seg ? &r->seg[p->seg] : NULL;
	size_t size = s ? s->row_bytes : r->width * kvs_dtype_size(r->dtype);
	uint8_t *scratch = NULL, *more = NULL;
	const uint8_t *raw, *quant;
	struct kvs_quant q;
	enum kv_status rc;

	if ((rc = kv_held_open(h, &raw, &scratch, err)) != KV_OK)
		return rc;
	memcpy((s ? s->data : plain) + p->first * size, raw + KVS_ROWS_HEADER, p->n * size);
	if (s && s->dtype == KVS_CODES && (rc = kv_held_open(scales, &quant, &more, err)) == KV_OK) {
		struct kvs_rows chunk = { .n_rows = p->n, .width = (uint16_t)s->width, .scheme = s->code.scheme,
			.scale_dtype = s->code.scale_dtype, .group = s->code.group };

		if ((rc = kvs_quant_get(quant, (size_t)scales->head.raw_len, &chunk, &q, err)) == KV_OK)
			rc = take_scales(s, &q, p->first, err);
	}
	kv_block_free(scratch);
	kv_block_free(more);
	return rc;
}

/* Segments without their rows, as they were when all was held. */
static void
empty(struct kv_rows *r)
{
	for (size_t i = 0; i < r->n_seg; i++) {
		struct kv_segment *s = &r->seg[i];

		kv_block_free(s->data);
		free(s->group_end);
		free(s->scales);
		free(s->minima);
		s->data = s->scales = s->minima = NULL;
		s->group_end = NULL;
		s->n_groups = 0;
	}
}

enum kv_status
kv_rows_load(struct kv_rows *r, struct kv_err *err)
{
	uint32_t n = r->n_held ? count_rows(r) - r->front : 0, cap = n > r->cap ? n : r->cap;
	const struct kv_held *scales = NULL;
	struct place p = { 0 };
	uint8_t *plain;
	enum kv_status rc = KV_OK;

	if (!r->n_held)
		return KV_OK;
	if (r->left)
		return kv_rows_gather_left(r, err);
	if (!(plain = kv_block_new(cap, r->width * kvs_dtype_size(r->dtype))))
		return kv_fail_mem(err, "rows of the cache");
	for (size_t i = 0; i < r->n_seg && rc == KV_OK; i++)
		if (!(r->seg[i].data = kv_block_new(r->seg[i].n, r->seg[i].row_bytes)))
			rc = kv_fail_mem(err, "rows of the cache");
	for (size_t h = 0; h < r->n_held && rc == KV_OK; h++) {
		if (r->held[h].head.type == KVS_QUNT) {
			scales = &r->held[h];
			continue;
		}
		step(r, &r->held[h], &p);
		rc = take_chunk(r, &p, &r->held[h], scales, plain, err);
	}
	if (rc != KV_OK) {
		empty(r);
		kv_block_free(plain);
		return rc;
	}
	kv_rows_replace(r, plain, cap);
	return KV_OK;
}
