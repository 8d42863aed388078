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

/* Tokens of the round to come, of `left`. */
static enum kv_status
room(const struct kv_rounds *r, const struct kv_cache *c, size_t left, size_t *out, struct kv_err *err)
{
	size_t most = left;

	if (r->fill) {
		uint32_t n = kv_cache_longest(c);

		if (n >= r->fill)
			return kv_fail(err, KV_EFIT, "the cache holds %u entries, --fill %u leaves no room to read on: make -k smaller", n, r->fill);
		most = r->fill - n;
	} else if (r->chunk) {
		most = r->chunk;
	}
	*out = most < left ? most : left;
	return KV_OK;
}

/* With fill the pipeline waits until the cache is full and there is more to come, or less room than was reserved. */
static bool
has_turn(const struct kv_rounds *r, const struct kv_cache *c, bool more)
{
	return r->each && (!r->fill || more || (uint64_t)kv_cache_longest(c) + r->reserve > r->fill);
}

enum kv_status
kv_rounds_read(struct kv_session *s, struct kv_cache *c, const uint32_t *ids, size_t n, const struct kv_rounds *r, struct kv_pool *pool,
	struct kv_err *err)
{
	struct within w = { &r->feed, 0, n };
	struct kv_feed feed = { r->chunk ? r->chunk : r->feed.batch, r->feed.observe, tick, &w };
	size_t done = 0, m = 0;
	enum kv_status rc;

	if (r->each)
		kv_each_observe(r->each, &feed.observe);
	for (uint64_t round = 0; done < n; round++, done += m) {
		if ((rc = room(r, c, n - done, &m, err)) != KV_OK)
			return rc;
		w.before = done;
		if ((rc = kv_feed_ids(s, c, ids + done, m, &feed, err)) != KV_OK)
			return rc;
		if (has_turn(r, c, done + m < n) && (rc = kv_each_run(r->each, c, round, pool, err)) != KV_OK)
			return rc;
		if ((rc = kv_cache_forget(c, r->history, err)) != KV_OK)
			return rc;
	}
	if (r->history == KV_HISTORY_NONE && c->has_nll)
		kv_cache_forget_nll(c);
	return KV_OK;
}
