/* SirLLM: the tokens that surprised the model, sinks, and recent ones to fill up (Yao et al. 2405.12528). */
#include <math.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "policy/select.h"
#include "util/half.h"
#include "util/mem.h"

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	float nll;

	(void)err;
	for (uint32_t i = 0; i < l->n; i++) {
		out[i] = s->opts->first_nll == KV_FIRST_INF ? (double)INFINITY : 0;
		if (kv_cache_nll(s->cache, l->src[i], &nll))
			out[i] = (double)nll;
	}
	return KV_OK;
}

/*
 * The code's eviction before a turn, k being what it leaves: k less the sinks and the recent share go to the largest surprisal, wherever
 * it is. What overlaps with the sinks is not given to the next best but filled up from the newest backwards, and so is the recent share.
 */
static enum kv_status
keep(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, struct kv_err *err)
{
	uint32_t by_surprise = c->k - c->sinks - c->newest, kept = 0;
	bool *stays = kv_array_new(c->n, sizeof *stays);
	enum kv_status rc;

	(void)s;
	(void)layer;
	(void)head;
	if (!stays)
		return kv_fail_mem(err, "a kept set");
	if ((rc = kv_select(c->score, c->n, by_surprise, 0, 0, c->keep, err)) != KV_OK)
		goto out;
	for (uint32_t i = 0; i < c->sinks; i++)
		stays[i] = true;
	for (uint32_t i = 0; i < by_surprise; i++)
		stays[c->keep[i]] = true;
	for (uint32_t i = 0; i < c->n; i++)
		kept += stays[i];
	for (uint32_t i = c->n; kept < c->k; )
		if (!stays[--i]) {
			stays[i] = true;
			kept++;
		}
	for (uint32_t i = 0, at = 0; i < c->n; i++)
		if (stays[i])
			c->keep[at++] = i;
out:
	free(stays);
	return rc;
}

static void
fade(uint32_t *nll, uint32_t n, float by)
{
	for (uint32_t i = 0; i < n; i++)
		if (bits_f32(nll[i]) >= 0)	/* below zero stands for none */
			nll[i] = f32_bits(bits_f32(nll[i]) * by);
}

/* Once a turn, on all that was read until now, kept or not. The sums behind the perplexity stay what they were. */
static void
after(struct kv_cache *c, const struct kv_policy_opts *o)
{
	if (o->decay >= 1)
		return;
	fade(c->nll.v, c->nll.n, (float)o->decay);
	fade(c->nll.sparse, c->nll.n_sparse, (float)o->decay);
}

const struct kv_policy kv_policy_sirllm = {
	.name = "sirllm",
	.cite = "Yao et al. 2024, arXiv:2405.12528",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_MODEL,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_DECAY | KV_TAKES_FIRST_NLL,
	.needs = KV_NEEDS_NLL,
	.defaults = { .scope = KV_SCOPE_MODEL, .sinks = 4, .decay = 1 },
	.score = score,
	.keep = keep,
	.after = after,
};
