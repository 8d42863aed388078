/* A head of a cache as channel scores see it: keys and the group's queries as matrices, energies of its output. */
#ifndef KV_POLICY_CHANNEL_VIEW_H
#define KV_POLICY_CHANNEL_VIEW_H

#include "policy/rows.h"

/* The newest `last` recorded queries of all heads of a group, stacked. */
struct kv_group_queries {
	size_t n;
	float *q;			/* block [n][d_k] */
};

/* turns NULL: before RoPE, else turned to their positions. */
enum kv_status kv_group_queries_get(const struct kv_cache *c, const struct kv_turns *turns, unsigned layer, unsigned head, uint32_t last,
	struct kv_group_queries *out, struct kv_err *err);

/* received [n] = the attention that each entry of the list gets from those queries, summed. K must be loaded. */
enum kv_status kv_group_attention(const struct kv_cache *c, const struct kv_turns *turns, unsigned layer, unsigned head, uint32_t last,
	double *received, struct kv_err *err);

/*
 * out, a block [queries of the group][d_v]: what attention takes from the entries from … to - 1 for each of those queries, summed in f64
 * in slot order; the weights are those of the softmax over all entries. K and V must be loaded.
 */
enum kv_status kv_group_outputs(const struct kv_cache *c, const struct kv_turns *turns, unsigned layer, unsigned head, uint32_t last,
	uint32_t from, uint32_t to, struct kv_group_queries *out, struct kv_err *err);

#endif
