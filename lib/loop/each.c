/* --each: a pipeline on the cache in memory, or outside. */
#include "loop/each.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop/sh_words.h"
#include "loop/shell.h"
#include "loop/words.h"
#include "policy/policy.h"
#include "stage/stage.h"
#include "util/mem.h"
#include "util/text.h"

static const struct kv_stage *const stages[] = { &kv_stage_evict, &kv_stage_prune, &kv_stage_quant, &kv_stage_reposition };

struct step {
	const struct kv_stage *stage;
	void *cfg;
	bool verbose;			/* -v was among its options */
	struct kv_buf said;		/* its last remarks, not to be repeated round by round */
};

struct kv_each {
	const char *name;		/* of the option; the caller's */
	char *text;
	struct step *step;		/* [n], or NULL: a shell */
	size_t n;
	struct kv_shell *shell;		/* NULL until its first round */
};

static const struct kv_stage *
find_stage(const char *name)
{
	for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
		if (!strcmp(stages[i]->usage.tool, name))
			return stages[i];
	return NULL;
}

/* Is it one of the common options that do not change what is written? */
static bool
is_manner(const struct kv_opt *common, int key)
{
	static const char *const manners[] = { "threads", "codec", "quiet", "verbose", "force", "no-prov" };

	while (common->key && common->key != key)
		common++;
	if (common->key == 'u')
		return true;
	for (size_t i = 0; i < sizeof manners / sizeof *manners && common->name; i++)
		if (!strcmp(common->name, manners[i]))
			return true;
	return false;
}

static bool
is_common(const struct kv_opt *common, int key)
{
	while (common->key && common->key != key)
		common++;
	return common->key;
}

/* KV_END: a command that only its executable can carry out. */
static enum kv_status
configure(struct step *s, struct kv_command *c, const struct kv_opt *common, struct kv_err *err)
{
	const struct kv_stage *stage = s->stage;
	struct kv_usage usage = stage->usage;
	struct kv_args args;
	enum kv_status rc;
	const char *arg;
	char **operands;
	int key, own = 0;

	while (usage.tables[own])
		own++;
	usage.tables[own] = common;
	if ((rc = stage->start(&s->cfg, err)) != KV_OK || (rc = kv_args_begin(&args, &usage, c->argc, c->argv, err)) != KV_OK)
		return rc;
	while ((rc = kv_args_next(&args, &key, &arg, err)) == KV_OK) {
		s->verbose |= key == 'v';
		if (key == 'f' && stage->force)
			stage->force(s->cfg);
		if (is_manner(common, key))
			continue;
		if (is_common(common, key) || (arg && !strcmp(arg, "-"))) {
			rc = KV_END;
			goto out;
		}
		if ((rc = stage->option(s->cfg, key, arg, err)) != KV_OK)
			goto out;
	}
	if (rc == KV_END && !kv_args_operands(&args, &operands)) {
		if ((rc = stage->ready(s->cfg, err)) == KV_OK && stage->output && stage->output(s->cfg) != KV_WRITES_SNAPSHOT)
			rc = kv_fail(err, KV_EUSAGE, "no snapshot comes out of it");
	}
out:
	kv_args_end(&args);
	return rc;
}

static void
steps_free(struct kv_each *e)
{
	for (size_t i = 0; i < e->n; i++) {
		if (e->step[i].cfg)
			e->step[i].stage->free(e->step[i].cfg);
		kv_buf_free(&e->step[i].said);
	}
	free(e->step);
	e->step = NULL;
	e->n = 0;
}

/* KV_END: takes a shell. */
static enum kv_status
make_steps(struct kv_each *e, const struct kv_opt *common, struct kv_err *err)
{
	struct kv_commands commands = { 0 };
	enum kv_status rc = kv_sh_split(e->text, &commands, err);

	if (rc != KV_OK)
		return rc == KV_END ? rc : kv_err_in(err, "%s", e->name);
	for (size_t i = 0; i < commands.n && rc == KV_OK; i++)
		if (!find_stage(commands.c[i].argv[0]))
			rc = KV_END;		/* before options are looked at that a shell would see first */
	if (rc == KV_OK && !(e->step = kv_array_new(commands.n, sizeof *e->step)))
		rc = kv_fail_mem(err, "a pipeline");
	for (size_t i = 0; i < commands.n && rc == KV_OK; i++) {
		const struct kv_stage *stage = find_stage(commands.c[i].argv[0]);
		struct step *s = &e->step[e->n];

		if (!stage)
			break;
		s->stage = stage;
		e->n++;
		if ((rc = configure(s, &commands.c[i], common, err)) != KV_OK && rc != KV_END)
			kv_err_in(err, "%s: %s", e->name, stage->usage.tool);
	}
	kv_commands_free(&commands);
	if (rc != KV_OK)
		steps_free(e);
	return rc;
}

/* What goes to a shell is looked at now, as far as one can. */
static enum kv_status
check_pieces(const struct kv_each *e, struct kv_err *err)
{
	char **piece;
	size_t n;
	enum kv_status rc;

	if ((rc = kv_sh_pieces(e->text, &piece, &n, err)) != KV_OK)
		return kv_err_in(err, "%s", e->name);
	free(piece);
	return KV_OK;
}

enum kv_status
kv_each_new(const char *name, const char *pipeline, const struct kv_opt *common, struct kv_each **out, struct kv_err *err)
{
	struct kv_each *e = kv_array_new(1, sizeof *e);
	enum kv_status rc;

	if (!e || !(e->text = strdup(pipeline)))
		rc = kv_fail_mem(err, "a pipeline");
	else {
		e->name = name;
		rc = make_steps(e, common, err);
	}
	if (rc == KV_END)
		rc = check_pieces(e, err);
	if (rc != KV_OK) {
		kv_each_free(e);
		return rc;
	}
	*out = e;
	return KV_OK;
}

void
kv_each_free(struct kv_each *e)
{
	if (!e)
		return;
	steps_free(e);
	kv_shell_free(e->shell);
	free(e->text);
	free(e);
}

const char *
kv_each_text(const struct kv_each *e)
{
	return e ? e->text : NULL;
}

void
kv_each_observe(const struct kv_each *e, struct kv_observe *o)
{
	unsigned needs = 0;

	for (size_t i = 0; i < e->n; i++) {
		const struct kv_stage *stage = e->step[i].stage;
		uint32_t queries = stage->queries ? stage->queries(e->step[i].cfg) : 0;

		needs |= stage->needs ? stage->needs(e->step[i].cfg) : 0;
		if (o->last < queries)
			o->last = queries;
	}
	o->nll |= needs & KV_NEEDS_NLL;
	o->received |= needs & KV_NEEDS_RECEIVED;
	o->chunk |= needs & KV_NEEDS_CHUNK;
}

/* Every line of a report. */
static void
tell(const struct kv_each *e, const struct step *s, uint64_t round, const struct kv_buf *report, int level, const struct kv_say *say)
{
	const char *p = (const char *)report->p, *end = p + report->len;
	char text[600];

	for (const char *stop; p && p < end; p = stop + 1) {
		if (!(stop = memchr(p, '\n', (size_t)(end - p))))
			stop = end;
		snprintf(text, sizeof text, "%s: round %llu: %s: %.*s", e->name, (unsigned long long)round, s->stage->usage.tool, (int)(stop - p), p);
		kv_say(say, level, text);
	}
}

/* What was said last is said again to those alone who want to hear more. */
static void
remark(const struct kv_each *e, struct step *s, uint64_t round, struct kv_buf *remarks, const struct kv_say *say)
{
	bool known = remarks->len == s->said.len && remarks->len && !memcmp(remarks->p, s->said.p, remarks->len);

	tell(e, s, round, remarks, known && !s->verbose ? 1 : 0, say);
	if (!remarks->len || known)
		return;
	kv_buf_free(&s->said);
	s->said = *remarks;
	*remarks = (struct kv_buf){ 0 };
}

static enum kv_status
run_steps(const struct kv_each *e, struct kv_cache *c, uint64_t round, struct kv_pool *pool, const struct kv_say *say, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	for (size_t i = 0; i < e->n && rc == KV_OK; i++) {
		struct kv_notes notes = { 0 };

		rc = e->step[i].stage->run(e->step[i].cfg, c, pool, &notes, err);
		if (rc == KV_OK) {
			remark(e, &e->step[i], round, &notes.remarks, say);
			tell(e, &e->step[i], round, &notes.report, e->step[i].verbose ? 0 : 1, say);
		}
		kv_notes_free(&notes);
		if (rc != KV_OK)
			kv_err_in(err, "%s", e->step[i].stage->usage.tool);
	}
	return rc;
}

/* A round whose pipeline is in a shell. */
struct waiting {
	const struct kv_each *each;
	uint64_t round;
	const struct kv_say *say;
};

static void
tell_wait(void *arg, int level, const char *line)
{
	const struct waiting *w = arg;
	char text[300];

	snprintf(text, sizeof text, "%s: round %llu: %s", w->each->name, (unsigned long long)w->round, line);
	kv_say(w->say, level, text);
}

enum kv_status
kv_each_run(struct kv_each *e, struct kv_cache *c, uint64_t round, struct kv_pool *pool, const struct kv_say *say, struct kv_err *err)
{
	struct waiting w = { e, round, say };
	struct kv_say patience = { tell_wait, &w };
	enum kv_status rc = KV_OK;

	if (e->step)
		rc = run_steps(e, c, round, pool, say, err);
	else if (e->shell || (rc = kv_shell_start(e->text, &e->shell, err)) == KV_OK)
		rc = kv_shell_round(e->shell, c, &patience, err);
	if (rc != KV_OK)
		kv_err_in(err, "%s: round %llu", e->name, (unsigned long long)round);
	return rc;
}

enum kv_status
kv_each_end(struct kv_each *e, struct kv_err *err)
{
	enum kv_status rc = e->shell ? kv_shell_end(e->shell, err) : KV_OK;

	if (rc != KV_OK)
		kv_err_in(err, "%s: after the last round", e->name);
	return rc;
}

int
kv_each_status(const struct kv_each *e)
{
	return e && e->shell ? kv_shell_status(e->shell) : 0;
}
