/* The lists of a layer as attention takes them: plain rows, and those in segments (cache/segments.h). */
#include <stdlib.h>

#include "cache/segments.h"
#include "model/forward_parts.h"
#include "util/mem.h"

static bool
has_maps(const struct kv_rows *r)
{
	bool any = false;

	for (size_t i = 0; i < r->n_seg; i++)
		any |= r->seg[i].mask && r->seg[i].mask->map;
	return any;
}

struct rebuild {
	struct kv_cache *cache;
	enum kv_status *rc;		/* [lists] */
};

static void
rebuild_list(void *arg, size_t i, unsigned thread)
{
	const struct rebuild *r = arg;

	(void)thread;
	r->rc[i] = kv_rows_rebuild(&r->cache->list[i].k, NULL);
}

enum kv_status
kv_lists_ready(struct kv_engine *e, struct kv_cache *c, struct kv_err *err)
{
	size_t n = (size_t)c->geom.n_layers * c->geom.n_heads_kv;
	struct rebuild r = { .cache = c };
	enum kv_status rc = kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, e->pool, err);
	bool any = false;

	for (size_t i = 0; i < n; i++)
		any |= has_maps(&c->list[i].k);
	if (rc != KV_OK || !any)
		return rc;
	if (!(r.rc = kv_array_new(n, sizeof *r.rc)))
		return kv_fail_mem(err, "rows of the cache");
	kv_pool_run(e->pool, n, rebuild_list, &r);
	for (size_t i = 0; i < n && rc == KV_OK; i++)
		rc = r.rc[i];
	free(r.rc);
	return rc == KV_OK ? rc : kv_fail_mem(err, "rows of the cache");
}

static struct kv_attn_segment
offer(const struct kv_segment *s, const struct kv_rows *r)
{
	struct kv_attn_segment a = {
		.from = s->first, .to = s->first + s->n, .width = s->width, .row_bytes = s->row_bytes, .data = s->data, .dtype = s->dtype,
		.turned = s->rotated, .channel = s->mask ? s->mask->channel : NULL, .scheme = s->code.scheme, .bits = s->code.bits,
		.scale_dtype = s->code.scale_dtype, .group = s->code.group, .group_end = s->group_end, .n_groups = s->n_groups,
		.scales = s->scales, .minima = s->minima,
	};

	if (!s->whole)
		return a;
	return (struct kv_attn_segment){
		.from = a.from, .to = a.to, .width = r->width, .row_bytes = r->width * kvs_dtype_size(r->dtype), .data = s->whole, .dtype = r->dtype,
	};
}

enum kv_status
kv_lists_offer(struct kv_engine *e, const struct kv_cache *c, unsigned layer, struct kv_err *err)
{
	struct kv_attn_segment *p;
	size_t n = 0;

	for (uint32_t h = 0; h < c->geom.n_heads_kv; h++)
		n += kv_cache_list(c, layer, h)->k.n_seg + kv_cache_list(c, layer, h)->v.n_seg;
	if (n > e->n_segments) {
		if (!(p = kv_array_resize(e->segment, n, sizeof *p)))
			return kv_fail_mem(err, "the forward pass");
		e->segment = p;
		e->n_segments = n;
	}
	p = e->segment;
	for (uint32_t h = 0; h < c->geom.n_heads_kv; h++) {
		const struct kv_list *l = kv_cache_list(c, layer, h);
		struct kv_attn_list *a = &e->list[h];

		*a = (struct kv_attn_list){
			.n = l->n, .k = l->k.data, .v = l->v.data, .k_dtype = l->k.dtype, .v_dtype = l->v.dtype, .src = l->src, .pos = l->pos,
			.k_seg = p, .n_k_seg = l->k.n_seg, .n_v_seg = l->v.n_seg,
		};
		for (size_t i = 0; i < l->k.n_seg; i++)
			*p++ = offer(&l->k.seg[i], &l->k);
		a->v_seg = p;
		for (size_t i = 0; i < l->v.n_seg; i++)
			*p++ = offer(&l->v.seg[i], &l->v);
	}
	return KV_OK;
}
