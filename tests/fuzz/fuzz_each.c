/* The text of --each: taken apart for this process, or for a shell, which is not started. */
#include <string.h>

#include "fuzz.h"
#include "loop/each.h"
#include "loop/sh_words.h"
#include "util/mem.h"

/* As the tools have them, for what goes on in --each. */
static const struct kv_opt common[] = {
	{ "output", 'o', "FILE", "" },
	{ "threads", '@', "N", "" },
	{ "quiet", 'q', NULL, "" },
	{ "only", 1000, "N", "" },
	{ 0 },
};

static void
quote(struct kv_buf *b, const char *word)
{
	kv_buf_add(b, "'", 1);
	for (; *word; word++)
		if (*word == '\'')
			kv_buf_add(b, "'\\''", 4);
		else
			kv_buf_add(b, word, 1);
	kv_buf_add(b, "'", 1);
}

static bool
same(const struct kv_commands *a, const struct kv_commands *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		if (a->c[i].argc != b->c[i].argc)
			return false;
		for (int k = 0; k < a->c[i].argc; k++)
			if (strcmp(a->c[i].argv[k], b->c[i].argv[k]))
				return false;
	}
	return true;
}

/* What was taken apart and quoted anew is the same words. */
static void
there_and_back(const struct kv_commands *c)
{
	struct kv_buf text = { 0 };
	struct kv_commands again;
	struct kv_err err;

	for (size_t i = 0; i < c->n; i++) {
		MUST(c->c[i].argc > 0 && !c->c[i].argv[c->c[i].argc]);
		if (i)
			kv_buf_add(&text, "|", 1);
		for (int k = 0; k < c->c[i].argc; k++) {
			quote(&text, c->c[i].argv[k]);
			kv_buf_add(&text, " ", 1);
		}
	}
	kv_buf_add(&text, "", 1);
	MUST(kv_sh_split((const char *)text.p, &again, &err) == KV_OK && same(c, &again));
	kv_commands_free(&again);
	kv_buf_free(&text);
}

static void
split(const char *text)
{
	struct kv_commands c = { 0 };
	char **piece = NULL;
	size_t n = 0;
	struct kv_err err;
	enum kv_status rc = kv_sh_split(text, &c, &err), pieces = kv_sh_pieces(text, &piece, &n, &err);

	MUST(rc == KV_OK || rc == KV_END || rc == KV_EUSAGE);
	MUST(pieces == KV_OK || pieces == KV_EUSAGE);
	if (rc == KV_OK) {
		there_and_back(&c);
		MUST(pieces == KV_OK && (n == c.n || n == 1));	/* one: left to the shell as it is */
	}
	for (size_t i = 0; i < n; i++)
		MUST(strlen(piece[i]) <= strlen(text));
	kv_commands_free(&c);
	free(piece);
}

static void
configure(const char *text)
{
	struct kv_each *e;
	struct kv_observe o = { 0 };
	struct kv_err err = { KV_OK, "" };
	enum kv_status rc = kv_each_new("--each", text, common, &e, &err);

	if (rc != KV_OK) {
		MUST(rc == err.code && *err.text && !strchr(err.text, '\n'));
		return;
	}
	kv_each_observe(e, &o);
	MUST(!kv_each_status(e));
	kv_each_free(e);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char *text = malloc(n + 1);

	MUST(text);
	if (n)
		memcpy(text, data, n);
	text[n] = 0;
	split(text);
	configure(text);
	free(text);
	return 0;
}
