/* Attention sums of the round in hand: of the chunk of text that came last, and of a probe. */
#include <stdlib.h>

#include "cache/parts.h"
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

void
kv_cache_drop_sums(struct kv_cache *c)
{
	for (unsigned which = 0; which < KV_SUMS_KINDS; which++) {
		c->edited |= c->sums[which].there;
		kv_sums_free(&c->sums[which], (size_t)c->geom.n_layers * c->geom.n_heads_kv);
	}
}
