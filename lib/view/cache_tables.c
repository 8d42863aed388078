/* Tables over a cache in memory: entries, tokens, surprisal, scores. */
#include "view/view.h"

#include <math.h>
#include <string.h>

#include "policy/plan.h"
#include "util/half.h"
#include "util/text.h"

static const char *const headers[] = {
	"layer\thead\tslot\tsource\tposition\ttoken\n",
	"source\ttoken\ttext\n",
	"source\ttoken\tnll\n",
};

static void
tab(struct kv_print *p)
{
	kv_buf_add(&p->buf, "\t", 1);
}

static void
print_entries(const struct kv_cache *c, unsigned l, unsigned h, struct kv_print *p)
{
	const struct kv_list *list = kv_cache_list(c, l, h);
	uint32_t id;

	for (uint32_t i = 0; i < list->n; i++) {
		kv_print_uint(p, l);
		tab(p);
		kv_print_uint(p, h);
		tab(p);
		kv_print_uint(p, i);
		tab(p);
		kv_print_uint(p, list->src[i]);
		tab(p);
		kv_print_uint(p, (uint64_t)list->pos[i]);
		tab(p);
		if (kv_cache_token(c, list->src[i], &id))
			kv_print_uint(p, id);
		kv_buf_add(&p->buf, "\n", 1);
	}
}

static enum kv_status
print_all_entries(const struct kv_cache *c, struct kv_print *p, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	for (unsigned l = 0; l < c->geom.n_layers && rc == KV_OK; l++)
		for (unsigned h = 0; h < c->geom.n_heads_kv && rc == KV_OK; h++) {
			print_entries(c, l, h, p);
			rc = kv_print_flush(p, false, err);
		}
	return rc;
}

/* Value i of a track, single ones first; its source index is the result. */
static uint32_t
track_at(const struct kv_track *t, size_t i, uint32_t *v)
{
	if (i < t->n_sparse) {
		*v = t->sparse[i];
		return t->src[i];
	}
	*v = t->v[i - t->n_sparse];
	return (uint32_t)(t->first + (i - t->n_sparse));
}

static void
print_token(struct kv_print *p, uint32_t src, uint32_t id, const struct kv_tokenizer *tok, struct kv_buf *text)
{
	kv_print_uint(p, src);
	tab(p);
	kv_print_uint(p, id);
	tab(p);
	text->len = 0;
	if (tok)
		kv_token_bytes(tok, id, true, text);
	kv_print_field(p, text->p, text->len);
	kv_buf_add(&p->buf, "\n", 1);
}

static void
print_nll(const struct kv_cache *c, struct kv_print *p, uint32_t src, float nll)
{
	uint32_t id;

	if (nll < 0)
		return;
	kv_print_uint(p, src);
	tab(p);
	if (kv_cache_token(c, src, &id))
		kv_print_uint(p, id);
	kv_buf_printf(&p->buf, "\t%.9g\n", (double)nll);
}

static enum kv_status
print_track(const struct kv_cache *c, bool nll, const struct kv_tokenizer *tok, struct kv_print *p, struct kv_err *err)
{
	const struct kv_track *t = nll ? &c->nll : &c->tokens;
	size_t n = nll ? (c->has_nll ? (size_t)t->n_sparse + t->n : 0) : c->state.ids ? (size_t)t->n_sparse + t->n : 0;
	struct kv_buf text = { 0 };
	enum kv_status rc = KV_OK;

	for (size_t i = 0; i < n && rc == KV_OK; i++) {
		uint32_t v, src = track_at(t, i, &v);

		if (nll)
			print_nll(c, p, src, bits_f32(v));
		else
			print_token(p, src, v, tok, &text);
		p->buf.failed |= text.failed;
		rc = kv_print_flush(p, false, err);
	}
	kv_buf_free(&text);
	return rc;
}

enum kv_status
kv_cache_table(const struct kv_cache *c, enum kv_cache_table which, const struct kv_tokenizer *tok, bool header, struct kv_print *p,
	struct kv_err *err)
{
	enum kv_status rc;

	if (which == KV_TABLE_NLL && !c->has_nll)
		return kv_fail(err, KV_EFIT, "no NLL in the snapshot: run kv-prefill with --observe nll");
	if (which == KV_TABLE_TOKENS && !c->state.ids && c->state.consumed)
		return kv_fail(err, KV_EFIT, "no token ids in the snapshot");
	if (header)
		kv_buf_printf(&p->buf, "%s", headers[which]);
	rc = which == KV_TABLE_ENTRIES ? print_all_entries(c, p, err) : print_track(c, which == KV_TABLE_NLL, tok, p, err);
	return rc == KV_OK ? kv_print_flush(p, false, err) : rc;
}

enum kv_status
kv_perplexity(const struct kv_cache *c, struct kv_print *p, struct kv_err *err)
{
	double mean;

	if (!c->has_nll)
		return kv_fail(err, KV_EFIT, "no NLL in the snapshot: run kv-prefill with --observe nll");
	if (c->nll_kind)
		return kv_fail(err, KV_EFIT, "the surprisal in the snapshot is not a likelihood (nll=sirllm): its mean says nothing");
	if (!c->nll_count)
		return kv_fail(err, KV_EFIT, "no token of the snapshot has an NLL: the first of a text has none");
	mean = c->nll_sum / (double)c->nll_count;
	kv_buf_printf(&p->buf, "%llu\t%.6f\t%.6f\n", (unsigned long long)c->nll_count, mean, exp(mean));
	return kv_print_flush(p, false, err);
}

enum kv_status
kv_score_table_check(const char *policy, struct kv_err *err)
{
	char q[80];

	if (kv_policy_find(policy))
		return KV_OK;
	return kv_fail(err, KV_EUSAGE, "--tsv scores: there is no policy '%s' (kv-evict --list names them)",
		kv_quote(q, sizeof q, policy, strlen(policy)));
}

static enum kv_status
print_scores(const struct kv_plan *plan, const struct kv_cache *c, struct kv_print *p, struct kv_err *err)
{
	unsigned heads = c->geom.n_heads_kv;
	enum kv_status rc = KV_OK;

	for (size_t list = 0; list < (size_t)c->geom.n_layers * heads && rc == KV_OK; list++) {
		const struct kv_choice *choice = kv_plan_choice(plan, list);

		for (uint32_t i = 0; i < choice->n; i++)
			kv_buf_printf(&p->buf, "%zu\t%zu\t%lu\t%lu\t%.9g\n", list / heads, list % heads, (unsigned long)i,
				(unsigned long)c->list[list].src[i], (double)choice->score[i]);
		rc = kv_print_flush(p, false, err);
	}
	return rc;
}

enum kv_status
kv_score_table(struct kv_cache *c, const char *policy, struct kv_pool *pool, bool header, struct kv_print *p, struct kv_err *err)
{
	/* Nothing is to go; the scores do not depend on a budget. */
	struct kv_policy_opts opts = { .budget = { 1, 1 } };
	struct kv_plan_how how = { .policy = kv_policy_find(policy), .opts = &opts, .want_scores = true };
	struct kv_plan *plan;
	enum kv_status rc;

	if ((rc = kv_score_table_check(policy, err)) != KV_OK || (rc = kv_policy_settle(how.policy, &opts, err)) != KV_OK ||
	    (rc = kv_policy_fits(how.policy, &opts, c, err)) != KV_OK || (rc = kv_plan_make(&how, c, pool, &plan, err)) != KV_OK)
		return rc;
	if (header)
		kv_buf_printf(&p->buf, "layer\thead\tslot\tsource\tscore\n");
	rc = print_scores(plan, c, p, err);
	kv_plan_free(plan);
	return rc;
}
