/* A shell pipeline that runs as long as the job: a snapshot in, a snapshot out, round after round, as one sequence. */
#ifndef KV_LOOP_SHELL_H
#define KV_LOOP_SHELL_H

#include "cache/cache.h"
#include "loop/say.h"

struct kv_shell;

/*
 * Starts the commands of a pipeline, each by a shell of its own, so that the end of any of them is seen; what is more than a pipeline, by
 * one shell. Their standard error is ours.
 */
enum kv_status kv_shell_start(const char *command, struct kv_shell **out, struct kv_err *err);

/*
 * Sends c and puts the answer in its place; c's provenance stays as it is. KV_ECORRUPT: anything but one whole snapshot came back; KV_EFIT:
 * one of another model or of another text; KV_EIO: the pipeline ended in trouble. After a failure only kv_shell_free makes sense. An answer may
 * take as long as it will, but after a while, once, `say` hears what such a silence mostly means.
 */
enum kv_status kv_shell_round(struct kv_shell *s, struct kv_cache *c, const struct kv_say *say, struct kv_err *err);

/* No more rounds: it must come to a good end and have no more to say. */
enum kv_status kv_shell_end(struct kv_shell *s, struct kv_err *err);

/* What the last command that failed exited with (128 + n: signal n) if that was why a call failed; else 0. */
int kv_shell_status(const struct kv_shell *s);

void kv_shell_free(struct kv_shell *s);	/* takes NULL; a pipeline that still runs is ended */

#endif
