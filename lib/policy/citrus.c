/* CItruS: of what was there before the chunk that came last, keep what a probe attends to, or that chunk itself (Bai et al. 2406.12018). */
#include "policy/round_votes.h"

static enum kv_sums_of
voters(const struct kv_policy_opts *o)
{
	return o->by == KV_BY_CHUNK ? KV_SUMS_CHUNK : KV_SUMS_PROBE;
}

/* Entries that compete: they were seen, and are older than the tokens that came last. */
static uint32_t
competitors(const struct kv_scene *s, unsigned layer, unsigned head)
{
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	uint32_t n = kv_round_seen(s->cache, voters(s->opts), layer, head);

	while (n && l->src[n - 1] >= s->cache->state.consumed - s->cache->state.tail)
		n--;
	return n;
}

/* -k is about those that compete; the tail stays on top of it. So the cache swings between k and k plus a chunk. */
static enum kv_status
budget(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, const char **remark, struct kv_err *err)
{
	uint32_t old = competitors(s, layer, head), tail = c->n - old;
	uint64_t k = kv_amount_of(s->opts->budget, old), recent = (uint64_t)s->opts->recent;

	(void)err;
	c->k = tail + (k < old ? (uint32_t)k : old);
	if (c->sinks > old)
		c->sinks = old;
	c->newest = tail + (recent < old - c->sinks ? (uint32_t)recent : old - c->sinks);
	if (!old)
		*remark = "citrus: nothing is older than what was read last, all of it stays";
	return KV_OK;
}

/* The paper's importance is the mean over queries and all query heads: here over the group, over KV heads by the scope. */
static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	enum kv_status rc = kv_round_votes(s, voters(s->opts), layer, head, out, err);

	for (uint32_t i = 0; rc == KV_OK && i < kv_cache_list(s->cache, layer, head)->n; i++)
		out[i] /= s->cache->sums[voters(s->opts)].queries;
	return rc;
}

static void
spare(const struct kv_policy_opts *o, unsigned *needs, unsigned *reads)
{
	(void)reads;
	*needs &= o->by == KV_BY_CHUNK ? ~(unsigned)KV_NEEDS_PROBE : ~(unsigned)KV_NEEDS_CHUNK;
}

const struct kv_policy kv_policy_citrus = {
	.name = "citrus",
	.cite = "Bai et al. 2024, arXiv:2406.12018",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_SINKS | KV_TAKES_RECENT | KV_TAKES_BY,
	.by = 1 << KV_BY_PROBE | 1 << KV_BY_CHUNK,
	.needs = KV_NEEDS_PROBE | KV_NEEDS_CHUNK,
	.spare = spare,
	.defaults = { .scope = KV_SCOPE_LAYER },
	.budget = budget,
	.score = score,
};
