/* From a policy and a budget to kept sets: score every list, average over the scope, select. */
#include "policy/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache/jobs.h"
#include "policy/select.h"
#include "util/mem.h"

struct making {
	const struct kv_plan_how *how;
	struct kv_cache *cache;
	struct kv_plan *plan;
	struct kv_scene scene;
	double **score;		/* [list] an array [n]; NULL where none is wanted */
};

static size_t
n_lists(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv;
}

static enum kv_status
fail_at(const struct making *m, size_t list, const char *what, struct kv_err *err)
{
	unsigned heads = m->cache->geom.n_heads_kv;

	return kv_fail(err, KV_EFIT, "layer %zu head %zu: %s", list / heads, list % heads, what);
}

static size_t
lists_per_unit(const struct kvs_geom *g, enum kv_scope scope)
{
	if (scope == KV_SCOPE_HEAD)
		return 1;
	return scope == KV_SCOPE_LAYER ? g->n_heads_kv : (size_t)g->n_layers * g->n_heads_kv;
}

static bool
same_tokens(const struct kv_list *a, const struct kv_list *b)
{
	uint32_t r = 0;

	if (a->n != b->n)
		return false;
	while (r < a->n && a->src[r] == b->src[r])
		r++;
	return r == a->n;
}

/* The budget of every unit. Lists that lose something must hold the same tokens to share a kept set. */
static enum kv_status
set_budgets(struct making *m, struct kv_err *err)
{
	struct kv_plan *p = m->plan;

	for (size_t u = 0; u < p->n_choices; u++) {
		const struct kv_list *l = &m->cache->list[u * p->per_unit];
		uint64_t k = kv_amount_of(m->how->opts->budget, l->n);
		bool same = true, suffices = true;

		for (size_t i = 0; i < p->per_unit; i++) {
			same &= same_tokens(l, l + i);
			suffices &= kv_amount_of(m->how->opts->budget, l[i].n) >= l[i].n;
		}
		if (!same && (!suffices || m->how->want_scores))
			return fail_at(m, u * p->per_unit, "its lists hold different tokens, so they need --scope head", err);
		p->choice[u] = (struct kv_choice){ .n = l->n, .k = k < l->n ? (uint32_t)k : l->n };
	}
	return KV_OK;
}

static bool
is_wanted(const struct making *m, const struct kv_choice *ch)
{
	return ch->n && (ch->k < ch->n || m->how->want_scores);
}

static enum kv_status
score_list(void *arg, size_t item, struct kv_err *err)
{
	const struct making *m = arg;
	const struct kv_policy *p = m->how->policy;
	unsigned heads = m->cache->geom.n_heads_kv;
	struct kv_list *l = &m->cache->list[item];
	double *score = m->score[item];
	enum kv_status rc = KV_OK;

	if (!score)
		return KV_OK;
	if (m->how->given || !p->score) {
		for (uint32_t i = 0; i < l->n; i++)
			score[i] = m->how->given ? (double)m->how->given[item][i] : i;
		return KV_OK;
	}
	if (p->reads & KV_READS_K && (rc = kv_rows_load(&l->k, err)) != KV_OK)
		return rc;
	if (p->reads & KV_READS_V && (rc = kv_rows_load(&l->v, err)) != KV_OK)
		return rc;
	if ((rc = p->score(&m->scene, (unsigned)(item / heads), (unsigned)(item % heads), score, err)) != KV_OK)
		return rc;
	for (uint32_t i = 0; i < l->n; i++)
		if (isnan(score[i]))
			return fail_at(m, item, "a score is not a number: keys or queries are not finite", err);
	return KV_OK;
}

/* One score for all lists of a unit: the mean, in f64, lists ascending. */
static void
average(const struct making *m, size_t unit, float *out)
{
	const struct kv_plan *p = m->plan;

	for (uint32_t i = 0; i < p->choice[unit].n; i++) {
		double sum = 0;

		for (size_t j = 0; j < p->per_unit; j++)
			sum += m->score[unit * p->per_unit + j][i];
		out[i] = (float)(sum / (double)p->per_unit);
	}
}

/* How many of the oldest and of the newest entries must stay. */
static void
protected_ends(const struct making *m, const struct kv_list *l, uint32_t *sinks, uint32_t *newest)
{
	const struct kv_policy *p = m->how->policy;
	const struct kv_policy_opts *o = m->how->opts;
	int64_t s = o->sinks < 0 ? p->sinks : o->sinks, w = o->protect_last < 0 ? 0 : o->protect_last;

	*sinks = s < l->n ? (uint32_t)s : l->n;
	while (p->sinks_by_source && *sinks && l->src[*sinks - 1] >= s)
		(*sinks)--;
	if (!p->score && !m->how->given && w < 1)
		w = 1;
	*newest = w < l->n - *sinks ? (uint32_t)w : l->n - *sinks;
}

static enum kv_status
choose(void *arg, size_t unit, struct kv_err *err)
{
	struct making *m = arg;
	struct kv_choice *ch = &m->plan->choice[unit];
	size_t first = unit * m->plan->per_unit;
	uint32_t sinks, newest;
	char why[100];
	enum kv_status rc;

	if (!is_wanted(m, ch))
		return KV_OK;
	if (!(ch->score = kv_array_new(ch->n, sizeof *ch->score)))
		return kv_fail_mem(err, "scores");
	average(m, unit, ch->score);
	protected_ends(m, &m->cache->list[first], &sinks, &newest);
	if (ch->k < ch->n && sinks + newest > ch->k) {
		snprintf(why, sizeof why, "%u entries are protected, -k keeps %u", sinks + newest, ch->k);
		return fail_at(m, first, why, err);
	}
	if (ch->k < ch->n) {
		if (!(ch->keep = kv_array_new(ch->k, sizeof *ch->keep)))
			return kv_fail_mem(err, "a kept set");
		/* Infinite scores from outside may have met on their way to the mean. */
		if ((rc = kv_select(ch->score, ch->n, ch->k, sinks, newest, ch->keep, err)) != KV_OK)
			return fail_at(m, first, "a mean of scores is not a number", err);
	}
	for (uint32_t i = 0; i < sinks; i++)
		ch->score[i] = INFINITY;
	for (uint32_t i = ch->n - newest; i < ch->n && m->how->opts->protect_last > 0; i++)
		ch->score[i] = INFINITY;
	return KV_OK;
}

static enum kv_status
make(struct making *m, struct kv_pool *pool, struct kv_err *err)
{
	const struct kv_policy *p = m->how->policy;
	size_t wanted = 0;
	enum kv_status rc;

	if ((rc = set_budgets(m, err)) != KV_OK)
		return rc;
	for (size_t i = 0; i < n_lists(m->cache); i++) {
		const struct kv_choice *ch = kv_plan_choice(m->plan, i);

		if (!is_wanted(m, ch))
			continue;
		if (!(m->score[i] = kv_array_new(ch->n, sizeof **m->score)))
			return kv_fail_mem(err, "scores");
		wanted++;
	}
	if (!wanted)
		return KV_OK;
	if (p->reads & KV_READS_TURNS) {
		struct kv_turns *turns;

		if ((rc = kv_turns_new(m->cache, &turns, err)) != KV_OK)
			return rc;
		m->scene.turns = turns;
		rc = kv_jobs_run(pool, n_lists(m->cache), score_list, m, err);
		kv_turns_free(turns);
	} else {
		rc = kv_jobs_run(pool, n_lists(m->cache), score_list, m, err);
	}
	return rc == KV_OK ? kv_jobs_run(pool, m->plan->n_choices, choose, m, err) : rc;
}

enum kv_status
kv_plan_make(const struct kv_plan_how *how, struct kv_cache *c, struct kv_pool *pool, struct kv_plan **out, struct kv_err *err)
{
	enum kv_scope scope = how->opts->scope ? how->opts->scope : how->policy->scope;
	struct kv_plan *p = kv_array_new(1, sizeof *p);
	struct making m = { how, c, p, { c, how->opts, NULL }, kv_array_new(n_lists(c), sizeof *m.score) };
	enum kv_status rc;

	if (p) {
		p->per_unit = lists_per_unit(&c->geom, scope);
		p->n_choices = n_lists(c) / p->per_unit;
		p->choice = kv_array_new(p->n_choices, sizeof *p->choice);
	}
	if (!p || !p->choice || !m.score)
		rc = kv_fail_mem(err, "a plan");
	else
		rc = make(&m, pool, err);
	for (size_t i = 0; m.score && i < n_lists(c); i++)
		free(m.score[i]);
	free(m.score);
	if (rc != KV_OK) {
		kv_plan_free(p);
		return rc;
	}
	*out = p;
	return KV_OK;
}

void
kv_plan_free(struct kv_plan *p)
{
	if (!p)
		return;
	for (size_t u = 0; p->choice && u < p->n_choices; u++) {
		free(p->choice[u].score);
		free(p->choice[u].keep);
	}
	free(p->choice);
	free(p);
}

struct applying {
	const struct kv_plan *plan;
	struct kv_cache *cache;
};

static enum kv_status
cut(void *arg, size_t item, struct kv_err *err)
{
	const struct applying *a = arg;
	const struct kv_choice *ch = kv_plan_choice(a->plan, item);

	return ch->keep ? kv_list_keep(&a->cache->list[item], ch->keep, ch->k, err) : KV_OK;
}

enum kv_status
kv_plan_apply(const struct kv_plan *p, struct kv_cache *c, struct kv_pool *pool, struct kv_err *err)
{
	struct applying a = { p, c };

	return kv_jobs_run(pool, n_lists(c), cut, &a, err);
}
