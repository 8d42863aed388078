/* One line on a terminal: shown after a second, only in the foreground, wiped at the end. Silent everywhere else. */
#ifndef KV_UTIL_PROGRESS_H
#define KV_UTIL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct kv_progress {
	bool on, shown;
	double start, last;	/* seconds */
	const char *tool, *unit;
};

void kv_progress_start(struct kv_progress *p, const char *tool, const char *unit, bool quiet);
/* done of total (0 = unknown); extra, may be NULL, is shown after them. At most ten times a second. */
void kv_progress_at(struct kv_progress *p, uint64_t done, uint64_t total, const char *extra);
void kv_progress_end(struct kv_progress *p);

double kv_now(void);	/* seconds of the monotonic clock */

#endif
