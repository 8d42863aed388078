/* Independent items on a pool, each of which may fail. */
#include "cache/jobs.h"

#include <pthread.h>

struct jobs {
	enum kv_status (*fn)(void *arg, size_t item, struct kv_err *err);
	void *arg;
	pthread_mutex_t lock;
	size_t failed;		/* lowest item that failed; n = none */
	struct kv_err err;	/* its error */
};

static void
run_one(void *arg, size_t item, unsigned thread)
{
	struct jobs *j = arg;
	struct kv_err err = { KV_OK, "" };

	(void)thread;
	if (j->fn(j->arg, item, &err) == KV_OK)
		return;
	pthread_mutex_lock(&j->lock);
	if (item < j->failed) {
		j->failed = item;
		j->err = err;
	}
	pthread_mutex_unlock(&j->lock);
}

enum kv_status
kv_jobs_run(struct kv_pool *pool, size_t n, enum kv_status (*fn)(void *arg, size_t item, struct kv_err *err), void *arg, struct kv_err *err)
{
	struct jobs j = { fn, arg, PTHREAD_MUTEX_INITIALIZER, n, { KV_OK, "" } };

	kv_pool_run(pool, n, run_one, &j);
	pthread_mutex_destroy(&j.lock);
	if (j.failed == n)
		return KV_OK;
	if (err)
		*err = j.err;
	return j.err.code;
}
