/* What all tools have in common. */
#include "tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/mem.h"
#include "util/text.h"

enum { OPT_CODEC = 1000, OPT_ONLY, OPT_MEM_LIMIT, OPT_NO_PROV, OPT_HELP, OPT_VERSION };

const struct kv_opt kv_common_options[] = {
	{ "output", 'o', "FILE", "write there, whole or not at all; - is standard output (default)" },
	{ "threads", '@', "N", "threads in all (default $KV_THREADS or 1; 0 = all processors); results stay the same" },
	{ "codec", OPT_CODEC, "auto|raw|zlib", "how payloads are stored; auto: raw into a pipe, zlib into a file" },
	{ NULL, 'u', NULL, "the same as --codec raw" },
	{ "quiet", 'q', NULL, "say less" },
	{ "verbose", 'v', NULL, "say more (may be repeated)" },
	{ "force", 'f', NULL, "write to a terminal or a device; go on where a message names --force" },
	{ "only", OPT_ONLY, "N", "of a sequence of snapshots take the N-th alone" },
	{ "mem-limit", OPT_MEM_LIMIT, "SIZE", "refuse to use more memory for snapshots (K, M, G)" },
	{ "no-prov", OPT_NO_PROV, NULL, "leave no record of this run in the snapshot" },
	{ "help", OPT_HELP, NULL, "this text" },
	{ "version", OPT_VERSION, NULL, "versions of this program, of its libraries and of the format" },
	{ 0 },
};

/* They change how a snapshot is stored or what is said about it: no business of its provenance. */
static const int silent_options[] = { 'o', '@', OPT_CODEC, 'u', 'q', 'v', 'f', OPT_MEM_LIMIT, KV_OPT_CHECKPOINT,
	KV_OPT_CHECKPOINT_EVERY, 0 };

/* One write, so that lines of the stages of a pipeline do not mix. */
__attribute__((format(printf, 2, 0))) static void
say(const struct kv_tool *t, const char *fmt, va_list ap)
{
	char line[1024];
	size_t n;

	n = (size_t)snprintf(line, sizeof line, "%s: ", t->usage->tool);
	vsnprintf(line + n, sizeof line - n - 1, fmt, ap);
	n = strlen(line);
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return;		/* nobody left to tell */
}

void
kv_tool_say(const struct kv_tool *t, int level, const char *fmt, ...)
{
	va_list ap;

	if (t->verbosity < level)
		return;
	va_start(ap, fmt);
	say(t, fmt, ap);
	va_end(ap);
}

void
kv_tool_line(void *arg, int level, const char *text)
{
	kv_tool_say(arg, level, "%s", text);
}

int
kv_tool_fail(const struct kv_tool *t, const struct kv_err *err)
{
	if (err->code == KV_EUSAGE)
		kv_tool_say(t, -9, "%s; try '%s --help'", err->text, t->usage->tool);
	else
		kv_tool_say(t, -9, "%s", err->text);
	return kv_exit_code(err->code);
}

int
kv_tool_close(const struct kv_tool *t, struct kv_out *o, enum kv_status rc, struct kv_err *err)
{
	if (rc != KV_OK)
		kv_out_abort(o);
	else if (o)
		rc = kv_out_commit(o, err);
	return rc == KV_OK ? 0 : kv_tool_fail(t, err);
}

void
kv_tool_start(struct kv_tool *t, const struct kv_usage *usage)
{
	*t = (struct kv_tool){ .usage = usage, .threads = -1 };
	kv_out_catch_signals();
	kv_mem_start();
}

void
kv_tool_end(struct kv_tool *t)
{
	kv_pool_free(t->pool);
	kv_words_free(&t->words);
}

static enum kv_status
set_packing(struct kv_tool *t, const char *arg, struct kv_err *err)
{
	static const char *const names[] = { "auto", "raw", "zlib" };
	static const enum kvs_packing packings[] = { KVS_PACK_AUTO, KVS_PACK_RAW, KVS_PACK_ZLIB };
	char q[60];

	for (int i = 0; i < 3; i++)
		if (!strcmp(arg, names[i])) {
			t->packing = packings[i];
			return KV_OK;
		}
	return kv_fail(err, KV_EUSAGE, "--codec: '%s' is not auto, raw or zlib", kv_quote(q, sizeof q, arg, strlen(arg)));
}

static enum kv_status
set_threads(struct kv_tool *t, const char *what, const char *arg, struct kv_err *err)
{
	enum kv_status rc;
	int64_t n;

	if ((rc = kv_parse_int(what, arg, 0, 1024, &n, err)) == KV_OK)
		t->threads = (int)n;
	return rc;
}

/* KV_END: not a common one. */
static enum kv_status
common_option(struct kv_tool *t, int key, const char *arg, struct kv_err *err)
{
	enum kv_status rc = KV_OK;
	uint64_t size;
	int64_t n;

	switch (key) {
	case 'o':
		t->output = arg;
		break;
	case '@':
		return set_threads(t, "-@", arg, err);
	case OPT_CODEC:
		return set_packing(t, arg, err);
	case 'u':
		t->packing = KVS_PACK_RAW;
		break;
	case 'q':
		t->verbosity--;
		break;
	case 'v':
		t->verbosity++;
		break;
	case 'f':
		t->force = true;
		break;
	case OPT_ONLY:
		if ((rc = kv_parse_int("--only", arg, 1, INT64_MAX, &n, err)) == KV_OK)
			t->only = (uint64_t)n;
		break;
	case OPT_MEM_LIMIT:
		if ((rc = kv_parse_size("--mem-limit", arg, &size, err)) == KV_OK)
			kv_mem_limit_set(size ? size : 1);
		break;
	case OPT_NO_PROV:
		t->no_prov = true;
		break;
	case OPT_HELP:
		kv_usage_print(t->usage);
		exit(fflush(stdout) || ferror(stdout) ? 1 : 0);
	case OPT_VERSION:
		kv_tool_version(t->usage->tool);
		exit(fflush(stdout) || ferror(stdout) ? 1 : 0);
	default:
		return KV_END;
	}
	return rc;
}

/* KV_END if all is well: the options are over. A NULL pool is one thread. */
static enum kv_status
finish_options(struct kv_tool *t, const struct kv_args *a, struct kv_err *err)
{
	const char *env = getenv("KV_THREADS");
	enum kv_status rc;

	if (t->threads < 0 && env && *env && (rc = set_threads(t, "KV_THREADS", env, err)) != KV_OK)
		return rc;
	if (t->threads >= 0 && t->threads != 1 && !t->pool)
		t->pool = kv_pool_new((unsigned)t->threads);
	kv_words_free(&t->words);
	return (rc = kv_args_words(a, &t->words, err)) == KV_OK ? KV_END : rc;
}

enum kv_status
kv_tool_next(struct kv_tool *t, struct kv_args *a, int *key, const char **arg, struct kv_err *err)
{
	enum kv_status rc;

	a->silent = silent_options;
	while ((rc = kv_args_next(a, key, arg, err)) == KV_OK)
		if ((rc = common_option(t, *key, *arg, err)) != KV_OK)
			return rc == KV_END ? KV_OK : rc;
	return rc == KV_END ? finish_options(t, a, err) : rc;
}

enum kv_status
kv_tool_operand(const struct kv_args *a, const char **path, struct kv_err *err)
{
	char **operands, q[100];
	int n = kv_args_operands(a, &operands);

	if (n > 1)
		return kv_fail(err, KV_EUSAGE, "one snapshot at a time, but there is also '%s' (cat joins several into a sequence)",
			kv_quote(q, sizeof q, operands[1], strlen(operands[1])));
	*path = n ? operands[0] : NULL;
	return KV_OK;
}

enum kv_status
kv_tool_input(const struct kv_tool *t, const char *path, struct kv_in **in, struct kv_err *err)
{
	struct kv_in *i;
	enum kv_status rc;

	if ((rc = kv_in_open(path, &i, err)) != KV_OK)
		return rc;
	if (kv_in_is_tty(i) && !t->force) {
		kv_in_close(i);
		return kv_fail(err, KV_EUSAGE, "a snapshot is not read from a terminal: name a file or use a pipe");
	}
	kv_in_map(i);
	*in = i;
	return KV_OK;
}

/* A snapshot that --only passes over is still read to its end. */
static enum kv_status
skip(struct kvs_reader *r, struct kv_err *err)
{
	struct kvs_frame frame;
	enum kv_status rc;

	while ((rc = kvs_reader_next(r, &frame, err)) == KV_OK)
		;
	return rc == KV_END ? KV_OK : rc;
}

/* What is done with each snapshot, and whether it was read: trouble after that is not always the input's. */
struct each {
	enum kv_status (*fn)(struct each *e, struct kvs_reader *r, struct kv_err *err);
	bool read;
	kv_each_snapshot *map;
	void *arg;
	const struct kv_pass *pass;
	struct kvs_writer *w;
};

static enum kv_status
map_one(struct each *e, struct kvs_reader *r, struct kv_err *err)
{
	struct kv_cache *c;
	enum kv_status rc;

	if ((rc = kv_cache_read(r, &c, err)) != KV_OK)
		return rc;
	e->read = true;
	rc = e->map(e->arg, c, err);
	kv_cache_free(c);
	return rc;
}

static enum kv_status
pass_one(struct each *e, struct kvs_reader *r, struct kv_err *err)
{
	return kv_cache_pass(r, e->pass, e->w, err);
}

static enum kv_status
each(const struct kv_tool *t, struct kv_in *in, struct each *e, struct kv_err *err)
{
	struct kvs_reader *r;
	enum kv_status rc;
	uint64_t i = 0;

	if ((rc = kvs_reader_new(in, &r, err)) != KV_OK)
		return rc;
	while ((rc = kvs_reader_begin(r, err)) == KV_OK) {
		e->read = false;
		rc = t->only && ++i != t->only ? skip(r, err) : e->fn(e, r, err);
		if (rc != KV_OK)
			break;
	}
	if (rc == KV_END)
		rc = t->only > i ? kv_fail(err, KV_EFIT, "--only %llu: there are %llu snapshots", (unsigned long long)t->only,
				(unsigned long long)i) : KV_OK;
	if (rc != KV_OK && rc != KV_EIO && (!e->read || rc == KV_EFIT))
		kv_err_in(err, "%s", kv_in_name(in));
	kvs_reader_free(r);
	return rc;
}

enum kv_status
kv_tool_map(const struct kv_tool *t, struct kv_in *in, kv_each_snapshot *fn, void *arg, struct kv_err *err)
{
	return each(t, in, &(struct each){ .fn = map_one, .map = fn, .arg = arg }, err);
}

enum kv_status
kv_tool_pass(const struct kv_tool *t, struct kv_in *in, const struct kv_pass *p, struct kvs_writer *w, struct kv_err *err)
{
	return each(t, in, &(struct each){ .fn = pass_one, .pass = p, .w = w }, err);
}

void
kv_tool_say_lines(const struct kv_tool *t, int level, struct kv_buf *text)
{
	char *line, *next;

	kv_buf_add(text, "", 1);
	for (line = (char *)text->p; line && *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = 0;
		kv_tool_say(t, level, "%s", line);
	}
	text->len = 0;
}

void
kv_tool_show(const struct kv_buf *shown)
{
	if (shown->len && write(STDERR_FILENO, shown->p, shown->len) >= 0 && shown->p[shown->len - 1] != '\n')
		fputc('\n', stderr);
}
