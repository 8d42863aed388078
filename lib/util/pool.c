/* A pool of threads: fork and join with a short spin, since a forward pass joins some hundred times a token. */
#include "util/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

enum { SPINS = 2000 };	/* some 20 µs; longer would steal the processor from the other stages of a pipeline */

struct kv_pool {
	unsigned threads;
	pthread_t *workers;	/* [threads - 1] */
	pthread_mutex_t lock;
	pthread_cond_t start, done;

	/* One job; written by the caller before generation moves on. */
	void (*fn)(void *, size_t, unsigned);
	void *arg;
	size_t n;
	atomic_size_t next;		/* first item that nobody has taken */
	atomic_uint generation, busy;
	atomic_bool quit;
};

struct worker {
	struct kv_pool *pool;
	unsigned index;
};

static void
pause_briefly(void)
{
#if defined __x86_64__ || defined __i386__
	__builtin_ia32_pause();
#endif
}

static void
work(struct kv_pool *p, unsigned thread)
{
	size_t i;

	while ((i = atomic_fetch_add(&p->next, 1)) < p->n)
		p->fn(p->arg, i, thread);
}

static void
wait_for_job(struct kv_pool *p, unsigned seen)
{
	for (int i = 0; i < SPINS; i++) {
		if (atomic_load(&p->generation) != seen)
			return;
		pause_briefly();
	}
	pthread_mutex_lock(&p->lock);
	while (atomic_load(&p->generation) == seen)
		pthread_cond_wait(&p->start, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

static void *
worker_main(void *arg)
{
	struct worker w = *(struct worker *)arg;
	unsigned seen = 0;

	free(arg);
	for (;;) {
		wait_for_job(w.pool, seen);
		seen++;
		if (atomic_load(&w.pool->quit))
			return NULL;
		work(w.pool, w.index);
		if (atomic_fetch_sub(&w.pool->busy, 1) == 1) {
			pthread_mutex_lock(&w.pool->lock);
			pthread_cond_signal(&w.pool->done);
			pthread_mutex_unlock(&w.pool->lock);
		}
	}
}

static void
announce(struct kv_pool *p)
{
	pthread_mutex_lock(&p->lock);
	atomic_fetch_add(&p->generation, 1);
	pthread_cond_broadcast(&p->start);
	pthread_mutex_unlock(&p->lock);
}

/* False when the thread cannot be had; the pool is then smaller, its results the same. */
static bool
add_worker(struct kv_pool *p, unsigned index)
{
	struct worker *w = malloc(sizeof *w);

	if (!w)
		return false;
	*w = (struct worker){ p, index };
	if (pthread_create(&p->workers[index - 1], NULL, worker_main, w)) {
		free(w);
		return false;
	}
	return true;
}

struct kv_pool *
kv_pool_new(unsigned threads)
{
	struct kv_pool *p = calloc(1, sizeof *p);
	sigset_t all, old;

	if (!threads) {
		long online = sysconf(_SC_NPROCESSORS_ONLN);
		threads = online > 0 ? (unsigned)online : 1;
	}
	if (!p || !(p->workers = calloc(threads, sizeof *p->workers))) {
		free(p);
		return NULL;
	}
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->start, NULL);
	pthread_cond_init(&p->done, NULL);
	sigfillset(&all);	/* signals are the main thread's business */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (p->threads = 1; p->threads < threads && add_worker(p, p->threads); p->threads++)
		;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return p;
}

void
kv_pool_free(struct kv_pool *p)
{
	if (!p)
		return;
	atomic_store(&p->quit, true);
	announce(p);
	for (unsigned i = 1; i < p->threads; i++)
		pthread_join(p->workers[i - 1], NULL);
	pthread_mutex_destroy(&p->lock);
	pthread_cond_destroy(&p->start);
	pthread_cond_destroy(&p->done);
	free(p->workers);
	free(p);
}

unsigned
kv_pool_threads(const struct kv_pool *p)
{
	return p ? p->threads : 1;
}

static void
wait_for_others(struct kv_pool *p)
{
	for (int i = 0; i < SPINS; i++) {
		if (!atomic_load(&p->busy))
			return;
		pause_briefly();
	}
	pthread_mutex_lock(&p->lock);
	while (atomic_load(&p->busy))
		pthread_cond_wait(&p->done, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

void
kv_pool_run(struct kv_pool *p, size_t n, void (*fn)(void *arg, size_t item, unsigned thread), void *arg)
{
	if (!p || p->threads == 1 || n < 2) {
		for (size_t i = 0; i < n; i++)
			fn(arg, i, 0);
		return;
	}
	p->fn = fn;
	p->arg = arg;
	p->n = n;
	atomic_store(&p->next, 0);
	atomic_store(&p->busy, p->threads - 1);
	announce(p);
	work(p, 0);
	wait_for_others(p);
}
