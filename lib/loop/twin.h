/* A second cache that gets the same new entries as the first and goes its own way otherwise (CItruS individual). */
#ifndef KV_LOOP_TWIN_H
#define KV_LOOP_TWIN_H

#include "cache/cache.h"

/* A second cache with the content of the first. */
enum kv_status kv_twin_new(const struct kv_cache *c, struct kv_cache **twin, struct kv_err *err);

/*
 * The m newest tokens of c come to the twin as well: rows, queries, ids, surprisals and hidden state, at the twin's own next_pos. The attention
 * that they paid to entries of c says nothing of the twin's, whose record (struct kv_received) is stale from then on.
 */
enum kv_status kv_twin_follow(struct kv_cache *twin, const struct kv_cache *c, uint32_t m, struct kv_err *err);

#endif
