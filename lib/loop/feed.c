/* Reading token ids into a cache. */
#include "loop/feed.h"

enum kv_status
kv_feed_ids(struct kv_session *s, struct kv_cache *c, const uint32_t *ids, size_t n, const struct kv_feed *f, struct kv_err *err)
{
	size_t batch = f->batch ? f->batch : s->ops->batch, done = 0;
	bool alone = !c->reading;
	enum kv_status rc;

	if (!n)
		return KV_OK;

	if (n > UINT32_MAX - c->state.consumed)
		return kv_fail(err, KV_EFIT, "the text is too long: a snapshot counts at most 2^32 - 1 tokens");
	if (alone)
		kv_cache_begin_round(c);
	if (f->observe.chunk && (rc = kv_cache_new_sums(c, KV_SUMS_CHUNK, (uint32_t)n, (uint32_t)c->state.consumed, err)) != KV_OK)
		return rc;
	if ((rc = kv_cache_reserve(c, (uint32_t)n, err)) != KV_OK)
		return rc;
	while (done < n) {
		size_t m = n - done < batch ? n - done : batch;

		if ((rc = kv_forward(s->engine, c, ids + done, m, &f->observe, err)) != KV_OK)
			return rc;
		done += m;
		if (f->tick)
			f->tick(f->arg, done, n);
	}
	if (alone)
		kv_cache_end_round(c, (uint32_t)n);
	return KV_OK;
}
