/* kv-prefill: text in, snapshot out. */
#include <math.h>
#include <string.h>

#include "cache/snapshot.h"
#include "loop/feed.h"
#include "loop/words.h"
#include "loop/prompt.h"
#include "tool.h"
#include "util/progress.h"
#include "util/text.h"
#include "util/version.h"

enum { OPT_FROM = 400, OPT_OBSERVE, OPT_BATCH, OPT_DTYPE, OPT_PRECISION };

static const struct kv_opt options[] = {
	{ "model", 'm', "FILE", "GGUF model (default $KV_MODEL)" },
	{ "from", OPT_FROM, "SNAP", "go on from a snapshot; - is standard input" },
	{ "prompt", 'p', "TEXT", "text given here, after that of the files; @FILE reads it from FILE" },
	{ "observe", OPT_OBSERVE, "LIST", "what to record: last=N queries (default 32), acc, nll; none" },
	{ "batch", OPT_BATCH, "N", "tokens a forward pass (default 512)" },
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
	struct kv_prompt_opts what;
	struct kv_feed feed;
	enum kvs_dtype dtype;		/* 0 = not given */
	enum kv_precision precision;

	struct kv_session session;
	struct kv_buf text;
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
		return kv_parse_observe(arg, &p->feed.observe, err);
	case OPT_BATCH:
		if ((rc = kv_parse_int("--batch", arg, 1, 1 << 16, &n, err)) == KV_OK)
			p->feed.batch = (size_t)n;
		return rc;
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
	if (p->from && p->dtype)
		return kv_fail(err, KV_EUSAGE, "--dtype: the snapshot of --from has its element type already");
	if (is_stdin(p->from) && !p->n_files && !p->prompt)
		return kv_fail(err, KV_EUSAGE, "--from - takes standard input: the text must come from a file or -p");
	for (int i = 0; i < p->n_files; i++)
		if (is_stdin(p->from) && is_stdin(p->files[i]))
			return kv_fail(err, KV_EUSAGE, "standard input cannot be both the snapshot and the text");
	return KV_OK;
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

/* The files, one after the other, then -p. */
static enum kv_status
read_text(struct prefill *p, struct kv_err *err)
{
	enum kv_status rc;

	for (int i = 0; i < p->n_files; i++)
		if ((rc = add_file(p, p->files[i], err)) != KV_OK)
			return rc;
	if (!p->n_files && !p->prompt && (rc = add_file(p, NULL, err)) != KV_OK)
		return rc;
	return p->prompt ? kv_text_arg(p->prompt, &p->text, err) : KV_OK;
}

static void
tick(void *arg, uint64_t done, uint64_t total)
{
	struct prefill *p = arg;

	kv_progress_at(&p->progress, done, total, NULL);
}

static void
summary(const struct prefill *p, const struct kv_cache *c, size_t n, double seconds)
{
	kv_tool_say(&p->tool, 1, "%zu tokens read in %.2f s (%.0f/s), %u entries", n, seconds, n ? (double)n / seconds : 0, kv_cache_longest(c));
	if (p->feed.observe.nll && c->nll_count)
		kv_tool_say(&p->tool, 1, "mean NLL %.4f, perplexity %.3f over %llu tokens", c->nll_sum / (double)c->nll_count,
			exp(c->nll_sum / (double)c->nll_count), (unsigned long long)c->nll_count);
}

/* Reads the text into one cache. */
static enum kv_status
extend(struct prefill *p, struct kv_cache *c, struct kv_err *err)
{
	struct kv_buf notes = { 0 }, shown = { 0 };
	struct kv_ids ids = { 0 };
	struct kv_feed feed = p->feed;
	enum kv_status rc;
	double begin;

	feed.observe = kv_observe_on(&p->feed.observe, c);
	if ((rc = kv_session_fits(&p->session, c, !p->what.tokens, p->tool.force, err)) != KV_OK ||
	    (rc = kv_prompt_ids(&p->session, &p->what, c, &p->text, &ids, &shown, &notes, err)) != KV_OK)
		goto out;
	kv_tool_say_lines(&p->tool, 0, &notes);
	kv_tool_show(&shown);
	begin = kv_now();
	kv_progress_start(&p->progress, usage.tool, "tokens", p->tool.verbosity < 0);
	rc = kv_feed_ids(&p->session, c, ids.id, ids.n, &feed, err);
	kv_progress_end(&p->progress);
	if (rc == KV_OK)
		summary(p, c, ids.n, kv_now() - begin);
out:
	kv_ids_free(&ids);
	kv_buf_free(&notes);
	kv_buf_free(&shown);
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
	enum kv_status rc = extend(p, c, err);

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
	if (rc != KV_OK)
		kvs_writer_tear(p->writer);
out:
	kvs_writer_free(p->writer);
	kv_in_close(in);
	kv_session_close(&p->session);
	kv_buf_free(&p->text);
	return rc;
}

int
main(int argc, char **argv)
{
	struct prefill p = { .feed = { .observe = { .last = KV_LAST_DEFAULT } } };
	struct kv_out *out = NULL;
	struct kv_args args = { 0 };
	struct kv_err err;
	enum kv_status rc;
	int status;

	kv_tool_start(&p.tool, &usage);
	p.feed.tick = tick;
	p.feed.arg = &p;
	if ((rc = kv_args_begin(&args, &usage, argc, argv, &err)) == KV_OK && (rc = parse(&p, &args, &err)) == KV_OK &&
	    (rc = kv_out_open(p.tool.output, true, p.tool.force, &out, &err)) == KV_OK)
		rc = work(&p, out, &err);
	status = kv_tool_close(&p.tool, out, rc, &err);
	kv_args_end(&args);
	kv_tool_end(&p.tool);
	return status;
}
