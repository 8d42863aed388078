/* Option tables over getopt_long. */
#define _GNU_SOURCE	/* getopt_long */
#include "util/opt.h"

#include <assert.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"
#include "util/text.h"

enum { MAX_OPTS = 160, TABLES = sizeof ((struct kv_usage *)0)->tables / sizeof (struct kv_opt *) };

struct parser {
	struct option longs[MAX_OPTS + 1];	/* the tables in getopt_long's form */
	const struct kv_opt *row[MAX_OPTS];	/* of each in longs */
	char shorts[3 * MAX_OPTS + 2];
	struct kv_words given;			/* options so far */
	bool short_of_memory;			/* one of them is missing there */
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
fill(struct parser *w, const struct kv_usage *u)
{
	size_t n = 0, s = 0;

	w->shorts[s++] = ':';	/* a missing argument is told apart from an unknown option */
	for (int t = 0; t < TABLES && u->tables[t]; t++)
		for (const struct kv_opt *o = u->tables[t]; o->key && n < MAX_OPTS; o++) {
			int has = !o->arg ? no_argument : arg_optional(o) ? optional_argument : required_argument;

			if (o->name) {
				w->row[n] = o;
				w->longs[n++] = (struct option){ o->name, has, NULL, o->key };
			}
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
	struct parser *w = calloc(1, sizeof *w);

	if (!w)
		return kv_fail_mem(err, "options");
	fill(w, u);
	*a = (struct kv_args){ .argc = argc, .argv = argv, .usage = u, .priv = w };
	optind = 0;	/* glibc: start anew, another vector may have been parsed in this process */
	opterr = 0;
	return KV_OK;
}

static bool
add_word(struct kv_words *w, const char *word)
{
	char **p, *copy = strdup(word);

	if (!copy || !(p = kv_array_resize(w->word, (size_t)w->n + 1, sizeof *p))) {
		free(copy);
		return false;
	}
	w->word = p;
	w->word[w->n++] = copy;
	return true;
}

static const struct kv_opt *
find_short(const struct kv_usage *u, int key)
{
	for (int t = 0; t < TABLES && u->tables[t]; t++)
		for (const struct kv_opt *o = u->tables[t]; o->key; o++)
			if (o->key == key)
				return o;
	return NULL;
}

/* An option as it was understood: which = its place in longs, or -1 where it was given by its letter. */
static bool
note_option(struct kv_args *a, int key, int which)
{
	struct parser *w = a->priv;
	const struct kv_opt *o = which >= 0 ? w->row[which] : find_short(a->usage, key);
	char letter[2] = { (char)key, 0 };
	struct kv_buf b = { 0 };
	bool joined, good;

	assert(o);	/* getopt knows no other letters than those of the tables */
	joined = optarg && arg_optional(o);
	for (const int *s = a->silent; s && *s; s++)
		if (*s == key)
			return true;
	kv_buf_printf(&b, "%s%s%s%s", which >= 0 ? "--" : "-", which >= 0 ? o->name : letter, joined && which >= 0 ? "=" : "",
		joined ? optarg : "");
	good = !b.failed && add_word(&w->given, (const char *)b.p);
	kv_buf_free(&b);
	return good && (joined || !optarg || add_word(&w->given, optarg));
}

enum kv_status
kv_args_next(struct kv_args *a, int *key, const char **arg, struct kv_err *err)
{
	struct parser *w = a->priv;
	int which = -1, c = getopt_long(a->argc, a->argv, w->shorts, w->longs, &which);
	const char *word = optind > 0 && optind <= a->argc ? a->argv[optind - 1] : "";
	char q[100];

	if (c == -1)
		return KV_END;
	if (c == ':')
		return kv_fail(err, KV_EUSAGE, "%s needs an argument", kv_quote(q, sizeof q, word, strlen(word)));
	/* A letter, of which getopt says the signed char; in the middle of a word that is not `word` yet. */
	if (c == '?' && optopt && !find_short(a->usage, optopt))
		return kv_fail(err, KV_EUSAGE, "there is no option -%s", kv_quote(q, sizeof q, &(char){ (char)optopt }, 1));
	if (c == '?' && optopt)
		return kv_fail(err, KV_EUSAGE, "%s takes no argument", kv_quote(q, sizeof q, word, strcspn(word, "=")));
	if (c == '?')
		return kv_fail(err, KV_EUSAGE, "there is no option %s, or it is ambiguous", kv_quote(q, sizeof q, word, strcspn(word, "=")));
	w->short_of_memory |= !note_option(a, c, which);
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

enum kv_status
kv_args_words(const struct kv_args *a, struct kv_words *out, struct kv_err *err)
{
	const struct parser *w = a->priv;
	struct kv_words r = { 0 };
	bool good = !w->short_of_memory, dashes = false;

	for (int i = 0; i < w->given.n && good; i++)
		good = add_word(&r, w->given.word[i]);
	for (int i = optind; i < a->argc && good; i++) {
		/* Such a name can only have come after --. */
		if (a->argv[i][0] == '-' && a->argv[i][1] && !dashes)
			good = dashes = add_word(&r, "--");
		good = good && add_word(&r, a->argv[i]);
	}
	if (!good) {
		kv_words_free(&r);
		return kv_fail_mem(err, "options");
	}
	*out = r;
	return KV_OK;
}

void
kv_words_free(struct kv_words *w)
{
	for (int i = 0; i < w->n; i++)
		free(w->word[i]);
	free(w->word);
	*w = (struct kv_words){ 0 };
}

void
kv_args_end(struct kv_args *a)
{
	struct parser *w = a->priv;

	if (w)
		kv_words_free(&w->given);
	free(w);
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
