/*
 * InfiniPot: part of a full pot stays by surprisal, the rest by what a catalyst prompt attends to (Kim et al. 2410.01518). Its authors
 * published no code: what the paper leaves open is an option here.
 */
#include <math.h>
#include <stdlib.h>

#include "policy/round_votes.h"
#include "policy/select.h"
#include "policy/window_votes.h"
#include "util/mem.h"

/* How many of `open` places go by surprisal. Integers throughout: 29% of 100 is 29. */
static uint32_t
novel_share(const struct kv_policy_opts *o, uint32_t open)
{
	if (o->nuc.den)
		return (uint32_t)(open * o->nuc.num / o->nuc.den);
	return o->nuc.num < open ? (uint32_t)o->nuc.num : open;
}

/* What the options alone say of the two parts: may there be any? */
static void
parts(const struct kv_policy_opts *o, bool *novel, bool *attended)
{
	uint64_t k = o->budget.num, bound = (uint64_t)o->sinks + (uint64_t)(o->recent > o->protect_last ? o->recent : o->protect_last);
	uint32_t open;

	*novel = o->nuc.num;
	*attended = !o->nuc.den || o->nuc.num < o->nuc.den;
	if (!k || o->budget.den || o->last_refill == KV_REFILL_EXACT)
		return;		/* how many places there are to share is not known yet */
	k = k > bound ? k - bound : 0;
	open = k < UINT32_MAX ? (uint32_t)k : UINT32_MAX;
	*novel = novel_share(o, open);
	*attended = novel_share(o, open) < open;
}

static void
spare(const struct kv_policy_opts *o, unsigned *needs, unsigned *reads)
{
	bool novel, attended, last = o->by == KV_BY_LAST;

	parts(o, &novel, &attended);
	if (!novel)
		*needs &= ~(unsigned)KV_NEEDS_NLL;
	if (!attended || !last)
		*needs &= ~(unsigned)KV_NEEDS_LAST;
	if (!attended || last)
		*needs &= ~(unsigned)KV_NEEDS_PROBE;
	if (!attended || !last)
		*reads = 0;
}

/* Before the last refill, keep what leaves just room for it, for the probe or what was reserved, whichever is more. */
static enum kv_status
widen(const struct kv_cache *c, struct kv_choice *ch, struct kv_err *err)
{
	const struct kvs_obsr *r = &c->round;
	uint64_t after = (uint64_t)r->waiting + (r->probe > r->reserve ? r->probe : r->reserve);

	if (!c->has_round || !r->fill)
		return kv_fail(err, KV_EFIT, "no round of filling on record, which --last-refill exact needs: run kv-prefill with --fill");
	/* Where as much waits as fits, more may wait behind it. */
	if (r->waiting < r->fill && after < r->fill && r->fill - after > ch->k)
		ch->k = r->fill - after < ch->n ? (uint32_t)(r->fill - after) : ch->n;
	return KV_OK;
}

static enum kv_status
budget(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, const char **remark, struct kv_err *err)
{
	const struct kv_policy_opts *o = s->opts;
	uint32_t unseen = c->n - kv_round_seen(s->cache, KV_SUMS_PROBE, layer, head), bound;
	bool novel, attended;
	float nll;
	enum kv_status rc;

	if (o->last_refill == KV_REFILL_EXACT && (rc = widen(s->cache, c, err)) != KV_OK)
		return rc;
	parts(o, &novel, &attended);
	if (attended && o->by == KV_BY_PROBE) {
		/* What the probe could not see does not compete. */
		if (unseen == c->n) {
			c->k = c->n;
			*remark = "infinipot: there was nothing for the probe to see, all entries stay";
		}
		if (c->newest < unseen)
			c->newest = unseen < c->n - c->sinks ? unseen : c->n - c->sinks;
	}
	bound = c->sinks + c->newest;
	if (c->k < c->n && c->k > bound && novel_share(o, c->k - bound) && o->first_nll == KV_FIRST_INF &&
	    !kv_cache_nll(s->cache, kv_cache_list(s->cache, layer, head)->src[0], &nll))
		*remark = "infinipot: tokens without a surprisal, such as the first, count as the most surprising";
	return KV_OK;
}

static float
surprisal(const struct kv_scene *s, uint32_t src)
{
	float nll;

	if (kv_cache_nll(s->cache, src, &nll))
		return nll;
	return s->opts->first_nll == KV_FIRST_INF ? INFINITY : 0;
}

static enum kv_status
attention(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	uint32_t n = kv_cache_list(s->cache, layer, head)->n;
	double *votes = kv_array_new(n, sizeof *votes);
	enum kv_status rc;

	if (!votes)
		return kv_fail_mem(err, "votes");
	if (s->opts->by == KV_BY_LAST)
		rc = kv_last_votes(s, layer, head, votes, err);
	else
		rc = kv_round_votes(s, KV_SUMS_PROBE, layer, head, votes, err);
	if (rc == KV_OK)
		kv_votes_pool(s->opts, votes, n, out);
	free(votes);
	return rc;
}

/* Of the two steps the last: attention, unless surprisal takes all. */
static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	bool novel, attended;

	parts(s->opts, &novel, &attended);
	if (attended)
		return attention(s, layer, head, out, err);
	for (uint32_t i = 0; i < l->n; i++)
		out[i] = (double)surprisal(s, l->src[i]);
	return KV_OK;
}

/* Marks the k best of those that are not marked yet; rank, value [n] are scratch. */
static enum kv_status
mark_best(uint32_t n, uint32_t k, const float *all, uint32_t *rank, float *value, uint32_t *best, bool *stays, struct kv_err *err)
{
	uint32_t m = 0;
	enum kv_status rc = KV_OK;

	for (uint32_t i = 0; i < n; i++)
		if (!stays[i]) {
			value[m] = all[i];
			rank[m++] = i;
		}
	if (k < m)
		rc = kv_select(value, m, k, 0, 0, best, err);
	for (uint32_t i = 0; rc == KV_OK && i < k && i < m; i++)
		stays[rank[k < m ? best[i] : i]] = true;
	return rc;
}

/* The most surprising first, the most attended of the rest: two quotas, nothing is added up. */
static enum kv_status
keep(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	uint32_t open = c->k - c->sinks - c->newest, novel = novel_share(s->opts, open);
	bool *stays = kv_array_new(c->n, sizeof *stays);
	float *nll = kv_array_new(c->n, sizeof *nll), *value = kv_array_new(c->n, sizeof *value);
	uint32_t *rank = kv_array_new(c->n, sizeof *rank), *best = kv_array_new(c->n, sizeof *best);
	enum kv_status rc;

	if (!stays || !nll || !value || !rank || !best) {
		rc = kv_fail_mem(err, "a kept set");
		goto out;
	}
	for (uint32_t i = 0; i < c->n; i++) {
		stays[i] = i < c->sinks || i >= c->n - c->newest;
		nll[i] = surprisal(s, l->src[i]);
	}
	if ((rc = mark_best(c->n, novel, nll, rank, value, best, stays, err)) != KV_OK ||
	    (rc = mark_best(c->n, open - novel, c->score, rank, value, best, stays, err)) != KV_OK)
		goto out;
	for (uint32_t i = 0, at = 0; i < c->n; i++)
		if (stays[i])
			c->keep[at++] = i;
out:
	free(stays);
	free(nll);
	free(value);
	free(rank);
	free(best);
	return rc;
}

const struct kv_policy kv_policy_infinipot = {
	.name = "infinipot",
	.cite = "Kim et al. 2024, arXiv:2410.01518",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_BY | KV_TAKES_NUC | KV_TAKES_NUC_CARRY | KV_TAKES_FIRST_NLL |
		KV_TAKES_LAST_REFILL | KV_TAKES_POOL | KV_TAKES_GQA,
	.by = 1 << KV_BY_PROBE | 1 << KV_BY_LAST,
	.needs = KV_NEEDS_NLL | KV_NEEDS_PROBE | KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_TURNS,
	.spare = spare,
	.defaults = { .scope = KV_SCOPE_HEAD, .last = 1, .nuc = { 50, 100 }, .pool = { KV_POOL_NONE, 1 } },
	.budget = budget,
	.score = score,
	.keep = keep,
};
