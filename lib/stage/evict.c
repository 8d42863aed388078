/* kv-evict: drops entries by a policy, by scores from outside, or by a list of what to keep. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache/segments.h"
#include "policy/plan.h"
#include "stage/evict_codes.h"
#include "stage/evict_given.h"
#include "stage/stage.h"
#include "stage/tsv.h"
#include "util/text.h"

#define POLICY_KEY(id, name, arg, help) KEY_##id,
enum {
	KEY_FIRST_POLICY = 256,
	KEY_BEFORE_POLICIES = KEY_FIRST_POLICY - 1,
	KV_POLICY_LIST(POLICY_KEY)
	KEY_LAST_POLICY,
	KEY_FIRST_OPTION = KEY_LAST_POLICY,	/* … + enum kv_policy_option */
	KEY_LAST_OPTION = KEY_FIRST_OPTION + KV_POLICY_OPTIONS,
	KEY_POLICY,
	KEY_SCORES,
	KEY_KEEP_LIST,
	KEY_REQUANT,
	KEY_DRY_RUN,
	KEY_LIST,
};

#define POLICY_ROW(id, name, arg, help) { name, KEY_##id, arg, help },
static const struct kv_opt policy_options[] = {
	KV_POLICY_LIST(POLICY_ROW)
	{ "policy", KEY_POLICY, "NAME", "the same by name" },
	{ "scores", KEY_SCORES, "FILE", "scores made elsewhere: TSV layer head slot score" },
	{ "keep-list", KEY_KEEP_LIST, "FILE", "what stays, chosen elsewhere: TSV layer head slot; no -k" },
	{ 0 },
};

#define OPTION_ROW(id, name, arg, help) { name, KEY_FIRST_OPTION + (int)KV_OPTION_##id, arg, help },
static const struct kv_opt options[] = {
	{ "keep", 'k', "N|N%", "entries that stay in every layer and KV head" },
	KV_POLICY_OPTION_LIST(OPTION_ROW)
	{ "requant", KEY_REQUANT, NULL, "keys in codes: quantise anew what is left of groups that lose entries" },
	{ "dry-run", KEY_DRY_RUN, NULL, "print the scores and what would stay instead of a snapshot" },
	{ "list", KEY_LIST, NULL, "print all policies: name, citation, scope, needs, defaults" },
	{ 0 },
};

/* Scores from outside go through the same selection as those of a policy. */
static const struct kv_policy from_file = {
	.name = "scores",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER | KV_SCOPES_MODEL,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS,
	.defaults = { .scope = KV_SCOPE_HEAD },
};

/* Nor does a list of what stays take any option of a policy. */
static const struct kv_policy from_list = { .name = "keep-list" };

struct evict {
	const struct kv_policy *policy;		/* NULL with a keep-list */
	struct kv_policy_opts opts;		/* settled once the command is whole */
	bool budget_given;
	char *scores_path, *keep_path;
	struct kv_tsv *scores, *keep;
	bool requant, dry_run, list;
};

static enum kv_status
start(void **cfg, struct kv_err *err)
{
	struct evict *e = kv_array_new(1, sizeof *e);

	if (!e)
		return kv_fail_mem(err, "options");
	*cfg = e;
	return KV_OK;
}

static void
evict_free(void *cfg)
{
	struct evict *e = cfg;

	if (!e)
		return;
	free(e->scores_path);
	free(e->keep_path);
	kv_tsv_free(e->scores);
	kv_tsv_free(e->keep);
	free(e);
}

static enum kv_status
set_policy(struct evict *e, const struct kv_policy *p, struct kv_err *err)
{
	if (e->policy && e->policy != p)
		return kv_fail(err, KV_EUSAGE, "--%s and --%s: one policy at a time", e->policy->name, p->name);
	e->policy = p;
	return KV_OK;
}

static enum kv_status
set_policy_named(struct evict *e, const char *name, struct kv_err *err)
{
	const struct kv_policy *p = kv_policy_find(name);
	char q[60];

	if (!p)
		return kv_fail(err, KV_EUSAGE, "--policy: there is no policy '%s', see --list",
			kv_quote(q, sizeof q, name, strlen(name)));
	return set_policy(e, p, err);
}

static enum kv_status
set_path(char **path, const char *arg, struct kv_err *err)
{
	free(*path);
	return (*path = strdup(arg)) ? KV_OK : kv_fail_mem(err, "options");
}

static enum kv_status
option(void *cfg, int key, const char *arg, struct kv_err *err)
{
	struct evict *e = cfg;
	enum kv_status rc;

	if (key >= KEY_FIRST_POLICY && key < KEY_LAST_POLICY) {
		rc = set_policy(e, kv_policies[key - KEY_FIRST_POLICY], err);
		return rc == KV_OK && arg ? kv_policy_option_parse(KV_OPTION_BY, arg, &e->opts, err) : rc;
	}
	if (key >= KEY_FIRST_OPTION && key < KEY_LAST_OPTION)
		return kv_policy_option_parse((enum kv_policy_option)(key - KEY_FIRST_OPTION), arg, &e->opts, err);
	switch (key) {
	case KEY_POLICY:
		return set_policy_named(e, arg, err);
	case KEY_SCORES:
		if ((rc = set_policy(e, &from_file, err)) != KV_OK)
			return rc;
		return set_path(&e->scores_path, arg, err);
	case KEY_KEEP_LIST:
		return set_path(&e->keep_path, arg, err);
	case 'k':
		e->budget_given = true;
		return kv_parse_amount("-k", arg, &e->opts.budget, err);
	case KEY_REQUANT:
		e->requant = true;
		return KV_OK;
	case KEY_DRY_RUN:
		e->dry_run = true;
		return KV_OK;
	case KEY_LIST:
		e->list = true;
		return KV_OK;
	}
	return kv_fail(err, KV_EUSAGE, "an option that kv-evict does not know");
}

/* More protected entries than the budget holds, as far as the options alone show it. */
static enum kv_status
check_budget(const struct evict *e, struct kv_err *err)
{
	const struct kv_policy *scorer = kv_policy_scorer(e->policy, &e->opts);
	const struct kv_policy_opts *o = &e->opts;
	bool by_age = !scorer->score && e->policy != &from_file;
	int64_t sinks = o->sinks, newest = o->protect_last;

	if (!e->budget_given)
		return kv_fail(err, KV_EUSAGE, "no budget: -k N or -k N%%");
	if (o->budget.den)
		return KV_OK;
	if (newest < o->recent)
		newest = o->recent;
	if (scorer->keeps_voters && newest < o->last)
		newest = o->last;
	if (o->budget.num < (uint64_t)(sinks + newest))
		return kv_fail(err, KV_EUSAGE, "-k %" PRIu64 " is less than the %" PRId64 " entries that --%s protects",
			o->budget.num, sinks + newest, e->policy->name);
	if (by_age && o->budget.num < (uint64_t)sinks + 1)
		return kv_fail(err, KV_EUSAGE, "-k %" PRIu64 " leaves no place beside the %" PRId64 " sinks of --%s",
			o->budget.num, sinks, e->policy->name);
	return KV_OK;
}

static enum kv_status
ready(void *cfg, struct kv_err *err)
{
	struct evict *e = cfg;
	enum kv_status rc;

	if (e->list)
		return KV_OK;
	if (e->keep_path && e->policy)
		return kv_fail(err, KV_EUSAGE, "--%s and --keep-list: one policy at a time", e->policy->name);
	if (!e->keep_path && !e->policy)
		return kv_fail(err, KV_EUSAGE, "no policy: give one of those that --list shows, --scores or --keep-list");
	if (e->keep_path && e->budget_given)
		return kv_fail(err, KV_EUSAGE, "-k does not go with --keep-list");
	if ((rc = kv_policy_settle(e->policy ? e->policy : &from_list, &e->opts, err)) != KV_OK)
		return rc;
	if (e->keep_path)
		return kv_tsv_read(e->keep_path, "slot", KV_TSV_NONE, &e->keep, err);
	if ((rc = check_budget(e, err)) != KV_OK)
		return rc;
	return e->scores_path ? kv_tsv_read(e->scores_path, "score", KV_TSV_REAL, &e->scores, err) : KV_OK;
}

static enum kv_output
output(const void *cfg)
{
	const struct evict *e = cfg;

	if (e->list)
		return KV_PRINTS_ALONE;
	return e->dry_run ? KV_PRINTS : KV_WRITES_SNAPSHOT;
}

static unsigned
needs(const void *cfg)
{
	const struct evict *e = cfg;

	return e->policy ? kv_policy_needs(kv_policy_scorer(e->policy, &e->opts), &e->opts) : 0;
}

static uint32_t
queries(const void *cfg)
{
	const struct evict *e = cfg;
	uint64_t n = e->policy ? kv_policy_wants_queries(kv_policy_scorer(e->policy, &e->opts), &e->opts) : 0;

	return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static void
print_needs(const struct kv_policy *p, struct kv_buf *out)
{
	static const struct { unsigned need; const char *name; } items[] = { { KV_NEEDS_RECEIVED, "acc" }, { KV_NEEDS_NLL, "nll" },
		{ KV_NEEDS_CHUNK, "chunk" }, { KV_NEEDS_PROBE, "probe" } };
	unsigned needs = kv_policy_needs(p, &p->defaults);
	const char *gap = "";

	if (needs & KV_NEEDS_LAST) {
		kv_buf_printf(out, "last=%" PRId64, p->defaults.last == KV_LAST_ALL ? p->record : p->defaults.last);
		gap = ",";
	}
	for (size_t i = 0; i < sizeof items / sizeof *items; i++)
		if (needs & items[i].need) {
			kv_buf_printf(out, "%s%s", gap, items[i].name);
			gap = ",";
		}
	if (!needs)
		kv_buf_printf(out, "-");
}

static void
print_list(struct kv_buf *out)
{
	for (size_t i = 0; kv_policies[i]; i++) {
		const struct kv_policy *p = kv_policies[i];
		const char *gap = "";

		kv_buf_printf(out, "%s\t%s\t%s\t", p->name, p->cite, kv_scope_name(p->defaults.scope));
		print_needs(kv_policy_scorer(p, &p->defaults), out);
		kv_buf_printf(out, "\t");
		for (enum kv_policy_option o = 0; o < KV_POLICY_OPTIONS; o++) {
			if (!(p->takes >> o & 1) || o == KV_OPTION_SCOPE || o == KV_OPTION_STALE)
				continue;
			kv_buf_printf(out, "%s", gap);
			kv_policy_option_print(o, &p->defaults, out);
			gap = " ";
		}
		kv_buf_printf(out, "\n");
	}
}

static size_t
n_lists(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv;
}

static enum kv_status
make_plan(const struct evict *e, struct kv_cache *c, struct kv_pool *pool, struct kv_plan **out, struct kv_err *err)
{
	struct kv_plan_how how = { e->policy, &e->opts, NULL, e->dry_run };
	float **given = NULL;
	enum kv_status rc;

	if (e->keep)
		return kv_evict_kept_given(e->keep, c, out, err);
	if ((rc = kv_policy_fits(e->policy, &e->opts, c, err)) != KV_OK)
		return rc;
	if (e->scores && (rc = kv_evict_scores_given(e->scores, c, &given, err)) != KV_OK)
		return rc;
	how.given = given;
	rc = kv_plan_make(&how, c, pool, out, err);
	kv_evict_scores_free(given, c);
	return rc;
}

static void
print_plan(const struct kv_plan *p, const struct kv_cache *c, struct kv_buf *out)
{
	unsigned heads = c->geom.n_heads_kv;

	kv_buf_printf(out, "layer\thead\tslot\tsource\tscore\tkept\n");
	for (size_t i = 0; i < n_lists(c); i++) {
		const struct kv_choice *ch = kv_plan_choice(p, i);

		for (uint32_t r = 0, at = 0; r < ch->n; r++) {
			bool kept = !ch->keep || (at < ch->k && ch->keep[at] == r);

			at += kept;
			kv_buf_printf(out, "%zu\t%zu\t%u\t%u\t%.9g\t%d\n",
				i / heads, i % heads, r, c->list[i].src[r], (double)ch->score[r], kept);
		}
	}
}

/* What -v says. */
static void
report(const struct evict *e, const struct kv_plan *p, const struct kv_cache *c, struct kv_notes *notes)
{
	uint64_t kept = 0, of = 0;
	bool alike = true;

	for (size_t u = 0; u < p->n_choices; u++) {
		kept += p->choice[u].k * (uint64_t)p->per_unit;
		of += p->choice[u].n * (uint64_t)p->per_unit;
		alike &= p->choice[u].k == p->choice[0].k && p->choice[u].n == p->choice[0].n;
	}
	if (p->remark)
		kv_buf_printf(&notes->report, "%s\n", p->remark);
	if (needs(e) & KV_NEEDS_LAST && c->state.consumed && kv_queries_stale(c))
		kv_buf_printf(&notes->report, "queries are stale by %" PRIu64 " tokens\n", kv_queries_stale(c));
	if (alike)
		kv_buf_printf(&notes->report, "kept %u of %u entries in each of %u layers\n",
			p->choice[0].k, p->choice[0].n, c->geom.n_layers);
	else
		kv_buf_printf(&notes->report, "kept %" PRIu64 " of %" PRIu64 " entries of all layers and heads\n", kept, of);
}

/* Scores that go by keys see what is left of them. */
static void
remark_keys(const struct evict *e, const struct kv_cache *c, struct kv_notes *notes)
{
	bool exact = true;

	if (!e->policy || !(kv_policy_scorer(e->policy, &e->opts)->reads & KV_READS_K))
		return;
	for (size_t i = 0; i < n_lists(c); i++)
		exact &= kv_rows_exact(&c->list[i].k);
	if (!exact)
		kv_buf_printf(&notes->remarks, "keys were pruned or quantised: scores are approximate\n");
}

static enum kv_status
run(const void *cfg, struct kv_cache *c, struct kv_pool *pool, struct kv_notes *notes, struct kv_err *err)
{
	const struct evict *e = cfg;
	struct kv_plan *plan;
	uint64_t entries;
	enum kv_status rc;

	if (e->list) {
		print_list(&notes->text);
		return notes->text.failed ? kv_fail_mem(err, "a text") : KV_OK;
	}
	if ((rc = make_plan(e, c, pool, &plan, err)) != KV_OK)
		return rc;
	report(e, plan, c, notes);
	remark_keys(e, c, notes);
	entries = kv_cache_entries(c);
	notes->of = kv_cache_longest(c);
	notes->kept = notes->of;
	if (e->dry_run) {
		print_plan(plan, c, &notes->text);
		if (notes->text.failed)
			rc = kv_fail_mem(err, "a text");
	} else if ((rc = kv_evict_apply(plan, c, pool, e->requant, &notes->remarks, err)) == KV_OK) {
		/* The softmax behind them ran over entries that are gone. */
		if (kv_cache_entries(c) < entries)
			kv_cache_drop_sums(c);
		notes->kept = kv_cache_longest(c);
		if (e->policy && e->policy->after)
			e->policy->after(c, &e->opts);
	}
	kv_plan_free(plan);
	return rc;
}

const struct kv_stage kv_stage_evict = {
	.usage = {
		.tool = "kv-evict",
		.synopsis = "POLICY -k BUDGET [options] [SNAP]",
		.summary = "Drops entries of a KV cache: tokens that a policy can do without.",
		.tables = { policy_options, options },
		.titles = { "Policies", "Options" },
		.footer = "  kv-prefill book.txt | kv-evict --tova -k 512 | kv-decode -p \"Who is the narrator?\"\n"
			"  kv-evict --streaming -k 2004 s.kvs | kv-reposition --compact > short.kvs\n",
	},
	.start = start,
	.option = option,
	.ready = ready,
	.output = output,
	.needs = needs,
	.queries = queries,
	.run = run,
	.free = evict_free,
};
