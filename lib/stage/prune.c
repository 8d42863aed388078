/* kv-prune: drops channels of keys, or of values, per KV head (ThinK, Xu et al. 2407.21018). The newest entries stay whole. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/jobs.h"
#include "policy/policy.h"
#include "stage/prune.h"
#include "util/text.h"

enum {
	KEY_THINK = 256, KEY_RECENT, KEY_SINKS, KEY_LAST, KEY_SCOPE, KEY_ROUNDING, KEY_SCORE, KEY_SEED, KEY_SCORE_KEYS, KEY_PAIRS, KEY_REBUILD,
	KEY_WHAT, KEY_REUSE, KEY_REQUANT, KEY_REPORT,
};

static const struct kv_opt options[] = {
	{ "think", KEY_THINK, "RATIO", "drop this part of the channels, e.g. 0.4; above 0.6 with --force" },
	{ "pairs", KEY_PAIRS, NULL, "drop rotary pairs as a whole: keys can still be moved" },
	{ "rebuild", KEY_REBUILD, NULL, "pairs, and a map that gives the dropped channels back from the kept ones" },
	{ "recent", KEY_RECENT, "R", "the newest R entries stay whole (32)" },
	{ "sinks", KEY_SINKS, "S", "the first S entries stay whole (0)" },
	{ "last", KEY_LAST, "W", "queries that score (32)" },
	{ "score", KEY_SCORE, "SCORE", "think, error, knorm, random (think); with --rebuild also rebuilt (the default there)" },
	{ "score-keys", KEY_SCORE_KEYS, "all|pruned", "entries that score: all, or those that will be narrowed (all; error: pruned)" },
	{ "random-seed", KEY_SEED, "N", "--score random: another lot (0)" },
	{ "rounding", KEY_ROUNDING, "code|paper", "round the number dropped down, or the number kept (code)" },
	{ "mask-scope", KEY_SCOPE, "kvhead|qhead", "one mask for each KV head or query head (kvhead)" },
	{ "what", KEY_WHAT, "k|v", "channels of keys or of values (k)" },
	{ "reuse-mask", KEY_REUSE, NULL, "entries that came since go under the mask that is there" },
	{ "requant", KEY_REQUANT, NULL, "decode and code again, with loss, what cannot be narrowed in codes" },
	{ "report", KEY_REPORT, NULL, "print channels, error and bytes of every head on standard error" },
	{ 0 },
};

static enum kv_status
start(void **cfg, struct kv_err *err)
{
	struct prune *p = kv_array_new(1, sizeof *p);

	if (!p)
		return kv_fail_mem(err, "options");
	p->recent = p->last = 32;
	*cfg = p;
	return KV_OK;
}

static enum kv_status
choose_word(const char *what, const char *arg, const char *const *words, int *out, struct kv_err *err)
{
	char q[60], all[80] = "";

	for (int i = 0; words[i]; i++) {
		if (!strcmp(arg, words[i])) {
			*out = i;
			return KV_OK;
		}
		snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i ? ", " : "", words[i]);
	}
	return kv_fail(err, KV_EUSAGE, "%s: '%s' is none of %s", what, kv_quote(q, sizeof q, arg, strlen(arg)), all);
}

static enum kv_status
choose_bool(const char *what, const char *arg, const char *no, const char *yes, bool *out, struct kv_err *err)
{
	const char *const words[] = { no, yes, NULL };
	int which = 0;
	enum kv_status rc = choose_word(what, arg, words, &which, err);

	if (rc == KV_OK)
		*out = which;
	return rc;
}

static enum kv_status
option(void *cfg, int key, const char *arg, struct kv_err *err)
{
	static const char *const scores[] = { "think", "error", "rebuilt", "knorm", "random", NULL };
	struct prune *p = cfg;
	bool paper = false;
	enum kv_status rc;

	switch (key) {
	case KEY_THINK:
		p->ratio_given = true;
		return kv_parse_ratio("--think", arg, &p->ratio, err);
	case KEY_RECENT:
		return kv_parse_int("--recent", arg, 0, UINT32_MAX, &p->recent, err);
	case KEY_SINKS:
		return kv_parse_int("--sinks", arg, 0, UINT32_MAX, &p->sinks, err);
	case KEY_LAST:
		return kv_parse_int("--last", arg, 1, UINT32_MAX, &p->last, err);
	case KEY_SEED:
		return kv_parse_int("--random-seed", arg, 0, INT64_MAX, &p->seed, err);
	case KEY_SCORE:
		p->score_given = true;
		return choose_word("--score", arg, scores, &p->score, err);
	case KEY_SCOPE:
		return choose_bool("--mask-scope", arg, "kvhead", "qhead", &p->per_query_head, err);
	case KEY_WHAT:
		return choose_bool("--what", arg, "k", "v", &p->values, err);
	case KEY_SCORE_KEYS:
		p->keys_given = true;
		return choose_bool("--score-keys", arg, "all", "pruned", &p->narrowed_keys, err);
	case KEY_ROUNDING:
		if ((rc = choose_bool("--rounding", arg, "code", "paper", &paper, err)) == KV_OK)
			p->rounding = paper ? KV_ROUND_PAPER : KV_ROUND_CODE;
		return rc;
	case KEY_REBUILD:
		p->rebuild = p->pairs = true;
		return KV_OK;
	case KEY_PAIRS:
		p->pairs = true;
		return KV_OK;
	case KEY_REUSE:
		p->reuse = true;
		return KV_OK;
	case KEY_REQUANT:
		p->requant = true;
		return KV_OK;
	case KEY_REPORT:
		p->report = true;
		return KV_OK;
	}
	return kv_fail(err, KV_EUSAGE, "an option that kv-prune does not know");
}

static void
force(void *cfg)
{
	struct prune *p = cfg;

	p->force = true;
}

static enum kv_status
ready(void *cfg, struct kv_err *err)
{
	const struct kv_ratio limit = { 6, 10 };
	struct prune *p = cfg;

	if (!p->ratio_given && !p->reuse)
		return kv_fail(err, KV_EUSAGE, "nothing to do: give --think RATIO or --reuse-mask");
	if (p->ratio_given && kv_ratio_above(p->ratio, limit) && !p->force)
		return kv_fail(err, KV_EUSAGE, "--think: models break down above 0.6; --force does it all the same");
	if (p->values && p->pairs)
		return kv_fail(err, KV_EUSAGE, "--pairs and --rebuild go with keys: values have no rotary pairs");
	if (p->rebuild && !p->score_given)
		p->score = PRUNE_REBUILT;
	if (!p->rebuild && p->score == PRUNE_REBUILT)
		return kv_fail(err, KV_EUSAGE, "--score rebuilt goes with --rebuild alone");
	if (p->values && p->score != PRUNE_THINK && p->score != PRUNE_RANDOM)
		return kv_fail(err, KV_EUSAGE, "--what v takes --score think or random");
	if (!p->keys_given)
		p->narrowed_keys = p->score == PRUNE_ERROR;
	return KV_OK;
}

static unsigned
needs(const void *cfg)
{
	return prune_wants_queries(cfg) ? KV_NEEDS_LAST : 0;
}

static uint32_t
queries(const void *cfg)
{
	const struct prune *p = cfg;

	return prune_wants_queries(p) ? (uint32_t)p->last : 0;
}

static size_t
n_lists(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv;
}

/* Of the queries that were asked for, as many as there can be must be there. */
static enum kv_status
check_queries(const struct prune_scene *s, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	uint64_t want = (uint64_t)s->how->last;
	bool due = false;

	for (size_t i = 0; i < n_lists(c); i++)
		due |= c->list[i].n > (uint64_t)s->how->recent + (uint64_t)s->how->sinks;
	if (!due || !s->n_drop || !prune_wants_queries(s->how))
		return KV_OK;
	if (want > c->state.consumed)
		want = c->state.consumed;
	for (unsigned l = 0; l < c->geom.n_layers; l++) {
		uint32_t w = c->queries[l].w;

		if (!w)
			return kv_fail(err, KV_EFIT, "no window queries in this snapshot; run kv-prefill --observe last=%" PRId64, s->how->last);
		if (w < want)
			return kv_fail(err, KV_EFIT, "%u window queries of layer %u in this snapshot, --last %" PRId64 " needs %" PRIu64
				"; run kv-prefill --observe last=%" PRId64, w, l, s->how->last, want, s->how->last);
	}
	return KV_OK;
}

static enum kv_status
check(const struct prune_scene *s, struct kv_err *err)
{
	const struct kvs_geom *g = &s->cache->geom;

	if (s->how->per_query_head && g->n_heads != g->n_heads_kv)
		return kv_fail(err, KV_EFIT, "masks per query head need as many KV heads as query heads (have %u and %u)", g->n_heads_kv,
			g->n_heads);
	return check_queries(s, err);
}

static enum kv_status
choose(void *arg, size_t list, struct kv_err *err)
{
	struct prune_scene *s = arg;
	struct prune_plan *p = &s->plan[list];
	enum kv_status rc = kv_prune_choose(s, list, err);

	if (rc == KV_OK && p->mask && s->how->report)
		rc = kv_prune_measure(s, list, p, err);
	return rc;
}

static enum kv_status
apply(void *arg, size_t list, struct kv_err *err)
{
	struct prune_scene *s = arg;

	return kv_prune_apply(s, list, err);
}

static enum kv_status
work(struct prune_scene *s, struct kv_pool *pool, struct kv_err *err)
{
	struct kv_cache *c = s->cache;
	struct kv_turns *turns = NULL;
	enum kv_status rc;

	if ((rc = check(s, err)) != KV_OK || (rc = kv_cache_load(c, s->how->values ? KV_LOAD_K | KV_LOAD_V : KV_LOAD_K, pool, err)) != KV_OK ||
	    (rc = kv_turns_new(c, &turns, err)) != KV_OK)
		return rc;
	s->turns = turns;
	if ((rc = kv_jobs_run(pool, n_lists(c), choose, s, err)) == KV_OK)
		rc = kv_jobs_run(pool, n_lists(c), apply, s, err);
	kv_turns_free(turns);
	return rc;
}

static enum kv_status
run(const void *cfg, struct kv_cache *c, struct kv_pool *pool, struct kv_notes *notes, struct kv_err *err)
{
	const struct prune *how = cfg;
	struct prune_scene s = { .how = how, .cache = c, .plan = kv_array_new(n_lists(c), sizeof *s.plan) };
	enum kv_status rc;

	if (!s.plan)
		return kv_fail_mem(err, "masks");
	if (how->ratio_given)
		s.n_drop = kv_channels_to_drop(how->ratio, how->values ? c->geom.d_v : c->geom.d_k, how->rounding);
	if ((rc = work(&s, pool, err)) == KV_OK)
		kv_prune_tell(&s, notes);
	for (size_t i = 0; i < n_lists(c); i++) {
		if (rc == KV_OK && s.plan[i].mask)
			c->edited = true;
		kv_mask_free(s.plan[i].mask);
	}
	free(s.plan);
	return rc;
}

const struct kv_stage kv_stage_prune = {
	.usage = {
		.tool = "kv-prune",
		.synopsis = "--think RATIO [options] [SNAP]",
		.summary = "Drops channels of keys that the last queries hardly look at (ThinK); the newest entries stay whole.",
		.tables = { options },
		.titles = { "Options" },
		.footer = "  kv-prefill book.txt | kv-evict --snapkv -k 1024 | kv-prune --think 0.4 | kv-decode -p \"Why?\"\n"
			"  kv-prune --think 0.4 --rebuild --sinks 4 --report s.kvs -o thin.kvs\n",
	},
	.start = start,
	.option = option,
	.force = force,
	.ready = ready,
	.needs = needs,
	.queries = queries,
	.run = run,
	.free = free,
};
