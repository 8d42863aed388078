/* A head of a cache as channel scores see it. */
#include "policy/channel_view.h"

#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

static uint32_t
group_size(const struct kv_cache *c)
{
	return c->geom.n_heads / c->geom.n_heads_kv;
}

static uint32_t
newest(const struct kv_cache *c, unsigned layer, uint32_t last)
{
	return last < c->queries[layer].w ? last : c->queries[layer].w;
}

enum kv_status
kv_group_queries_get(const struct kv_cache *c, const struct kv_turns *turns, unsigned layer, unsigned head, uint32_t last,
	struct kv_group_queries *out, struct kv_err *err)
{
	const struct kv_queries *rec = &c->queries[layer];
	uint32_t w = newest(c, layer, last), group = group_size(c);
	size_t d = c->geom.d_k, n = (size_t)group * w;
	float *q = kv_block_new(n, d * sizeof *q);

	if (!q)
		return kv_fail_mem(err, "queries");
	for (uint32_t h = 0; h < group; h++)
		for (uint32_t i = 0; i < w; i++) {
			uint32_t at = rec->w - w + i;
			float *to = q + ((size_t)h * w + i) * d;

			memcpy(to, rec->q + ((size_t)(head * group + h) * rec->w + at) * d, d * sizeof *to);
			if (turns)
				kv_turn(c, turns, layer, rec->pos[at], to);
		}
	*out = (struct kv_group_queries){ n, q };
	return KV_OK;
}

/* o [d_v] = the weighted sum of values from … to - 1; value and sum are room for d_v. */
static void
weigh(const struct kv_list *l, const float *row, uint32_t from, uint32_t to, float *value, double *sum, float *o)
{
	size_t d = l->v.width;

	memset(sum, 0, d * sizeof *sum);
	for (uint32_t r = from; r < to; r++) {
		kv_rows_get(&l->v, r, value);
		for (size_t j = 0; j < d; j++)
			sum[j] += (double)(row[r] * value[j]);
	}
	for (size_t j = 0; j < d; j++)
		o[j] = (float)sum[j];
}

enum kv_status
kv_group_outputs(const struct kv_cache *c, const struct kv_turns *turns, unsigned layer, unsigned head, uint32_t last, uint32_t from,
	uint32_t to, struct kv_group_queries *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(c, layer, head);
	const struct kv_queries *rec = &c->queries[layer];
	uint32_t w = newest(c, layer, last), group = group_size(c);
	size_t d = c->geom.d_v, n = (size_t)group * w;
	float *keys = NULL, *o = kv_block_new(n, d * sizeof *o), *row = kv_block_new(l->n, sizeof *row), value[KVS_MAX_DIM];
	double sum[KVS_MAX_DIM];
	enum kv_status rc = o && row ? kv_keys_turned(c, turns, layer, head, &keys, err) : kv_fail_mem(err, "outputs");

	for (uint32_t h = 0; h < group && rc == KV_OK; h++)
		for (uint32_t i = 0; i < w && rc == KV_OK; i++) {
			rc = kv_attention_row(c, turns, layer, head * group + h, rec->w - w + i, keys, row, err);
			if (rc == KV_OK)
				weigh(l, row, from, to, value, sum, o + ((size_t)h * w + i) * d);
		}
	kv_block_free(keys);
	kv_block_free(row);
	if (rc != KV_OK) {
		kv_block_free(o);
		return rc;
	}
	*out = (struct kv_group_queries){ n, o };
	return KV_OK;
}
