/* Option tables over getopt_long. */
#define _GNU_SOURCE	/* getopt_long */
#include "util/opt.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

enum { MAX_OPTS = 160, TABLES = sizeof ((struct kv_usage *)0)->tables / sizeof (struct kv_opt *) };

struct words {				/* the tables in getopt_long's form */
	struct option longs[MAX_OPTS + 1];
	char shorts[3 * MAX_OPTS + 2];
};

static bool
is_short(int key)
{
	return key > 0 && key < 256;
}

static bool
arg_optional(const struct kv_opt *o)
{
	return o->arg && o->arg[0] == '[';
}

static void
fill(struct words *w, const struct kv_usage *u)
{
	size_t n = 0, s = 0;

	w->shorts[s++] = ':';	/* a missing argument is told apart from an unknown option */
	for (int t = 0; t < TABLES && u->tables[t]; t++)
		for (const struct kv_opt *o = u->tables[t]; o->key && n < MAX_OPTS; o++) {
			int has = !o->arg ? no_argument : arg_optional(o) ? optional_argument : required_argument;

			if (o->name)
				w->longs[n++] = (struct option){ o->name, has, NULL, o->key };
			if (is_short(o->key)) {
				w->shorts[s++] = (char)o->key;
				for (int i = 0; i < has; i++)
					w->shorts[s++] = ':';
			}
		}
	w->longs[n] = (struct option){ 0 };
	w->shorts[s] = 0;
}

enum kv_status
kv_args_begin(struct kv_args *a, const struct kv_usage *u, int argc, char **argv, struct kv_err *err)
{
	struct words *w = malloc(sizeof *w);

	if (!w)
		return kv_fail_mem(err, "options");
	fill(w, u);
	*a = (struct kv_args){ argc, argv, u, w };
	optind = 0;	/* glibc: start anew, another vector may have been parsed in this process */
	opterr = 0;
	return KV_OK;
}

enum kv_status
kv_args_next(struct kv_args *a, int *key, const char **arg, struct kv_err *err)
{
	const struct words *w = a->priv;
	int c = getopt_long(a->argc, a->argv, w->shorts, w->longs, NULL);
	const char *word = optind > 0 && optind <= a->argc ? a->argv[optind - 1] : "";
	char q[100];

	if (c == -1)
		return KV_END;
	if (c == ':')
		return kv_fail(err, KV_EUSAGE, "%s needs an argument", kv_quote(q, sizeof q, word, strlen(word)));
	if (c == '?' && is_short(optopt) && word[1] != '-')
		return kv_fail(err, KV_EUSAGE, "there is no option -%c", optopt);
	if (c == '?' && optopt)
		return kv_fail(err, KV_EUSAGE, "%s takes no argument", kv_quote(q, sizeof q, word, strcspn(word, "=")));
	if (c == '?')
		return kv_fail(err, KV_EUSAGE, "there is no option %s, or it is ambiguous", kv_quote(q, sizeof q, word, strcspn(word, "=")));
	*key = c;
	*arg = optarg;
	return KV_OK;
}

int
kv_args_operands(const struct kv_args *a, char ***argv)
{
	*argv = a->argv + optind;
	return a->argc - optind;
}

void
kv_args_end(struct kv_args *a)
{
	free(a->priv);
	a->priv = NULL;
}

static void
print_option(const struct kv_opt *o)
{
	enum { COLUMN = 30 };
	char left[80];
	int n = 0;

	if (is_short(o->key))
		n += snprintf(left + n, sizeof left - (size_t)n, "-%c%s", o->key, o->name ? ", " : "");
	else
		n += snprintf(left + n, sizeof left - (size_t)n, "    ");
	if (o->name)
		n += snprintf(left + n, sizeof left - (size_t)n, "--%s", o->name);
	if (o->arg)
		snprintf(left + n, sizeof left - (size_t)n, "%s%s", arg_optional(o) ? "" : " ", o->arg);
	if (strlen(left) > COLUMN - 2)
		printf("  %s\n  %*s%s\n", left, COLUMN, "", o->help);
	else
		printf("  %-*s%s\n", COLUMN, left, o->help);
}

void
kv_usage_print(const struct kv_usage *u)
{
	printf("usage: %s %s\n\n%s\n", u->tool, u->synopsis, u->summary);
	for (int t = 0; t < TABLES && u->tables[t]; t++) {
		printf("\n%s\n", u->titles[t] ? u->titles[t] : "Options");
		for (const struct kv_opt *o = u->tables[t]; o->key; o++)
			if (o->help)
				print_option(o);
	}
	if (u->footer)
		printf("\nExamples\n%s", u->footer);
}
