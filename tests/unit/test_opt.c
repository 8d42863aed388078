/* lib/util: the command line, and what provenance hears of it. */
#include "tap.h"

#include <stdlib.h>

#include "util/opt.h"

enum { KEY_TOVA = 300, KEY_TOP, KEY_WHEN, KEY_CODEC };

static const struct kv_opt own[] = { { "tova", KEY_TOVA, NULL, "" }, { "top", KEY_TOP, "N", "" }, { "prompt", 'p', "TEXT", "" },
	{ "keep", 'k', "N", "" }, { "when", KEY_WHEN, "[=T]", "" }, { "echo", 'e', NULL, "" }, { 0 } };
static const struct kv_opt common[] = { { "output", 'o', "FILE", "" }, { "threads", '@', "N", "" }, { "quiet", 'q', NULL, "" },
	{ "codec", KEY_CODEC, "C", "" }, { NULL, 'u', NULL, "" }, { 0 } };
static const struct kv_usage usage = { .tool = "t", .tables = { own, common } };
static const int silent[] = { 'o', '@', 'q', 'u', KEY_CODEC, 0 };

/* Words of a line, which are separated by '|', and the words that are left of them. */
static void
is_words(const char *line, const char *want)
{
	char text[256], got[256] = "", *argv[32] = { text }, *p;
	struct kv_args a;
	struct kv_words w = { 0 };
	struct kv_err err;
	int argc = 0, key;
	const char *arg;

	snprintf(text, sizeof text, "t|%s", line);
	for (p = text; p; argc++) {
		argv[argc] = p;
		if ((p = strchr(p, '|')))
			*p++ = 0;
	}
	kv_args_begin(&a, &usage, argc, argv, &err);
	a.silent = silent;
	while (kv_args_next(&a, &key, &arg, &err) == KV_OK)
		;
	ok(kv_args_words(&a, &w, &err) == KV_OK, "words of %s", line);
	for (int i = 0; i < w.n; i++)
		snprintf(got + strlen(got), sizeof got - strlen(got), "%s%s", i ? "|" : "", w.word[i]);
	is_str(got, want, "are these");
	kv_words_free(&w);
	kv_args_end(&a);
}

int
main(void)
{
	is_words("--tova|-k|5|in", "--tova|-k|5|in");
	is_words("in|--tova|-k5", "--tova|-k|5|in");
	is_words("-q|-@4|-@|4|-o|out|-oout|-u|--codec=zlib|--codec|raw|--quiet|--output=x|-k|7", "-k|7");
	is_words("-quk7|-q@|3|-qe", "-k|7|-e");
	is_words("-p|-q|-k|3", "-p|-q|-k|3");
	is_words("-qp-o|x", "-p|-o|x");
	is_words("--prompt|--quiet|--out|x|--thr=3|--qu", "--prompt|--quiet");
	is_words("--tov|--ke=3|--pr=", "--tova|--keep|3|--prompt|");
	is_words("--when|--when=now", "--when|--when=now");
	is_words("-k|3|--|-q|-o", "-k|3|--|-q|-o");
	is_words("a|-|-q", "a|-");
	is_words("", "");
	return done_testing();
}
