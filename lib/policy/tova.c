/* TOVA: the attention that the last query pays; memoryless, nothing protected, the newest token included. */
#include "policy/window_votes.h"

/*
 * Oren et al. 2401.06104, Algorithm 1 as their code has it: the mean over all query heads of the last row, one kept set a layer. The mean
 * over a group's heads is in the votes, over kv heads in the scope: the groups are equal.
 */
const struct kv_policy kv_policy_tova = {
	.name = "tova",
	.cite = "Oren et al. 2024, arXiv:2401.06104",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER | KV_SCOPES_MODEL,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_SCORE_DTYPE,
	.needs = KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_TURNS,
	.defaults = { .scope = KV_SCOPE_LAYER, .last = 1 },
	.score = kv_last_votes,
};
