/* From logits to a token. */
#include "model/sample.h"

#include <stdbool.h>
#include <stdlib.h>

#include "tap.h"

/* First outputs of xoshiro256** whose state is 1, 2, 3, 4 (from the authors' program), and of splitmix64 from 0. */
static void
test_generator(void)
{
	static const uint64_t want[] = { 11520, 0, 1509978240, 1215971899390074240 };
	struct kv_rng r = { { 1, 2, 3, 4 } }, a, b;
	bool good = true;
	double sum = 0;

	for (int i = 0; i < 4; i++)
		good &= kv_rng_next(&r) == (double)(want[i] >> 11) * 0x1p-53;
	ok(good, "xoshiro256**");
	kv_rng_seed(&r, 0);
	ok(r.s[0] == 0xe220a8397b1dcdafu && r.s[1] == 0x6e789e6aa1b965f4u && r.s[2] == 0x06c45d188009454fu, "splitmix64");
	kv_rng_seed(&a, 5);
	kv_rng_seed(&b, 5);
	for (int i = 0; i < 100000; i++) {
		double x = kv_rng_next(&a);

		good &= x >= 0 && x < 1 && x == kv_rng_next(&b);
		sum += x;
	}
	ok(good, "the same seed, the same numbers in [0, 1)");
	is_near(sum / 100000, 0.5, 0.005, "their mean");
}

static void
test_plain(void)
{
	const float z[] = { 1, 3, 3, -2 };

	is_int(kv_argmax(z, 4), 1, "the lowest id among equals");
	is_near(kv_log_sum_exp(z, 4), log(exp(1) + 2 * exp(3) + exp(-2)), 1e-12, "log of the sum");
	is_near(kv_logprob(z, 4, 0), 1 - log(exp(1) + 2 * exp(3) + exp(-2)), 1e-12, "log of a probability");
	is_near(kv_log_sum_exp((float[]){ 1000, 1000 }, 2), 1000 + log(2), 1e-12, "large logits do not overflow");
}

/* Shares of n draws. */
static void
shares(const float *z, size_t n, const struct kv_sampling *how, double *out)
{
	enum { DRAWS = 40000 };
	struct kv_candidate *scratch = malloc(n * sizeof *scratch);
	struct kv_rng r;

	kv_rng_seed(&r, 11);
	for (size_t i = 0; i < n; i++)
		out[i] = 0;
	for (int i = 0; i < DRAWS; i++)
		out[kv_sample(z, n, how, &r, scratch)] += 1.0 / DRAWS;
	free(scratch);
}

static void
test_shares(void)
{
	/* probabilities 0.1, 0.4, 0.2, 0.3 */
	const float z[] = { logf(0.1f), logf(0.4f), logf(0.2f), logf(0.3f) };
	static const struct { struct kv_sampling how; double want[4]; const char *what; } t[] = {
		{ { 0, 0, 1, 0 }, { 0, 1, 0, 0 }, "greedy" },
		{ { 1, 0, 1, 0 }, { 0.1, 0.4, 0.2, 0.3 }, "as they are" },
		{ { 0.5, 0, 1, 0 }, { 1 / 30.0, 16 / 30.0, 4 / 30.0, 9 / 30.0 }, "temperature 0.5 squares them" },
		{ { 1, 1, 1, 0 }, { 0, 1, 0, 0 }, "top-k 1" },
		{ { 1, 3, 1, 0 }, { 0, 4 / 9.0, 2 / 9.0, 3 / 9.0 }, "top-k 3" },
		{ { 1, 9, 1, 0 }, { 0.1, 0.4, 0.2, 0.3 }, "top-k beyond all" },
		{ { 1, 0, 0.65, 0 }, { 0, 4 / 7.0, 0, 3 / 7.0 }, "top-p 0.65" },
		{ { 1, 0, 0.75, 0 }, { 0, 4 / 9.0, 2 / 9.0, 3 / 9.0 }, "top-p 0.75 takes the one that crosses it" },
		{ { 1, 0, 0.01, 0 }, { 0, 1, 0, 0 }, "top-p keeps one" },
		{ { 1, 0, 1, 0.6 }, { 0, 4 / 7.0, 0, 3 / 7.0 }, "min-p 0.6 of the best" },
		{ { 1, 2, 0.9, 0.8 }, { 0, 1, 0, 0 }, "all at once" },
	};

	for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
		double got[4], worst = 0;

		shares(z, 4, &t[k].how, got);
		for (int i = 0; i < 4; i++)
			worst = fmax(worst, t[k].want[i] == 0 && got[i] > 0 ? 1 : fabs(got[i] - t[k].want[i]));
		is_near(worst, 0, 0.01, "%s", t[k].what);
	}
}

/* top-k of many, with many equals, by selection and by plain counting. */
static void
test_selection(void)
{
	enum { N = 3000 };
	float z[N];
	struct kv_candidate scratch[N];
	struct kv_rng r;
	bool good = true;

	kv_rng_seed(&r, 3);
	for (int round = 0; round < 60; round++) {
		uint32_t k = 1 + (uint32_t)(round * round), levels = round % 3 ? 20 : 100000;

		for (int i = 0; i < N; i++)
			z[i] = (float)(int)(kv_rng_next(&r) * levels) / (float)levels;
		kv_sample(z, N, &(struct kv_sampling){ 1, k, 1, 0 }, &r, scratch);
		for (uint32_t c = 0; c < k && c < N; c++) {
			uint32_t better = 0, id = scratch[c].id;

			for (uint32_t i = 0; i < N && k < N; i++)
				better += z[i] > z[id] || (z[i] == z[id] && i < id);
			good &= k >= N || better == c;
		}
	}
	ok(good, "the best k, in order, the lowest ids among equals");
}

static void
test_repeatable(void)
{
	float z[500];
	struct kv_candidate scratch[500];
	struct kv_rng a, b;
	bool same = true;

	for (int i = 0; i < 500; i++)
		z[i] = sinf((float)i);
	kv_rng_seed(&a, 8);
	kv_rng_seed(&b, 8);
	for (int i = 0; i < 100; i++) {
		struct kv_sampling how = { 0.8, 40, 0.95, 0.05 };

		same &= kv_sample(z, 500, &how, &a, scratch) == kv_sample(z, 500, &how, &b, scratch);
	}
	ok(same, "the same seed, the same tokens");
}

int
main(void)
{
	test_generator();
	test_plain();
	test_shares();
	test_selection();
	test_repeatable();
	return done_testing();
}
