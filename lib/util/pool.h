/* A pool of threads and one way to use it: n independent items, each done once, by whichever thread is free. */
#ifndef KV_UTIL_POOL_H
#define KV_UTIL_POOL_H

#include <stddef.h>

struct kv_pool;

/* threads = total, the caller's included; 0 = all that are online. NULL on failure; a NULL pool works and runs in the caller. */
struct kv_pool *kv_pool_new(unsigned threads);
void kv_pool_free(struct kv_pool *p);
unsigned kv_pool_threads(const struct kv_pool *p);

/*
 * Calls fn(arg, item, thread) for item 0 … n-1, thread < kv_pool_threads(p), and returns when all are done. Items must share no
 * sum: who does which is not determined, so that results do not depend on the number of threads.
 */
void kv_pool_run(struct kv_pool *p, size_t n, void (*fn)(void *arg, size_t item, unsigned thread), void *arg);

#endif
