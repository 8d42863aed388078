/* By lot. A number for every (seed, layer, head, source index), so that neither threads nor earlier evictions matter. */
#include "policy/policy.h"

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of x reaches every bit of the result. */
static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	const uint64_t golden = 0x9e3779b97f4a7c15u;
	uint64_t stream = mix(mix((uint64_t)s->opts->seed + golden) + ((uint64_t)layer << 32 | head) * golden);

	(void)err;
	for (uint32_t r = 0; r < l->n; r++)
		out[r] = (double)(mix(stream + (l->src[r] + (uint64_t)1) * golden) >> 40) * 0x1p-24;	/* exact as f32 */
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
