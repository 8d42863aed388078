/* What the cache remembers beside its rows: the last queries, token ids, surprisals. */
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "util/half.h"
#include "util/mem.h"

void
kv_queries_free(struct kv_queries *q)
{
	free(q->src);
	free(q->pos);
	kv_block_free(q->q);
	*q = (struct kv_queries){ 0 };
}

/* An empty record with room for w queries. */
static enum kv_status
queries_new(const struct kvs_geom *g, uint32_t w, struct kv_queries *out, struct kv_err *err)
{
	struct kv_queries q = { w, kv_array_new(w, sizeof *q.src), kv_array_new(w, sizeof *q.pos), NULL };
	size_t n;

	if (kv_mul((size_t)g->n_heads * g->d_k, w, &n))
		q.q = kv_block_new(n, sizeof *q.q);
	if (!q.src || !q.pos || !q.q) {
		kv_queries_free(&q);
		return kv_fail_mem(err, "recorded queries");
	}
	*out = q;
	return KV_OK;
}

/* Moves the newest n queries of `from` to the front of `to`, which may be the same record. */
static void
carry_over(const struct kvs_geom *g, struct kv_queries *to, const struct kv_queries *from, uint32_t n)
{
	uint32_t skip = from->w - n;
	size_t d = g->d_k;

	if (!n || (to == from && !skip))
		return;
	memmove(to->src, from->src + skip, n * sizeof *to->src);
	memmove(to->pos, from->pos + skip, n * sizeof *to->pos);
	for (size_t h = 0; h < g->n_heads; h++)
		memmove(to->q + h * to->w * d, from->q + (h * from->w + skip) * d, n * d * sizeof *to->q);
}

enum kv_status
kv_queries_add(struct kv_cache *c, unsigned layer, uint32_t w, uint32_t m, uint32_t src, int32_t pos, const float *q, struct kv_err *err)
{
	const struct kvs_geom *g = &c->geom;
	struct kv_queries *old = &c->queries[layer], grown;
	uint32_t fresh = m < w ? m : w, kept = old->w < w - fresh ? old->w : w - fresh;
	struct kv_queries *to = old;
	size_t d = g->d_k;
	enum kv_status rc;

	if (!w) {
		kv_queries_free(old);
		return KV_OK;
	}
	if (kept + fresh != old->w) {
		if ((rc = queries_new(g, kept + fresh, &grown, err)) != KV_OK)
			return rc;
		to = &grown;
	}
	carry_over(g, to, old, kept);
	for (uint32_t i = 0; i < fresh; i++) {
		uint32_t t = m - fresh + i;

		to->src[kept + i] = src + t;
		to->pos[kept + i] = pos + (int32_t)t;
		for (size_t h = 0; h < g->n_heads; h++)
			memcpy(to->q + (h * to->w + kept + i) * d, q + (t * (size_t)g->n_heads + h) * d, d * sizeof *q);
	}
	if (to != old) {
		kv_queries_free(old);
		*old = grown;
	}
	return KV_OK;
}

void
kv_track_free(struct kv_track *t)
{
	free(t->v);
	free(t->src);
	free(t->sparse);
	*t = (struct kv_track){ 0 };
}

enum kv_status
kv_track_add(struct kv_track *t, uint32_t at, const uint32_t *v, uint32_t m, uint32_t filler, struct kv_err *err)
{
	uint32_t hole = at - t->first - t->n, need = t->n + hole + m, cap = need;
	uint32_t *p;

	if (need > t->cap) {
		if (cap < t->n + (uint64_t)t->n / 4)
			cap = t->n + t->n / 4;
		if (!(p = kv_array_resize(t->v, cap, sizeof *p)))
			return kv_fail_mem(err, "the history of tokens");
		t->v = p;
		t->cap = cap;
	}
	for (uint32_t i = 0; i < hole; i++)
		t->v[t->n++] = filler;
	if (m)
		memcpy(t->v + t->n, v, m * sizeof *v);
	t->n += m;
	return KV_OK;
}

static int
by_source(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

bool
kv_track_get(const struct kv_track *t, uint32_t src, uint32_t *v)
{
	const uint32_t *p;

	if (src >= t->first) {
		if (src - t->first >= t->n)
			return false;
		*v = t->v[src - t->first];
		return true;
	}
	if (!t->n_sparse || !(p = bsearch(&src, t->src, t->n_sparse, sizeof *t->src, by_source)))
		return false;
	*v = t->sparse[p - t->src];
	return true;
}

bool
kv_cache_token(const struct kv_cache *c, uint32_t src, uint32_t *id)
{
	return c->state.ids && kv_track_get(&c->tokens, src, id);
}

bool
kv_cache_nll(const struct kv_cache *c, uint32_t src, float *nll)
{
	uint32_t bits;

	/* Below zero stands for none. */
	if (!c->has_nll || !kv_track_get(&c->nll, src, &bits) || bits_f32(bits) < 0)
		return false;
	*nll = bits_f32(bits);
	return true;
}

enum kv_status
kv_cache_add_tokens(struct kv_cache *c, const uint32_t *id, uint32_t m, struct kv_err *err)
{
	uint32_t at = (uint32_t)c->state.consumed - m;
	enum kv_status rc;

	if (!c->state.ids && at)
		return KV_OK;
	if (c->state.ids && c->tokens.first + c->tokens.n != at) {
		kv_track_free(&c->tokens);
		c->state.ids = false;
		c->state.hist_first = c->state.consumed;
		return KV_OK;
	}
	if ((rc = kv_track_add(&c->tokens, at, id, m, 0, err)) != KV_OK)
		return rc;
	if (!c->state.ids)
		c->state.hist_first = 0;
	c->state.ids = true;
	return KV_OK;
}

enum kv_status
kv_cache_add_nll(struct kv_cache *c, const float *nll, uint32_t m, struct kv_err *err)
{
	uint32_t at = (uint32_t)c->state.consumed - m;
	enum kv_status rc;

	if (!c->has_nll) {
		kv_track_free(&c->nll);
		c->nll.first = at;
	}
	_Static_assert(sizeof *nll == sizeof *c->nll.v, "surprisals are kept as their bits");
	if ((rc = kv_track_add(&c->nll, at, (const uint32_t *)(const void *)nll, m, f32_bits(-1), err)) != KV_OK)
		return rc;
	c->has_nll = true;
	for (uint32_t i = 0; i < m; i++)
		if (nll[i] >= 0) {
			c->nll_count++;
			c->nll_sum += (double)nll[i];
		}
	return KV_OK;
}
