/* Knorm: keys of small norm attract attention (Devoto et al. 2406.11430). Rotation does not change a norm. */
#include <math.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "util/mem.h"

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	uint32_t d = s->cache->geom.d_k;
	float *key = kv_array_new(d, sizeof *key);

	if (!key)
		return kv_fail_mem(err, "a key");
	for (uint32_t r = 0; r < l->n; r++) {
		double squares = 0;

		kv_rows_get(&l->k, r, key);
		for (uint32_t i = 0; i < d; i++)
			squares += (double)key[i] * (double)key[i];
		out[r] = -sqrt(squares);
	}
	free(key);
	return KV_OK;
}

const struct kv_policy kv_policy_knorm = {
	.name = "knorm",
	.cite = "Devoto et al. 2024, arXiv:2406.11430",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS,
	.reads = KV_READS_K,
	.defaults = { .scope = KV_SCOPE_HEAD },
	.score = score,
};
