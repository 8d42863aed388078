/* Rows in codes whose groups share their scales: what kv-evict does where some rows of a group would go and others stay. */
#ifndef KV_STAGE_EVICT_CODES_H
#define KV_STAGE_EVICT_CODES_H

#include "policy/plan.h"
#include "util/mem.h"

/*
 * Applies a plan. Where it would split groups: KV_EFIT; or, with requant, plain rows take the place of codes before, and what is left of them
 * is quantised once more, in new groups, which a line to remarks says. Loads rows that have groups.
 */
enum kv_status kv_evict_apply(const struct kv_plan *p, struct kv_cache *c, struct kv_pool *pool, bool requant, struct kv_buf *remarks,
	struct kv_err *err);

#endif
