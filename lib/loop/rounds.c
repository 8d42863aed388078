/* Reading a text in rounds. */
#include "loop/rounds.h"

/* Progress within a round, told as progress in the text. */
struct within {
	const struct kv_feed *feed;
	uint64_t before, total;
};

static void
tick(void *arg, uint64_t done, uint64_t of)
{
	const struct within *w = arg;

	(void)of;
	if (w->feed->tick)
		w->feed->tick(w->feed->arg, w->before + done, w->total);
}

enum kv_status
kv_rounds_read(struct kv_session *s, struct kv_cache *c, const uint32_t *ids, size_t n, const struct kv_rounds *r, struct kv_pool *pool,
	struct kv_err *err)
{
	struct within w = { &r->feed, 0, n };
	struct kv_feed feed = { r->chunk ? r->chunk : r->feed.batch, r->feed.observe, tick, &w };
	size_t most = r->chunk ? r->chunk : n, done = 0;
	enum kv_status rc;

	if (r->each)
		kv_each_observe(r->each, &feed.observe);
	for (uint64_t round = 0; done < n; round++) {
		size_t m = n - done < most ? n - done : most;

		w.before = done;
		if ((rc = kv_feed_ids(s, c, ids + done, m, &feed, err)) != KV_OK)
			return rc;
		if (r->each && (rc = kv_each_run(r->each, c, round, pool, err)) != KV_OK)
			return rc;
		if ((rc = kv_cache_forget(c, r->history, err)) != KV_OK)
			return rc;
		done += m;
	}
	if (r->history == KV_HISTORY_NONE && c->has_nll)
		kv_cache_forget_nll(c);
	return KV_OK;
}
