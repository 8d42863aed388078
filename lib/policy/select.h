/* The selection step all policies share: drop the smallest by (score, position), keep the rest in time order. */
#ifndef KV_POLICY_SELECT_H
#define KV_POLICY_SELECT_H

#include <stdbool.h>
#include <stdint.h>

#include "util/err.h"

/*
 * keep [k] = ranks of the k entries that stay, ascending. The first `sinks` and the last `newest` are protected (at most k together: the
 * caller has checked). Among equals the oldest goes. k < n. KV_EFIT on a NaN.
 */
enum kv_status kv_select(const float *score, uint32_t n, uint32_t k, uint32_t sinks, uint32_t newest, uint32_t *keep, struct kv_err *err);

#endif
