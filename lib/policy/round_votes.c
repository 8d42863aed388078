/* Votes of a round: f64 over what is on record, query heads ascending. */
#include "policy/round_votes.h"

static const struct kv_sums_list *
record(const struct kv_cache *c, enum kv_sums_of which, unsigned layer, unsigned head)
{
	return &c->sums[which].list[(size_t)layer * c->geom.n_heads_kv + head];
}

uint32_t
kv_round_seen(const struct kv_cache *c, enum kv_sums_of which, unsigned layer, unsigned head)
{
	return c->sums[which].there ? record(c, which, layer, head)->cols : 0;
}

/* By what a sum over the rows is divided; 0: the rows are no such sums. */
static unsigned
rows_share(const struct kv_sums *s, int gqa, unsigned group)
{
	if (s->rows == group)
		return group;
	if (gqa == KV_JOIN_MAX || s->reduction == 2)
		return 0;
	return s->reduction ? group : 1;
}

enum kv_status
kv_round_votes(const struct kv_scene *s, enum kv_sums_of which, unsigned layer, unsigned head, double *votes, struct kv_err *err)
{
	const struct kv_sums *sums = &s->cache->sums[which];
	const struct kv_sums_list *l = record(s->cache, which, layer, head);
	unsigned group = s->cache->geom.n_heads / s->cache->geom.n_heads_kv, share = rows_share(sums, s->opts->gqa, group);
	bool most = s->opts->gqa == KV_JOIN_MAX;
	uint32_t n = kv_cache_list(s->cache, layer, head)->n;

	if (!share && !(most && sums->reduction == 2))
		return kv_fail(err, KV_EFIT, "the snapshot holds attention by KV head, its query heads joined by the %s: not what is asked for",
			sums->reduction == 2 ? "maximum" : "mean");
	for (uint32_t i = 0; i < n; i++) {
		votes[i] = 0;
		for (uint32_t g = 0; g < sums->rows && i < l->cols; g++) {
			double x = (double)l->sum[(size_t)g * l->cols + i];

			votes[i] = !most ? votes[i] + x : x > votes[i] ? x : votes[i];
		}
		if (!most)
			votes[i] /= share;
	}
	return KV_OK;
}
