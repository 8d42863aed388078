/* A probe: tokens that only look. They run over the cache as any others would; the attention that they paid is all that stays. */
#include <stdlib.h>

#include "kvs/digest.h"
#include "model/forward_parts.h"
#include "util/le.h"
#include "util/mem.h"

static enum kv_status
hash_ids(const uint32_t *ids, size_t m, uint64_t *out, struct kv_err *err)
{
	uint8_t *bytes = kv_array_new(m, 4);

	if (!bytes)
		return kv_fail_mem(err, "a probe");
	for (size_t i = 0; i < m; i++)
		le32_put(bytes + 4 * i, ids[i]);
	*out = kvs_hash64(bytes, 4 * m);
	free(bytes);
	return KV_OK;
}

/* The lists as they were before m entries came. */
static void
take_back(struct kv_cache *c, uint32_t m, const bool *changed)
{
	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv; i++) {
		c->list[i].n -= m;
		c->list[i].changed = changed[i];
	}
}

/* For one pass the probe's tokens are entries like all others. */
static enum kv_status
look(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, struct kv_err *err)
{
	static const struct kv_observe nothing;
	size_t n_lists = (size_t)c->geom.n_layers * c->geom.n_heads_kv;
	struct kvs_state state = c->state;
	bool reading = c->reading, *changed = kv_array_new(n_lists, sizeof *changed);
	enum kv_status rc;

	if (!changed)
		return kv_fail_mem(err, "a probe");
	for (size_t i = 0; i < n_lists; i++)
		changed[i] = c->list[i].changed;
	c->reading = true;		/* what was recorded of the round stays */
	e->by_head = &c->sums[KV_SUMS_PROBE];
	rc = kv_forward_layers(e, c, ids, m, &nothing, err);
	e->by_head = NULL;
	if (rc == KV_OK)
		take_back(c, (uint32_t)m, changed);
	c->state = state;
	c->reading = reading;
	free(changed);
	return rc;
}

enum kv_status
kv_probe(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, bool all, struct kv_err *err)
{
	struct kv_sums *s = &c->sums[KV_SUMS_PROBE];
	enum kv_status rc;

	if (m > UINT32_MAX)
		return kv_fail(err, KV_EFIT, "a probe of %zu tokens is too long", m);
	if ((rc = kv_cache_new_sums(c, KV_SUMS_PROBE, (uint32_t)m, (uint32_t)c->state.next_pos, err)) != KV_OK ||
		(rc = hash_ids(ids, m, &s->probe_hash, err)) != KV_OK)
		return rc;
	s->all = all;
	return m && kv_cache_longest(c) ? look(e, c, ids, m, err) : KV_OK;	/* nothing there: no columns */
}
