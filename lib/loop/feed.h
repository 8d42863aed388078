/* Reading token ids into a cache, batch by batch. */
#ifndef KV_LOOP_FEED_H
#define KV_LOOP_FEED_H

#include "loop/session.h"

struct kv_feed {
	size_t batch;			/* tokens a forward; 0 = the engine's own */
	struct kv_observe observe;
	void (*tick)(void *arg, uint64_t done, uint64_t total);	/* after every batch; may be NULL */
	void *arg;
};

/*
 * Outside of a round (kv_cache_begin_round) all of ids[0..n) is one: tail becomes n. n = 0 changes nothing. observe.chunk: all queries of
 * ids are summed up, over the entries that were there before.
 */
enum kv_status kv_feed_ids(struct kv_session *s, struct kv_cache *c, const uint32_t *ids, size_t n, const struct kv_feed *f, struct kv_err *err);

#endif
