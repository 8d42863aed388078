/* What the parts of the benchmark share: jobs timed in turn, so that a machine that changes its speed changes all of them. */
#ifndef KV_TESTS_BENCH_H
#define KV_TESTS_BENCH_H

#include "kernel/ops.h"

struct job {
	void (*run)(void *arg);
	void *arg;
	double best;		/* CPU seconds of its fastest run */
};

/* Rounds of all jobs, one after another. */
void bench_in_turn(struct job *job, size_t n, unsigned rounds);

/* A line: what, a figure and its unit, a ratio and its floor (or ceiling, at_most), 0 = none. */
struct figure {
	const char *what;
	double value;
	const char *unit;
	double ratio;
	const char *of;
	double bound;
	bool at_most;
};

void bench_print(const struct figure *f);

float bench_random(void);	/* in [-1, 1) */
void *bench_alloc(size_t n, size_t size);	/* or the end of the program */

/* Every kernel of a level; the whole model in the file, 8,192 tokens of it only where asked for. */
void bench_kernels(const struct kv_ops *ops);
void bench_model(const struct kv_ops *ops, const char *path, bool longest);

#endif
