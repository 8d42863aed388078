/* H2O: heavy hitters by all the attention they ever received, and a window of recent entries. */
#include "policy/policy.h"

/*
 * Zhang et al. 2306.14048, as the real-drop code does it: sums since the entry came, never corrected for age, carried on by the
 * survivors. The code knows no groups; the sums here are of group means.
 */
static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);

	(void)err;
	for (uint32_t i = 0; i < l->n; i++)
		out[i] = (double)l->received->sum[i];
	return KV_OK;
}

const struct kv_policy kv_policy_h2o = {
	.name = "h2o",
	.cite = "Zhang et al. 2023, arXiv:2306.14048",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_STALE,
	.needs = KV_NEEDS_RECEIVED,
	.defaults = { .scope = KV_SCOPE_HEAD, .recent = KV_RECENT_HALF },
	.score = score,
};
