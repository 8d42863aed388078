/* The selection step: counts, order, ties, protected ends, against a plain sort. */
#include "tap.h"

#include <stdlib.h>

#include "policy/select.h"

static char *
select_text(const float *score, uint32_t n, uint32_t k, uint32_t sinks, uint32_t newest, char *out)
{
	uint32_t keep[16];
	struct kv_err err;
	int at = 0;

	*out = 0;
	if (kv_select(score, n, k, sinks, newest, keep, &err) != KV_OK)
		return strcpy(out, "failed");
	for (uint32_t i = 0; i < k; i++)
		at += sprintf(out + at, "%s%u", i ? " " : "", keep[i]);
	return out;
}

static void
test_small(void)
{
	static const float equal[] = { 1, 1, 1, 1, 1 }, mixed[] = { .35f, .10f, .075f, .275f, .20f }, zeros[] = { 0.0f, -0.0f, 0.0f, -0.0f };
	static const float ends[] = { -INFINITY, 2, INFINITY, 1, INFINITY }, nan_inside[] = { 1, NAN, 3 };
	char s[64];

	is_str(select_text(equal, 5, 3, 0, 0, s), "2 3 4", "among equals the oldest goes");
	is_str(select_text(zeros, 4, 2, 0, 0, s), "2 3", "zeros of either sign are equal");
	is_str(select_text(mixed, 5, 3, 0, 0, s), "0 3 4", "the largest stay, in time order");
	is_str(select_text(mixed, 5, 3, 0, 1, s), "0 3 4", "a protected end that would stay anyway");
	is_str(select_text(mixed, 5, 3, 2, 1, s), "0 1 4", "protected at both ends, nothing else fits");
	is_str(select_text(mixed, 5, 2, 0, 2, s), "3 4", "the newest alone");
	is_str(select_text(mixed, 5, 0, 0, 0, s), "", "nothing stays");
	is_str(select_text(ends, 5, 3, 0, 0, s), "1 2 4", "infinities are scores");
	is_str(select_text(nan_inside, 3, 1, 0, 0, s), "failed", "NaN is not");
}

struct entry {
	float score;
	uint32_t rank;
};

static int
worst_first(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->score != y->score)
		return x->score < y->score ? -1 : 1;
	return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Scores with many ties, so that the cut falls among equals. */
static void
test_against_sort(void)
{
	enum { N = 500 };
	static float score[N];
	static struct entry sorted[N];
	static uint32_t keep[N];
	struct kv_err err;
	uint32_t seed = 1, wrong = 0;

	for (uint32_t k = 20; k < N; k += 13) {
		uint32_t sinks = k % 5, newest = k % 7, m = N - sinks - newest;
		static char gone[N];

		for (uint32_t i = 0; i < N; i++) {
			seed = seed * 1664525u + 1013904223u;
			score[i] = (float)((int)(seed >> 24) - 128) / 8;
		}
		for (uint32_t i = 0; i < m; i++)
			sorted[i] = (struct entry){ score[sinks + i], sinks + i };
		qsort(sorted, m, sizeof *sorted, worst_first);
		memset(gone, 0, sizeof gone);
		for (uint32_t i = 0; i < N - k; i++)
			gone[sorted[i].rank] = 1;
		wrong += kv_select(score, N, k, sinks, newest, keep, &err) != KV_OK;
		for (uint32_t i = 0; i < k; i++)
			wrong += gone[keep[i]] || (i && keep[i] <= keep[i - 1]);
	}
	is_int(wrong, 0, "as a plain sort selects");
}

int
main(void)
{
	test_small();
	test_against_sort();
	return done_testing();
}
