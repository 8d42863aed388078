/*
 * Option tables: the parser, the help text and the completion are made from the same rows.
 * Words of getopt_long; parsing is re-entrant in the sense that one vector after the other may be parsed in one process.
 */
#ifndef KV_UTIL_OPT_H
#define KV_UTIL_OPT_H

#include <stdbool.h>

#include "util/err.h"

struct kv_opt {
	const char *name;	/* long name without dashes */
	int key;		/* the short letter, or a number above 255 */
	const char *arg;	/* what its argument is called in the help; NULL = it takes none; "[=X]" = it may be left out */
	const char *help;	/* one line; NULL = not shown */
};				/* a row of zeros ends a table */

/* A tool as its --help shows it. Tables are searched in order; a NULL ends the list. */
struct kv_usage {
	const char *tool;	/* "kv-evict" */
	const char *synopsis;	/* "POLICY -k BUDGET [options] [SNAP]" */
	const char *summary;	/* one sentence */
	const struct kv_opt *tables[4];
	const char *titles[4];	/* a heading over each table */
	const char *footer;	/* lines of examples, indented by two; may be NULL */
};

struct kv_args {
	int argc;
	char **argv;		/* reordered: operands last */
	const struct kv_usage *usage;
	const int *silent;	/* keys of options that kv_args_words leaves out, ended by 0; the caller's to set, NULL = none */
	void *priv;
};

enum kv_status kv_args_begin(struct kv_args *a, const struct kv_usage *u, int argc, char **argv, struct kv_err *err);
/* KV_OK with the row's key and its argument (NULL if none), KV_END when only operands are left, KV_EUSAGE. */
enum kv_status kv_args_next(struct kv_args *a, int *key, const char **arg, struct kv_err *err);
/* After KV_END: the operands. */
int kv_args_operands(const struct kv_args *a, char ***argv);

/* After KV_END: the command line again, one option or argument a word, names in full, operands last, without the silent options. */
struct kv_words {
	char **word;		/* [n] */
	int n;
};

enum kv_status kv_args_words(const struct kv_args *a, struct kv_words *out, struct kv_err *err);
void kv_words_free(struct kv_words *w);
void kv_args_end(struct kv_args *a);

void kv_usage_print(const struct kv_usage *u);	/* on standard output */

#endif
