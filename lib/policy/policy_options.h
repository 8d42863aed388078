/* The options of single policies, one line each: identifier, name at the command line, argument, help. Parsed, checked and printed from here. */
#ifndef KV_POLICY_POLICY_OPTIONS_H
#define KV_POLICY_POLICY_OPTIONS_H

#include <stdbool.h>

#include "util/mem.h"
#include "util/text.h"

#define KV_POLICY_OPTION_LIST(X) \
	X(SCOPE, "scope", "SCOPE", "one kept set for each head, layer or model") \
	X(SINKS, "sinks", "S", "the first S stay") \
	X(RECENT, "recent", "R", "the newest R stay: part of h2o (k/2), roco (10), scissorhands (10)") \
	X(PROTECT, "protect-last", "N", "the newest N stay, whatever the policy") \
	X(LAST, "last", "W", "queries that vote: snapkv, pyramidkv, adakv (32), scissorhands, expected-attention (all)") \
	X(POOL, "pool", "POOL", "max:7, avg:5, none …: smooths the votes of snapkv, pyramidkv, adakv (max:7), infinipot (none)") \
	X(GQA, "gqa", "mean|max", "how the query heads of a KV head are joined there (mean)") \
	X(SCORE_DTYPE, "score-dtype", "TYPE", "f32, or round attention as other codes do: f16, bf16") \
	X(ALLOC, "alloc", "official|kvpress", "whose budgets: pyramidkv, adakv (official)") \
	X(BETA, "beta", "N", "pyramidkv: how steep (20)") \
	X(ALPHA, "alpha", "A", "adakv: share of the budget that every head is sure of (0.2)") \
	X(RHO, "rho", "R", "roco: share of the budget kept for high deviation (0.3)") \
	X(DECAY, "decay", "E", "sirllm: multiplies all surprisal afterwards (1)") \
	X(FIRST_NLL, "first-nll", "inf|0", "sirllm, infinipot: surprisal of a token that has none (inf)") \
	X(BY, "by", "WHOSE", "the same as an argument to citrus, infinipot: probe, chunk, last (probe)") \
	X(NUC, "nuc", "N|N%", "infinipot: how much of the budget goes by surprisal (50%)") \
	X(NUC_CARRY, "nuc-carry", "sticky|recompute", "infinipot: surprisal of what is there stays, or is computed anew (sticky)") \
	X(LAST_REFILL, "last-refill", "full|exact", "infinipot: before the last round keep -k, or what the round leaves room for (full)") \
	X(READING, "reading", "a|b", "scissorhands: count the unimportant, or rate the important (b)") \
	X(FUTURE, "future", "F", "expected-attention: positions to come (512)") \
	X(EPS, "eps", "E", "expected-attention: added before the value norm (0)") \
	X(CHUNK_LEN, "chunk-len", "N", "chunkkv: entries that stay or go together (20)") \
	X(BASE, "base", "POLICY", "chunkkv: whose scores; its options go too (snapkv)") \
	X(LAG, "lag", "N", "lagkv: entries a block (128)") \
	X(SEED, "random-seed", "N", "random: another lot (0)") \
	X(STALE, "allow-stale", NULL, "accumulated attention that missed some queries will do: h2o, roco, observed")

enum kv_policy_option {
#define KV_POLICY_OPTION_NUMBER(id, name, arg, help) KV_OPTION_##id,
	KV_POLICY_OPTION_LIST(KV_POLICY_OPTION_NUMBER)
#undef KV_POLICY_OPTION_NUMBER
	KV_POLICY_OPTIONS
};

/* The same as bits: which options a policy takes, which were given. */
enum kv_policy_takes {
#define KV_POLICY_OPTION_BIT(id, name, arg, help) KV_TAKES_##id = 1 << KV_OPTION_##id,
	KV_POLICY_OPTION_LIST(KV_POLICY_OPTION_BIT)
#undef KV_POLICY_OPTION_BIT
	KV_TAKES_ENDS = KV_TAKES_SINKS | KV_TAKES_RECENT | KV_TAKES_PROTECT,
};

enum kv_scope { KV_SCOPE_DEFAULT, KV_SCOPE_HEAD, KV_SCOPE_LAYER, KV_SCOPE_MODEL };
enum kv_pool_kind { KV_POOL_NONE, KV_POOL_MAX, KV_POOL_AVG };
enum kv_join { KV_JOIN_MEAN, KV_JOIN_MAX };
enum kv_score_dtype { KV_SCORE_F32, KV_SCORE_F16, KV_SCORE_BF16 };
enum kv_alloc { KV_ALLOC_OFFICIAL, KV_ALLOC_KVPRESS };
enum kv_first_nll { KV_FIRST_INF, KV_FIRST_ZERO };
enum kv_by { KV_BY_PROBE, KV_BY_CHUNK, KV_BY_LAST };
enum kv_nuc_carry { KV_NUC_STICKY, KV_NUC_RECOMPUTE };
enum kv_last_refill { KV_REFILL_FULL, KV_REFILL_EXACT };
enum kv_reading { KV_READING_UNIMPORTANT, KV_READING_RATE };
enum { KV_RECENT_HALF = -1, KV_LAST_ALL = 0 };

struct kv_pooling {
	enum kv_pool_kind kind;
	uint32_t width;			/* odd */
};

struct kv_policy;

/* What a command line says of a policy. Names are kept as the number of the word in their list: the enums above. */
struct kv_policy_opts {
	struct kv_amount budget;	/* entries kept per (layer, kv head), protected ones included */
	unsigned given;			/* enum kv_policy_takes: set by the command line, not by kv_policy_settle */
	int scope, gqa, score_dtype, alloc, first_nll, by, nuc_carry, last_refill, reading;
	int64_t sinks, recent, protect_last, last, beta, future, chunk_len, lag, seed;
	double alpha, rho, decay, eps;
	struct kv_pooling pool;
	struct kv_amount nuc;		/* may be nothing, num = 0 */
	const struct kv_policy *base;
	bool allow_stale;
};

const char *kv_scope_name(int scope);
const char *kv_by_name(int by);
const char *kv_policy_option_name(enum kv_policy_option which);
/* KV_EUSAGE. arg is NULL where an option takes none. */
enum kv_status kv_policy_option_parse(enum kv_policy_option which, const char *arg, struct kv_policy_opts *o, struct kv_err *err);
void kv_policy_option_copy(enum kv_policy_option which, struct kv_policy_opts *to, const struct kv_policy_opts *from);
/* "--sinks 4" */
void kv_policy_option_print(enum kv_policy_option which, const struct kv_policy_opts *o, struct kv_buf *out);

#endif
