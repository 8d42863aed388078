/* Observed attention: what an entry received from each query that saw it, on the average (kvpress, ObservedAttentionPress). */
#include "policy/policy.h"

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	const struct kv_received *a = l->received;

	(void)err;
	for (uint32_t i = 0; i < l->n; i++)
		out[i] = a->count[i] ? (double)a->sum[i] / a->count[i] : 0;
	return KV_OK;
}

const struct kv_policy kv_policy_observed = {
	.name = "observed",
	.cite = "kvpress 0.5.5, ObservedAttentionPress",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_STALE,
	.needs = KV_NEEDS_RECEIVED,
	.defaults = { .scope = KV_SCOPE_HEAD },
	.score = score,
};
