/* By lot. A number for every (seed, layer, head, source index), so that neither threads nor earlier evictions matter. */
#include "policy/lot.h"
#include "policy/policy.h"

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);

	(void)err;
	for (uint32_t r = 0; r < l->n; r++)
		out[r] = kv_lot((uint64_t)s->opts->seed, layer, head, l->src[r]);
	return KV_OK;
}

const struct kv_policy kv_policy_random = {
	.name = "random",
	.cite = "-",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER | KV_SCOPES_MODEL,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_SEED,
	.defaults = { .scope = KV_SCOPE_HEAD },
	.score = score,
};
