/*
 * Speed of the kernels and of the whole model at every level that this processor has: figures, and ratios that mean something on a machine that
 * nobody knows, with the bounds they are held to. One thread, CPU time.
 *
 *	bench COMMIT [MODEL.gguf]
 */
#define _DEFAULT_SOURCE
#include "bench.h"

#include <cblas.h>
#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernel/level.h"

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void
bench_in_turn(struct job *job, size_t n, unsigned rounds)
{
	for (size_t i = 0; i < n; i++)
		job[i].best = DBL_MAX;
	for (unsigned r = 0; r < rounds; r++)
		for (size_t i = 0; i < n; i++) {
			double from = now(), took;

			job[i].run(job[i].arg);
			took = now() - from;
			job[i].best = took < job[i].best ? took : job[i].best;
		}
}

void
bench_print(const struct figure *f)
{
	printf("  %-44s %9.3g %-8s", f->what, f->value, f->unit);
	if (f->ratio != 0)
		printf(" %6.2f %s", f->ratio, f->of);
	if (f->bound != 0)
		printf(" (%s %.2f%s)", f->at_most ? "at most" : "at least", f->bound,
			(f->at_most ? f->ratio > f->bound : f->ratio < f->bound) ? ": MISSED" : "");
	putchar('\n');
	fflush(stdout);
}

float
bench_random(void)
{
	static uint32_t state = 1;

	state = state * 1664525u + 1013904223u;
	return (float)(int32_t)state * 0x1p-31f;
}

void *
bench_alloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p) {
		fprintf(stderr, "bench: no memory\n");
		exit(1);
	}
	return p;
}

static void
print_processor(void)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	char line[256];

	while (f && fgets(line, sizeof line, f))
		if (!strncmp(line, "model name", 10)) {
			printf("processor %s", strchr(line, ':') + 2);
			break;
		}
	if (f)
		fclose(f);
}

int
main(int argc, char **argv)
{
	static const char *const names[] = { "generic", "avx2", "avx512", "amx" };
	const struct kv_ops *ops, *last = NULL, *best;
	double load = 0;

	if (kv_ops_choose(NULL, &best, NULL) != KV_OK)
		return 1;
	openblas_set_num_threads(1);
	print_processor();
	printf("compiler %s\ncommit %s\n", __VERSION__, argc > 1 ? argv[1] : "unknown");
	if (getloadavg(&load, 1) == 1 && load > 0.5)
		printf("others were using the machine: load %.1f\n", load);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		if (kv_ops_choose(names[i], &ops, NULL) != KV_OK || ops == last)
			continue;
		printf("\n%s\n", ops->level);
		bench_kernels(ops);
		if (argc > 2)
			bench_model(ops, argv[2], ops == best);
		last = ops;
	}
	return 0;
}
