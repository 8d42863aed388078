/* Attention rows recomputed from recorded queries (policies-eviction: rotate both sides, softmax over all visible entries). */
#ifndef KV_POLICY_ROWS_H
#define KV_POLICY_ROWS_H

#include "cache/cache.h"

/*
 * row [n] = softmax over the entries of (layer, kv head of q_head) for recorded query w of query head q_head: f32 products, f64 sum, slot
 * order; entries the query could not see get 0. K must be loaded. keys_turned [n][d_k], made by kv_keys_turned, may be shared by all
 * queries of the list.
 */
enum kv_status kv_keys_turned(const struct kv_cache *c, unsigned layer, unsigned head, float **out, struct kv_err *err);	/* a block */
enum kv_status kv_attention_row(const struct kv_cache *c, unsigned layer, unsigned q_head, uint32_t w, const float *keys_turned, float *row, struct kv_err *err);

#endif
