/* What an eviction would do: scores and kept sets of all lists, made on a pool, applied or printed by the caller. */
#ifndef KV_POLICY_PLAN_H
#define KV_POLICY_PLAN_H

#include "policy/policy.h"

struct kv_plan {
	size_t per_unit;	/* lists that share a kept set: list i has choice[i / per_unit] */
	size_t n_choices;
	struct kv_choice *choice;
	const char *remark;	/* what users should be told, or NULL */
};

struct kv_plan_how {
	const struct kv_policy *policy;
	const struct kv_policy_opts *opts;	/* settled */
	float *const *given;	/* [list][n] scores from outside, in the place of the policy's; or NULL */
	bool want_scores;	/* also of lists that lose nothing */
};

/*
 * Loads the rows that the policy reads, of those lists alone that lose something. KV_EFIT: too few queries on record, lists of one scope
 * hold different tokens, more entries are protected than fit the budget, a score is not a number.
 */
enum kv_status kv_plan_make(const struct kv_plan_how *how, struct kv_cache *c, struct kv_pool *pool, struct kv_plan **out,
	struct kv_err *err);
/* Cuts the lists. On failure the cache must not be used any more. */
enum kv_status kv_plan_apply(const struct kv_plan *p, struct kv_cache *c, struct kv_pool *pool, struct kv_err *err);
void kv_plan_free(struct kv_plan *p);

static inline const struct kv_choice *
kv_plan_choice(const struct kv_plan *p, size_t list)
{
	return &p->choice[list / p->per_unit];
}

#endif
