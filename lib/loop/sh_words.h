/* A pipeline of simple commands, taken apart as sh would: words, quotes, backslashes and | alone. */
#ifndef KV_LOOP_SH_WORDS_H
#define KV_LOOP_SH_WORDS_H

#include <stddef.h>

#include "util/err.h"

struct kv_command {
	int argc;
	char **argv;			/* [argc + 1], NULL at the end */
};

struct kv_commands {
	struct kv_command *c;
	size_t n;
};

/* KV_END: there is more syntax in it than that, so that it takes a shell. KV_EUSAGE: an open quote, an empty command. */
enum kv_status kv_sh_split(const char *text, struct kv_commands *out, struct kv_err *err);
/*
 * The pieces between the bars of a pipeline, as text for a shell each: out [n], freed with free(). A text with more in it than commands,
 * quotes, variables, patterns and redirections is one piece. KV_EUSAGE: an empty piece.
 */
enum kv_status kv_sh_pieces(const char *text, char ***out, size_t *n, struct kv_err *err);

void kv_commands_free(struct kv_commands *c);

#endif
