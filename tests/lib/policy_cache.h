/* Caches for policies: attention that is known beforehand, and what entries are said to have received. */
#ifndef KV_TESTS_POLICY_CACHE_H
#define KV_TESTS_POLICY_CACHE_H

#include "small_cache.h"

/* Rows of K of a list, f32 [n][d_k]; values are zero. */
void policy_keys(struct kv_cache *c, unsigned layer, unsigned head, const float *keys, uint32_t n);

/*
 * A layer without RoPE of n entries whose last w queries pay exactly rows [heads][w][n] to them: the keys are unit vectors, queries the
 * logarithms of their rows. What a query does not see is not looked at.
 */
struct kv_cache *policy_rows(unsigned heads, unsigned heads_kv, uint32_t n, uint32_t w, const float *rows);

/* Room for what the entries of a list received, all zero; queries counted: all. */
struct kv_received *policy_received(struct kv_cache *c, unsigned layer, unsigned head);
/* The same for all lists, with arbitrary numbers. */
void policy_receive(struct kv_cache *c);
/*
 * What a round's chunk or probe of so many queries paid to the first cols entries of a list, by query head of its group: sums [rows][cols].
 * Lists that are not named were seen as well, and got nothing.
 */
void policy_sums(struct kv_cache *c, enum kv_sums_of which, uint32_t queries, unsigned layer, unsigned head, uint32_t cols, const float *sums);
/* Both, over all entries of all lists, with arbitrary numbers; nothing counts as new, as after a run with a probe alone. */
void policy_probe(struct kv_cache *c);
void policy_cache_free(struct kv_cache *c);	/* with what was received */

/* kv-evict with options split at blanks, one thread. */
enum kv_status policy_evict(struct kv_cache *c, const char *line);
/* Runs it and compares the sources that layer 0, head 0 keeps: "0 3 4". */
void policy_keeps(struct kv_cache *c, const char *line, const char *want, const char *what);
/* The same, and head 1. Frees c. */
void policy_keeps_two(struct kv_cache *c, const char *line, const char *want0, const char *want1);
/* Largest difference of two arrays. */
double policy_apart(const double *a, const double *b, uint32_t n);
/* Scores of layer 0, head 0, as settled options have them; line without -k. */
void policy_scores(struct kv_cache *c, const char *line, double *out);

#endif
