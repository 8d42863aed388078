/* What kv-evict is given from outside instead of a policy: tables of scores, or of what stays. */
#ifndef KV_STAGE_EVICT_GIVEN_H
#define KV_STAGE_EVICT_GIVEN_H

#include "policy/plan.h"
#include "stage/tsv.h"

/* An array [list][n] of scores from the table. KV_EFIT: an entry has none. */
enum kv_status kv_evict_scores_given(const struct kv_tsv *t, const struct kv_cache *c, float ***out, struct kv_err *err);
void kv_evict_scores_free(float **given, const struct kv_cache *c);

/* A plan from the table of what stays: score 1 for it, 0 for the rest. */
enum kv_status kv_evict_kept_given(const struct kv_tsv *t, const struct kv_cache *c, struct kv_plan **out, struct kv_err *err);

#endif
