/* From a cache to a snapshot: the canonical order of frames (formats/kvs.md, section 6), rows chunked as section 10.1 has it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "cache/segment_parts.h"
#include "cache/snapshot_parts.h"
#include "kvs/digest.h"
#include "kvs/payload.h"
#include "util/half.h"
#include "util/le.h"
#include "util/mem.h"

/* Values of tokens before the dense part that still live in some list; the others are forgotten. */
struct sparse {
	uint32_t n;
	uint32_t *src, *v;
};

static enum kv_status
put(struct kv_writing *wr, uint32_t type, unsigned layer, unsigned head, uint32_t chunk, struct kv_err *err)
{
	struct kvs_tag tag = { (uint16_t)layer, (uint16_t)head, chunk };
	enum kv_status rc;

	if (wr->buf.failed)
		return kv_fail_mem(err, "a frame");
	rc = kvs_writer_put(wr->w, type, tag, wr->buf.p, wr->buf.len, err);
	wr->buf.len = 0;
	return rc;
}

static void
sparse_free(struct sparse *s)
{
	free(s->src);
	free(s->v);
}

static enum kv_status
living(const struct kv_cache *c, const struct kv_track *t, struct sparse *out, struct kv_err *err)
{
	struct sparse s = { 0, kv_array_new(t->n_sparse, sizeof *s.src), kv_array_new(t->n_sparse, sizeof *s.v) };
	uint8_t *alive = kv_array_new(t->n_sparse, 1);

	if (!s.src || !s.v || !alive) {
		sparse_free(&s);
		free(alive);
		return kv_fail_mem(err, "the history of tokens");
	}
	kv_mark_alive(c, t->src, t->n_sparse, alive);
	for (uint32_t j = 0; j < t->n_sparse; j++)
		if (alive[j]) {
			s.src[s.n] = t->src[j];
			s.v[s.n++] = t->sparse[j];
		}
	free(alive);
	*out = s;
	return KV_OK;
}

static enum kv_status
write_geometry(struct kv_writing *wr, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	enum kv_status rc;

	kvs_geom_put(&wr->buf, &c->geom, &c->state);
	if ((rc = put(wr, KVS_GEOM, KVS_ALL, KVS_ALL, 0, err)) != KV_OK)
		return rc;
	for (uint32_t i = 0; i < c->geom.n_rope; i++) {
		kvs_rope_put(&wr->buf, &c->geom.rope[i]);
		if ((rc = put(wr, KVS_ROPE, KVS_ALL, KVS_ALL, i, err)) != KV_OK)
			return rc;
	}
	kvs_layers_put(&wr->buf, &c->geom);
	return put(wr, KVS_LAYR, KVS_ALL, KVS_ALL, 0, err);
}

static enum kv_status
write_tokens(struct kv_writing *wr, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	const struct kv_track *t = &c->tokens;
	uint32_t at = 0;
	struct sparse s;
	enum kv_status rc;

	if (!c->state.ids)
		return KV_OK;
	assert(t->first == c->state.hist_first && t->first + (uint64_t)t->n == c->state.consumed);
	if ((rc = living(c, t, &s, err)) != KV_OK)
		return rc;
	for (uint32_t chunk = 0; rc == KV_OK && (at < t->n || (!chunk && s.n)); chunk++) {
		uint32_t n = t->n - at < KVS_TOKS_DENSE ? t->n - at : KVS_TOKS_DENSE;

		kvs_toks_put(&wr->buf, t->first + at, n ? t->v + at : NULL, n, s.src, s.v, chunk ? 0 : s.n);
		rc = put(wr, KVS_TOKS, KVS_ALL, KVS_ALL, chunk, err);
		at += n;
	}
	sparse_free(&s);
	return rc;
}

static enum kv_status
write_hidden(struct kv_writing *wr, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;

	if (!c->hidden || !c->state.consumed)
		return KV_OK;
	kvs_hidn_put(&wr->buf, &c->geom, &c->state, c->hidden);
	return put(wr, KVS_HIDN, KVS_ALL, KVS_ALL, 0, err);
}

/* Are the lists from … from + n - 1 all the same? */
static bool
all_same(const struct kv_cache *c, size_t from, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (!kv_list_same(&c->list[from], &c->list[from + i]))
			return false;
	return true;
}

static enum kv_status
write_list(struct kv_writing *wr, const struct kv_list *l, unsigned layer, unsigned head, struct kv_err *err)
{
	kvs_ents_put(&wr->buf, l->src, l->pos, l->n);
	return put(wr, KVS_ENTS, layer, head, 0, err);
}

/* The widest tag that is true, so that the digest depends on the content alone. */
static enum kv_status
write_entries(struct kv_writing *wr, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	unsigned heads = c->geom.n_heads_kv;
	enum kv_status rc = KV_OK;

	if (all_same(c, 0, (size_t)c->geom.n_layers * heads))
		return write_list(wr, &c->list[0], KVS_ALL, KVS_ALL, err);
	for (unsigned l = 0; l < c->geom.n_layers && rc == KV_OK; l++) {
		if (all_same(c, (size_t)l * heads, heads)) {
			rc = write_list(wr, kv_cache_list(c, l, 0), l, KVS_ALL, err);
			continue;
		}
		for (unsigned h = 0; h < heads && rc == KV_OK; h++)
			rc = write_list(wr, kv_cache_list(c, l, h), l, h, err);
	}
	return rc;
}

static enum kv_status
forward(struct kv_writing *wr, const struct kv_held *h, struct kv_err *err)
{
	struct kvs_frame f = { .head = h->head, .payload = h->payload };

	return kvs_writer_forward(wr->w, &f, err);
}

static enum kv_status
write_nll(struct kv_writing *wr, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	const struct kv_track *t = &c->nll;
	struct kvs_obsn o = { .first = t->first, .n_dense = t->n, .kind = c->nll_kind, .count_all = c->nll_count, .sum_all = c->nll_sum };
	struct sparse s = { 0 };
	float *dense = NULL, *sparse = NULL;
	enum kv_status rc;

	if (!c->has_nll)
		return KV_OK;
	if ((rc = living(c, t, &s, err)) != KV_OK)
		return rc;
	dense = kv_array_new(t->n, sizeof *dense);
	sparse = kv_array_new(s.n, sizeof *sparse);
	if (dense && sparse) {
		for (uint32_t i = 0; i < t->n; i++)
			dense[i] = bits_f32(t->v[i]);
		for (uint32_t i = 0; i < s.n; i++)
			sparse[i] = bits_f32(s.v[i]);
		o.n_sparse = s.n;
		kvs_obsn_put(&wr->buf, &o, dense, s.src, sparse);
		rc = put(wr, KVS_OBSN, KVS_ALL, KVS_ALL, 0, err);
	} else {
		rc = kv_fail_mem(err, "the history of surprisals");
	}
	free(dense);
	free(sparse);
	sparse_free(&s);
	return rc;
}

#define BEHIND ((uint64_t)KVS_MAX_LAYERS << 50)

/* Where a held frame belongs: observations by row behind their layer's queries, all else behind the last layer. */
static uint64_t
place(const struct kvs_head *h)
{
	switch (h->type) {
	case KVS_OBSA:
	case KVS_OBSP:
		return (uint64_t)h->tag.layer << 50 | (uint64_t)(h->type == KVS_OBSP) << 49 | (uint64_t)h->tag.head << 32 | h->tag.chunk;
	case KVS_CKPT:
		return BEHIND;
	case KVS_INFO:
		return BEHIND + 2;
	default:
		return BEHIND + 1;
	}
}

static int
by_place(const void *a, const void *b)
{
	const struct kv_held *x = *(const struct kv_held *const *)a, *y = *(const struct kv_held *const *)b;
	uint64_t p = place(&x->head), q = place(&y->head);

	if (p != q)
		return p < q ? -1 : 1;
	return (x > y) - (x < y);	/* both in cache->other: as they were found */
}

/* Does a frame that nobody here understands still say the truth (formats/kvs.md, section 14)? */
static bool
still_true(const struct kv_cache *c, bool edited, const struct kvs_head *h)
{
	switch (h->type) {
	case KVS_OBSA:
	case KVS_OBSP:
		return !kv_cache_list(c, h->tag.layer, h->tag.head)->changed;
	default:
		return !edited || kvs_is_safe_to_copy(h->type);
	}
}

static enum kv_status
sort_others(struct kv_writing *wr, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	bool edited = kv_cache_edited(c);

	free(wr->other);
	wr->n_other = wr->next_other = 0;
	if (!(wr->other = kv_array_new(c->n_other, sizeof *wr->other)))
		return kv_fail_mem(err, "frames");
	for (size_t i = 0; i < c->n_other; i++)
		if (still_true(c, edited, &c->other[i].head))
			wr->other[wr->n_other++] = &c->other[i];
	if (wr->n_other)
		qsort(wr->other, wr->n_other, sizeof *wr->other, by_place);
	return KV_OK;
}

/* Forwards those that belong before `limit`. */
static enum kv_status
write_others(struct kv_writing *wr, uint64_t limit, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	while (rc == KV_OK && wr->next_other < wr->n_other && place(&wr->other[wr->next_other]->head) < limit)
		rc = forward(wr, wr->other[wr->next_other++], err);
	return rc;
}

static enum kv_status
write_received(struct kv_writing *wr, unsigned layer, unsigned head, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(wr->cache, layer, head);
	const struct kv_received *r = l->received;
	uint8_t *src;

	if (!r)
		return KV_OK;
	if (!(src = kv_array_new(l->n, 4)))
		return kv_fail_mem(err, "received attention");
	for (uint32_t i = 0; i < l->n; i++)
		le32_put(src + 4 * (size_t)i, l->src[i]);
	kvs_obsa_put(&wr->buf, &(struct kvs_obsa){ .n = l->n, .first = r->from, .last = r->to, .src_hash = kvs_hash64(src, 4 * (size_t)l->n) },
		r->sum, r->square, r->count);
	free(src);
	return put(wr, KVS_OBSA, layer, head, 0, err);
}

static enum kv_status
write_sums(struct kv_writing *wr, unsigned layer, unsigned head, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	enum kv_status rc = KV_OK;

	for (uint32_t which = 0; which < KV_SUMS_KINDS && rc == KV_OK; which++) {
		struct kvs_head h = { .type = KVS_OBSP, .tag = { (uint16_t)layer, (uint16_t)head, which } };

		if ((rc = write_others(wr, place(&h), err)) == KV_OK &&
		    (rc = kv_sums_put(c, which, (size_t)layer * c->geom.n_heads_kv + head, &wr->buf, err)) == KV_OK &&
		    (wr->buf.len || wr->buf.failed))
			rc = put(wr, KVS_OBSP, layer, head, which, err);
	}
	return rc;
}

static enum kv_status
write_round(struct kv_writing *wr, struct kv_err *err)
{
	if (!wr->cache->has_round)
		return KV_OK;
	kvs_obsr_put(&wr->buf, &wr->cache->round);
	return put(wr, KVS_OBSR, KVS_ALL, KVS_ALL, 0, err);
}

static enum kv_status
write_checkpoint(struct kv_writing *wr, struct kv_err *err)
{
	const struct kv_buf *b = &wr->cache->checkpoint;

	if (!b->len)
		return KV_OK;
	kv_buf_add(&wr->buf, b->p, b->len);
	return put(wr, KVS_CKPT, KVS_ALL, KVS_ALL, 0, err);
}

enum kv_status
kv_writing_queries(struct kv_writing *wr, unsigned layer, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	const struct kv_queries *q = &c->queries[layer];

	if (!q->w)
		return KV_OK;
	kvs_obsq_put(&wr->buf, &c->geom, q->w, q->src, q->pos, q->q);
	return put(wr, KVS_OBSQ, layer, KVS_ALL, 0, err);
}

enum kv_status
kv_writing_observations(struct kv_writing *wr, unsigned layer, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	enum kv_status rc;

	if ((rc = kv_writing_queries(wr, layer, err)) != KV_OK)
		return rc;
	for (unsigned h = 0; h < c->geom.n_heads_kv; h++)
		if ((rc = write_others(wr, place(&(struct kvs_head){ .type = KVS_OBSA, .tag = { (uint16_t)layer, (uint16_t)h, 0 } }), err)) != KV_OK ||
			(rc = write_received(wr, layer, h, err)) != KV_OK)
			return rc;
	for (unsigned h = 0; h < c->geom.n_heads_kv; h++)
		if ((rc = write_sums(wr, layer, h, err)) != KV_OK)
			return rc;
	return write_others(wr, (uint64_t)(layer + 1) << 50, err);
}

static enum kv_status
write_layer(struct kv_writing *wr, unsigned layer, struct kv_err *err)
{
	const struct kv_cache *c = wr->cache;
	enum kv_status rc = kv_writing_observations(wr, layer, err);

	for (unsigned h = 0; h < c->geom.n_heads_kv && rc == KV_OK; h++) {
		const struct kv_list *l = kv_cache_list(c, layer, h);

		rc = kv_list_write(l, &c->geom, layer, h, wr->w, &wr->buf, err);
	}
	return rc;
}

static enum kv_status
write_provenance(struct kv_writing *wr, struct kv_err *err)
{
	const struct kvs_prov *p = &wr->cache->prov;
	enum kv_status rc = KV_OK;

	for (size_t i = 0; i < p->n && rc == KV_OK; i++) {
		kv_buf_add(&wr->buf, p->record[i], strlen(p->record[i]));
		rc = put(wr, KVS_PROV, KVS_ALL, KVS_ALL, (uint32_t)i, err);
	}
	return rc;
}

static uint64_t
max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* The most frames that rows can make, and a length that none of their scales and maps has. */
static void
rows_promise(const struct kv_rows *r, uint32_t n, uint64_t *frames, uint64_t *most)
{
	struct kv_rows_bytes bytes = kv_rows_bytes(r, n);

	size_t n_held = r->left ? 0 : r->n_held;	/* frames that will go on as they are */

	*frames += n_held;
	for (size_t i = 0; i < n_held; i++)
		*most = max_u64(*most, r->held[i].head.raw_len);
	for (size_t i = 0; i < kv_rows_segments(r, n); i++) {
		struct kv_segment s = kv_rows_segment(r, n, i);

		*frames += 2 + 2 * (1 + (uint64_t)s.n / kvs_rows_per_chunk(s.row_bytes));
	}
	*most = max_u64(*most, 64 + bytes.scales + 4 * (uint64_t)n);
	*most = max_u64(*most, 64 + bytes.masks);
}

/* The writer's promise: no payload will be longer, the index of all frames included. */
static uint64_t
longest_payload(const struct kv_writing *wr)
{
	const struct kv_cache *c = wr->cache;
	const struct kvs_geom *g = &c->geom;
	size_t n_lists = (size_t)g->n_layers * g->n_heads_kv;
	uint64_t most = KVS_CHUNK_BYTES + KVS_ROWS_HEADER, frames = 8 + g->n_rope + c->prov.n + wr->n_other;

	most = max_u64(most, KVS_ROWS_HEADER + 4 * (uint64_t)g->n_embd);
	most = max_u64(most, 16 + 8 * (uint64_t)c->tokens.n_sparse + 4 * (uint64_t)KVS_TOKS_DENSE);
	most = max_u64(most, 32 + 8 * (uint64_t)c->nll.n_sparse + 4 * (uint64_t)c->nll.n);
	most = max_u64(most, 8 * (uint64_t)kv_cache_longest(c));
	most = max_u64(most, c->checkpoint.len);
	frames += c->tokens.n / KVS_TOKS_DENSE + 1;
	for (unsigned l = 0; l < g->n_layers; l++)
		most = max_u64(most, KVS_ALIGN + 16 + (8 + 4 * (uint64_t)g->n_heads * g->d_k) * c->queries[l].w);
	for (size_t i = 0; i < n_lists; i++) {
		const struct kv_list *l = &c->list[i];

		most = max_u64(most, l->received ? 64 + 12 * (uint64_t)l->n : 0);
		for (unsigned which = 0; which < KV_SUMS_KINDS; which++)
			most = max_u64(most, c->sums[which].there ? 64 + 4 * (uint64_t)c->sums[which].rows * c->sums[which].list[i].cols : 0);
		frames += 5;
		rows_promise(&l->k, l->n, &frames, &most);
		rows_promise(&l->v, l->n, &frames, &most);
	}
	for (size_t i = 0; i < wr->n_other; i++)
		most = max_u64(most, wr->other[i]->head.raw_len);
	for (size_t i = 0; i < c->prov.n; i++)
		most = max_u64(most, strlen(c->prov.record[i]));
	return max_u64(most, 32 * (frames + g->n_layers));
}

enum kv_status
kv_writing_head(struct kv_writing *wr, uint64_t max_raw, struct kv_err *err)
{
	enum kv_status rc;

	if ((rc = sort_others(wr, err)) != KV_OK)
		return rc;
	if ((max_raw = max_u64(max_raw, longest_payload(wr))) > KVS_MAX_RAW_HARD)
		return kv_fail(err, KV_EFIT, "a frame would be longer than 1 GiB");
	if ((rc = kvs_writer_begin(wr->w, max_raw, err)) != KV_OK)
		return rc;
	if ((rc = write_geometry(wr, err)) != KV_OK)
		return rc;
	if ((rc = write_tokens(wr, err)) != KV_OK)
		return rc;
	if ((rc = write_hidden(wr, err)) != KV_OK)
		return rc;
	return write_entries(wr, err);
}

enum kv_status
kv_writing_tail(struct kv_writing *wr, struct kv_err *err)
{
	enum kv_status rc;

	if ((rc = write_nll(wr, err)) != KV_OK)
		return rc;
	if ((rc = write_round(wr, err)) != KV_OK)
		return rc;
	if ((rc = write_checkpoint(wr, err)) != KV_OK)
		return rc;
	/* Some may have come since the head was written. */
	if ((rc = sort_others(wr, err)) != KV_OK)
		return rc;
	while (wr->next_other < wr->n_other && place(&wr->other[wr->next_other]->head) < BEHIND)
		wr->next_other++;
	if ((rc = write_others(wr, UINT64_MAX, err)) != KV_OK)
		return rc;
	if ((rc = write_provenance(wr, err)) != KV_OK)
		return rc;
	return kvs_writer_end(wr->w, NULL, err);
}

void
kv_writing_free(struct kv_writing *wr)
{
	free(wr->other);
	kv_buf_free(&wr->buf);
}

enum kv_status
kv_cache_write(const struct kv_cache *c, struct kvs_writer *w, struct kv_err *err)
{
	struct kv_writing wr = { .cache = c, .w = w };
	enum kv_status rc = kv_writing_head(&wr, 0, err);

	for (unsigned l = 0; l < c->geom.n_layers && rc == KV_OK; l++)
		rc = write_layer(&wr, l, err);
	if (rc == KV_OK)
		rc = kv_writing_tail(&wr, err);
	kv_writing_free(&wr);
	return rc;
}
