/* One line on a terminal. */
#define _GNU_SOURCE	/* tcgetpgrp with getpgrp */
#include "util/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double
kv_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void
kv_progress_start(struct kv_progress *p, const char *tool, const char *unit, bool quiet)
{
	*p = (struct kv_progress){ .tool = tool, .unit = unit };
	p->on = !quiet && isatty(STDERR_FILENO) && tcgetpgrp(STDERR_FILENO) == getpgrp();
	p->start = p->last = kv_now();
}

void
kv_progress_at(struct kv_progress *p, uint64_t done, uint64_t total, const char *extra)
{
	double now, rate;

	if (!p->on || (now = kv_now()) - p->start < 1 || (p->shown && now - p->last < 0.1))
		return;
	rate = (double)done / (now - p->start);
	fprintf(stderr, "\r\033[K%s: %llu", p->tool, (unsigned long long)done);
	if (total)
		fprintf(stderr, "/%llu", (unsigned long long)total);
	fprintf(stderr, " %s  %.0f/s", p->unit, rate);
	if (extra)
		fprintf(stderr, "  %s", extra);
	if (total > done && rate > 0)
		fprintf(stderr, "  %.0f s left", (double)(total - done) / rate);
	fflush(stderr);
	p->shown = true;
	p->last = now;
}

void
kv_progress_end(struct kv_progress *p)
{
	if (p->shown)
		fputs("\r\033[K", stderr);
	*p = (struct kv_progress){ 0 };
}
