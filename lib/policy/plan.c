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
	const struct kv_policy *scorer;
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
lists_per_unit(const struct kvs_geom *g, int scope)
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

/* How many of the oldest and of the newest entries must stay. */
static void
protect_ends(const struct making *m, size_t list, struct kv_choice *ch)
{
	const struct kv_policy_opts *o = m->how->opts;
	const struct kv_list *l = &m->cache->list[list];
	const struct kv_queries *q = &m->cache->queries[list / m->cache->geom.n_heads_kv];
	int64_t newest = o->recent != KV_RECENT_HALF ? o->recent : ch->k < ch->n ? ch->k / 2 : 0;
	uint32_t voters = m->scorer->keeps_voters ? kv_voters(o, q) : 0;

	ch->sinks = o->sinks < l->n ? (uint32_t)o->sinks : l->n;
	while (m->how->policy->sinks_by_source && ch->sinks && l->src[ch->sinks - 1] >= o->sinks)
		ch->sinks--;
	if (newest < o->protect_last)
		newest = o->protect_last;
	if (!m->scorer->score && !m->how->given && newest < 1)
		newest = 1;
	ch->newest = newest < l->n - ch->sinks ? (uint32_t)newest : l->n - ch->sinks;
	while (voters && ch->newest < l->n - ch->sinks && l->src[l->n - 1 - ch->newest] >= q->src[q->w - voters])
		ch->newest++;
}

/* Budget and protected ends of one list. */
static enum kv_status
set_budget(struct making *m, size_t list, struct kv_choice *ch, struct kv_err *err)
{
	uint32_t n = m->cache->list[list].n;
	uint64_t k = kv_amount_of(m->how->opts->budget, n);
	unsigned heads = m->cache->geom.n_heads_kv;
	enum kv_status rc = KV_OK;

	*ch = (struct kv_choice){ .n = n, .k = k < n ? (uint32_t)k : n };
	protect_ends(m, list, ch);
	if (m->how->policy->budget && n)
		rc = m->how->policy->budget(&m->scene, (unsigned)(list / heads), (unsigned)(list % heads), ch, &m->plan->remark, err);
	return rc;
}

/* Lists that lose something must hold the same tokens to share a kept set. */
static enum kv_status
set_budgets(struct making *m, struct kv_err *err)
{
	struct kv_plan *p = m->plan;
	enum kv_status rc;

	for (size_t u = 0; u < p->n_choices; u++) {
		size_t first = u * p->per_unit;
		struct kv_choice *ch = &p->choice[u], other;
		bool same = true, suffices;

		if ((rc = set_budget(m, first, ch, err)) != KV_OK)
			return rc;
		suffices = ch->k == ch->n;
		for (size_t i = first + 1; i < first + p->per_unit; i++) {
			if ((rc = set_budget(m, i, &other, err)) != KV_OK)
				return rc;
			same &= same_tokens(&m->cache->list[first], &m->cache->list[i]) && other.k == ch->k && other.newest == ch->newest;
			suffices &= other.k == other.n;
		}
		if (!same && (!suffices || m->how->want_scores))
			return fail_at(m, first, "its lists hold different tokens, so they need --scope head", err);
	}
	return KV_OK;
}

static bool
is_wanted(const struct making *m, size_t unit)
{
	const struct kv_choice *ch = &m->plan->choice[unit];
	unsigned heads = m->cache->geom.n_heads_kv;
	bool loses = ch->k < ch->n;

	/* Where the heads of a layer share a budget, all take part as soon as one has to give. */
	if (m->how->policy->allot)
		for (size_t u = unit - unit % heads, end = u + heads; u < end; u++)
			loses |= m->plan->choice[u].k < m->plan->choice[u].n;
	return ch->n && (loses || m->how->want_scores);
}

static enum kv_status
score_list(void *arg, size_t item, struct kv_err *err)
{
	const struct making *m = arg;
	const struct kv_policy *p = m->scorer;
	unsigned heads = m->cache->geom.n_heads_kv;
	unsigned reads = kv_policy_reads(p, m->how->opts);
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
	if (reads & KV_READS_K && (rc = kv_rows_load(&l->k, err)) != KV_OK)
		return rc;
	if (reads & KV_READS_V && (rc = kv_rows_load(&l->v, err)) != KV_OK)
		return rc;
	if ((rc = p->score(&m->scene, (unsigned)(item / heads), (unsigned)(item % heads), score, err)) != KV_OK)
		return rc;
	for (uint32_t i = 0; i < l->n; i++)
		if (isnan(score[i]))
			return fail_at(m, item, "a score is not a number: keys, values or queries are not finite", err);
	return KV_OK;
}

/* One score for all lists of a unit: the mean, in f64, lists ascending. */
static enum kv_status
average(void *arg, size_t unit, struct kv_err *err)
{
	const struct making *m = arg;
	size_t lists = m->plan->per_unit;
	struct kv_choice *ch = &m->plan->choice[unit];
	double *const *score = m->score + unit * lists;

	if (!*score)
		return KV_OK;
	if (!(ch->score = kv_array_new(ch->n, sizeof *ch->score)))
		return kv_fail_mem(err, "scores");
	ch->top = -INFINITY;
	for (uint32_t i = 0; i < ch->n; i++) {
		double sum = 0;

		for (size_t j = 0; j < lists; j++) {
			sum += score[j][i];
			if (i >= ch->sinks && i < ch->n - ch->newest && score[j][i] > (double)ch->top)
				ch->top = (float)score[j][i];
		}
		ch->score[i] = kv_score_round(m->how->opts, sum / (double)lists);
	}
	return KV_OK;
}

static enum kv_status
allot(struct making *m, struct kv_err *err)
{
	unsigned heads = m->cache->geom.n_heads_kv;

	for (unsigned l = 0; l < m->cache->geom.n_layers; l++) {
		struct kv_choice *head = &m->plan->choice[(size_t)l * heads];
		const char *remark = NULL;
		bool loses = false;
		enum kv_status rc;

		for (unsigned h = 0; h < heads; h++)
			loses |= head[h].k < head[h].n;
		if (loses && (rc = m->how->policy->allot(&m->scene, l, head, &remark, err)) != KV_OK)
			return rc;
		if (remark)
			m->plan->remark = remark;
	}
	return KV_OK;
}

static enum kv_status
keep_some(const struct making *m, size_t list, struct kv_choice *ch, struct kv_err *err)
{
	const struct kv_policy *p = m->how->policy;
	unsigned heads = m->cache->geom.n_heads_kv;
	char why[100];

	if (ch->sinks + ch->newest > ch->k) {
		snprintf(why, sizeof why, "%u entries are protected, -k keeps %u", ch->sinks + ch->newest, ch->k);
		return fail_at(m, list, why, err);
	}
	/* Infinite scores from outside may have met on their way to the mean. */
	for (uint32_t i = 0; i < ch->n; i++)
		if (isnan(ch->score[i]))
			return fail_at(m, list, "a mean of scores is not a number", err);
	if (!(ch->keep = kv_array_new(p->keep ? ch->n : ch->k, sizeof *ch->keep)))
		return kv_fail_mem(err, "a kept set");
	if (p->keep)
		return p->keep(&m->scene, (unsigned)(list / heads), (unsigned)(list % heads), ch, err);
	return kv_select(ch->score, ch->n, ch->k, ch->sinks, ch->newest, ch->keep, err);
}

static enum kv_status
choose(void *arg, size_t unit, struct kv_err *err)
{
	const struct making *m = arg;
	const struct kv_policy *p = m->scorer;
	struct kv_choice *ch = &m->plan->choice[unit];
	enum kv_status rc;

	if (!ch->score)
		return KV_OK;
	if (ch->k < ch->n && (rc = keep_some(m, unit * m->plan->per_unit, ch, err)) != KV_OK)
		return rc;
	for (uint32_t i = 0; i < ch->sinks; i++)
		ch->score[i] = INFINITY;
	/* By age the newest are the best in any case. */
	for (uint32_t i = ch->n - ch->newest; i < ch->n && (p->score || m->how->given); i++)
		ch->score[i] = INFINITY;
	return KV_OK;
}

static enum kv_status
make(struct making *m, struct kv_pool *pool, struct kv_err *err)
{
	struct kv_turns *turns = NULL;
	size_t wanted = 0;
	enum kv_status rc;

	if ((rc = set_budgets(m, err)) != KV_OK)
		return rc;
	for (size_t i = 0; i < n_lists(m->cache); i++) {
		if (!is_wanted(m, i / m->plan->per_unit))
			continue;
		if (!(m->score[i] = kv_array_new(m->cache->list[i].n, sizeof **m->score)))
			return kv_fail_mem(err, "scores");
		wanted++;
	}
	if (!wanted)
		return KV_OK;
	if ((rc = kv_policy_fits_queries(m->how->policy, m->how->opts, m->cache, err)) != KV_OK)
		return rc;
	if (kv_policy_reads(m->scorer, m->how->opts) & KV_READS_TURNS && (rc = kv_turns_new(m->cache, &turns, err)) != KV_OK)
		return rc;
	m->scene.turns = turns;
	rc = kv_jobs_run(pool, n_lists(m->cache), score_list, m, err);
	kv_turns_free(turns);
	m->scene.turns = NULL;
	if (rc == KV_OK)
		rc = kv_jobs_run(pool, m->plan->n_choices, average, m, err);
	if (rc == KV_OK && m->how->policy->allot)
		rc = allot(m, err);
	return rc == KV_OK ? kv_jobs_run(pool, m->plan->n_choices, choose, m, err) : rc;
}

enum kv_status
kv_plan_make(const struct kv_plan_how *how, struct kv_cache *c, struct kv_pool *pool, struct kv_plan **out, struct kv_err *err)
{
	struct kv_plan *p = kv_array_new(1, sizeof *p);
	struct making m = { how, kv_policy_scorer(how->policy, how->opts), c, p, { c, how->opts, NULL },
		kv_array_new(n_lists(c), sizeof *m.score) };
	enum kv_status rc;

	if (p) {
		p->per_unit = lists_per_unit(&c->geom, how->opts->scope);
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
