/* Window and Window+i, the baselines of the TOVA paper: the most recent entries and the tokens 0 … i - 1. */
#include "policy/policy.h"

const struct kv_policy kv_policy_window = {
	.name = "window",
	.cite = "Oren et al. 2024, arXiv:2401.06104, appendix A",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER | KV_SCOPES_MODEL,
	.takes = KV_TAKES_SCOPE | KV_TAKES_SINKS,
	.sinks_by_source = true,
	.defaults = { .scope = KV_SCOPE_MODEL },
};
