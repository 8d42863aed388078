/*
 * StreamingLLM: attention sinks, the first entries, and the most recent ones. The method renumbers positions as well, which is
 * kv-reposition --compact here.
 */
#include "policy/policy.h"

const struct kv_policy kv_policy_streaming = {
	.name = "streaming",
	.cite = "Xiao et al. 2023, arXiv:2309.17453",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER | KV_SCOPES_MODEL,
	.takes = KV_TAKES_SCOPE | KV_TAKES_SINKS,
	.defaults = { .scope = KV_SCOPE_MODEL, .sinks = 4 },
};
