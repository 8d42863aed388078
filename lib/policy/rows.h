/* Attention rows recomputed from recorded queries: both sides turned, softmax over all entries that the query could see. */
#ifndef KV_POLICY_ROWS_H
#define KV_POLICY_ROWS_H

#include "cache/cache.h"

/* Cosines and sines of every position that the cache's entries and recorded queries stand at, made once for all lists. Read-only. */
struct kv_turns;

enum kv_status kv_turns_new(const struct kv_cache *c, struct kv_turns **out, struct kv_err *err);
void kv_turns_free(struct kv_turns *t);
/* Turns x [d_k] to a position that some entry or query stands at; a layer without RoPE leaves it as it is. */
void kv_turn(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, int32_t pos, float *x);
/* And back from there. */
void kv_turn_back(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, int32_t pos, float *x);

/*
 * out, a block [n][d_k]: the keys of a list in f32, turned to their positions. K must be loaded. To be shared by all queries of the list.
 */
enum kv_status kv_keys_turned(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, unsigned head, float **out,
	struct kv_err *err);

enum { KV_ROWS_AT_ONCE = 16 };

/*
 * rows [m][n] = what the recorded queries w … w + m - 1 of query head q_head pay to the entries of their kv head, m <= KV_ROWS_AT_ONCE; 0 for
 * those that a query could not see. f32 products, f64 sums, in an order that is fixed. Causality goes by source index, window and angles
 * by position.
 */
enum kv_status kv_attention_rows(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, unsigned q_head, uint32_t w, uint32_t m,
	const float *keys_turned, float *rows, struct kv_err *err);

#endif
