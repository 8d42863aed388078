/* PyramidKV: the votes of SnapKV, with budgets that fall from the first layer to the last. */
#include <math.h>

#include "policy/window_votes.h"

/*
 * Cai et al. 2406.02069, the integers of their code: what is kept beside the window falls in equal steps, rounded down, so that the mean
 * may come out above k. Short texts get the same everywhere.
 */
static uint32_t
official(uint64_t k, uint64_t window, uint64_t n, uint64_t beta, unsigned layer, unsigned layers)
{
	uint64_t mean = k - window, least = mean / beta, most = 2 * mean - least, step;

	if (n < 2 * mean)
		return (uint32_t)k;
	if (most >= n - window) {
		most = n - window;
		least = 2 * mean - most;
	}
	step = layers > 1 ? (most - least) / (layers - 1) : 0;
	return (uint32_t)(most - layer * step + window);
}

/* The arithmetic of kvpress 0.5.5: real numbers, the window inside the layer's budget, k everywhere unless the least holds the window. */
static uint32_t
kvpress(uint32_t k, uint32_t window, uint32_t n, int64_t beta, unsigned layer, unsigned layers, const char **remark)
{
	double least = (double)k / (double)beta, most = 2.0 * k - least, step;

	if (most >= n - window) {
		most = n - window;
		least = 2.0 * k - most;
	}
	if (!(n >= most && most >= least && least >= window)) {
		*remark = "pyramidkv: the smallest layer would not hold the window; all layers get the same";
		return k;
	}
	step = layers > 1 ? (most - least) / (layers - 1) : 0;
	return (uint32_t)rint(most - layer * step);	/* halves appear and vanish with the rounding of the step */
}

static enum kv_status
allot(const struct kv_scene *s, unsigned layer, struct kv_choice *head, const char **remark, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	const struct kv_policy_opts *o = s->opts;
	uint32_t window = kv_voters(o, &c->queries[layer]);
	unsigned layers = c->geom.n_layers;

	for (unsigned h = 0; h < c->geom.n_heads_kv; h++) {
		uint32_t n = head[h].n, k = head[h].k;

		if (k == n)
			continue;
		if (k < window)
			return kv_fail(err, KV_EFIT, "-k keeps %u entries, which the window of %u does not fit", k, window);
		k = o->alloc == KV_ALLOC_KVPRESS ? kvpress(k, window, n, o->beta, layer, layers, remark) :
			official(k, window, n, (uint64_t)o->beta, layer, layers);
		head[h].k = k < n ? k : n;
	}
	return KV_OK;
}

const struct kv_policy kv_policy_pyramidkv = {
	.name = "pyramidkv",
	.cite = "Cai et al. 2024, arXiv:2406.02069",
	.scopes = KV_SCOPES_HEAD,
	.takes = KV_TAKES_VOTES | KV_TAKES_BETA | KV_TAKES_ALLOC,
	.needs = KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_TURNS,
	.keeps_voters = true,
	.defaults = { KV_VOTES_BY_DEFAULT, .beta = 20 },
	.score = kv_window_votes,
	.allot = allot,
};
