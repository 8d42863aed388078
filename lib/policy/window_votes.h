/* What the last queries vote for, pooled: the scores of SnapKV and of the policies that only spend its budget differently. */
#ifndef KV_POLICY_WINDOW_VOTES_H
#define KV_POLICY_WINDOW_VOTES_H

#include "policy/policy.h"

/* A score() of struct kv_policy. Entries of the voting queries' own tokens score 0: they are protected (keeps_voters). */
enum kv_status kv_window_votes(const struct kv_scene *s, unsigned layer, unsigned head, double *score, struct kv_err *err);

#define KV_TAKES_VOTES (KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_LAST | KV_TAKES_POOL | KV_TAKES_GQA | KV_TAKES_SCORE_DTYPE)
#define KV_VOTES_BY_DEFAULT .scope = KV_SCOPE_HEAD, .last = 32, .pool = { KV_POOL_MAX, 7 }

#endif
