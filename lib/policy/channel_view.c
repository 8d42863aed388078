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

enum kv_status
kv_group_attention(const struct kv_cache *c, const struct kv_turns *turns, unsigned layer, unsigned head, uint32_t last, double *received,
	struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(c, layer, head);
	uint32_t w = newest(c, layer, last), first = c->queries[layer].w - w, group = group_size(c);
	float *keys = NULL, *rows = kv_block_new((size_t)KV_ROWS_AT_ONCE * l->n, sizeof *rows);
	enum kv_status rc = rows ? kv_keys_turned(c, turns, layer, head, &keys, err) : kv_fail_mem(err, "attention");

	memset(received, 0, l->n * sizeof *received);
	for (uint32_t h = 0; h < group && rc == KV_OK; h++)
		for (uint32_t i = 0; i < w && rc == KV_OK; i += KV_ROWS_AT_ONCE) {
			uint32_t m = w - i < KV_ROWS_AT_ONCE ? w - i : KV_ROWS_AT_ONCE;

			rc = kv_attention_rows(c, turns, layer, head * group + h, first + i, m, keys, rows, err);
			for (size_t r = 0; r < (size_t)m * l->n && rc == KV_OK; r++)
				received[r % l->n] += (double)rows[r];
		}
	kv_block_free(keys);
	kv_block_free(rows);
	return rc;
}

/* o [m][d_v] = the values from … to - 1 weighted by each of rows [m][n]. */
static enum kv_status
weigh(const struct kv_list *l, const float *rows, uint32_t m, uint32_t from, uint32_t to, float *o, struct kv_err *err)
{
	size_t d = l->v.width;
	double *sum = kv_array_new(m, d * sizeof *sum);
	float value[KVS_MAX_DIM];

	if (!sum)
		return kv_fail_mem(err, "outputs");
	for (uint32_t r = from; r < to; r++) {
		kv_rows_get(&l->v, r, value);
		for (size_t i = 0; i < m; i++)
			for (size_t j = 0; j < d; j++)
				sum[i * d + j] += (double)(rows[i * l->n + r] * value[j]);
	}
	for (size_t i = 0; i < m * d; i++)
		o[i] = (float)sum[i];
	free(sum);
	return KV_OK;
}

enum kv_status
kv_group_outputs(const struct kv_cache *c, const struct kv_turns *turns, unsigned layer, unsigned head, uint32_t last, uint32_t from,
	uint32_t to, struct kv_group_queries *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(c, layer, head);
	uint32_t w = newest(c, layer, last), first = c->queries[layer].w - w, group = group_size(c);
	size_t d = c->geom.d_v, n = (size_t)group * w;
	float *keys = NULL, *o = kv_block_new(n, d * sizeof *o), *rows = kv_block_new((size_t)KV_ROWS_AT_ONCE * l->n, sizeof *rows);
	enum kv_status rc = o && rows ? kv_keys_turned(c, turns, layer, head, &keys, err) : kv_fail_mem(err, "outputs");

	for (uint32_t h = 0; h < group && rc == KV_OK; h++)
		for (uint32_t i = 0; i < w && rc == KV_OK; i += KV_ROWS_AT_ONCE) {
			uint32_t m = w - i < KV_ROWS_AT_ONCE ? w - i : KV_ROWS_AT_ONCE;

			rc = kv_attention_rows(c, turns, layer, head * group + h, first + i, m, keys, rows, err);
			if (rc == KV_OK)
				rc = weigh(l, rows, m, from, to, o + ((size_t)h * w + i) * d, err);
		}
	kv_block_free(keys);
	kv_block_free(rows);
	if (rc != KV_OK) {
		kv_block_free(o);
		return rc;
	}
	*out = (struct kv_group_queries){ n, o };
	return KV_OK;
}
