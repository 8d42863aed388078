/* Votes of the last queries, joined over the group, then pooled. */
#include "policy/window_votes.h"

#include <stdlib.h>

#include "util/mem.h"

/* votes [n] = mean over the voting queries of the attention that query head q_head pays. */
static enum kv_status
votes_of(const struct kv_scene *s, unsigned layer, unsigned q_head, uint32_t n, const float *keys, float *rows, double *votes,
	struct kv_err *err)
{
	const struct kv_queries *q = &s->cache->queries[layer];
	uint32_t w = kv_voters(s->opts, q);
	enum kv_status rc;

	for (uint32_t i = 0; i < n; i++)
		votes[i] = 0;
	for (uint32_t j = q->w - w, m; j < q->w; j += m) {
		m = q->w - j < KV_ROWS_AT_ONCE ? q->w - j : KV_ROWS_AT_ONCE;
		if ((rc = kv_attention_rows(s->cache, s->turns, layer, q_head, j, m, keys, rows, err)) != KV_OK)
			return rc;
		kv_score_round_rows(s->opts, rows, (size_t)m * n);
		for (uint32_t r = 0; r < m; r++)
			for (uint32_t i = 0; i < n; i++)
				votes[i] += (double)rows[(size_t)r * n + i];
	}
	for (uint32_t i = 0; i < n; i++)
		votes[i] = (double)kv_score_round(s->opts, votes[i] / w);
	return KV_OK;
}

static void
join(const struct kv_policy_opts *o, double *all, const double *votes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		if (o->gqa == KV_JOIN_MEAN)
			all[i] += votes[i];
		else if (votes[i] > all[i])
			all[i] = votes[i];
}

/* avg divides by the width everywhere, as if zeros stood beyond the ends; max looks at what is there. A width of 1 changes nothing. */
void
kv_votes_pool(const struct kv_policy_opts *o, const double *x, uint32_t n, double *out)
{
	uint32_t half = o->pool.width / 2;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t from = i > half ? i - half : 0, to = i + half < n ? i + half + 1 : n;
		double sum = 0, most = x[i];

		for (uint32_t j = from; j < to; j++) {
			sum += x[j];
			if (x[j] > most)
				most = x[j];
		}
		out[i] = o->pool.kind == KV_POOL_AVG ? (double)kv_score_round(o, sum / o->pool.width) : most;
	}
}

/*
 * The group is joined first and pooled then, as the codes with a maximum over the neighbours do it (AdaKV, KVCache-Factory); for
 * averages the order does not matter. Neighbours end where the window begins.
 */
enum kv_status
kv_window_votes(const struct kv_scene *s, unsigned layer, unsigned head, double *score, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	const struct kv_queries *q = &c->queries[layer];
	const struct kv_list *l = kv_cache_list(c, layer, head);
	unsigned group = c->geom.n_heads / c->geom.n_heads_kv;
	uint32_t n = l->n, prefix = n, first = q->src[q->w - kv_voters(s->opts, q)];
	float *keys = NULL, *rows = kv_block_new(KV_ROWS_AT_ONCE, n * sizeof *rows);
	double *votes = kv_array_new(n, sizeof *votes), *all = kv_array_new(n, sizeof *all);
	enum kv_status rc;

	if (!rows || !votes || !all) {
		rc = kv_fail_mem(err, "votes");
		goto out;
	}
	if ((rc = kv_keys_turned(c, s->turns, layer, head, &keys, err)) != KV_OK)
		goto out;
	for (unsigned g = 0; g < group; g++) {
		if ((rc = votes_of(s, layer, head * group + g, n, keys, rows, votes, err)) != KV_OK)
			goto out;
		join(s->opts, all, votes, n);
	}
	for (uint32_t i = 0; i < n && s->opts->gqa == KV_JOIN_MEAN; i++)
		all[i] = (double)kv_score_round(s->opts, all[i] / group);
	while (prefix && l->src[prefix - 1] >= first)
		score[--prefix] = 0;
	kv_votes_pool(s->opts, all, prefix, score);
out:
	kv_block_free(keys);
	kv_block_free(rows);
	free(votes);
	free(all);
	return rc;
}

enum kv_status
kv_last_votes(const struct kv_scene *s, unsigned layer, unsigned head, double *score, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	uint32_t n = kv_cache_list(c, layer, head)->n;
	unsigned group = c->geom.n_heads / c->geom.n_heads_kv;
	float *keys = NULL, *row = kv_array_new(n, sizeof *row);	/* [n][d_k], [n] */
	double *votes = kv_array_new(n, sizeof *votes);
	enum kv_status rc;

	if (!row || !votes) {
		rc = kv_fail_mem(err, "votes");
		goto out;
	}
	if ((rc = kv_keys_turned(c, s->turns, layer, head, &keys, err)) != KV_OK)
		goto out;
	for (uint32_t i = 0; i < n; i++)
		score[i] = 0;
	for (unsigned g = 0; g < group; g++) {
		if ((rc = kv_attention_rows(c, s->turns, layer, head * group + g, c->queries[layer].w - 1, 1, keys, row, err)) != KV_OK)
			goto out;
		for (uint32_t i = 0; i < n; i++)
			votes[i] = (double)kv_score_round(s->opts, (double)row[i]);
		join(s->opts, score, votes, n);
	}
	for (uint32_t i = 0; i < n && s->opts->gqa == KV_JOIN_MEAN; i++)
		score[i] /= group;
out:
	kv_block_free(keys);
	free(row);
	free(votes);
	return rc;
}
