/* What the forward pass records beside keys and values: surprisals, and the attention that entries receive. */
#include <stdlib.h>
#include <string.h>

#include "model/forward_parts.h"
#include "model/sample.h"
#include "util/mem.h"

enum { PANEL_TOKENS = 64, PANEL_BYTES = 16 << 20 };	/* logits at a time */

struct scoring {
	const float *logits;		/* [n][vocabulary] */
	size_t vocab;
	const uint32_t *ids;		/* [n] the tokens that came */
	float *nll;			/* [n] */
};

static void
score_token(void *arg, size_t i, unsigned thread)
{
	const struct scoring *s = arg;
	double p = kv_logprob(s->logits + i * s->vocab, s->vocab, s->ids[i]);

	(void)thread;
	s->nll[i] = p < 0 ? (float)-p : 0;	/* below 0 would say "none" */
}

/* nll_i = -ln P(ids_i) by the state that came before it, for n tokens, a panel of logits at a time. */
static enum kv_status
score(struct kv_engine *e, const float *hidden, const uint32_t *ids, size_t n, float *nll, struct kv_err *err)
{
	size_t vocab = e->m->geom.n_vocab, panel = PANEL_BYTES / (vocab * sizeof *e->logits);

	panel = panel < 1 ? 1 : panel > PANEL_TOKENS ? PANEL_TOKENS : panel;
	if (!e->logits && !(e->logits = kv_block_new(panel * vocab, sizeof *e->logits)))
		return kv_fail_mem(err, "logits");
	for (size_t at = 0; at < n; at += panel) {
		size_t here = n - at < panel ? n - at : panel;
		struct scoring s = { e->logits, vocab, ids + at, nll + at };

		if (!kv_unembed(e, hidden + at * e->m->geom.n_embd, here, e->logits))
			return kv_fail_mem(err, "logits");
		kv_pool_run(e->pool, here, score_token, &s);
	}
	return KV_OK;
}

enum kv_status
kv_observe_nll(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, struct kv_err *err)
{
	float *nll = kv_array_new(m, sizeof *nll);
	enum kv_status rc = KV_OK;

	if (!nll)
		return kv_fail_mem(err, "surprisals");
	nll[0] = -1;
	if (c->hidden)
		rc = score(e, c->hidden, ids, 1, nll, err);
	if (rc == KV_OK)
		rc = score(e, e->h, ids + 1, m - 1, nll + 1, err);
	if (rc == KV_OK)
		rc = kv_cache_add_nll(c, nll, (uint32_t)m, err);
	free(nll);
	return rc;
}

enum kv_status
kv_received_begin(struct kv_engine *e, const struct kv_cache *c, unsigned layer, bool lists, struct kv_err *err)
{
	unsigned heads = c->geom.n_heads_kv, group = c->geom.n_heads / heads;
	size_t need = 0, parts = (lists ? 2 : 0) + (e->by_head ? group : 0);
	double *at;

	for (unsigned h = 0; h < heads; h++)
		need += parts * kv_cache_list(c, layer, h)->n;
	if (need > e->n_sums) {
		kv_block_free(e->sums);
		e->n_sums = 0;
		if (!(e->sums = kv_block_new(need + need / 4, sizeof *e->sums)))
			return kv_fail_mem(err, "sums of attention");
		e->n_sums = need + need / 4;
	}
	at = e->sums;
	memset(at, 0, need * sizeof *at);
	for (unsigned h = 0; h < heads; h++) {
		size_t n = kv_cache_list(c, layer, h)->n;
		struct kv_attn_sums *to = &e->received[h];

		*to = (struct kv_attn_sums){ 0 };
		if (lists) {
			to->sum = at;
			to->square = at + n;
			at += 2 * n;
		}
		if (e->by_head) {
			to->by_head = at;
			at += group * n;
		}
	}
	return KV_OK;
}

/* What the entries [0..cols) of a list received from each of its query heads; by_head [group][n]. */
static void
add_by_head(struct kv_sums_list *to, const double *by_head, unsigned group, size_t n)
{
	for (unsigned g = 0; g < group; g++)
		for (uint32_t i = 0; i < to->cols; i++)
			to->sum[(size_t)g * to->cols + i] = (float)((double)to->sum[(size_t)g * to->cols + i] + by_head[g * n + i]);
}

enum kv_status
kv_received_end(const struct kv_engine *e, struct kv_cache *c, unsigned layer, size_t m, bool lists, struct kv_err *err)
{
	unsigned heads = c->geom.n_heads_kv;
	enum kv_status rc = KV_OK;

	for (unsigned h = 0; rc == KV_OK && h < heads; h++) {
		struct kv_list *l = kv_cache_list(c, layer, h);

		if (e->by_head)
			add_by_head(&e->by_head->list[(size_t)layer * heads + h], e->received[h].by_head, c->geom.n_heads / heads, l->n);
		if (lists)
			rc = kv_received_add(l, (uint32_t)m, c->geom.layer[layer].window, e->received[h].sum, e->received[h].square, err);
	}
	return rc;
}
