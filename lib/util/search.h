/* Looking things up in ascending numbers. */
#ifndef KV_UTIL_SEARCH_H
#define KV_UTIL_SEARCH_H

#include <stddef.h>
#include <stdint.h>

/* The first of v [n], ascending, that is not below x; n if all are. */
static inline size_t
kv_first_from(const uint32_t *v, size_t n, uint64_t x)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v[mid] < x)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

#endif
