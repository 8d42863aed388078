/* KeyDiff: keys that resemble the mean direction of all keys go (Park et al. 2504.15364). On turned keys. */
#include <math.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "util/mem.h"

static double
norm(const float *x, uint32_t d)
{
	double squares = 0;

	for (uint32_t i = 0; i < d; i++)
		squares += (double)x[i] * (double)x[i];
	return sqrt(squares);
}

/* Norms are kept from zero as torch does it in normalize and cosine_similarity. */
static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	uint32_t d = s->cache->geom.d_k;
	float *keys = NULL;
	double *anchor = kv_array_new(d, sizeof *anchor), squares = 0;
	enum kv_status rc;

	if (!anchor)
		return kv_fail_mem(err, "the mean key");
	if ((rc = kv_keys_turned(s->cache, s->turns, layer, head, &keys, err)) != KV_OK)
		goto out;
	for (uint32_t r = 0; r < l->n; r++) {
		double length = fmax(norm(keys + (size_t)r * d, d), 1e-12);

		for (uint32_t i = 0; i < d; i++)
			anchor[i] += (double)keys[(size_t)r * d + i] / length;
	}
	for (uint32_t i = 0; i < d; i++) {
		anchor[i] /= l->n;
		squares += anchor[i] * anchor[i];
	}
	for (uint32_t r = 0; r < l->n; r++) {
		const float *key = keys + (size_t)r * d;
		double product = 0;

		for (uint32_t i = 0; i < d; i++)
			product += (double)key[i] * anchor[i];
		out[r] = -product / (fmax(norm(key, d), 1e-8) * fmax(sqrt(squares), 1e-8));
	}
out:
	kv_block_free(keys);
	free(anchor);
	return rc;
}

const struct kv_policy kv_policy_keydiff = {
	.name = "keydiff",
	.cite = "Park et al. 2025, arXiv:2504.15364",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS,
	.reads = KV_READS_K | KV_READS_TURNS,
	.defaults = { .scope = KV_SCOPE_HEAD },
	.score = score,
};
