/* Tables over a cache in memory: entries, tokens, surprisal, scores. */
#include "view/view.h"

#include <math.h>
#include <string.h>

#include "policy/policy.h"
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
	if (which == KV_TABLE_TOKENS && !c->state.ids)
		return kv_fail(err, KV_EFIT, "no token ids in the snapshot: it was made with --history none");
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
	return kv_fail(err, KV_EUSAGE, "--tsv scores: there is no policy '%s' (kv-evict --list names them)", kv_quote(q, sizeof q, policy, strlen(policy)));
}

/* The key of an option of kv-evict. */
static enum kv_status
evict_option(void *cfg, const char *name, const char *arg, struct kv_err *err)
{
	for (const struct kv_opt *o = kv_stage_evict.usage.tables[0]; o->key; o++)
		if (o->name && !strcmp(o->name, name))
			return kv_stage_evict.option(cfg, o->key, arg, err);
	return kv_fail(err, KV_EUNSUP, "kv-evict has no --%s", name);
}

/* A line of kv-evict --dry-run without its last column, which depends on a budget. */
static void
print_scores(const struct kv_buf *dry, bool header, struct kv_print *p)
{
	const char *at = (const char *)dry->p, *end = at + dry->len;

	while (at < end) {
		const char *eol = memchr(at, '\n', (size_t)(end - at)), *cut = eol ? eol : end;

		while (cut > at && cut[-1] != '\t')
			cut--;
		if (cut > at && (header || (at[0] >= '0' && at[0] <= '9'))) {
			kv_buf_add(&p->buf, at, (size_t)(cut - 1 - at));
			kv_buf_add(&p->buf, "\n", 1);
		}
		at = eol ? eol + 1 : end;
	}
}

enum kv_status
kv_score_table(struct kv_cache *c, const char *policy, struct kv_pool *pool, bool header, struct kv_print *p, struct kv_err *err)
{
	struct kv_notes notes = { 0 };
	void *cfg = NULL;
	enum kv_status rc;

	if ((rc = kv_stage_evict.start(&cfg, err)) != KV_OK)
		return rc;
	if ((rc = evict_option(cfg, "policy", policy, err)) != KV_OK || (rc = evict_option(cfg, "keep", "100%", err)) != KV_OK ||
	    (rc = evict_option(cfg, "dry-run", NULL, err)) != KV_OK || (rc = kv_stage_evict.ready(cfg, err)) != KV_OK ||
	    (rc = kv_stage_evict.run(cfg, c, pool, &notes, err)) != KV_OK)
		goto out;
	if (notes.text.failed)
		rc = kv_fail_mem(err, "scores");
	else {
		print_scores(&notes.text, header, p);
		rc = kv_print_flush(p, false, err);
	}
out:
	kv_stage_evict.free(cfg);
	kv_buf_free(&notes.report);
	kv_buf_free(&notes.text);
	return rc;
}
