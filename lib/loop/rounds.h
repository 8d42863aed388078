/* Reading a text in rounds: a chunk into the cache, then what --each makes of the cache, until the text is over. */
#ifndef KV_LOOP_ROUNDS_H
#define KV_LOOP_ROUNDS_H

#include "loop/each.h"
#include "loop/feed.h"

struct kv_rounds {
	struct kv_feed feed;		/* tick counts the tokens of the whole text */
	uint32_t chunk;			/* tokens a round, a batch of its own each; 0: all of the text is one round … */
	uint32_t fill;			/* … unless this is set: a round reads until the fullest list holds so many entries */
	uint32_t reserve;		/* places that must be free in the end, with fill */
	struct kv_each *each;		/* NULL: nothing happens between rounds */
	enum kv_history history;
};

/*
 * Reads ids[0..n). In every round: forward, pipeline (after the last one as well, with fill only if it is needed), history. n = 0 changes
 * nothing. KV_EFIT: the pipeline leaves no room for the next round.
 */
enum kv_status kv_rounds_read(struct kv_session *s, struct kv_cache *c, const uint32_t *ids, size_t n, const struct kv_rounds *r,
	struct kv_pool *pool, struct kv_err *err);

#endif
