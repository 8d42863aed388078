/* Pipelines taken apart: what sh makes of them, and when it takes a shell. */
#include "tap.h"

#include <stdlib.h>

#include "loop/sh_words.h"
#include "util/mem.h"

/* "a,b c|d": words between commas, commands between bars; or why not. */
static const char *
shown(const char *text)
{
	static struct kv_buf b;
	struct kv_commands c;
	struct kv_err err;

	b.len = 0;
	switch (kv_sh_split(text, &c, &err)) {
	case KV_END:
		return "shell";
	case KV_EUSAGE:
		return "usage";
	default:
		break;
	}
	for (size_t i = 0; i < c.n; i++)
		for (int k = 0; k < c.c[i].argc; k++)
			kv_buf_printf(&b, "%s%s", k ? "," : i ? "|" : "", c.c[i].argv[k]);
	kv_buf_add(&b, "", 1);
	kv_commands_free(&c);
	return (const char *)b.p;
}

/* "a $x|b": the pieces between bars. */
static const char *
pieces(const char *text)
{
	static struct kv_buf b;
	struct kv_err err;
	char **piece;
	size_t n;

	b.len = 0;
	if (kv_sh_pieces(text, &piece, &n, &err) != KV_OK)
		return "usage";
	for (size_t i = 0; i < n; i++)
		kv_buf_printf(&b, "%s%s", i ? "/" : "", piece[i]);
	kv_buf_add(&b, "", 1);
	free(piece);
	return (const char *)b.p;
}

static void
test_pieces(void)
{
	is_str(pieces("a $x | b *.c|c >d"), "a $x / b *.c/c >d", "pieces");
	is_str(pieces("a"), "a", "one piece");
	is_str(pieces("a '|' | b \"|\" \\| c"), "a '|' / b \"|\" \\| c", "bars in quotes");
	is_str(pieces("a || b"), "a || b", "or takes one shell");
	is_str(pieces("a | b; c"), "a | b; c", "so does a list");
	is_str(pieces("a | (b | c)"), "a | (b | c)", "and a group");
	is_str(pieces("a \"$(b | c)\" | d"), "a \"$(b | c)\" | d", "and a command within");
	is_str(pieces("a ';&()' | b"), "a ';&()' / b", "but not in quotes");
	is_str(pieces("a \"b"), "a \"b", "an open quote is for the shell to refuse");
	is_str(pieces("a $x |"), "usage", "an empty piece");
	is_str(pieces("| $x"), "usage", "an empty first piece");
}

int
main(void)
{
	test_pieces();
	is_str(shown("a"), "a", "one word");
	is_str(shown("  a  b\tc "), "a,b,c", "white space");
	is_str(shown("a|b -x | c"), "a|b,-x|c", "a pipeline");
	is_str(shown("a 'b  c' d"), "a,b  c,d", "single quotes");
	is_str(shown("a \"b 'c' | \\\" \\x\" d"), "a,b 'c' | \" \\x,d", "double quotes");
	is_str(shown("a b'c'\"d\"e"), "a,bcde", "quotes within a word");
	is_str(shown("a '' \"\""), "a,,", "empty words");
	is_str(shown("a b\\ c \\| \\\\"), "a,b c,|,\\", "backslashes");
	is_str(shown("a b\\\nc"), "a,bc", "a line that goes on");
	is_str(shown("a '$x' '*' '>'"), "a,$x,*,>", "nothing is special in single quotes");
	is_str(shown("a b#c d~e f!g"), "a,b#c,d~e,f!g", "special at the beginning of a word alone");
	is_str(shown("a $x"), "shell", "a variable");
	is_str(shown("a \"$x\""), "shell", "a variable in double quotes");
	is_str(shown("a \"`b`\""), "shell", "a command in double quotes");
	is_str(shown("a \"\\$x\""), "a,$x", "an escaped dollar");
	is_str(shown("a *"), "shell", "a pattern");
	is_str(shown("a > b"), "shell", "a redirection");
	is_str(shown("a; b"), "shell", "a list");
	is_str(shown("a || b"), "shell", "or");
	is_str(shown("a && b"), "shell", "and");
	is_str(shown("a\nb"), "shell", "two lines");
	is_str(shown("a # b"), "shell", "a comment");
	is_str(shown("! a"), "shell", "a negation");
	is_str(shown("{ a; }"), "shell", "a group");
	is_str(shown("a ~/b"), "shell", "a home folder");
	is_str(shown(""), "usage", "nothing");
	is_str(shown(" | a"), "usage", "an empty first command");
	is_str(shown("a | | b"), "usage", "an empty command");
	is_str(shown("a |"), "usage", "an empty last command");
	is_str(shown("a 'b"), "usage", "an open quote");
	is_str(shown("a \"b"), "usage", "an open double quote");
	return done_testing();
}
