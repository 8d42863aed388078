/* TOVA: the attention that the last query pays; memoryless, nothing protected, the newest token included. */
#include <stdlib.h>

#include "policy/policy.h"
#include "util/mem.h"

/*
 * Oren et al. 2401.06104, Algorithm 1 as their code has it: the mean over all query heads of the last row, one kept set a layer. The mean
 * over a group's heads here, over kv heads by the scope: the groups are equal.
 */
static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	uint32_t n = kv_cache_list(c, layer, head)->n;
	unsigned group = c->geom.n_heads / c->geom.n_heads_kv;
	float *keys = NULL, *row = kv_array_new(n, sizeof *row);	/* [n][d_k], [n] */
	enum kv_status rc;

	if (!row)
		return kv_fail_mem(err, "a row of attention");
	if ((rc = kv_keys_turned(c, s->turns, layer, head, &keys, err)) != KV_OK)
		goto out;
	for (uint32_t i = 0; i < n; i++)
		out[i] = 0;
	for (unsigned g = 0; g < group; g++) {
		if ((rc = kv_attention_rows(c, s->turns, layer, head * group + g, c->queries[layer].w - 1, 1, keys, row, err)) != KV_OK)
			goto out;
		for (uint32_t i = 0; i < n; i++)
			out[i] += (double)kv_score_round(s->opts, (double)row[i]);
	}
	for (uint32_t i = 0; i < n; i++)
		out[i] /= group;
out:
	kv_block_free(keys);
	free(row);
	return rc;
}

const struct kv_policy kv_policy_tova = {
	.name = "tova",
	.cite = "Oren et al. 2024, arXiv:2401.06104",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER | KV_SCOPES_MODEL,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_SCORE_DTYPE,
	.needs = KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_TURNS,
	.defaults = { .scope = KV_SCOPE_LAYER, .last = 1 },
	.score = score,
};
