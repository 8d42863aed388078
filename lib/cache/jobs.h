/* Independent items on a pool, each of which may fail. */
#ifndef KV_CACHE_JOBS_H
#define KV_CACHE_JOBS_H

#include <stddef.h>

#include "util/err.h"
#include "util/pool.h"

/* Does fn(arg, item) for item 0 … n-1. Fails as the lowest failing item did, whatever the number of threads. */
enum kv_status kv_jobs_run(struct kv_pool *pool, size_t n, enum kv_status (*fn)(void *arg, size_t item, struct kv_err *err), void *arg,
	struct kv_err *err);

#endif
