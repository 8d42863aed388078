/* Scissorhands: entries that many of the last queries found important stay (Liu et al. 2305.17118). */
#include <math.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "util/mem.h"

struct record {
	uint32_t *seen, *above, *below;	/* [n] queries that saw the entry; paid it more, less than the even share */
};

/* a [m][n] = mean over the group of what the queries w … w + m - 1 of the record pay. */
static enum kv_status
group_rows(const struct kv_scene *s, unsigned layer, unsigned head, uint32_t w, uint32_t m, const float *keys, float *rows, double *a,
	struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	size_t n = (size_t)m * kv_cache_list(c, layer, head)->n;
	unsigned group = c->geom.n_heads / c->geom.n_heads_kv;
	enum kv_status rc;

	for (size_t i = 0; i < n; i++)
		a[i] = 0;
	for (unsigned g = 0; g < group; g++) {
		if ((rc = kv_attention_rows(c, s->turns, layer, head * group + g, w, m, keys, rows, err)) != KV_OK)
			return rc;
		kv_score_round_rows(s->opts, rows, n);
		for (size_t i = 0; i < n; i++)
			a[i] += (double)rows[i];
	}
	for (size_t i = 0; i < n; i++)
		a[i] /= group;
	return KV_OK;
}

/* Not a number is neither above nor below: it has to be looked for. */
static bool
count_row(const struct kv_policy_opts *o, const struct kv_list *l, uint32_t src, const double *a, struct record *r)
{
	float even = 1.0f / (float)l->n;

	for (uint32_t i = 0; i < l->n && l->src[i] <= src; i++) {
		float paid = kv_score_round(o, a[i]);

		if (isnan(paid))
			return false;
		r->seen[i]++;
		r->above[i] += paid > even;
		r->below[i] += paid < even;
	}
	return true;
}

/*
 * The printed algorithm contradicts itself. b: the rate at which queries paid more than the even share, 1 / entries. a: how often they
 * paid less, over the whole window, so that the young are favoured. An entry that no query has seen yet stays in both.
 */
static double
verdict(const struct kv_policy_opts *o, const struct record *r, uint32_t i)
{
	if (!r->seen[i])
		return INFINITY;
	return o->reading == KV_READING_UNIMPORTANT ? -(double)r->below[i] : (double)r->above[i] / r->seen[i];
}

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_queries *q = &s->cache->queries[layer];
	const struct kv_list *l = kv_cache_list(s->cache, layer, head);
	struct record r = { kv_array_new(l->n, sizeof *r.seen), kv_array_new(l->n, sizeof *r.above), kv_array_new(l->n, sizeof *r.below) };
	float *keys = NULL, *rows = kv_block_new(KV_ROWS_AT_ONCE, l->n * sizeof *rows);
	double *paid = kv_block_new(KV_ROWS_AT_ONCE, l->n * sizeof *paid);
	enum kv_status rc;

	if (!rows || !paid || !r.seen || !r.above || !r.below) {
		rc = kv_fail_mem(err, "counts");
		goto out;
	}
	if ((rc = kv_keys_turned(s->cache, s->turns, layer, head, &keys, err)) != KV_OK)
		goto out;
	for (uint32_t w = q->w - kv_voters(s->opts, q), m; w < q->w; w += m) {
		m = q->w - w < KV_ROWS_AT_ONCE ? q->w - w : KV_ROWS_AT_ONCE;
		if ((rc = group_rows(s, layer, head, w, m, keys, rows, paid, err)) != KV_OK)
			goto out;
		for (uint32_t i = 0; i < m; i++)
			if (!count_row(s->opts, l, q->src[w + i], paid + (size_t)i * l->n, &r)) {
				out[0] = NAN;
				goto out;
			}
	}
	for (uint32_t i = 0; i < l->n; i++)
		out[i] = verdict(s->opts, &r, i);
out:
	kv_block_free(keys);
	kv_block_free(rows);
	kv_block_free(paid);
	free(r.seen);
	free(r.above);
	free(r.below);
	return rc;
}

const struct kv_policy kv_policy_scissorhands = {
	.name = "scissorhands",
	.cite = "Liu et al. 2023, arXiv:2305.17118",
	.scopes = KV_SCOPES_HEAD,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_LAST | KV_TAKES_READING | KV_TAKES_SCORE_DTYPE,
	.needs = KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_TURNS,
	.record = 400,
	.defaults = { .scope = KV_SCOPE_HEAD, .recent = 10, .last = KV_LAST_ALL, .reading = KV_READING_RATE },
	.score = score,
};
