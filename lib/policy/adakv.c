/* AdaKV: the votes of SnapKV compete over all heads of a layer, so that heads keep different numbers of entries. */
#include <math.h>
#include <stdlib.h>

#include "policy/select.h"
#include "policy/window_votes.h"
#include "util/mem.h"

/*
 * The unprotected entries of a layer, oldest first, and heads ascending where ranks are equal: among equal scores the oldest goes, and of
 * the same age that of the lower head.
 */
struct contest {
	uint32_t n;
	float *score;		/* [n] +inf for those that nobody can take from their head */
	uint32_t *head, *best;	/* [n] */
};

static void
contest_free(struct contest *c)
{
	free(c->score);
	free(c->head);
	free(c->best);
}

/* Those that stay in their head whatever the others have: the `sure` best beside the protected ones. */
static enum kv_status
mark_sure(const struct kv_choice *c, uint32_t sure, bool *mark, struct kv_err *err)
{
	uint32_t k = c->sinks + c->newest + sure, *keep;
	enum kv_status rc = KV_OK;

	if (k >= c->n) {
		for (uint32_t i = 0; i < c->n; i++)
			mark[i] = true;
		return KV_OK;
	}
	if (!sure)
		return KV_OK;
	if (!(keep = kv_array_new(k, sizeof *keep)))
		return kv_fail_mem(err, "sure entries");
	rc = kv_select(c->score, c->n, k, c->sinks, c->newest, keep, err);
	for (uint32_t i = 0; rc == KV_OK && i < k; i++)
		mark[keep[i]] = true;
	free(keep);
	return rc;
}

static enum kv_status
gather(const struct kv_choice *head, unsigned heads, const uint32_t *sure, struct contest *out, struct kv_err *err)
{
	uint32_t longest = 0;
	size_t all = 0;
	bool *mark;		/* [heads][longest] */
	enum kv_status rc = KV_OK;

	for (unsigned h = 0; h < heads; h++) {
		all += head[h].n;
		if (head[h].n > longest)
			longest = head[h].n;
	}
	if (all > UINT32_MAX)
		return kv_fail(err, KV_EFIT, "more than 2^32 entries in a layer");
	mark = kv_array_new((size_t)heads * longest, sizeof *mark);
	*out = (struct contest){ 0, kv_array_new(all, sizeof *out->score), kv_array_new(all, sizeof *out->head),
		kv_array_new(all, sizeof *out->best) };
	if (!mark || !out->score || !out->head || !out->best)
		rc = kv_fail_mem(err, "a contest of heads");
	for (unsigned h = 0; h < heads && rc == KV_OK; h++)
		rc = mark_sure(&head[h], sure[h], mark + (size_t)h * longest, err);
	for (uint32_t i = 0; i < longest && rc == KV_OK; i++)
		for (unsigned h = 0; h < heads; h++) {
			if (i < head[h].sinks || i + head[h].newest >= head[h].n)
				continue;
			out->score[out->n] = mark[(size_t)h * longest + i] ? INFINITY : head[h].score[i];
			out->head[out->n++] = h;
		}
	free(mark);
	return rc;
}

/* won [heads] = how many of the `total` best fall to each head. */
static enum kv_status
settle(const struct contest *c, uint64_t total, uint32_t *won, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	if (total < c->n)
		rc = kv_select(c->score, c->n, (uint32_t)total, 0, 0, c->best, err);
	for (uint32_t i = 0; rc == KV_OK && i < c->n && i < total; i++)
		won[c->head[total < c->n ? c->best[i] : i]]++;
	return rc;
}

/* Feng et al. 2407.11550: their code blends the shares with an even floor and rounds, half to even, so that the total may be missed. */
static uint32_t
blended(uint32_t won, uint32_t even, double alpha)
{
	return (uint32_t)rint(won * (1 - alpha) + kv_share_of(alpha, even));
}

static enum kv_status
allot(const struct kv_scene *s, unsigned layer, struct kv_choice *head, const char **remark, struct kv_err *err)
{
	const struct kv_policy_opts *o = s->opts;
	unsigned heads = s->cache->geom.n_heads_kv;
	bool exact = o->alloc == KV_ALLOC_KVPRESS;
	uint32_t *sure = kv_array_new(heads, sizeof *sure), *won = kv_array_new(heads, sizeof *won);
	struct contest c = { 0 };
	uint64_t total = 0;
	enum kv_status rc;

	(void)layer;
	(void)remark;
	if (!sure || !won) {
		rc = kv_fail_mem(err, "shares");
		goto out;
	}
	for (unsigned h = 0; h < heads; h++) {
		uint32_t bound = head[h].sinks + head[h].newest, share = kv_share_of(o->alpha, head[h].k);

		rc = KV_OK;
		if (bound > head[h].k)
			goto out;	/* reported where the head is cut */
		total += head[h].k - bound;
		/* kvpress 0.5.5 grants each head at least one entry. */
		if (o->alpha > 0 && !share)
			share = 1;
		sure[h] = exact && share > bound ? share - bound : 0;
	}
	if ((rc = gather(head, heads, sure, &c, err)) != KV_OK || (rc = settle(&c, total, won, err)) != KV_OK)
		goto out;
	for (unsigned h = 0; h < heads; h++) {
		uint32_t bound = head[h].sinks + head[h].newest, open = head[h].n - bound;
		uint32_t more = exact ? won[h] : blended(won[h], head[h].k - bound, o->alpha);

		head[h].k = bound + (more < open ? more : open);
	}
out:
	contest_free(&c);
	free(sure);
	free(won);
	return rc;
}

const struct kv_policy kv_policy_adakv = {
	.name = "adakv",
	.cite = "Feng et al. 2024, arXiv:2407.11550",
	.scopes = KV_SCOPES_HEAD,
	.takes = KV_TAKES_VOTES | KV_TAKES_ALPHA | KV_TAKES_ALLOC,
	.needs = KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_TURNS,
	.keeps_voters = true,
	.defaults = { KV_VOTES_BY_DEFAULT, .alpha = 0.2 },
	.score = kv_window_votes,
	.allot = allot,
};
