/* The KV cache in memory: its lists, how they grow and how they are cut. */
#include "cache/cache.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/jobs.h"
#include "cache/parts.h"
#include "util/mem.h"

static size_t
n_lists(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv;
}

enum kv_status
kv_cache_new(const struct kvs_geom *g, struct kv_cache **out, struct kv_err *err)
{
	struct kv_cache *c = kv_array_new(1, sizeof *c);

	if (!c)
		return kv_fail_mem(err, "the cache");
	c->geom = *g;
	c->list = kv_array_new(n_lists(c), sizeof *c->list);
	c->queries = kv_array_new(g->n_layers, sizeof *c->queries);
	if (!c->list || !c->queries) {
		kv_cache_free(c);
		return kv_fail_mem(err, "the cache");
	}
	for (unsigned l = 0; l < g->n_layers; l++)
		for (unsigned h = 0; h < g->n_heads_kv; h++) {
			struct kv_list *list = kv_cache_list(c, l, h);

			list->k.dtype = g->layer[l].k_dtype;
			list->k.width = g->d_k;
			list->v.dtype = g->layer[l].v_dtype;
			list->v.width = g->d_v;
		}
	*out = c;
	return KV_OK;
}

void
kv_cache_free(struct kv_cache *c)
{
	if (!c)
		return;
	for (size_t i = 0; c->list && i < n_lists(c); i++) {
		free(c->list[i].src);
		free(c->list[i].pos);
		kv_rows_free(&c->list[i].k);
		kv_rows_free(&c->list[i].v);
		kv_received_free(c->list[i].received);
	}
	for (unsigned l = 0; c->queries && l < c->geom.n_layers; l++)
		kv_queries_free(&c->queries[l]);
	for (unsigned which = 0; which < KV_SUMS_KINDS; which++)
		kv_sums_free(&c->sums[which], n_lists(c));
	kv_track_free(&c->tokens);
	kv_track_free(&c->nll);
	kvs_prov_free(&c->prov);
	kv_buf_free(&c->checkpoint);
	kv_held_free(c->other, c->n_other);
	free(c->list);
	free(c->queries);
	free(c->hidden);
	free(c);
}

void
kv_cache_swap(struct kv_cache *a, struct kv_cache *b)
{
	struct kv_cache was = *a;

	*a = *b;
	*b = was;
}

uint32_t
kv_cache_longest(const struct kv_cache *c)
{
	uint32_t n = 0;

	for (size_t i = 0; i < n_lists(c); i++)
		if (c->list[i].n > n)
			n = c->list[i].n;
	return n;
}

uint64_t
kv_cache_entries(const struct kv_cache *c)
{
	uint64_t n = 0;

	for (size_t i = 0; i < n_lists(c); i++)
		n += c->list[i].n;
	return n;
}

bool
kv_cache_edited(const struct kv_cache *c)
{
	bool edited = c->edited;

	for (size_t i = 0; i < n_lists(c) && !edited; i++)
		edited = c->list[i].changed;
	return edited;
}

bool
kv_list_same(const struct kv_list *a, const struct kv_list *b)
{
	if (a->n != b->n)
		return false;
	return !a->n || (!memcmp(a->src, b->src, a->n * sizeof *a->src) && !memcmp(a->pos, b->pos, a->n * sizeof *a->pos));
}

struct load {
	struct kv_cache *cache;
	unsigned what;
};

static enum kv_status
load_list(void *arg, size_t item, struct kv_err *err)
{
	const struct load *job = arg;
	struct kv_list *l = &job->cache->list[item];
	enum kv_status rc = KV_OK;

	if (job->what & KV_LOAD_K)
		rc = kv_rows_load(&l->k, err);
	if (rc == KV_OK && job->what & KV_LOAD_V)
		rc = kv_rows_load(&l->v, err);
	return rc;
}

enum kv_status
kv_cache_load(struct kv_cache *c, unsigned what, struct kv_pool *pool, struct kv_err *err)
{
	struct load job = { c, what };

	return kv_jobs_run(pool, n_lists(c), load_list, &job, err);
}

/* Rows to have room for, so that there are `need`: a quarter more of the plain ones, unless that is asked exactly. */
static uint32_t
room(const struct kv_rows *r, uint32_t n, uint32_t need, bool exact)
{
	uint32_t plain = n - r->front, grown = plain <= UINT32_MAX - plain / 4 ? plain + plain / 4 : plain;

	return exact || need - r->front <= r->cap || need - r->front > grown ? need : r->front + grown;
}

/* Rows that are held wait for it, if it is exact, until they are loaded. */
static enum kv_status
rows_reserve(struct kv_rows *r, uint32_t n, uint32_t need, bool exact, struct kv_err *err)
{
	if (!exact || !r->n_held)
		return kv_rows_reserve(r, n, room(r, n, need, exact), err);
	kv_rows_expect(r, need);
	return KV_OK;
}

/* Room for m more: exactly that, or a quarter of what is there if that is more. */
static enum kv_status
list_reserve(struct kv_list *l, uint32_t m, bool exact, struct kv_err *err)
{
	uint32_t need = l->n + m, cap = need;
	enum kv_status rc;
	void *p;

	if (!exact && l->n <= UINT32_MAX - l->n / 4 && cap < l->n + l->n / 4)
		cap = l->n + l->n / 4;
	if (need > l->cap) {
		if (!(p = kv_array_resize(l->src, cap, sizeof *l->src)))
			return kv_fail_mem(err, "entries of the cache");
		l->src = p;
		if (!(p = kv_array_resize(l->pos, cap, sizeof *l->pos)))
			return kv_fail_mem(err, "entries of the cache");
		l->pos = p;
		l->cap = cap;
	}
	if (l->received && (rc = kv_received_reserve(l->received, l->cap, err)) != KV_OK)
		return rc;
	if ((rc = rows_reserve(&l->k, l->n, need, exact, err)) != KV_OK)
		return rc;
	return rows_reserve(&l->v, l->n, need, exact, err);
}

/* May m more tokens come, and is there room for them? */
static enum kv_status
make_room(struct kv_cache *c, uint32_t m, bool exact, struct kv_err *err)
{
	const struct kvs_geom *g = &c->geom;
	enum kv_status rc;

	if (m > (uint32_t)(INT32_MAX - c->state.next_pos))
		return kv_fail(err, KV_EFIT, "%u more tokens would stand beyond position 2147483647: run kv-reposition --compact first",
			m);
	if (c->state.consumed > UINT32_MAX - m)
		return kv_fail(err, KV_EFIT, "a snapshot counts no more than 4294967295 tokens");
	for (size_t i = 0; i < n_lists(c); i++) {
		struct kv_list *l = &c->list[i];

		assert(l->k.dtype == g->layer[i / g->n_heads_kv].k_dtype && l->v.dtype == g->layer[i / g->n_heads_kv].v_dtype);
		if ((rc = list_reserve(l, m, exact, err)) != KV_OK)
			return rc;
	}
	return KV_OK;
}

enum kv_status
kv_cache_reserve(struct kv_cache *c, uint32_t m, struct kv_err *err)
{
	return make_room(c, m, true, err);
}

void
kv_cache_expect(struct kv_cache *c, uint32_t m)
{
	for (size_t i = 0; i < n_lists(c); i++) {
		struct kv_list *l = &c->list[i];
		uint32_t need = l->n <= UINT32_MAX - m ? l->n + m : UINT32_MAX;

		kv_rows_expect(&l->k, need);
		kv_rows_expect(&l->v, need);
	}
}

bool
kv_cache_drop_other(struct kv_cache *c, uint32_t type)
{
	size_t kept = 0, was = c->n_other;

	for (size_t i = 0; i < was; i++)
		if (c->other[i].head.type == type)
			kv_held_drop(&c->other[i]);
		else
			c->other[kept++] = c->other[i];
	c->n_other = kept;
	return kept != was;
}

/* What speaks of the round in hand, which is over. */
static void
drop_round(struct kv_cache *c)
{
	kv_cache_drop_sums(c);
	c->has_round = false;
	kv_cache_drop_other(c, KVS_CKPT);
}

void
kv_cache_begin_round(struct kv_cache *c)
{
	drop_round(c);
	c->reading = true;
}

void
kv_cache_end_round(struct kv_cache *c, uint32_t tail)
{
	c->reading = false;
	c->edited |= c->state.tail != tail;
	c->state.tail = tail;
}

enum kv_status
kv_cache_extend(struct kv_cache *c, uint32_t m, struct kv_err *err)
{
	struct kvs_state *s = &c->state;
	enum kv_status rc;

	if ((rc = make_room(c, m, false, err)) != KV_OK)
		return rc;
	if (!c->reading)
		drop_round(c);
	for (size_t i = 0; i < n_lists(c) && m; i++) {
		struct kv_list *l = &c->list[i];

		for (uint32_t t = 0; t < m; t++) {
			l->src[l->n + t] = (uint32_t)s->consumed + t;
			l->pos[l->n + t] = s->next_pos + (int32_t)t;
		}
		if (l->received)
			kv_received_clear(l->received, l->n, m);
		l->n += m;
		l->changed = true;
	}
	s->consumed += m;
	s->next_pos += (int32_t)m;
	s->tail = m;
	if (!s->ids)
		s->hist_first = s->consumed;
	c->edited = true;
	return KV_OK;
}

enum kv_status
kv_list_keep(struct kv_list *l, const uint32_t *keep, uint32_t n, struct kv_err *err)
{
	enum kv_status rc;

	if (n == l->n)
		return KV_OK;
	if ((rc = kv_rows_keep(&l->k, l->n, keep, n, err)) != KV_OK || (rc = kv_rows_keep(&l->v, l->n, keep, n, err)) != KV_OK)
		return rc;
	for (uint32_t i = 0; i < n; i++) {
		l->src[i] = l->src[keep[i]];
		l->pos[i] = l->pos[keep[i]];
	}
	if (l->received)
		kv_received_keep(l->received, keep, n);
	l->n = n;
	l->changed = true;
	return KV_OK;
}
