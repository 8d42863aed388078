/* Eviction policies: scores and kept sets over a cache in memory. One policy a file, one line in policy_table.c. */
#ifndef KV_POLICY_POLICY_H
#define KV_POLICY_POLICY_H

#include "cache/cache.h"
#include "util/text.h"

enum kv_scope { KV_SCOPE_DEFAULT, KV_SCOPE_HEAD, KV_SCOPE_LAYER, KV_SCOPE_MODEL };

/* Observations that a policy needs, as bits. */
enum kv_needs { KV_NEEDS_LAST = 1 };

/* Options of all policies; a policy that does not take one has it refused by the parser (allows). -1: not given. */
struct kv_policy_opts {
	struct kv_amount budget;	/* entries kept per (layer, kv head), protected ones included */
	enum kv_scope scope;
	int64_t sinks, protect_last;
	uint64_t seed;
};

enum kv_policy_allows { KV_TAKES_SINKS = 1, KV_TAKES_PROTECT = 2, KV_TAKES_SEED = 4, KV_TAKES_SCOPE_HEAD = 8, KV_TAKES_SCOPE_LAYER = 16, KV_TAKES_SCOPE_MODEL = 32 };

struct kv_policy {
	const char *name, *cite, *summary;
	enum kv_scope scope;		/* where one kept set is chosen, unless --scope says otherwise */
	unsigned takes;			/* enum kv_policy_allows */
	int64_t default_sinks;
	unsigned needs;			/* enum kv_needs */
	/*
	 * score [n] for the entries of one (layer, kv head), rows loaded; larger stays. Layer and model scope average over heads
	 * (in f64, heads ascending). Called from several threads at once for different lists.
	 */
	enum kv_status (*score)(const struct kv_cache *c, unsigned layer, unsigned head, const struct kv_policy_opts *o, float *score, struct kv_err *err);
	unsigned loads;			/* bit 0: score reads K; bit 1: V */
};

extern const struct kv_policy *const kv_policies[];	/* ends with NULL */
const struct kv_policy *kv_policy_find(const char *name);

#endif
