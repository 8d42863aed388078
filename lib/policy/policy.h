/* Eviction policies: scores over a cache in memory. One policy a file, one line in policy_list.h. */
#ifndef KV_POLICY_POLICY_H
#define KV_POLICY_POLICY_H

#include "cache/cache.h"
#include "policy/policy_list.h"
#include "policy/policy_options.h"
#include "policy/rows.h"

/* Observations that a policy needs, as bits. */
enum kv_needs {
	KV_NEEDS_LAST = 1, KV_NEEDS_RECEIVED = 2, KV_NEEDS_NLL = 4,
	KV_NEEDS_CHUNK = 8,
	KV_NEEDS_PROBE = 16,
};

/* What score() works on, the same for all lists. */
struct kv_scene {
	const struct kv_cache *cache;	/* rows loaded as `reads` asks */
	const struct kv_policy_opts *opts;	/* settled */
	const struct kv_turns *turns;	/* if reads has KV_READS_TURNS */
};

/* One kept set, of one list or of all that share it. */
struct kv_choice {
	uint32_t n, k;		/* entries there, entries that stay */
	uint32_t sinks, newest;	/* protected at either end */
	float *score;		/* [n] once printed +inf where protected; NULL if nobody asked and nothing goes */
	float top;		/* the largest score that one list gave to an entry that is not protected */
	uint32_t *keep;		/* [k] ranks, ascending; NULL = all stay */
};

enum kv_policy_reads { KV_READS_K = KV_LOAD_K, KV_READS_V = KV_LOAD_V, KV_READS_TURNS = 4 };
enum { KV_SCOPES_HEAD = 1 << KV_SCOPE_HEAD, KV_SCOPES_LAYER = 1 << KV_SCOPE_LAYER, KV_SCOPES_MODEL = 1 << KV_SCOPE_MODEL };

struct kv_policy {
	const char *name, *cite;
	unsigned scopes;		/* what --scope may say; where one kept set is chosen by itself stands in defaults */
	unsigned takes;			/* enum kv_policy_takes */
	unsigned by;			/* 1 << enum kv_by: what --by may say */
	unsigned needs;			/* enum kv_needs */
	unsigned reads;			/* enum kv_policy_reads */
	/* Where these depend on options: takes away, o being settled, what is not needed with them. */
	void (*spare)(const struct kv_policy_opts *o, unsigned *needs, unsigned *reads);
	uint32_t record;		/* queries that kv-prefill should record where --last does not say how many vote */
	bool sinks_by_source;		/* sinks are the tokens 0 … of the text, not the first entries of the list */
	bool keeps_voters;		/* entries of the voting queries' own tokens, and newer ones, stay */
	struct kv_policy_opts defaults;
	/*
	 * NULL: age alone decides, the slot is the score; the newest entry always stays, so a budget holds at least one more than the sinks.
	 * Else score [n] for the entries of one (layer, kv head); larger stays. A mean over the group where query heads score; wider scopes
	 * average over kv heads in f64, heads ascending, and round to f32 once. Called from several threads at once for different lists.
	 */
	enum kv_status (*score)(const struct kv_scene *s, unsigned layer, unsigned head, double *score, struct kv_err *err);
	/*
	 * Where -k is not simply what stays of a list: sets k and the protected ends, which come as the options alone have them. What users
	 * should be told goes into *remark, a literal. KV_EFIT: what it goes by is not on record.
	 */
	enum kv_status (*budget)(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, const char **remark,
		struct kv_err *err);
	/*
	 * Where the budget is not the same everywhere: sets k of the choices head [n_heads_kv] of a layer, whose scores are made; k comes as
	 * -k has it. What users should be told goes into *remark, a literal.
	 */
	enum kv_status (*allot)(const struct kv_scene *s, unsigned layer, struct kv_choice *head, const char **remark, struct kv_err *err);
	/*
	 * Where the kept set is not the k best of the score: fills keep, which has room for n, and sets k. Called for k < n alone, list
	 * (layer, head) being the first of those that share the choice. May change scores and protected ends, which are printed
	 * afterwards.
	 */
	enum kv_status (*keep)(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, struct kv_err *err);
	/* What is done to the observations after each eviction, also where nothing had to go. */
	void (*after)(struct kv_cache *c, const struct kv_policy_opts *o);
};

#define KV_POLICY_DECLARE(id, name, arg, help) extern const struct kv_policy kv_policy_##id;
KV_POLICY_LIST(KV_POLICY_DECLARE)
#undef KV_POLICY_DECLARE

extern const struct kv_policy *const kv_policies[];	/* ends with NULL */
const struct kv_policy *kv_policy_find(const char *name);

/* Who scores: the policy itself, or the one that its options name as base. o may be as parsed or settled. */
const struct kv_policy *kv_policy_scorer(const struct kv_policy *p, const struct kv_policy_opts *o);
unsigned kv_policy_needs(const struct kv_policy *p, const struct kv_policy_opts *o);	/* enum kv_needs; o settled; p itself a scorer */
unsigned kv_policy_reads(const struct kv_policy *p, const struct kv_policy_opts *o);	/* enum kv_policy_reads */
unsigned kv_policy_takes_all(const struct kv_policy *p, const struct kv_policy_opts *o);	/* its own options and those of its base */

/* Fills in what was not given. KV_EUSAGE: an option was given that p does not take, or a scope that it does not know. */
enum kv_status kv_policy_settle(const struct kv_policy *p, struct kv_policy_opts *o, struct kv_err *err);

/*
 * Are the observations there that p needs, and do they cover all that was read? Options settled. KV_EFIT names the option of kv-prefill
 * that records the missing one. Whether enough queries are there is asked only where something has to go (kv_policy_fits_queries).
 */
enum kv_status kv_policy_fits(const struct kv_policy *p, const struct kv_policy_opts *o, const struct kv_cache *c, struct kv_err *err);
enum kv_status kv_policy_fits_queries(const struct kv_policy *p, const struct kv_policy_opts *o, const struct kv_cache *c,
	struct kv_err *err);
/* Queries of each layer that should be on record for p, itself a scorer. Options settled. */
uint64_t kv_policy_wants_queries(const struct kv_policy *p, const struct kv_policy_opts *o);
/* Tokens read after the last recorded query. */
uint64_t kv_queries_stale(const struct kv_cache *c);

/* Number of queries of a layer's record that vote under --last; they are its newest. */
uint32_t kv_voters(const struct kv_policy_opts *o, const struct kv_queries *q);
/* x as --score-dtype keeps it. */
float kv_score_round(const struct kv_policy_opts *o, double x);
void kv_score_round_rows(const struct kv_policy_opts *o, float *x, size_t n);
/* Whole part of share * n for a share written in decimals: 0.29 of 100 is 29. */
uint32_t kv_share_of(double share, uint32_t n);

#endif
