/* From a snapshot to a cache: every frame through the checks that span frames, rows left packed in theirs. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "cache/segment_parts.h"
#include "cache/snapshot_parts.h"
#include "kvs/check.h"
#include "kvs/codec.h"
#include "kvs/payload.h"
#include "util/le.h"
#include "util/mem.h"

/* n little-endian words as an array of ours. */
static uint32_t *
words(const uint8_t *p, uint32_t n)
{
	uint32_t *v = kv_array_new(n, sizeof *v);

	for (uint32_t i = 0; v && i < n; i++)
		v[i] = le32_get(p + 4 * (size_t)i);
	return v;
}

/* The payload as it was before packing, valid until the next call. Of rows, which stay packed, just their header. */
static enum kv_status
unpack(struct kv_reading *rd, const struct kvs_frame *f, const uint8_t **raw, size_t *n_raw, struct kv_err *err)
{
	bool rows = f->head.type == KVS_KEYS || f->head.type == KVS_VALS;
	size_t n = rows && f->head.raw_len > KVS_ROWS_HEADER ? KVS_ROWS_HEADER : (size_t)f->head.raw_len;
	enum kv_status rc;

	if (f->head.codec == KVS_CODEC_RAW) {
		*raw = f->payload;
		*n_raw = (size_t)f->head.raw_len;
		return KV_OK;
	}
	if (n > rd->scratch_size) {
		kv_block_free(rd->scratch);
		rd->scratch_size = 0;
		if (!(rd->scratch = kv_block_new(n, 1)))
			return kv_fail_mem(err, "a frame");
		rd->scratch_size = n;
	}
	if ((rc = kvs_decode_head(f, rd->scratch, n, err)) != KV_OK)
		return rc;
	*raw = rd->scratch;
	*n_raw = n;
	return KV_OK;
}

static enum kv_status
take_geom(struct kv_reading *rd, struct kv_err *err)
{
	const struct kvs_geom *g = kvs_check_geom(rd->check);
	enum kv_status rc;

	if ((rc = kv_cache_new(g, &rd->cache, err)) != KV_OK)
		return rc;
	rd->cache->state = *kvs_check_state(rd->check);
	rd->cache->tokens.first = (uint32_t)rd->cache->state.hist_first;
	if (!(rd->ents_of = kv_array_new((size_t)g->n_layers * g->n_heads_kv, sizeof *rd->ents_of)))
		return kv_fail_mem(err, "the cache");
	return KV_OK;
}

/* With LAYR the geometry is whole. */
static void
take_layers(struct kv_reading *rd)
{
	struct kv_cache *c = rd->cache;

	c->geom = *kvs_check_geom(rd->check);
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		for (unsigned h = 0; h < c->geom.n_heads_kv; h++) {
			kv_cache_list(c, l, h)->k.dtype = c->geom.layer[l].k_dtype;
			kv_cache_list(c, l, h)->v.dtype = c->geom.layer[l].v_dtype;
		}
}

static enum kv_status
take_tokens(struct kv_cache *c, const uint8_t *raw, size_t n, struct kv_err *err)
{
	struct kvs_toks t;
	uint32_t *ids = NULL;
	enum kv_status rc;

	if ((rc = kvs_toks_get(raw, n, &c->geom, &c->state, &t, err)) != KV_OK)
		return rc;
	if (t.n_sparse) {
		c->tokens.n_sparse = t.n_sparse;
		c->tokens.src = words(t.src, t.n_sparse);
		c->tokens.sparse = words(t.sparse, t.n_sparse);
		if (!c->tokens.src || !c->tokens.sparse)
			return kv_fail_mem(err, "the history of tokens");
	}
	if (!(ids = words(t.dense, t.n_dense)))
		return kv_fail_mem(err, "the history of tokens");
	rc = kv_track_add(&c->tokens, t.first, ids, t.n_dense, 0, err);
	free(ids);
	return rc;
}

static enum kv_status
take_hidden(struct kv_cache *c, const uint8_t *raw, size_t n, struct kv_err *err)
{
	const uint8_t *values;
	enum kv_status rc;

	if ((rc = kvs_hidn_get(raw, n, &c->geom, &c->state, &values, err)) != KV_OK)
		return rc;
	if (!(c->hidden = kv_array_new(c->geom.n_embd, sizeof *c->hidden)))
		return kv_fail_mem(err, "the hidden state");
	for (uint32_t i = 0; i < c->geom.n_embd; i++)
		c->hidden[i] = lef32_get(values + 4 * (size_t)i);
	return KV_OK;
}

static enum kv_status
take_entries(struct kv_reading *rd, struct kvs_tag tag, const uint8_t *raw, size_t n, struct kv_err *err)
{
	struct kv_cache *c = rd->cache;
	unsigned layers = c->geom.n_layers, heads = c->geom.n_heads_kv;
	unsigned l0 = tag.layer == KVS_ALL ? 0 : tag.layer, l1 = tag.layer == KVS_ALL ? layers : l0 + 1;
	unsigned h0 = tag.head == KVS_ALL ? 0 : tag.head, h1 = tag.head == KVS_ALL ? heads : h0 + 1;
	struct kvs_ents e;
	struct kv_entries *p;
	enum kv_status rc;

	if ((rc = kvs_ents_get(raw, n, &c->state, &e, err)) != KV_OK)
		return rc;
	if (!(rd->n_ents & (rd->n_ents - 1))) {
		if (!(p = kv_array_resize(rd->ents, rd->n_ents ? 2 * rd->n_ents : 1, sizeof *p)))
			return kv_fail_mem(err, "entries of the cache");
		rd->ents = p;
	}
	p = &rd->ents[rd->n_ents];
	if (!(p->bytes = kv_array_new(n, 1)))
		return kv_fail_mem(err, "entries of the cache");
	if (n)
		memcpy(p->bytes, raw, n);
	p->n = e.n;
	for (unsigned l = l0; l < l1; l++)
		for (unsigned h = h0; h < h1; h++) {
			rd->ents_of[(size_t)l * heads + h] = (uint32_t)rd->n_ents;
			kv_cache_list(c, l, h)->n = e.n;
		}
	rd->n_ents++;
	return KV_OK;
}

static void
free_masks(struct kv_reading *rd)
{
	for (size_t i = 0; i < rd->n_masks; i++)
		kv_mask_free(rd->mask[i]);
	rd->n_masks = 0;
}

static enum kv_status
take_mask(struct kv_reading *rd, struct kvs_tag tag, const uint8_t *raw, size_t n, struct kv_err *err)
{
	const struct kvs_geom *g = &rd->cache->geom;
	size_t list = (size_t)tag.layer * g->n_heads_kv + tag.head;
	struct kv_mask **p;
	struct kvs_mask m;
	enum kv_status rc;

	if (list != rd->mask_list)
		free_masks(rd);
	rd->mask_list = list;
	if ((rc = kvs_mask_get(raw, n, g, tag.layer, &m, err)) != KV_OK)
		return rc;
	if (!(p = kv_array_resize(rd->mask, rd->n_masks + 1, sizeof *p)))
		return kv_fail_mem(err, "masks");
	rd->mask = p;
	if ((rc = kv_mask_new(g, tag.layer, m.values, m.bits, &p[rd->n_masks], err)) == KV_OK)
		rd->n_masks++;
	return rc;
}

/* The mask before it is the one that it goes with: so the checks have it. */
static enum kv_status
take_map(struct kv_reading *rd, const uint8_t *raw, size_t n, struct kv_err *err)
{
	struct kv_mask *mask = rd->mask[rd->n_masks - 1];
	struct kvs_map m;
	enum kv_status rc;

	if ((rc = kvs_map_get(raw, n, &rd->cache->geom, &m, err)) != KV_OK)
		return rc;
	if (!(mask->map = kv_array_new(n, 1)))
		return kv_fail_mem(err, "masks");
	memcpy(mask->map, m.map, n - (size_t)(m.map - raw));
	mask->map_dtype = m.dtype;
	return KV_OK;
}

/* Adds rows to the last segment where they are kept in the same way and it ends with a whole chunk, else as one more. */
static enum kv_status
add_segment(struct kv_rows *rows, const struct kv_segment *s, struct kv_err *err)
{
	struct kv_segment *last = rows->n_seg ? &rows->seg[rows->n_seg - 1] : NULL, *p;

	if (last && kv_segment_alike(last, s) && last->n % kvs_rows_per_chunk(s->row_bytes) == 0) {
		last->n += s->n;
		return KV_OK;
	}
	if (!(p = kv_array_resize(rows->seg, rows->n_seg + 1, sizeof *p)))
		return kv_fail_mem(err, "rows of the cache");
	rows->seg = p;
	p[rows->n_seg] = *s;
	kv_mask_share(p[rows->n_seg++].mask);
	return KV_OK;
}

static enum kv_status
take_rows(struct kv_reading *rd, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	struct kv_cache *c = rd->cache;
	bool values = f->head.type == KVS_VALS;
	struct kv_list *l = kv_cache_list(c, f->head.tag.layer, f->head.tag.head);
	struct kv_rows *rows = values ? &l->v : &l->k;
	struct kv_segment s;
	struct kvs_rows r;
	enum kv_status rc;

	if ((rc = kvs_rows_head_get(raw, (size_t)f->head.raw_len, &c->geom, values, &r, err)) != KV_OK)
		return rc;
	s = (struct kv_segment){
		.first = r.first_row, .n = r.n_rows, .dtype = r.dtype, .rotated = r.rotated, .width = r.width, .row_bytes = r.row_bytes,
		.mask = r.mask ? rd->mask[r.mask - 1] : NULL,
		.code = { r.scheme, r.bits, r.scale_dtype, r.group, r.residual },
	};
	if ((rc = add_segment(rows, &s, err)) != KV_OK)
		return rc;
	return kv_held_add(&rows->held, &rows->n_held, f, err);
}

/* Scales wait among the rows, before theirs. */
static enum kv_status
take_scales(struct kv_cache *c, const struct kvs_frame *f, struct kv_err *err)
{
	struct kv_list *l = kv_cache_list(c, f->head.tag.layer, f->head.tag.head);
	struct kv_rows *rows = f->head.tag.chunk >> 31 ? &l->v : &l->k;

	return kv_held_add(&rows->held, &rows->n_held, f, err);
}

static enum kv_status
take_queries(struct kv_reading *rd, unsigned layer, const uint8_t *raw, size_t n, struct kv_err *err)
{
	struct kv_cache *c = rd->cache;
	struct kv_queries *q = &c->queries[layer];
	struct kvs_obsq o;
	size_t count;
	enum kv_status rc;

	if ((rc = kvs_obsq_get(raw, n, &c->geom, kvs_check_state(rd->check), &o, err)) != KV_OK)
		return rc;
	if (!kv_mul((size_t)c->geom.n_heads * c->geom.d_k, o.w, &count) || !(q->q = kv_block_new(count, sizeof *q->q)))
		return kv_fail_mem(err, "recorded queries");
	q->src = words(o.src, o.w);
	q->pos = kv_array_new(o.w, sizeof *q->pos);
	if (!q->src || !q->pos)
		return kv_fail_mem(err, "recorded queries");
	for (uint32_t i = 0; i < o.w; i++)
		q->pos[i] = (int32_t)le32_get(o.pos + 4 * (size_t)i);
	for (size_t i = 0; i < count; i++)
		q->q[i] = lef32_get(o.q + 4 * i);
	q->w = o.w;
	return KV_OK;
}

static enum kv_status
take_nll(struct kv_cache *c, const uint8_t *raw, size_t n, struct kv_err *err)
{
	struct kvs_obsn o;
	enum kv_status rc;

	if ((rc = kvs_obsn_get(raw, n, &c->state, &o, err)) != KV_OK)
		return rc;
	c->nll = (struct kv_track){ .first = o.first, .n = o.n_dense, .cap = o.n_dense, .n_sparse = o.n_sparse };
	c->nll.v = words(o.dense, o.n_dense);
	c->nll.src = words(o.src, o.n_sparse);
	c->nll.sparse = words(o.sparse, o.n_sparse);
	if (!c->nll.v || !c->nll.src || !c->nll.sparse)
		return kv_fail_mem(err, "the history of surprisals");
	c->nll_kind = o.kind;
	c->nll_count = o.count_all;
	c->nll_sum = o.sum_all;
	c->has_nll = true;
	return KV_OK;
}

/* That it is about the entries of this list the checks find out, at the end at the latest. */
static enum kv_status
take_received(struct kv_cache *c, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	struct kv_list *l = kv_cache_list(c, f->head.tag.layer, f->head.tag.head);
	struct kvs_obsa o;
	enum kv_status rc;

	if ((rc = kvs_obsa_get(raw, (size_t)f->head.raw_len, &c->state, &o, err)) != KV_OK)
		return rc;
	/* What we cannot go on recording is carried along like a frame that nobody knows. */
	if (o.reduction || !o.squares)
		return kv_held_add(&c->other, &c->n_other, f, err);
	if ((rc = kv_received_new(o.n, &l->received, err)) != KV_OK)
		return rc;
	l->received->from = o.first;
	l->received->to = o.last;
	for (uint32_t i = 0; i < o.n; i++) {
		l->received->sum[i] = lef32_get(o.sum + 4 * (size_t)i);
		l->received->square[i] = lef32_get(o.squares + 4 * (size_t)i);
		l->received->count[i] = le32_get(o.count + 4 * (size_t)i);
	}
	return KV_OK;
}

/* That it is about the first entries of this list the checks find out as well. */
static enum kv_status
take_sums(struct kv_cache *c, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	struct kvs_obsp o;
	bool taken;
	enum kv_status rc;

	if ((rc = kvs_obsp_get(raw, (size_t)f->head.raw_len, &c->geom, &o, err)) != KV_OK ||
	    (rc = kv_sums_take(c, f->head.tag, &o, &taken, err)) != KV_OK)
		return rc;
	return taken ? KV_OK : kv_held_add(&c->other, &c->n_other, f, err);
}

/* Is it one whose content this library works with? */
static bool
is_ours(uint32_t type)
{
	return !kvs_is_ancillary(type) || type == KVS_OBSQ || type == KVS_OBSA || type == KVS_OBSP || type == KVS_OBSN ||
		type == KVS_OBSR || type == KVS_PROV;
}

static enum kv_status
take_content(struct kv_reading *rd, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	struct kv_cache *c = rd->cache;
	size_t n = (size_t)f->head.raw_len;

	switch (f->head.type) {
	case KVS_GEOM:
		return take_geom(rd, err);
	case KVS_ROPE:
		return KV_OK;
	case KVS_LAYR:
		take_layers(rd);
		return KV_OK;
	case KVS_TOKS:
		return take_tokens(c, raw, n, err);
	case KVS_HIDN:
		return take_hidden(c, raw, n, err);
	case KVS_ENTS:
		return take_entries(rd, f->head.tag, raw, n, err);
	case KVS_KEYS:
	case KVS_VALS:
		return take_rows(rd, f, raw, err);
	case KVS_OBSQ:
		return take_queries(rd, f->head.tag.layer, raw, n, err);
	case KVS_OBSA:
		return take_received(c, f, raw, err);
	case KVS_OBSP:
		return take_sums(c, f, raw, err);
	case KVS_OBSN:
		return take_nll(c, raw, n, err);
	case KVS_OBSR:
		c->has_round = true;
		return kvs_obsr_get(raw, n, &c->round, err);
	case KVS_PROV:
		return kvs_prov_add_json(&c->prov, raw, n, err);
	case KVS_CMSK:
		return take_mask(rd, f->head.tag, raw, n, err);
	case KVS_CMAP:
		return take_map(rd, raw, n, err);
	case KVS_QUNT:
		return take_scales(c, f, err);
	default:
		return kv_fail(err, KV_EUNSUP, "a frame that is not known to this version");
	}
}

static enum kv_status
fail_in(const struct kvs_head *h, struct kv_err *err)
{
	char name[64];

	return kv_err_in(err, "frame %" PRIu64 " (%s)", h->seq, kvs_frame_name(name, sizeof name, h));
}

enum kv_status
kv_reading_check(struct kv_reading *rd, const struct kvs_frame *f, const uint8_t **raw, size_t *n, struct kv_err *err)
{
	const struct kvs_head *h = &f->head;
	enum kv_status rc = kvs_frame_readable(h, err);

	*raw = NULL;
	*n = 0;
	/* Made by a newer writer: an editor leaves it out where it may (formats/kvs.md, section 18). */
	if (rc != KV_OK)
		return kvs_is_ancillary(h->type) ? KV_END : fail_in(h, err);
	/* What is only passed on is looked at as well: a frame that contradicts itself shall not go further under our name. */
	if (kvs_is_known(h->type) && (rc = unpack(rd, f, raw, n, err)) != KV_OK)
		return rc;
	if ((rc = kvs_check_frame(rd->check, h, *raw, *n, err)) != KV_OK)
		return rc;
	return h->type == KVS_INDX || h->type == KVS_PADD ? KV_END : KV_OK;
}

enum kv_status
kv_reading_take(struct kv_reading *rd, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	enum kv_status rc = is_ours(f->head.type) ? take_content(rd, f, raw, err) :
		kv_held_add(&rd->cache->other, &rd->cache->n_other, f, err);

	return rc == KV_OK ? rc : fail_in(&f->head, err);
}

enum kv_status
kv_reading_give_entries(struct kv_reading *rd, struct kv_err *err)
{
	struct kv_cache *c = rd->cache;
	size_t n_lists = (size_t)c->geom.n_layers * c->geom.n_heads_kv;

	for (size_t i = 0; i < n_lists; i++) {
		struct kv_list *l = &c->list[i];
		const uint8_t *p = rd->ents[rd->ents_of[i]].bytes;

		if (!l->n)
			continue;
		l->src = kv_array_new(l->n, sizeof *l->src);
		l->pos = kv_array_new(l->n, sizeof *l->pos);
		if (!l->src || !l->pos)
			return kv_fail_mem(err, "entries of the cache");
		l->cap = l->n;
		for (uint32_t r = 0; r < l->n; r++) {
			l->src[r] = le32_get(p + 4 * (size_t)r);
			l->pos[r] = (int32_t)le32_get(p + 4 * ((size_t)l->n + r));
		}
	}
	return KV_OK;
}

enum kv_status
kv_reading_settle_rows(struct kv_reading *rd, struct kv_err *err)
{
	const struct kvs_geom *g = &rd->cache->geom;
	enum kv_status rc;

	for (size_t i = 0; i < (size_t)g->n_layers * g->n_heads_kv; i++) {
		struct kv_list *l = &rd->cache->list[i];

		kv_rows_find_tail(&l->k);
		kv_rows_find_tail(&l->v);
		if ((rc = kv_rows_merge(&l->k, l->n, err)) != KV_OK || (rc = kv_rows_merge(&l->v, l->n, err)) != KV_OK)
			return rc;
	}
	return KV_OK;
}

enum kv_status
kv_reading_new(struct kv_reading *rd, struct kv_err *err)
{
	*rd = (struct kv_reading){ .check = kvs_check_new() };
	return rd->check ? KV_OK : kv_fail_mem(err, "a reader");
}

void
kv_reading_free(struct kv_reading *rd)
{
	for (size_t i = 0; i < rd->n_ents; i++)
		free(rd->ents[i].bytes);
	free(rd->ents);
	free(rd->ents_of);
	kv_block_free(rd->scratch);
	free_masks(rd);
	free(rd->mask);
	kv_cache_free(rd->cache);
	kvs_check_free(rd->check);
}

enum kv_status
kv_cache_read(struct kvs_reader *r, struct kv_cache **out, struct kv_err *err)
{
	struct kv_reading rd;
	struct kvs_frame f;
	struct kv_err unheard;
	const uint8_t *raw;
	enum kv_status rc;
	size_t n;

	if (!err)
		err = &unheard;
	if ((rc = kv_reading_new(&rd, err)) != KV_OK)
		return rc;
	kvs_reader_give(r, true);
	while ((rc = kvs_reader_next(r, &f, err)) == KV_OK) {
		if ((rc = kv_reading_check(&rd, &f, &raw, &n, err)) == KV_OK)
			rc = kv_reading_take(&rd, &f, raw, err);
		if (rc != KV_OK && rc != KV_END)
			goto out;
	}
	if (rc != KV_END)
		goto out;
	if ((rc = kvs_check_end(rd.check, err)) != KV_OK)
		goto out;
	if ((rc = kv_reading_give_entries(&rd, err)) != KV_OK || (rc = kv_reading_settle_rows(&rd, err)) != KV_OK)
		goto out;
	memcpy(rd.cache->digest, kvs_reader_digest(r), sizeof rd.cache->digest);
	*out = rd.cache;
	rd.cache = NULL;
out:
	kvs_reader_give(r, false);
	kv_reading_free(&rd);
	return rc;
}
