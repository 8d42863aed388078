/* What the chunk of text that came last, or a probe, paid to the entries before it: the sums on record, joined over query heads. */
#ifndef KV_POLICY_ROUND_VOTES_H
#define KV_POLICY_ROUND_VOTES_H

#include "policy/policy.h"

/* How many of the list's first entries were seen. */
uint32_t kv_round_seen(const struct kv_cache *c, enum kv_sums_of which, unsigned layer, unsigned head);
/*
 * votes [n] = the sum over the queries of what query head by query head was paid, joined over the group as --gqa has it; 0 for entries
 * that were not there to be seen. KV_EFIT: the snapshot holds the heads joined in another way.
 */
enum kv_status kv_round_votes(const struct kv_scene *s, enum kv_sums_of which, unsigned layer, unsigned head, double *votes,
	struct kv_err *err);

#endif
