/*
 * --each: what happens to the cache between rounds. A pipeline of our own filters runs in this process, through the very functions of the
 * executables; any other one in a shell that is started once for the whole job.
 */
#ifndef KV_LOOP_EACH_H
#define KV_LOOP_EACH_H

#include "loop/say.h"
#include "model/forward.h"
#include "util/opt.h"

struct kv_each;

/*
 * name: the option it came with, for messages. common: the options that all tools share. Those that change how a tool writes and not what
 * are passed over, the others take the executable. KV_EUSAGE as the executables would say it.
 */
enum kv_status kv_each_new(const char *name, const char *pipeline, const struct kv_opt *common, struct kv_each **out, struct kv_err *err);
void kv_each_free(struct kv_each *e);
const char *kv_each_text(const struct kv_each *e);	/* the pipeline as it was given; NULL of NULL */

/* Adds what the pipeline's policies need to what is observed. What an external one needs nobody here can know. */
void kv_each_observe(const struct kv_each *e, struct kv_observe *o);

/*
 * One round, counted from 0; an error names it, and so does what filters in this process have to say: with -v, theirs or ours. On failure the
 * cache must not be used any more.
 */
enum kv_status kv_each_run(struct kv_each *e, struct kv_cache *c, uint64_t round, struct kv_pool *pool, const struct kv_say *say,
	struct kv_err *err);
/* After the last round: has an external pipeline come to a good end? */
enum kv_status kv_each_end(struct kv_each *e, struct kv_err *err);

/* The status that the job exits with if an external pipeline ended in trouble, else 0. Takes NULL. */
int kv_each_status(const struct kv_each *e);

#endif
