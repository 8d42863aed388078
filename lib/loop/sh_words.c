/* A pipeline of simple commands, taken apart as sh would (POSIX XCU, 2.2 quoting, 2.3 tokens). */
#include "loop/sh_words.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"

struct split {
	const char *p;
	struct kv_buf word;
	bool in_word;
	struct kv_commands out;
};

/* What makes a shell necessary: outside of quotes, and at the beginning of a word only. */
static const char unquoted_syntax[] = "$`<>&;()*?[]{}\n", leading_syntax[] = "#~!";

void
kv_commands_free(struct kv_commands *c)
{
	for (size_t i = 0; i < c->n; i++) {
		for (int k = 0; k < c->c[i].argc; k++)
			free(c->c[i].argv[k]);
		free(c->c[i].argv);
	}
	free(c->c);
	*c = (struct kv_commands){ 0 };
}

static enum kv_status
new_command(struct split *s, struct kv_err *err)
{
	struct kv_command *c = kv_array_resize(s->out.c, s->out.n + 1, sizeof *c);

	if (!c)
		return kv_fail_mem(err, "a pipeline");
	s->out.c = c;
	c[s->out.n] = (struct kv_command){ 0, kv_array_new(1, sizeof *c->argv) };
	return c[s->out.n++].argv ? KV_OK : kv_fail_mem(err, "a pipeline");
}

static enum kv_status
end_word(struct split *s, struct kv_err *err)
{
	struct kv_command *c = &s->out.c[s->out.n - 1];
	char **argv;

	if (!s->in_word)
		return KV_OK;
	kv_buf_add(&s->word, "", 1);
	if (s->word.failed || !(argv = kv_array_resize(c->argv, (size_t)c->argc + 2, sizeof *argv)))
		return kv_fail_mem(err, "a pipeline");
	c->argv = argv;
	argv[c->argc] = strdup((const char *)s->word.p);
	argv[c->argc + 1] = NULL;
	if (!argv[c->argc])
		return kv_fail_mem(err, "a pipeline");
	c->argc++;
	s->word.len = 0;
	s->in_word = false;
	return KV_OK;
}

static enum kv_status
end_command(struct split *s, struct kv_err *err)
{
	enum kv_status rc = end_word(s, err);

	if (rc == KV_OK && !s->out.c[s->out.n - 1].argc)
		rc = kv_fail(err, KV_EUSAGE, "the pipeline has an empty command");
	return rc;
}

/* p stands behind the opening quote. */
static enum kv_status
take_quoted(struct split *s, char quote, struct kv_err *err)
{
	for (; *s->p && *s->p != quote; s->p++) {
		if (quote == '"' && (*s->p == '$' || *s->p == '`'))
			return KV_END;
		if (quote == '"' && *s->p == '\\' && s->p[1] && strchr("$`\"\\\n", s->p[1]) && *++s->p == '\n')
			continue;
		kv_buf_add(&s->word, s->p, 1);
	}
	if (!*s->p)
		return kv_fail(err, KV_EUSAGE, "the pipeline has a %s quote without an end", quote == '"' ? "double" : "single");
	s->p++;
	return KV_OK;
}

static enum kv_status
take_one(struct split *s, struct kv_err *err)
{
	char c = *s->p++;
	enum kv_status rc;

	if (c == ' ' || c == '\t')
		return end_word(s, err);
	if (c == '|') {
		if (*s->p == '|')
			return KV_END;
		return (rc = end_command(s, err)) == KV_OK ? new_command(s, err) : rc;
	}
	if (strchr(unquoted_syntax, c) || (!s->in_word && strchr(leading_syntax, c)))
		return KV_END;
	if (c == '\\' && *s->p && *s->p++ == '\n')
		return KV_OK;
	s->in_word = true;
	if (c == '\'' || c == '"')
		return take_quoted(s, c, err);
	kv_buf_add(&s->word, s->p - 1, 1);
	return KV_OK;
}

enum kv_status
kv_sh_split(const char *text, struct kv_commands *out, struct kv_err *err)
{
	struct split s = { .p = text };
	enum kv_status rc = new_command(&s, err);

	while (rc == KV_OK && *s.p)
		rc = take_one(&s, err);
	if (rc == KV_OK)
		rc = end_command(&s, err);
	kv_buf_free(&s.word);
	if (rc == KV_OK)
		*out = s.out;
	else
		kv_commands_free(&s.out);
	return rc;
}

/* The end of the piece that begins at p: a bar or the end of the text. NULL: only a shell can tell. */
static const char *
end_of_piece(const char *p)
{
	char quote = 0;

	for (; *p && (quote || *p != '|'); p++) {
		if (quote != '\'' && (*p == '`' || (*p == '$' && p[1] == '(')))
			return NULL;
		if (!quote && strchr("\n;&(){}#", *p))
			return NULL;
		if (*p == '\\' && quote != '\'') {
			if (p[1])
				p++;
		} else if (*p == quote) {
			quote = 0;
		} else if (!quote && (*p == '\'' || *p == '"')) {
			quote = *p;
		}
	}
	return quote ? NULL : p;
}

static bool
is_blank(const char *p, const char *end)
{
	return p + strspn(p, " \t") >= end;
}

enum kv_status
kv_sh_pieces(const char *text, char ***out, size_t *n, struct kv_err *err)
{
	size_t count = 1, size = strlen(text) + 1;
	const char *p = text, *end;
	char **piece, *copy;

	while ((end = end_of_piece(p)) && *end && end[1] != '|' && !is_blank(p, end)) {
		count++;
		p = end + 1;
	}
	if (!end || *end)
		count = 1;
	if (end && is_blank(p, end))
		return kv_fail(err, KV_EUSAGE, "the pipeline has an empty command");
	/* Pointers and texts in one array. */
	if (!(piece = kv_array_new(count * sizeof *piece + size, 1)))
		return kv_fail_mem(err, "a pipeline");
	copy = memcpy(piece + count, text, size);
	for (size_t i = 0; i < count; i++) {
		piece[i] = copy;
		if (i + 1 < count) {
			copy += end_of_piece(text + (copy - piece[0])) - (text + (copy - piece[0]));
			*copy++ = 0;
		}
	}
	*out = piece;
	*n = count;
	return KV_OK;
}
