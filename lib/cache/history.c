/* What is remembered of tokens: all of them, or those alone that still live in some list (formats/kvs.md, section 8.1). */
#include <stdlib.h>
#include <string.h>

#include "cache/parts.h"
#include "util/mem.h"

static void
mark_in_list(const struct kv_list *l, const uint32_t *src, uint32_t n, uint8_t *alive)
{
	for (uint32_t r = 0, j = 0; r < l->n && j < n; )
		if (l->src[r] == src[j]) {
			alive[j++] = 1;
			r++;
		} else if (l->src[r] < src[j]) {
			r++;
		} else {
			j++;
		}
}

void
kv_mark_alive(const struct kv_cache *c, const uint32_t *src, uint32_t n, uint8_t *alive)
{
	size_t n_lists = (size_t)c->geom.n_layers * c->geom.n_heads_kv;

	for (size_t i = 0; i < n_lists && n; i++)
		mark_in_list(&c->list[i], src, n, alive);
}

/* The values of tokens below `first` become single ones, and of single ones only those stay that some list holds. */
static enum kv_status
thin_out(const struct kv_cache *c, struct kv_track *t, uint32_t first, struct kv_err *err)
{
	uint32_t moved = first - t->first < t->n ? first - t->first : t->n, n = t->n_sparse + moved, kept = 0;
	uint32_t *src = kv_array_resize(t->src, n, sizeof *src), *v = kv_array_resize(t->sparse, n, sizeof *v);
	uint8_t *alive = kv_array_new(n, 1);

	if (src)
		t->src = src;
	if (v)
		t->sparse = v;
	if (!src || !v || !alive) {
		free(alive);
		return kv_fail_mem(err, "the history of tokens");
	}
	for (uint32_t i = 0; i < moved; i++) {
		src[t->n_sparse + i] = t->first + i;
		v[t->n_sparse + i] = t->v[i];
	}
	kv_mark_alive(c, src, n, alive);
	for (uint32_t j = 0; j < n; j++)
		if (alive[j]) {
			src[kept] = src[j];
			v[kept++] = v[j];
		}
	free(alive);
	t->n -= moved;
	if (t->n)
		memmove(t->v, t->v + moved, t->n * sizeof *t->v);
	t->n_sparse = kept;
	t->first = first;
	return KV_OK;
}

enum kv_status
kv_cache_forget(struct kv_cache *c, enum kv_history keep, struct kv_err *err)
{
	uint64_t first = c->state.consumed - c->state.tail;
	enum kv_status rc;

	if (keep == KV_HISTORY_ALL)
		return KV_OK;
	if (first < c->state.hist_first)
		first = c->state.hist_first;
	if (c->state.ids && keep == KV_HISTORY_NONE) {
		kv_track_free(&c->tokens);
		c->state.ids = false;
	}
	if (c->state.ids && (rc = thin_out(c, &c->tokens, (uint32_t)first, err)) != KV_OK)
		return rc;
	if (c->has_nll && first > c->nll.first && (rc = thin_out(c, &c->nll, (uint32_t)first, err)) != KV_OK)
		return rc;
	c->state.hist_first = c->state.ids ? first : c->state.consumed;
	c->tokens.first = (uint32_t)c->state.hist_first;
	c->edited = true;
	return KV_OK;
}

void
kv_cache_forget_nll(struct kv_cache *c)
{
	uint32_t at = (uint32_t)c->state.consumed;

	kv_track_free(&c->nll);
	c->nll.first = at;
}
