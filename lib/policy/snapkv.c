/* SnapKV: what the last queries attend to, smoothed over neighbours; the entries of these queries stay (Li et al. 2404.14469). */
#include "policy/window_votes.h"

const struct kv_policy kv_policy_snapkv = {
	.name = "snapkv",
	.cite = "Li et al. 2024, arXiv:2404.14469",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_VOTES,
	.needs = KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_TURNS,
	.keeps_voters = true,
	.defaults = { KV_VOTES_BY_DEFAULT },
	.score = kv_window_votes,
};
