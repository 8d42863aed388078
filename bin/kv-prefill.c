/* kv-prefill: text in, snapshot out. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/snapshot.h"
#include "kernel/blas.h"
#include "loop/prompt.h"
#include "loop/rounds.h"
#include "loop/words.h"
#include "tool.h"
#include "util/progress.h"
#include "util/text.h"
#include "util/version.h"

enum { OPT_FROM = 400, OPT_OBSERVE, OPT_BATCH, OPT_CHUNK, OPT_FILL, OPT_RESERVE, OPT_EACH, OPT_TWIN,
	OPT_PROBE, OPT_PROBE_AT, OPT_TAKE, OPT_CONTINUE, OPT_HISTORY, OPT_DTYPE, OPT_PRECISION };

static const struct kv_opt options[] = {
	{ "model", 'm', "FILE", "GGUF model (default $KV_MODEL)" },
	{ "from", OPT_FROM, "SNAP", "go on from a snapshot; - is standard input" },
	{ "prompt", 'p', "TEXT", "text given here, after that of the files; @FILE reads it from FILE" },
	{ "observe", OPT_OBSERVE, "LIST", "what to record: last=N queries (default 32), acc, nll, chunk; none" },
	{ "batch", OPT_BATCH, "N", "tokens a forward pass (default 512)" },
	{ "chunk", OPT_CHUNK, "N", "read in rounds of N tokens, each a forward pass" },
	{ "fill", OPT_FILL, "N", "read until the fullest list and the probe make N entries; if there is more text, --each, and on" },
	{ "reserve", OPT_RESERVE, "N", "with --fill: leave at least N places free at the end (default 0)" },
	{ "each", OPT_EACH, "PIPELINE", "what becomes of the cache after every round" },
	{ "probe", OPT_PROBE, "TEXT", "tokens that look at the cache every round: their attention is recorded, no more; @FILE" },
	{ "probe-at", OPT_PROBE_AT, "old|all", "they see what was there before the round (default with --chunk) or all (default)" },
	{ "twin-each", OPT_TWIN, "PIPELINE", "a second cache that gets the same new entries, and its pipeline; it is written" },
	{ "checkpoint", KV_OPT_CHECKPOINT, "FILE", "save the state there after rounds; if FILE is there, go on from it" },
	{ "checkpoint-every", KV_OPT_CHECKPOINT_EVERY, "SECONDS", "at most so often (default 30)" },
	{ "take", OPT_TAKE, "N", "stop after N tokens of text" },
	{ "continue", OPT_CONTINUE, NULL, "with --from: the same text once more, from where the snapshot stopped" },
	{ "history", OPT_HISTORY, "all|alive|none", "token ids to keep: all that were read (default), of entries that live, none" },
	{ "dtype", OPT_DTYPE, "f16|bf16|f32", "element type of keys and values (default f16)" },
	{ "precision", OPT_PRECISION, "fast|f32", "f32: the reference path (default fast)" },
	{ 0 },
};

static const struct kv_usage usage = {
	.tool = "kv-prefill",
	.synopsis = "[-m MODEL] [options] [TEXTFILE …]",
	.summary = "Reads a text into a language model's KV cache and writes the cache as a snapshot.\n"
		   "Without a file, or for -, the text comes from standard input.",
	.tables = { options, kv_prompt_options, kv_common_options },
	.titles = { "Options", "What is fed", "Common options" },
	.footer = "  kv-prefill book.txt | kv-evict --tova -k 512 | kv-decode -p \"Who is the narrator?\"\n",
};

struct prefill {
	struct kv_tool tool;
	const char *model, *from, *prompt;
	char **files;
	int n_files;
	const char *each_text, *twin_text, *probe, *probe_at;
	bool no_text;			/* a probe over --from, and nothing to read */
	unsigned n_done;		/* snapshots of --from */
	struct kv_prompt_opts what;
	struct kv_rounds rounds;
	uint64_t take;			/* UINT64_MAX = all */
	bool go_on;
	enum kvs_dtype dtype;		/* 0 = not given */
	enum kv_precision precision;

	struct kv_session session;
	struct kv_buf text, probe_text;
	struct kv_source *source;	/* of the snapshot in hand, … */
	double bytes;			/* … whose files have so many; INFINITY: who knows */
	struct kvs_reader *reader;
	struct kvs_writer *writer;
	struct kv_progress progress;
};

static enum kv_status
option(struct prefill *p, int key, const char *arg, struct kv_err *err)
{
	enum kv_status rc;
	int64_t n;

	switch (key) {
	case 'm':
		p->model = arg;
		return KV_OK;
	case 'p':
		p->prompt = arg;
		return KV_OK;
	case OPT_FROM:
		p->from = arg;
		return KV_OK;
	case OPT_OBSERVE:
		return kv_parse_observe(arg, &p->rounds.feed.observe, err);
	case OPT_BATCH:
		if ((rc = kv_parse_int("--batch", arg, 1, 1 << 16, &n, err)) == KV_OK)
			p->rounds.feed.batch = (size_t)n;
		return rc;
	case OPT_CHUNK:
		if ((rc = kv_parse_int("--chunk", arg, 1, 1 << 16, &n, err)) == KV_OK)
			p->rounds.chunk = (uint32_t)n;
		return rc;
	case OPT_FILL:
		if ((rc = kv_parse_int("--fill", arg, 1, INT32_MAX, &n, err)) == KV_OK)
			p->rounds.fill = (uint32_t)n;
		return rc;
	case OPT_RESERVE:
		if ((rc = kv_parse_int("--reserve", arg, 0, INT32_MAX, &n, err)) == KV_OK)
			p->rounds.reserve = (uint32_t)n;
		return rc;
	case OPT_EACH:
		p->each_text = arg;
		return KV_OK;
	case OPT_TWIN:
		p->twin_text = arg;
		return KV_OK;
	case KV_OPT_CHECKPOINT:
		p->rounds.checkpoint = arg;
		return KV_OK;
	case KV_OPT_CHECKPOINT_EVERY:
		return kv_parse_real("--checkpoint-every", arg, 0, 1e9, &p->rounds.checkpoint_every, err);
	case OPT_PROBE:
		p->probe = arg;
		return KV_OK;
	case OPT_PROBE_AT:
		p->probe_at = arg;
		return KV_OK;
	case OPT_TAKE:
		if ((rc = kv_parse_int("--take", arg, 0, INT64_MAX, &n, err)) == KV_OK)
			p->take = (uint64_t)n;
		return rc;
	case OPT_CONTINUE:
		p->go_on = true;
		return KV_OK;
	case OPT_HISTORY:
		return kv_parse_history(arg, &p->rounds.history, err);
	case OPT_DTYPE:
		return kv_parse_dtype(arg, &p->dtype, err);
	case OPT_PRECISION:
		return kv_parse_precision(arg, &p->precision, err);
	default:
		return kv_prompt_option(&p->what, key, arg, err);
	}
}

static bool
is_stdin(const char *path)
{
	return path && !strcmp(path, "-");
}

static enum kv_status
parse_probe(struct prefill *p, struct kv_err *err)
{
	enum kv_status rc;
	char q[60];

	p->rounds.probe_all = !p->rounds.chunk;
	if (p->probe_at) {
		p->rounds.probe_all = !strcmp(p->probe_at, "all");
		if (!p->rounds.probe_all && strcmp(p->probe_at, "old"))
			return kv_fail(err, KV_EUSAGE, "--probe-at: '%s' is not old or all", kv_quote(q, sizeof q, p->probe_at, strlen(p->probe_at)));
		if (!p->probe)
			return kv_fail(err, KV_EUSAGE, "--probe-at goes with --probe");
	}
	if (!p->probe)
		return KV_OK;
	if ((rc = kv_text_arg(p->probe, &p->probe_text, err)) == KV_OK && !p->probe_text.len)
		rc = kv_fail(err, KV_EUSAGE, "--probe: an empty text");
	return rc;
}

static enum kv_status
parse(struct prefill *p, struct kv_args *args, struct kv_err *err)
{
	enum kv_status rc;
	const char *arg;
	int key;

	while ((rc = kv_tool_next(&p->tool, args, &key, &arg, err)) == KV_OK)
		if ((rc = option(p, key, arg, err)) != KV_OK)
			return rc;
	if (rc != KV_END || (rc = kv_prompt_ready(&p->what, err)) != KV_OK)
		return rc;
	p->n_files = kv_args_operands(args, &p->files);
	if (p->go_on && !p->from)
		return kv_fail(err, KV_EUSAGE, "--continue needs the snapshot to go on from: name it with --from");
	if (p->rounds.fill && (p->rounds.chunk || !p->each_text))
		return kv_fail(err, KV_EUSAGE, p->rounds.chunk ? "--chunk or --fill: one way to cut rounds at a time" :
			"--fill needs --each, which makes room again");
	if (p->rounds.reserve && !p->rounds.fill)
		return kv_fail(err, KV_EUSAGE, "--reserve goes with --fill");
	if (p->rounds.chunk && p->rounds.feed.batch)
		return kv_fail(err, KV_EUSAGE, "--batch does not go with --chunk: a chunk is its own batch");
	if (p->twin_text && !(p->rounds.chunk && p->each_text))
		return kv_fail(err, KV_EUSAGE, "--twin-each goes with --chunk and --each");
	if (p->rounds.checkpoint && p->tool.output && !strcmp(p->rounds.checkpoint, p->tool.output))
		return kv_fail(err, KV_EUSAGE, "--checkpoint and -o name one file");
	if (p->from && p->dtype)
		return kv_fail(err, KV_EUSAGE, "--dtype: the snapshot of --from has its element type already");
	p->no_text = p->from && p->probe && !p->n_files && !p->prompt;
	if (is_stdin(p->from) && !p->n_files && !p->prompt && !p->no_text)
		return kv_fail(err, KV_EUSAGE, "--from - takes standard input: the text must come from a file or -p");
	for (int i = 0; i < p->n_files; i++)
		if (is_stdin(p->from) && is_stdin(p->files[i]))
			return kv_fail(err, KV_EUSAGE, "standard input cannot be both the snapshot and the text");
	if (p->each_text && (rc = kv_each_new("--each", p->each_text, kv_common_options, &p->rounds.each, err)) != KV_OK)
		return rc;
	if (p->twin_text && (rc = kv_each_new("--twin-each", p->twin_text, kv_common_options, &p->rounds.twin_each, err)) != KV_OK)
		return rc;
	return parse_probe(p, err);
}

static enum kv_status
add_file(struct prefill *p, const char *path, struct kv_err *err)
{
	struct kv_in *in;
	enum kv_status rc;

	if ((rc = kv_in_open(path, &in, err)) != KV_OK)
		return rc;
	rc = kv_in_rest(in, &p->text, err);
	kv_in_close(in);
	return rc;
}

/* A template and --show-prompt take the text as a whole; of a sequence of snapshots each gets all of it. */
static bool
is_whole(const struct prefill *p)
{
	return p->what.chat || p->what.show || p->from;
}

/*
 * The text is the files, one after the other, then -p. As a whole it is read now; else only -p is, and that the files are there is seen now rather
 * than in an hour.
 */
static enum kv_status
read_text(struct prefill *p, struct kv_err *err)
{
	enum kv_status rc;
	struct stat st;

	for (int i = 0; i < p->n_files; i++) {
		if (is_whole(p) && (rc = add_file(p, p->files[i], err)) != KV_OK)
			return rc;
		if (!is_whole(p) && !is_stdin(p->files[i]) && access(p->files[i], R_OK))
			return kv_fail_errno(err, "%s", p->files[i]);
		if (!is_whole(p))
			p->bytes += stat(p->files[i], &st) == 0 && S_ISREG(st.st_mode) ? (double)st.st_size : INFINITY;
	}
	if (!p->n_files && !p->prompt && !p->no_text && is_whole(p) && (rc = add_file(p, NULL, err)) != KV_OK)
		return rc;
	return p->prompt ? kv_text_arg(p->prompt, &p->text, err) : KV_OK;
}

/* The same as a stream. */
static enum kv_status
open_text(struct prefill *p, const struct kv_cache *past, struct kv_source **text, struct kv_err *err)
{
	struct kv_source_part *part = kv_array_new((size_t)p->n_files + 1, sizeof *part);
	size_t n = 0;
	enum kv_status rc;

	if (!part)
		return kv_fail_mem(err, "the names of files");
	for (int i = 0; i < p->n_files && !is_whole(p); i++)
		part[n++].path = p->files[i];
	if (is_whole(p) || p->prompt)
		part[n++].bytes = &p->text;
	if (!n) {
		n = 1;		/* standard input */
		p->bytes = INFINITY;
	}
	rc = kv_source_open(&p->session, &p->what, past, part, n, text, err);
	free(part);
	return rc;
}

/* The text in its template, or to be shown. */
static enum kv_status
show_text(struct prefill *p, const struct kv_cache *past, struct kv_source **text, struct kv_err *err)
{
	struct kv_buf notes = { 0 }, shown = { 0 };
	struct kv_ids ids = { 0 };
	enum kv_status rc;

	if ((rc = kv_prompt_ids(&p->session, &p->what, past, &p->text, &ids, &shown, &notes, err)) == KV_OK &&
	    (rc = kv_source_of(&ids, text, err)) == KV_OK) {
		kv_tool_say_lines(&p->tool, 0, &notes);
		kv_tool_show(&shown);
	}
	kv_ids_free(&ids);
	kv_buf_free(&notes);
	kv_buf_free(&shown);
	return rc;
}

/* Of files of known size the number of tokens can be told before all have been seen. */
static void
tick(void *arg, uint64_t done, uint64_t total)
{
	struct prefill *p = arg;
	double bytes = p->bytes + (double)p->text.len;

	if (!total && bytes < 1e18 && (total = kv_source_guess(p->source, (uint64_t)bytes)) > p->take)
		total = p->take;
	kv_progress_at(&p->progress, done, total, NULL);
}

static void
summary(const struct prefill *p, const struct kv_cache *c, uint64_t n, double seconds)
{
	kv_tool_say(&p->tool, 1, "%llu tokens read in %.2f s (%.0f/s), %u entries", (unsigned long long)n, seconds, n ? (double)n / seconds : 0, kv_cache_longest(c));
	if (p->rounds.feed.observe.nll && c->nll_count)
		kv_tool_say(&p->tool, 1, "mean NLL %.4f, perplexity %.3f over %llu tokens", c->nll_sum / (double)c->nll_count,
			exp(c->nll_sum / (double)c->nll_count), (unsigned long long)c->nll_count);
}

/* --continue: the ids that the cache has consumed must be those that the text begins with. They are passed over. */
static enum kv_status
find_place(const struct kv_cache *c, struct kv_source *text, struct kv_err *err)
{
	enum { AT_ONCE = 1 << 14 };
	const uint32_t *ids;
	uint32_t id;
	size_t n;
	enum kv_status rc;

	for (uint64_t at = 0; at < c->state.consumed; at += n) {
		uint64_t left = c->state.consumed - at;

		if ((rc = kv_source_peek(text, left < AT_ONCE ? (size_t)left : AT_ONCE, &ids, &n, err)) != KV_OK)
			return rc;
		if (!n)
			return kv_fail(err, KV_EFIT, "--continue: the text has %llu tokens, the snapshot has read %llu", (unsigned long long)at,
				(unsigned long long)c->state.consumed);
		for (size_t i = 0; i < n; i++)
			if (kv_cache_token(c, (uint32_t)(at + i), &id) && id != ids[i])
				return kv_fail(err, KV_EFIT, "--continue: token %llu of the text is not the one that the snapshot has read",
					(unsigned long long)(at + i));
		kv_source_skip(text, n);
	}
	return KV_OK;
}

/* The text for one cache, what it has read of it already passed over, and the probe. */
static enum kv_status
open_job(struct prefill *p, const struct kv_cache *c, struct kv_source **text, struct kv_ids *probe, struct kv_err *err)
{
	const struct kv_cache *past = p->go_on ? NULL : c;
	struct kv_buf notes = { 0 };
	const uint32_t *ids = NULL;
	size_t n = 0;
	enum kv_status rc;

	rc = p->what.chat || p->what.show ? show_text(p, past, text, err) : open_text(p, past, text, err);
	if (rc == KV_OK && p->go_on)
		rc = find_place(c, *text, err);
	/* The next message of a conversation depends on what was said until then. */
	if (rc == KV_OK && p->what.chat)
		rc = kv_source_peek(*text, SIZE_MAX, &ids, &n, err);
	if (rc == KV_OK && p->probe && (rc = kv_prompt_probe(&p->session, &p->what, c, ids, n, &p->probe_text, probe, &notes, err)) == KV_OK)
		kv_tool_say_lines(&p->tool, 0, &notes);
	kv_buf_free(&notes);
	return rc;
}

/* Reads the text into one cache. */
static enum kv_status
extend(struct prefill *p, struct kv_cache *c, struct kv_err *err)
{
	struct kv_source *text = NULL;
	struct kv_buf notes = { 0 };
	struct kv_ids probe = { 0 };
	struct kv_rounds rounds = p->rounds;
	uint64_t skipped;
	enum kv_status rc;
	double begin;

	rounds.feed.observe = kv_observe_on(&rounds.feed.observe, c);
	if ((rc = kv_session_fits(&p->session, c, !p->what.tokens, p->tool.force, err)) != KV_OK ||
	    (rc = open_job(p, c, &text, &probe, err)) != KV_OK)
		goto out;
	rounds.probe = probe.id;
	rounds.n_probe = probe.n;
	p->source = text;
	skipped = kv_source_done(text);
	begin = kv_now();
	kv_progress_start(&p->progress, usage.tool, "tokens", p->tool.verbosity < 0);
	rc = kv_rounds_read(&p->session, c, text, p->take, &rounds, p->tool.pool, err);
	kv_progress_end(&p->progress);
	if (rc != KV_OK)
		goto out;
	kv_source_notes(text, &notes);
	kv_tool_say_lines(&p->tool, 0, &notes);
	summary(p, c, kv_source_done(text) - skipped, kv_now() - begin);
out:
	kv_source_close(text);
	kv_buf_free(&notes);
	kv_ids_free(&probe);
	return rc;
}

static enum kv_status
write_cache(struct prefill *p, struct kv_cache *c, struct kv_err *err)
{
	struct kvs_run run = {
		.tool = usage.tool, .version = KV_VERSION, .argc = p->tool.words.n, .argv = p->tool.words.word,
		.in_digest = p->from ? c->digest : NULL, .device = "cpu", .level = p->session.ops->level,
		.precision = p->precision == KV_EXACT ? "f32" : "fast", .blas = kv_blas_name(),
	};
	enum kv_status rc = p->tool.no_prov ? KV_OK : kvs_prov_add_run(&c->prov, &run, err);

	return rc == KV_OK ? kv_cache_write(c, p->writer, err) : rc;
}

static enum kv_status
from_nothing(struct prefill *p, struct kv_err *err)
{
	struct kv_cache *c;
	enum kv_status rc;

	if ((rc = kv_session_cache(&p->session, &c, err)) != KV_OK)
		return rc;
	if ((rc = extend(p, c, err)) == KV_OK)
		rc = write_cache(p, c, err);
	kv_cache_free(c);
	return rc;
}

static enum kv_status
from_snapshot(void *arg, struct kv_cache *c, struct kv_err *err)
{
	struct prefill *p = arg;
	enum kv_status rc;

	if (p->n_done++ && p->rounds.checkpoint)
		return kv_fail(err, KV_EUSAGE, "--checkpoint is for one job: take one snapshot of the sequence with --only");
	rc = extend(p, c, err);
	return rc == KV_OK ? write_cache(p, c, err) : rc;
}

static enum kv_status
work(struct prefill *p, struct kv_out *out, struct kv_err *err)
{
	struct kv_in *in = NULL;
	enum kv_status rc;

	if ((rc = kvs_writer_new(out, p->tool.packing, p->tool.pool, &p->writer, err)) != KV_OK ||
	    (p->from && (rc = kv_tool_input(&p->tool, p->from, &in, err)) != KV_OK) ||
	    (rc = kv_session_open(p->model, p->dtype ? p->dtype : KVS_F16, p->precision, p->tool.pool, &p->session, err)) != KV_OK ||
	    (rc = read_text(p, err)) != KV_OK)
		goto out;
	rc = in ? kv_tool_map(&p->tool, in, from_snapshot, p, err) : from_nothing(p, err);
	if (rc == KV_OK && p->rounds.each)
		rc = kv_each_end(p->rounds.each, err);
	if (rc == KV_OK && p->rounds.twin_each)
		rc = kv_each_end(p->rounds.twin_each, err);
	if (rc != KV_OK)
		kvs_writer_tear(p->writer);
out:
	kvs_writer_free(p->writer);
	kv_in_close(in);
	kv_buf_free(&p->text);
	return rc;
}

int
main(int argc, char **argv)
{
	struct prefill p = { .rounds = { .feed.observe.last = KV_LAST_DEFAULT, .checkpoint_every = 30 }, .take = UINT64_MAX };
	struct kv_out *out = NULL;
	struct kv_args args = { 0 };
	struct kv_err err;
	enum kv_status rc;
	int status;

	kv_tool_start(&p.tool, &usage);
	p.rounds.feed.tick = tick;
	p.rounds.feed.arg = &p;
	p.rounds.say = (struct kv_say){ kv_tool_line, &p.tool };
	if ((rc = kv_args_begin(&args, &usage, argc, argv, &err)) == KV_OK && (rc = parse(&p, &args, &err)) == KV_OK &&
	    (rc = kv_out_open(p.tool.output, true, p.tool.force, &out, &err)) == KV_OK)
		rc = work(&p, out, &err);
	status = kv_tool_close(&p.tool, out, rc, &err);
	if (!status && p.rounds.checkpoint)
		unlink(p.rounds.checkpoint);
	if (rc != KV_OK && (kv_each_status(p.rounds.each) || kv_each_status(p.rounds.twin_each)))
		status = kv_each_status(p.rounds.each) ? kv_each_status(p.rounds.each) : kv_each_status(p.rounds.twin_each);
	kv_each_free(p.rounds.each);
	kv_each_free(p.rounds.twin_each);
	kv_session_close(&p.session);	/* takes milliseconds: whoever reads the output need not wait for it */
	kv_buf_free(&p.probe_text);
	kv_args_end(&args);
	kv_tool_end(&p.tool);
	return status;
}
