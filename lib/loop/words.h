/* Words of the command line that the tools with a model share. */
#ifndef KV_LOOP_WORDS_H
#define KV_LOOP_WORDS_H

#include "loop/session.h"

enum { KV_LAST_DEFAULT = 32 };		/* queries recorded when nothing is said */

enum kv_status kv_parse_observe(const char *arg, struct kv_observe *out, struct kv_err *err);	/* "last=N,acc,nll,chunk", "none" */
/* What was asked for and what the cache has been recording, which goes on; after none nothing does. */
struct kv_observe kv_observe_on(const struct kv_observe *asked, const struct kv_cache *c);
enum kv_status kv_parse_dtype(const char *arg, enum kvs_dtype *out, struct kv_err *err);
enum kv_status kv_parse_history(const char *arg, enum kv_history *out, struct kv_err *err);
enum kv_status kv_parse_precision(const char *arg, enum kv_precision *out, struct kv_err *err);

#endif
