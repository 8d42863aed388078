/* Window and Window+i, the baselines of the TOVA paper: the most recent entries and the tokens 0 … i - 1. */
#include "policy/policy.h"

const struct kv_policy kv_policy_window = {
	.name = "window",
	.cite = "Oren et al. 2024, arXiv:2401.06104, appendix A",
	.scope = KV_SCOPE_MODEL,
	.takes = KV_TAKES_SINKS | KV_TAKES_SCOPE_HEAD | KV_TAKES_SCOPE_LAYER | KV_TAKES_SCOPE_MODEL,
	.sinks_by_source = true,
};
