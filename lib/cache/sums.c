/* Attention sums of the round in hand: of the chunk of text that came last, and of a probe. */
#include <stdlib.h>

#include "cache/parts.h"
#include "kvs/digest.h"
#include "util/le.h"
#include "util/mem.h"

void
kv_sums_free(struct kv_sums *s, size_t n_lists)
{
	for (size_t i = 0; s->list && i < n_lists; i++)
		kv_block_free(s->list[i].sum);
	free(s->list);
	*s = (struct kv_sums){ 0 };
}

enum kv_status
kv_cache_new_sums(struct kv_cache *c, enum kv_sums_of which, uint32_t queries, uint32_t at, struct kv_err *err)
{
	size_t n_lists = (size_t)c->geom.n_layers * c->geom.n_heads_kv;
	struct kv_sums s = { .there = true, .queries = queries, .at = at, .rows = c->geom.n_heads / c->geom.n_heads_kv };

	if (!(s.list = kv_array_new(n_lists, sizeof *s.list)))
		return kv_fail_mem(err, "sums of attention");
	for (size_t i = 0; i < n_lists; i++) {
		s.list[i].cols = c->list[i].n;
		if (!s.list[i].cols)
			continue;
		if (!(s.list[i].sum = kv_block_new((size_t)s.rows * s.list[i].cols, sizeof *s.list[i].sum))) {
			kv_sums_free(&s, n_lists);
			return kv_fail_mem(err, "sums of attention");
		}
		for (size_t j = 0; j < (size_t)s.rows * s.list[i].cols; j++)
			s.list[i].sum[j] = 0;
	}
	kv_sums_free(&c->sums[which], n_lists);
	c->sums[which] = s;
	c->edited = true;
	return KV_OK;
}

static bool
goes_with(const struct kv_sums *s, const struct kvs_obsp *o)
{
	return s->all == (o->scored == 1) && s->queries == o->n_queries && s->at == o->at && s->probe_hash == o->probe_hash &&
		s->rows == o->n_rows && s->reduction == o->reduction;
}

/* A record of which no list has come yet. */
static enum kv_status
begin(const struct kvs_obsp *o, size_t n_lists, struct kv_sums *out, struct kv_err *err)
{
	struct kv_sums s = { true, o->scored == 1, o->n_queries, o->at, o->probe_hash, o->n_rows, o->reduction,
		kv_array_new(n_lists, sizeof *s.list) };

	if (!s.list)
		return kv_fail_mem(err, "sums of attention");
	for (size_t i = 0; i < n_lists; i++)
		s.list[i].missing = true;
	*out = s;
	return KV_OK;
}

enum kv_status
kv_sums_take(struct kv_cache *c, struct kvs_tag tag, const struct kvs_obsp *o, bool *taken, struct kv_err *err)
{
	struct kv_sums *s = &c->sums[o->kind ? KV_SUMS_PROBE : KV_SUMS_CHUNK];
	size_t n_lists = (size_t)c->geom.n_layers * c->geom.n_heads_kv, count = (size_t)o->n_rows * o->n_cols;
	struct kv_sums_list *l;
	enum kv_status rc;

	*taken = false;
	if (o->statistic || (s->there && !goes_with(s, o)))
		return KV_OK;
	if (!s->there && (rc = begin(o, n_lists, s, err)) != KV_OK)
		return rc;
	l = &s->list[(size_t)tag.layer * c->geom.n_heads_kv + tag.head];
	if (count && !(l->sum = kv_block_new(count, sizeof *l->sum)))
		return kv_fail_mem(err, "sums of attention");
	for (size_t i = 0; i < count; i++)
		l->sum[i] = lef32_get(o->sums + 4 * i);
	l->cols = o->n_cols;
	l->missing = false;
	*taken = true;
	return KV_OK;
}

enum kv_status
kv_sums_put(const struct kv_cache *c, enum kv_sums_of which, size_t list, struct kv_buf *out, struct kv_err *err)
{
	const struct kv_sums *s = &c->sums[which];
	const struct kv_sums_list *l = s->there ? &s->list[list] : NULL;
	struct kvs_obsp o;
	uint8_t *src;

	if (!l || l->missing)
		return KV_OK;
	if (!(src = kv_array_new(l->cols, 4)))
		return kv_fail_mem(err, "sums of attention");
	for (uint32_t i = 0; i < l->cols; i++)
		le32_put(src + 4 * (size_t)i, c->list[list].src[i]);
	o = (struct kvs_obsp){ .n_cols = l->cols, .n_rows = s->rows, .n_queries = s->queries, .kind = which == KV_SUMS_PROBE,
		.reduction = s->reduction, .scored = s->all, .at = s->at, .src_hash = kvs_hash64(src, 4 * (size_t)l->cols),
		.probe_hash = s->probe_hash };
	free(src);
	kvs_obsp_put(out, &o, l->sum);
	return KV_OK;
}

void
kv_cache_drop_sums(struct kv_cache *c)
{
	c->edited |= kv_cache_drop_other(c, KVS_OBSP);
	for (unsigned which = 0; which < KV_SUMS_KINDS; which++) {
		c->edited |= c->sums[which].there;
		kv_sums_free(&c->sums[which], (size_t)c->geom.n_layers * c->geom.n_heads_kv);
	}
}
