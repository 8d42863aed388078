/* Eviction policies: scores over a cache in memory. One policy a file, one line in policy_list.h. */
#ifndef KV_POLICY_POLICY_H
#define KV_POLICY_POLICY_H

#include "cache/cache.h"
#include "policy/policy_list.h"
#include "policy/rows.h"
#include "util/text.h"

enum kv_scope { KV_SCOPE_DEFAULT, KV_SCOPE_HEAD, KV_SCOPE_LAYER, KV_SCOPE_MODEL };

/* Observations that a policy needs, as bits. */
enum kv_needs { KV_NEEDS_LAST = 1, KV_NEEDS_RECEIVED = 2, KV_NEEDS_NLL = 4 };

/* Options of all policies; one that a policy does not take is refused (takes). -1: not given. */
struct kv_policy_opts {
	struct kv_amount budget;	/* entries kept per (layer, kv head), protected ones included */
	enum kv_scope scope;
	int64_t sinks, protect_last;
	uint64_t seed;
};

enum kv_policy_takes {
	KV_TAKES_SINKS = 1,
	KV_TAKES_PROTECT = 2,
	KV_TAKES_SEED = 4,
	KV_TAKES_SCOPE_HEAD = 8,
	KV_TAKES_SCOPE_LAYER = 16,
	KV_TAKES_SCOPE_MODEL = 32,
};

/* What score() works on, the same for all lists. */
struct kv_scene {
	const struct kv_cache *cache;	/* rows loaded as `reads` asks */
	const struct kv_policy_opts *opts;
	const struct kv_turns *turns;	/* if reads has KV_READS_TURNS */
};

enum kv_policy_reads { KV_READS_K = KV_LOAD_K, KV_READS_V = KV_LOAD_V, KV_READS_TURNS = 4 };

struct kv_policy {
	const char *name, *cite;
	enum kv_scope scope;		/* where one kept set is chosen, unless --scope says otherwise */
	unsigned takes;			/* enum kv_policy_takes */
	unsigned needs;			/* enum kv_needs */
	unsigned reads;			/* enum kv_policy_reads */
	int64_t sinks;			/* what --sinks is if not given */
	bool sinks_by_source;		/* sinks are the tokens 0 … of the text, not the first entries of the list */
	/*
	 * NULL: age alone decides, the slot is the score; the newest entry always stays, so a budget holds at least one more than the sinks.
	 * Else score [n] for the entries of one (layer, kv head); larger stays. A mean over the group where query heads score; wider scopes
	 * average over kv heads in f64, heads ascending, and round to f32 once. Called from several threads at once for different lists.
	 */
	enum kv_status (*score)(const struct kv_scene *s, unsigned layer, unsigned head, double *score, struct kv_err *err);
};

#define KV_POLICY_DECLARE(id, name, help) extern const struct kv_policy kv_policy_##id;
KV_POLICY_LIST(KV_POLICY_DECLARE)
#undef KV_POLICY_DECLARE

extern const struct kv_policy *const kv_policies[];	/* ends with NULL */
const struct kv_policy *kv_policy_find(const char *name);

const char *kv_scope_name(enum kv_scope s);
/* KV_EUSAGE: what = the option's name. */
enum kv_status kv_scope_parse(const char *what, const char *s, enum kv_scope *out, struct kv_err *err);

/* Are the observations there that p needs? KV_EFIT names the option of kv-prefill that records the missing one. */
enum kv_status kv_policy_fits(const struct kv_policy *p, const struct kv_cache *c, struct kv_err *err);
/* Tokens read after the last recorded query. */
uint64_t kv_queries_stale(const struct kv_cache *c);

#endif
