/* kv-decode: snapshot in, text out. */
#include <stdlib.h>

#include "kernel/blas.h"
#include "loop/feed.h"
#include "loop/prompt.h"
#include "loop/render.h"
#include "loop/words.h"
#include "tool.h"
#include "util/progress.h"
#include "util/text.h"
#include "util/version.h"

enum { OPT_TEMP = 400, OPT_TOP_K, OPT_TOP_P, OPT_MIN_P, OPT_SEED, OPT_STOP, OPT_IGNORE_EOS, OPT_IDS, OPT_JSON, OPT_LOGPROBS, OPT_SAVE,
	OPT_PRECISION, OPT_OBSERVE, OPT_EACH, OPT_EVERY };
enum { FORESEEN = 1024 };	/* entries that room is made for before they come */

static const struct kv_opt options[] = {
	{ "model", 'm', "FILE", "GGUF model (default $KV_MODEL)" },
	{ "max-tokens", 'n', "N", "tokens to make (default 256; -1 = until a stop token)" },
	{ "prompt", 'p', "TEXT", "appended to the cache first; @FILE reads it from FILE" },
	{ "temp", OPT_TEMP, "T", "temperature; 0 takes the likeliest token (default)" },
	{ "top-k", OPT_TOP_K, "K", "draw from the K likeliest tokens" },
	{ "top-p", OPT_TOP_P, "P", "draw from the likeliest tokens that share P" },
	{ "min-p", OPT_MIN_P, "P", "draw from tokens at least P times as likely as the likeliest" },
	{ "seed", OPT_SEED, "N", "of the random numbers (default 0)" },
	{ "stop", OPT_STOP, "TEXT", "end before this text (may be repeated)" },
	{ "ignore-eos", OPT_IGNORE_EOS, NULL, "go on after a stop token" },
	{ "ids", OPT_IDS, NULL, "print token ids instead of text" },
	{ "json", OPT_JSON, NULL, "print a JSON object a token: id, text, logprob" },
	{ "logprobs", OPT_LOGPROBS, "K", "with --json: also the K likeliest tokens (top)" },
	{ "save", OPT_SAVE, "FILE", "write the cache after decoding, every token fed, as a snapshot" },
	{ "each", OPT_EACH, "PIPELINE", "what becomes of the cache while tokens are made" },
	{ "every", OPT_EVERY, "N", "run --each after every N tokens (default 1)" },
	{ "precision", OPT_PRECISION, "fast|f32", "f32: the reference path (default fast)" },
	{ "observe", OPT_OBSERVE, "LIST", "what --save and --each find recorded: last=N queries (default 32), acc, nll, chunk; none" },
	{ 0 },
};

static const struct kv_usage usage = {
	.tool = "kv-decode",
	.synopsis = "[-m MODEL] [options] [SNAP]",
	.summary = "Goes on from a KV cache: prints the text that the model makes, as it is made.",
	.tables = { options, kv_prompt_options, kv_common_options },
	.titles = { "Options", "What is fed", "Common options" },
	.footer = "  kv-decode -p \"List the characters.\" book.kvs\n",
};

struct decode {
	struct kv_tool tool;
	const char *model, *prompt, *save, *each_text;
	const char **stop;		/* [gen.n_stop] */
	struct kv_prompt_opts what;
	struct kv_generation gen;
	struct kv_observe observe;
	enum kv_format format;
	enum kv_precision precision;

	struct kv_session session;
	struct kv_buf text;
	struct kv_out *out;
	double begin;
};

static enum kv_status
parse_count(const char *what, const char *arg, int64_t min, uint64_t *out, struct kv_err *err)
{
	enum kv_status rc;
	int64_t n;

	if ((rc = kv_parse_int(what, arg, min, INT64_MAX, &n, err)) == KV_OK)
		*out = n < 0 ? UINT64_MAX : (uint64_t)n;
	return rc;
}

static enum kv_status
sampling_option(struct kv_generation *g, int key, const char *arg, struct kv_err *err)
{
	enum kv_status rc;
	uint64_t n;

	switch (key) {
	case OPT_TEMP:
		return kv_parse_real("--temp", arg, 0, 100, &g->sampling.temp, err);
	case OPT_TOP_K:
		if ((rc = parse_count("--top-k", arg, 0, &n, err)) == KV_OK)
			g->sampling.top_k = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
		return rc;
	case OPT_TOP_P:
		return kv_parse_real("--top-p", arg, 0, 1, &g->sampling.top_p, err);
	case OPT_MIN_P:
		return kv_parse_real("--min-p", arg, 0, 1, &g->sampling.min_p, err);
	default:
		return parse_count("--seed", arg, 0, &g->seed, err);
	}
}

static enum kv_status
option(struct decode *d, int key, const char *arg, struct kv_err *err)
{
	enum kv_status rc;
	int64_t n;

	switch (key) {
	case 'm':
		d->model = arg;
		return KV_OK;
	case 'n':
		return parse_count("-n", arg, -1, &d->gen.max_tokens, err);
	case 'p':
		d->prompt = arg;
		return KV_OK;
	case OPT_TEMP:
	case OPT_TOP_K:
	case OPT_TOP_P:
	case OPT_MIN_P:
	case OPT_SEED:
		return sampling_option(&d->gen, key, arg, err);
	case OPT_STOP:
		if (!*arg)
			return kv_fail(err, KV_EUSAGE, "--stop: an empty text would end everything");
		d->stop[d->gen.n_stop++] = arg;
		return KV_OK;
	case OPT_IGNORE_EOS:
		d->gen.ignore_eos = true;
		return KV_OK;
	case OPT_IDS:
		d->format = KV_AS_IDS;
		return KV_OK;
	case OPT_JSON:
		d->format = KV_AS_JSON;
		return KV_OK;
	case OPT_LOGPROBS:
		if ((rc = kv_parse_int("--logprobs", arg, 0, 1000, &n, err)) == KV_OK)
			d->gen.n_top = (unsigned)n;
		return rc;
	case OPT_SAVE:
		d->save = arg;
		return KV_OK;
	case OPT_EACH:
		d->each_text = arg;
		return KV_OK;
	case OPT_EVERY:
		return parse_count("--every", arg, 1, &d->gen.every, err);
	case OPT_PRECISION:
		return kv_parse_precision(arg, &d->precision, err);
	case OPT_OBSERVE:
		return kv_parse_observe(arg, &d->observe, err);
	default:
		return kv_prompt_option(&d->what, key, arg, err);
	}
}

static enum kv_status
parse(struct decode *d, struct kv_args *args, const char **path, struct kv_err *err)
{
	enum kv_status rc;
	const char *arg;
	int key;

	while ((rc = kv_tool_next(&d->tool, args, &key, &arg, err)) == KV_OK)
		if ((rc = option(d, key, arg, err)) != KV_OK)
			return rc;
	if (rc != KV_END || (rc = kv_prompt_ready(&d->what, err)) != KV_OK || (rc = kv_tool_operand(args, path, err)) != KV_OK)
		return rc;
	if (d->gen.n_top && d->format != KV_AS_JSON)
		return kv_fail(err, KV_EUSAGE, "--logprobs needs --json");
	if ((d->what.tokens || d->what.chat) && !d->prompt)
		return kv_fail(err, KV_EUSAGE, "%s needs a text: give it with -p", d->what.tokens ? "--tokens" : "--chat");
	d->gen.special = d->what.special;
	d->gen.keep = d->save != NULL;
	d->gen.logprobs = d->format == KV_AS_JSON;
	if (d->gen.every && !d->each_text)
		return kv_fail(err, KV_EUSAGE, "--every says how often --each runs: there is none");
	if (d->each_text && (rc = kv_each_new("--each", d->each_text, kv_common_options, &d->gen.each, err)) != KV_OK)
		return rc;
	d->gen.every = d->gen.every ? d->gen.every : 1;
	d->gen.stop = d->stop;
	return d->prompt ? kv_text_arg(d->prompt, &d->text, err) : KV_OK;
}

/* Entries that the answer may add, as far as it is worth having room for them from the beginning. */
static uint32_t
entries_to_come(const struct kv_generation *g)
{
	uint64_t n = g->each && g->every < g->max_tokens ? g->every : g->max_tokens;

	return n < FORESEEN ? (uint32_t)n : FORESEEN;
}

/* Appends the prompt; *n = its tokens. */
static enum kv_status
feed_prompt(struct decode *d, struct kv_cache *c, size_t *n, struct kv_err *err)
{
	struct kv_feed feed = { .observe = d->gen.observe };
	struct kv_buf notes = { 0 }, shown = { 0 };
	struct kv_ids ids = { 0 };
	enum kv_status rc = KV_OK;

	if (d->prompt)
		rc = kv_prompt_ids(&d->session, &d->what, c, &d->text, &ids, &shown, &notes, err);
	if (rc == KV_OK && ids.n < UINT32_MAX - FORESEEN)
		kv_cache_expect(c, (uint32_t)ids.n + entries_to_come(&d->gen));
	if (rc == KV_OK && d->prompt) {
		kv_tool_say_lines(&d->tool, 0, &notes);
		kv_tool_show(&shown);
		rc = kv_feed_ids(&d->session, c, ids.id, ids.n, &feed, err);
	}
	*n = ids.n;
	kv_ids_free(&ids);
	kv_buf_free(&notes);
	kv_buf_free(&shown);
	return rc;
}

static double
rate(double n, double seconds)
{
	return n > 0 && seconds > 0 ? n / seconds : 0;
}

static enum kv_status
save(struct decode *d, struct kv_cache *c, struct kv_err *err)
{
	struct kvs_run run = {
		.tool = usage.tool, .version = KV_VERSION, .argc = d->tool.words.n, .argv = d->tool.words.word, .in_digest = c->digest,
		.device = "cpu", .level = d->session.ops->level, .precision = d->precision == KV_EXACT ? "f32" : "fast", .blas = kv_blas_name(),
	};
	struct kvs_writer *w = NULL;
	struct kv_out *out = NULL;
	enum kv_status rc;

	if ((!d->tool.no_prov && (rc = kvs_prov_add_run(&c->prov, &run, err)) != KV_OK) ||
	    (rc = kv_out_open(d->save, true, d->tool.force, &out, err)) != KV_OK ||
	    (rc = kvs_writer_new(out, d->tool.packing, d->tool.pool, &w, err)) != KV_OK ||
	    (rc = kv_cache_write(c, w, err)) != KV_OK)
		goto out;
	rc = kv_out_commit(out, err);
	out = NULL;
out:
	kvs_writer_free(w);
	kv_out_abort(out);
	return rc;
}

/* One answer. The snapshot has been read to its right end before this is called. */
static enum kv_status
answer(void *arg, struct kv_cache *c, struct kv_err *err)
{
	struct decode *d = arg;
	struct kv_render render = { .format = d->format, .out = d->out };
	struct kv_generated made;
	uint32_t reused = kv_cache_longest(c);
	enum kv_status rc;
	double begin, fed;
	size_t n;

	if ((rc = kv_session_fits(&d->session, c, true, d->tool.force, err)) != KV_OK)
		return rc;
	d->gen.n_top = d->gen.n_top < c->geom.n_vocab ? d->gen.n_top : c->geom.n_vocab;
	render.n_top = d->gen.n_top;
	d->gen.pool = d->tool.pool;
	d->gen.say = (struct kv_say){ kv_tool_line, &d->tool };
	d->gen.observe = d->save || d->gen.each ? kv_observe_on(&d->observe, c) : (struct kv_observe){ 0 };
	if (d->gen.each)
		kv_each_observe(d->gen.each, &d->gen.observe);
	begin = kv_now();
	if ((rc = feed_prompt(d, c, &n, err)) != KV_OK)
		return rc;
	fed = kv_now();
	render.tokenizer = d->session.tokenizer;
	if ((rc = kv_generate(&d->session, c, &d->gen, kv_render_token, &render, &made, err)) != KV_OK || (rc = kv_render_end(&render, err)) != KV_OK)
		return rc;
	kv_tool_say(&d->tool, 1, "%u entries reused, %zu prompt tokens (%.0f/s), %llu tokens made (%.1f/s), first after %.2f s", reused, n,
		rate((double)n, fed - begin), (unsigned long long)made.n, rate((double)made.n, made.seconds), made.first > 0 ? made.first - d->begin : 0);
	return d->save ? save(d, c, err) : KV_OK;
}

/* The model and its vocabulary come first: whoever writes the snapshot is still at it. */
static enum kv_status
work(struct decode *d, const char *path, struct kv_err *err)
{
	struct kv_in *in = NULL;
	enum kv_status rc;

	if ((rc = kv_out_open(d->tool.output, false, d->tool.force, &d->out, err)) != KV_OK ||
	    (rc = kv_tool_input(&d->tool, path, &in, err)) != KV_OK ||
	    (rc = kv_session_open(d->model, KVS_F16, d->precision, d->tool.pool, &d->session, err)) != KV_OK ||
	    (rc = kv_session_tokenizer(&d->session, err)) != KV_OK)
		goto out;
	rc = kv_tool_map(&d->tool, in, answer, d, err);
	if (rc == KV_OK && d->gen.each)
		rc = kv_each_end(d->gen.each, err);
out:
	kv_in_close(in);
	return rc;
}

int
main(int argc, char **argv)
{
	struct decode d = { .gen = { .max_tokens = 256, .sampling = { .top_p = 1 } }, .observe = { .last = KV_LAST_DEFAULT } };
	const char *path = NULL;
	struct kv_args args = { 0 };
	struct kv_err err;
	enum kv_status rc;
	int status;

	kv_tool_start(&d.tool, &usage);
	d.begin = kv_now();
	d.stop = calloc((size_t)argc + 1, sizeof *d.stop);
	rc = d.stop ? kv_args_begin(&args, &usage, argc, argv, &err) : kv_fail_mem(&err, "options");
	if (rc == KV_OK && (rc = parse(&d, &args, &path, &err)) == KV_OK)
		rc = work(&d, path, &err);
	status = kv_tool_close(&d.tool, d.out, rc, &err);
	if (rc != KV_OK && kv_each_status(d.gen.each))
		status = kv_each_status(d.gen.each);
	kv_each_free(d.gen.each);
	kv_session_close(&d.session);
	kv_args_end(&args);
	kv_buf_free(&d.text);
	free(d.stop);
	kv_tool_end(&d.tool);
	return status;
}
