/* Scores, and kept sets, that a file gives to kv-evict. */
#include "stage/evict_given.h"

#include <math.h>
#include <stdlib.h>

#include "util/mem.h"

static size_t
n_lists(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv;
}

void
kv_evict_scores_free(float **given, const struct kv_cache *c)
{
	for (size_t i = 0; given && i < n_lists(c); i++)
		free(given[i]);
	free(given);
}

static void
take_score(void *arg, size_t list, uint32_t slot, double value)
{
	float **given = arg;

	given[list][slot] = (float)value;
}

enum kv_status
kv_evict_scores_given(const struct kv_tsv *t, const struct kv_cache *c, float ***out, struct kv_err *err)
{
	unsigned heads = c->geom.n_heads_kv;
	float **given = kv_array_new(n_lists(c), sizeof *given);
	enum kv_status rc = KV_OK;

	for (size_t i = 0; given && i < n_lists(c) && rc == KV_OK; i++) {
		if (!(given[i] = kv_array_new(c->list[i].n, sizeof **given)))
			rc = kv_fail_mem(err, "scores");
		for (uint32_t r = 0; rc == KV_OK && r < c->list[i].n; r++)
			given[i][r] = NAN;
	}
	if (!given)
		return kv_fail_mem(err, "scores");
	if (rc == KV_OK)
		rc = kv_tsv_visit(t, c, take_score, given, err);
	for (size_t i = 0; i < n_lists(c) && rc == KV_OK; i++)
		for (uint32_t r = 0; r < c->list[i].n && rc == KV_OK; r++)
			if (isnan(given[i][r]))
				rc = kv_fail(err, KV_EFIT, "%s: no score for layer %zu head %zu slot %u",
					t->name, i / heads, i % heads, r);
	if (rc != KV_OK) {
		kv_evict_scores_free(given, c);
		return rc;
	}
	*out = given;
	return KV_OK;
}

static void
take_kept(void *arg, size_t list, uint32_t slot, double value)
{
	struct kv_plan *p = arg;

	(void)value;
	p->choice[list].score[slot] = 1;
}

enum kv_status
kv_evict_kept_given(const struct kv_tsv *t, const struct kv_cache *c, struct kv_plan **out, struct kv_err *err)
{
	struct kv_plan *p = kv_array_new(1, sizeof *p);
	enum kv_status rc;

	if (p) {
		p->per_unit = 1;
		p->n_choices = n_lists(c);
		p->choice = kv_array_new(p->n_choices, sizeof *p->choice);
	}
	if (!p || !p->choice)
		goto no_memory;
	for (size_t i = 0; i < p->n_choices; i++) {
		p->choice[i].n = c->list[i].n;
		if (!(p->choice[i].score = kv_array_new(c->list[i].n, sizeof *p->choice[i].score)))
			goto no_memory;
	}
	if ((rc = kv_tsv_visit(t, c, take_kept, p, err)) != KV_OK) {
		kv_plan_free(p);
		return rc;
	}
	for (size_t i = 0; i < p->n_choices; i++) {
		struct kv_choice *ch = &p->choice[i];

		if (!(ch->keep = kv_array_new(ch->n, sizeof *ch->keep)))
			goto no_memory;
		for (uint32_t r = 0; r < ch->n; r++)
			if (ch->score[r] > 0)
				ch->keep[ch->k++] = r;
	}
	*out = p;
	return KV_OK;
no_memory:
	kv_plan_free(p);
	return kv_fail_mem(err, "a kept set");
}
