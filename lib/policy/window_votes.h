/* What the last queries vote for: pooled, the scores of SnapKV and of the policies that only spend its budget differently; of one query, TOVA's. */
#ifndef KV_POLICY_WINDOW_VOTES_H
#define KV_POLICY_WINDOW_VOTES_H

#include "policy/policy.h"

/* A score() of struct kv_policy. Entries of the voting queries' own tokens score 0: they are protected (keeps_voters). */
enum kv_status kv_window_votes(const struct kv_scene *s, unsigned layer, unsigned head, double *score, struct kv_err *err);

/* score [n] = what the newest query pays, joined over the heads of the group; nothing is pooled. */
enum kv_status kv_last_votes(const struct kv_scene *s, unsigned layer, unsigned head, double *score, struct kv_err *err);
/* Smooths votes [n] over neighbours as --pool has it. out is another array. */
void kv_votes_pool(const struct kv_policy_opts *o, const double *votes, uint32_t n, double *out);

#define KV_TAKES_VOTES (KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_LAST | KV_TAKES_POOL | KV_TAKES_GQA | KV_TAKES_SCORE_DTYPE)
#define KV_VOTES_BY_DEFAULT .scope = KV_SCOPE_HEAD, .last = 32, .pool = { KV_POOL_MAX, 7 }

#endif
