/* What all tools have in common: start-up, the common options, messages and exit codes. Only here may a tool print and die. */
#ifndef KV_BIN_TOOL_H
#define KV_BIN_TOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/snapshot.h"
#include "util/in.h"
#include "util/opt.h"
#include "util/out.h"
#include "util/pool.h"

/* Keys of single tools' options that cannot change what comes out, and so are no business of its provenance. */
enum { KV_OPT_CHECKPOINT = 990, KV_OPT_CHECKPOINT_EVERY };

struct kv_tool {
	const struct kv_usage *usage;
	struct kv_words words;		/* the command line for the provenance, when its options are over */
	const char *output;		/* -o; NULL = standard output */
	enum kvs_packing packing;
	int threads;			/* -@; -1 = not given */
	struct kv_pool *pool;
	int verbosity;			/* -q: -1, -v: 1, -vv: 2 */
	bool force, no_prov;
	uint64_t only;			/* 0 = every snapshot of a sequence */
};

extern const struct kv_opt kv_common_options[];	/* the last table of a tool's usage */

/* Signals, environment. Must come first in main. */
void kv_tool_start(struct kv_tool *t, const struct kv_usage *usage);
void kv_tool_end(struct kv_tool *t);

/*
 * The next option that is the tool's own; common ones are taken here (--help and --version print and exit 0). KV_END after the
 * last: the pool and the words are then there.
 */
enum kv_status kv_tool_next(struct kv_tool *t, struct kv_args *a, int *key, const char **arg, struct kv_err *err);

/* At most one operand: a snapshot, NULL = standard input. More: KV_EUSAGE. */
enum kv_status kv_tool_operand(const struct kv_args *a, const char **path, struct kv_err *err);
/* Opens a snapshot for reading; refuses a terminal. */
enum kv_status kv_tool_input(const struct kv_tool *t, const char *path, struct kv_in **in, struct kv_err *err);

/*
 * Calls fn with the cache of every snapshot in the sequence, or with that of --only alone, each read to its right end first. The cache
 * is freed afterwards. An error says where the input came from.
 */
typedef enum kv_status kv_each_snapshot(void *arg, struct kv_cache *c, struct kv_err *err);
enum kv_status kv_tool_map(const struct kv_tool *t, struct kv_in *in, kv_each_snapshot *fn, void *arg, struct kv_err *err);
/* The same where positions alone move: each goes to w while it is read. */
enum kv_status kv_tool_pass(const struct kv_tool *t, struct kv_in *in, const struct kv_pass *p, struct kvs_writer *w, struct kv_err *err);

/* Prints the message, with a hint for a usage error, and returns the exit status. */
int kv_tool_fail(const struct kv_tool *t, const struct kv_err *err);
/* Closes o: commit if rc is KV_OK, else abort and the message. Returns the exit status. */
int kv_tool_close(const struct kv_tool *t, struct kv_out *o, enum kv_status rc, struct kv_err *err);

void kv_tool_version(const char *tool);	/* on standard output */

/* A line on standard error if verbosity is at least level. The tool's name and the newline are added. */
void kv_tool_say(const struct kv_tool *t, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same for whoever takes a callback (struct kv_say); arg is the struct kv_tool. */
void kv_tool_line(void *arg, int level, const char *text);

/* Every line of text as such a line; the text is used up. */
void kv_tool_say_lines(const struct kv_tool *t, int level, struct kv_buf *text);
/* --show-prompt: what is fed, as it is, on standard error. */
void kv_tool_show(const struct kv_buf *shown);

#endif
