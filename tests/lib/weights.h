/* Attention of recorded queries, once more, in double precision: what sums and policies are measured against. */
#ifndef KV_TESTS_WEIGHTS_H
#define KV_TESTS_WEIGHTS_H

#include "cache/cache.h"

/* weight [n]: of recorded query w of a query head over the entries of its list; what it does not see is 0. */
void attention_weights(const struct kv_cache *c, unsigned layer, unsigned head, uint32_t w, double *weight);

#endif
