/*
 * StreamingLLM: attention sinks, the first entries, and the most recent ones. The method renumbers positions as well, which is
 * kv-reposition --compact here.
 */
#include "policy/policy.h"

const struct kv_policy kv_policy_streaming = {
	.name = "streaming",
	.cite = "Xiao et al. 2023, arXiv:2309.17453",
	.scope = KV_SCOPE_MODEL,
	.takes = KV_TAKES_SINKS | KV_TAKES_SCOPE_HEAD | KV_TAKES_SCOPE_LAYER | KV_TAKES_SCOPE_MODEL,
	.sinks = 4,
};
