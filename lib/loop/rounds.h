/*
 * Reading a text in rounds: a chunk into the cache, a probe over it, then what --each makes of the cache, until the text is over. What
 * policies need to know of a round stands in the cache when the pipeline gets it: the attention of the chunk and of the probe, how many
 * entries are new (tail), and the round's record.
 */
#ifndef KV_LOOP_ROUNDS_H
#define KV_LOOP_ROUNDS_H

#include "loop/each.h"
#include "loop/feed.h"
#include "loop/source.h"

struct kv_rounds {
	struct kv_feed feed;		/* tick counts the tokens of the whole text */
	uint32_t chunk;			/* tokens a round, a batch of its own each; 0: all of the text is one round … */
	uint32_t fill;			/* … unless this is set: a round reads until the fullest list and the probe make so many entries */
	uint32_t reserve;		/* places that must be free in the end, with fill */
	const uint32_t *probe;		/* [n_probe] tokens that look at the cache in every round and leave nothing behind */
	size_t n_probe;			/* 0: no probe */
	bool probe_all;			/* it sees the round's text as well; else what was there before */
	struct kv_each *each;		/* NULL: nothing happens between rounds */
	/*
	 * A second cache with the same new entries, which the probe looks at instead of the first, and its own pipeline; it is what remains in the
	 * end. NULL: there is none.
	 */
	struct kv_each *twin_each;
	enum kv_history history;
	const char *checkpoint;		/* file to save the state to after rounds, and to go on from; NULL: none */
	double checkpoint_every;	/* seconds */
	struct kv_say say;
};

/*
 * Reads what the source has, at most `most` tokens, and looks no further ahead than it must. In every round: probe over the old cache,
 * forward, probe over all of it, pipeline (after the last one as well, with fill only if it is needed), history. No text changes nothing
 * unless there is a probe and a cache to look at: that is a round without new tokens, tail 0. KV_EFIT: the pipeline leaves no room for the
 * next round, or the checkpoint is of another job or text.
 */
enum kv_status kv_rounds_read(struct kv_session *s, struct kv_cache *c, struct kv_source *text, uint64_t most, const struct kv_rounds *r,
	struct kv_pool *pool, struct kv_err *err);

#endif
