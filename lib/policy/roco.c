/* RoCo: the least attended on the average go, unless the attention they receive deviates much. */
#include <math.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "policy/select.h"
#include "util/mem.h"

static double
mean_of(const struct kv_received *a, uint32_t i)
{
	return a->count[i] ? (double)a->sum[i] / a->count[i] : 0;
}

/* Rounding may leave a variance a little below zero; an entry that is always attended alike does not deviate. */
static double
deviation_of(const struct kv_received *a, uint32_t i)
{
	double mean = mean_of(a, i), squares = a->count[i] ? (double)a->square[i] / a->count[i] : 0;

	return sqrt(fmax(0, squares - mean * mean));
}

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);

	(void)err;
	for (uint32_t i = 0; i < l->n; i++)
		out[i] = mean_of(l->received, i);
	return KV_OK;
}

/*
 * Ren and Zhu 2402.06262 with the constants of their EasyKV: of the entries that nothing protects, those of lowest deviation are the
 * scope, and the lowest means inside it go. The scope never reaches into what is protected; EasyKV's does where the guard of recent
 * entries is larger than rho times the budget.
 */
static enum kv_status
keep(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, struct kv_err *err)
{
	const struct kv_received *a = kv_cache_list(s->cache, layer, head)->received;
	uint32_t goes = c->n - c->k, open = c->n - c->sinks - c->newest, spared = kv_share_of(s->opts->rho, c->k) + c->sinks;
	uint32_t scope = c->k > spared && c->k - spared > goes ? c->k - spared : goes, n_out;
	float *x = kv_array_new(c->n, sizeof *x);	/* [n] deviation, then the mean inside the scope */
	enum kv_status rc;

	if (!x)
		return kv_fail_mem(err, "deviations");
	if (scope > open)
		scope = open;
	n_out = c->n - scope;
	for (uint32_t i = 0; i < c->n; i++)
		x[i] = (float)deviation_of(a, i);
	if ((rc = kv_select(x, c->n, n_out, c->sinks, c->newest, c->keep, err)) != KV_OK)
		goto out;
	for (uint32_t i = 0; i < c->n; i++)
		x[i] = c->score[i];
	for (uint32_t i = 0; i < n_out; i++)
		x[c->keep[i]] = INFINITY;
	rc = kv_select(x, c->n, c->k, c->sinks, c->newest, c->keep, err);
out:
	free(x);
	return rc;
}

const struct kv_policy kv_policy_roco = {
	.name = "roco",
	.cite = "Ren and Zhu 2024, arXiv:2402.06262",
	.scopes = KV_SCOPES_HEAD,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_RHO | KV_TAKES_STALE,
	.needs = KV_NEEDS_RECEIVED,
	.defaults = { .scope = KV_SCOPE_HEAD, .recent = 10, .rho = 0.3 },
	.score = score,
	.keep = keep,
};
