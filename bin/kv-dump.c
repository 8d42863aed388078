/* kv-dump: look inside snapshots. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvs/digest.h"
#include "tool.h"
#include "util/text.h"
#include "view/view.h"

enum { OPT_JSON = 400, OPT_TSV, OPT_PPL, OPT_TEXT, OPT_LAYER, OPT_HEAD, OPT_VERIFY, OPT_QUICK, OPT_DIGEST, OPT_DIFF, OPT_COLOR };

static const struct kv_opt options[] = {
	{ "json", OPT_JSON, NULL, "one JSON object per snapshot" },
	{ "tsv", OPT_TSV, "TABLE", "entries, tokens, frames, nll, scores:POLICY, masks or prov, with a header line" },
	{ "ppl", OPT_PPL, NULL, "tokens scored, mean NLL, perplexity" },
	{ "text", OPT_TEXT, NULL, "the text, with what was dropped dimmed or elided (needs the model)" },
	{ "layer", OPT_LAYER, "L", "with --text: what this layer holds, from 0" },
	{ "head", OPT_HEAD, "H", "with --text: what this KV head holds, from 0" },
	{ "verify", OPT_VERIFY, NULL, "check everything; silent when good" },
	{ "quick", OPT_QUICK, NULL, "check only headers and how the file ends" },
	{ "digest", OPT_DIGEST, NULL, "the content digest" },
	{ "diff", OPT_DIFF, NULL, "what differs between two snapshots; exit 0: nothing, 1: something, 2 and up: trouble" },
	{ "model", 'm', "FILE", "GGUF model whose vocabulary turns ids into text (default $KV_MODEL)" },
	{ "color", OPT_COLOR, "WHEN", "auto (default), always or never" },
	{ 0 },
};

static const struct kv_usage usage = {
	.tool = "kv-dump",
	.synopsis = "[MODE] [-m MODEL] [options] [SNAP …]",
	.summary = "Looks inside snapshots. Without a mode: a page for people.",
	.tables = { options, kv_common_options },
	.titles = { "Modes and their options", "Common options" },
	.footer = "  kv-dump --json book.kvs | jq .entries.max\n",
};

struct dump {
	struct kv_tool tool;
	int mode;			/* key of its option; 0 = the page */
	const char *table, *policy, *model, *color;
	struct kv_which which;
	char **files;
	int n_files;

	struct kv_gguf *gguf;
	struct kv_tokenizer *tok;
	struct kvs_geom *vocabulary;	/* the model's, for comparing */
	struct kv_print print;
	uint64_t printed;		/* snapshots so far, of all files */
	struct kv_cache *other;		/* --diff: the first of the two */
	bool different;
};

static bool
is_table(const struct dump *d, const char *name)
{
	return d->mode == OPT_TSV && !strcmp(d->table, name);
}

static enum kv_status
set_table(struct dump *d, const char *arg, struct kv_err *err)
{
	static const char *const names[] = { "entries", "tokens", "frames", "nll", "masks", "prov" };
	char q[80];

	d->table = arg;
	if (!strncmp(arg, "scores:", 7)) {
		d->policy = arg + 7;
		return kv_score_table_check(d->policy, err);
	}
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		if (!strcmp(arg, names[i]))
			return KV_OK;
	return kv_fail(err, KV_EUSAGE, "--tsv: there is no table '%s'", kv_quote(q, sizeof q, arg, strlen(arg)));
}

static enum kv_status
set_mode(struct dump *d, int key, struct kv_err *err)
{
	if (d->mode && d->mode != key)
		return kv_fail(err, KV_EUSAGE, "one of --json, --tsv, --ppl, --text, --verify, --quick, --digest and --diff at a time");
	d->mode = key;
	return KV_OK;
}

static enum kv_status
option(struct dump *d, int key, const char *arg, struct kv_err *err)
{
	enum kv_status rc;

	switch (key) {
	case OPT_LAYER:
		return kv_parse_int("--layer", arg, 0, KVS_MAX_LAYERS - 1, &d->which.layer, err);
	case OPT_HEAD:
		return kv_parse_int("--head", arg, 0, KVS_MAX_HEADS - 1, &d->which.head, err);
	case OPT_COLOR:
		d->color = arg;
		return KV_OK;
	case 'm':
		d->model = arg;
		return KV_OK;
	case OPT_TSV:
		if ((rc = set_table(d, arg, err)) != KV_OK)
			return rc;
		/* fallthrough */
	default:
		return set_mode(d, key, err);
	}
}

/* NO_COLOR: no-color.org */
static enum kv_status
set_colour(struct dump *d, struct kv_err *err)
{
	const char *no = getenv("NO_COLOR");
	char q[60];

	if (!strcmp(d->color, "auto"))
		d->print.colour = !(no && *no) && (!d->tool.output || !strcmp(d->tool.output, "-")) && isatty(STDOUT_FILENO);
	else if (!strcmp(d->color, "always"))
		d->print.colour = true;
	else if (strcmp(d->color, "never"))
		return kv_fail(err, KV_EUSAGE, "--color: '%s' is not auto, always or never", kv_quote(q, sizeof q, d->color, strlen(d->color)));
	return KV_OK;
}

static enum kv_status
parse(struct dump *d, struct kv_args *args, struct kv_err *err)
{
	enum kv_status rc;
	const char *arg;
	int key;

	while ((rc = kv_tool_next(&d->tool, args, &key, &arg, err)) == KV_OK)
		if ((rc = option(d, key, arg, err)) != KV_OK)
			return rc;
	if (rc != KV_END || (rc = set_colour(d, err)) != KV_OK)
		return rc;
	d->n_files = kv_args_operands(args, &d->files);
	if (!d->model)
		d->model = getenv("KV_MODEL");
	if (d->mode == OPT_DIFF && d->n_files != 2)
		return kv_fail(err, KV_EUSAGE, "--diff compares two files");
	if (d->mode != OPT_TEXT && (d->which.layer >= 0 || d->which.head >= 0))
		return kv_fail(err, KV_EUSAGE, "--layer and --head go with --text");
	if (d->mode == OPT_TEXT && !(d->model && *d->model))
		return kv_fail(err, KV_EUSAGE, "--text needs the model for its vocabulary: -m FILE or KV_MODEL");
	return KV_OK;
}

/* Only where text is shown. */
static enum kv_status
open_vocabulary(struct dump *d, struct kv_err *err)
{
	enum kv_status rc;

	if (!(d->mode == OPT_TEXT || is_table(d, "tokens")) || !d->model || !*d->model)
		return KV_OK;
	if (!(d->vocabulary = calloc(1, sizeof *d->vocabulary)))
		return kv_fail_mem(err, "the model's geometry");
	if ((rc = kv_gguf_open(d->model, &d->gguf, err)) != KV_OK || (rc = kv_tokenizer_new(d->gguf, &d->tok, err)) != KV_OK)
		return rc;
	d->vocabulary->fp_kind = 1;
	return kv_gguf_fingerprint(d->gguf, d->vocabulary->fp_model, d->vocabulary->fp_tokenizer, err);
}

static enum kv_status
show_text(struct dump *d, const struct kv_cache *c, struct kv_err *err)
{
	struct kv_survival n;
	enum kv_status rc;

	if ((rc = kv_survivors(c, d->tok, &d->which, &d->print, &n, err)) == KV_OK)
		kv_tool_say(&d->tool, 1, "%llu tokens; of %lu lists at least half hold %llu, fewer %llu, none %llu", (unsigned long long)n.tokens,
			(unsigned long)n.lists, (unsigned long long)n.many, (unsigned long long)n.few, (unsigned long long)n.none);
	return rc;
}

/* The first cache waits for the second. */
static enum kv_status
show_diff(struct dump *d, struct kv_cache **c, struct kv_err *err)
{
	if (d->printed > 1)
		return kv_fail(err, KV_EFIT, "--diff compares one snapshot of each file: --only picks it");
	if (d->other)
		return kv_diff(d->other, *c, &d->print, &d->different, err);
	d->other = *c;
	*c = NULL;
	return KV_OK;
}

/* Modes that want the entries themselves. */
static enum kv_status
show_cache(struct dump *d, struct kv_cache *c, struct kv_err *err)
{
	bool header = !d->printed;
	enum kv_status rc;

	if (d->tok && (rc = kvs_geom_same_tokenizer(d->vocabulary, &c->geom, d->tool.force, err)) != KV_OK)
		return rc;
	if (d->mode == OPT_TEXT)
		return show_text(d, c, err);
	if (d->mode == OPT_PPL)
		return kv_perplexity(c, &d->print, err);
	if (d->policy)
		return kv_score_table(c, d->policy, d->tool.pool, header, &d->print, err);
	return kv_cache_table(c, is_table(d, "entries") ? KV_TABLE_ENTRIES : is_table(d, "nll") ? KV_TABLE_NLL : KV_TABLE_TOKENS, d->tok,
		header, &d->print, err);
}

static enum kv_status
dump_cache(struct dump *d, struct kvs_reader *r, struct kv_err *err)
{
	struct kv_cache *c;
	enum kv_status rc;

	if ((rc = kv_cache_read(r, &c, err)) != KV_OK)
		return rc;
	rc = d->mode == OPT_DIFF ? show_diff(d, &c, err) : show_cache(d, c, err);
	kv_cache_free(c);
	return rc;
}

static enum kv_status
dump_survey(struct dump *d, struct kvs_reader *r, const char *name, struct kv_err *err)
{
	struct kv_survey *s;
	enum kv_status rc;

	if ((rc = kv_survey_read(r, d->tool.pool, &s, err)) != KV_OK)
		return rc;
	if (d->mode == OPT_JSON)
		rc = kv_survey_json(s, &d->print, err);
	else if (!d->mode) {
		if (d->printed)
			kv_buf_add(&d->print.buf, "\n", 1);
		rc = kv_survey_page(s, name, &d->print, err);
	} else if (s->odd_rows)
		kv_tool_say(&d->tool, 0, "%s: %llu rows of K or V hold NaN or infinity", name, (unsigned long long)s->odd_rows);
	kv_survey_free(s);
	return rc;
}

static enum kv_status
dump_digest(struct dump *d, struct kvs_reader *r, struct kv_err *err)
{
	char hex[33];
	enum kv_status rc;

	if ((rc = kv_walk(r, err)) == KV_OK)
		kv_buf_printf(&d->print.buf, "%s\n", kvs_hex128(kvs_reader_digest(r), hex));
	return rc;
}

static enum kv_status
dump_one(struct dump *d, struct kvs_reader *r, const char *name, struct kv_err *err)
{
	enum kv_status rc;

	if (d->mode == OPT_QUICK)
		return kv_walk(r, err);
	if (d->mode == OPT_DIGEST)
		rc = dump_digest(d, r, err);
	else if (d->mode == 0 || d->mode == OPT_JSON || d->mode == OPT_VERIFY)
		rc = dump_survey(d, r, name, err);
	else if (is_table(d, "frames") || is_table(d, "masks") || is_table(d, "prov"))
		rc = kv_frame_table(r, is_table(d, "frames") ? KV_TABLE_FRAMES : is_table(d, "masks") ? KV_TABLE_MASKS : KV_TABLE_PROV,
			!d->printed++, &d->print, err);
	else
		rc = dump_cache(d, r, err);
	if (rc != KV_OK)
		return rc;
	d->printed++;
	return kv_print_flush(&d->print, true, err);
}

static enum kv_status
dump_sequence(struct dump *d, struct kv_in *in, struct kv_err *err)
{
	struct kvs_reader *r;
	uint64_t i = 0;
	enum kv_status rc;

	if ((rc = kvs_reader_new(in, &r, err)) != KV_OK)
		return rc;
	if (d->mode == OPT_QUICK || is_table(d, "frames"))
		kvs_reader_skim(r);
	while ((rc = kvs_reader_begin(r, err)) == KV_OK)
		if ((rc = d->tool.only && ++i != d->tool.only ? kv_walk(r, err) : dump_one(d, r, kv_in_name(in), err)) != KV_OK)
			break;
	if (rc == KV_END)
		rc = d->tool.only > i ? kv_fail(err, KV_EFIT, "--only %llu: the sequence has %llu", (unsigned long long)d->tool.only,
				(unsigned long long)i) : KV_OK;
	kvs_reader_free(r);
	return rc;
}

static enum kv_status
dump_file(struct dump *d, const char *path, struct kv_err *err)
{
	struct kv_in *in;
	enum kv_status rc;

	if ((rc = kv_tool_input(&d->tool, path, &in, err)) != KV_OK)
		return rc;
	/* What is mapped is walked quickly; of a file that is standard input the ends must do. */
	if (d->mode != OPT_QUICK || d->tool.only || kv_in_skim(in) || (rc = kv_quick(kv_in_fd(in), err)) == KV_END)
		rc = dump_sequence(d, in, err);
	if (rc != KV_OK && rc != KV_EIO)
		kv_err_in(err, "%s", kv_in_name(in));
	kv_in_close(in);
	return rc;
}

/* Every file is looked at; the exit status is that of the first that failed. */
static enum kv_status
dump_files(struct dump *d, struct kv_err *first)
{
	enum kv_status rc = dump_file(d, d->n_files ? d->files[0] : NULL, first), one;
	struct kv_err err;

	for (int i = 1; i < d->n_files; i++) {
		d->print.buf.len = 0;
		if ((one = dump_file(d, d->files[i], rc == KV_OK ? first : &err)) == KV_OK)
			continue;
		if (rc != KV_OK)
			kv_tool_fail(&d->tool, &err);
		else
			rc = one;
	}
	return rc;
}

int
main(int argc, char **argv)
{
	struct dump d = { .which = { -1, -1 }, .color = "auto" };
	struct kv_args args = { 0 };
	struct kv_err err;
	enum kv_status rc;
	int status;

	kv_tool_start(&d.tool, &usage);
	if ((rc = kv_args_begin(&args, &usage, argc, argv, &err)) == KV_OK && (rc = parse(&d, &args, &err)) == KV_OK &&
	    (rc = open_vocabulary(&d, &err)) == KV_OK && (rc = kv_out_open(d.tool.output, false, d.tool.force, &d.print.out, &err)) == KV_OK)
		rc = dump_files(&d, &err);
	status = kv_tool_close(&d.tool, d.print.out, rc, &err);
	if (d.mode == OPT_DIFF && status == 1)
		status = 2;	/* as cmp: 1 says that they differ */
	else if (d.different && status == 0)
		status = 1;
	kv_cache_free(d.other);
	kv_buf_free(&d.print.buf);
	kv_tokenizer_free(d.tok);
	kv_gguf_close(d.gguf);
	free(d.vocabulary);
	kv_args_end(&args);
	kv_tool_end(&d.tool);
	return status;
}
