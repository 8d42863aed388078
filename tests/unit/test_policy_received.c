/* Policies by the attention that entries received: H2O, RoCo, observed. Worked examples, and a simulation step by step. */
#include "tap.h"

#include <stdlib.h>

#include "policy_cache.h"

static struct kv_cache *
cache_of(uint32_t n)
{
	struct kv_cache *c = small_cache(small_geom(1, 1, 1, 2));

	small_feed(c, n);
	return c;
}

static const double matrix[5][5] = { { 1 }, { .6, .4 }, { .5, .1, .4 }, { .3, .12, .4, .18 }, { .2, .1, .3, .15, .25 } };

static struct kv_cache *
cache_of_matrix(void)
{
	struct kv_cache *c = cache_of(5);
	struct kv_received *a = policy_received(c, 0, 0);

	for (int i = 0; i < 5; i++) {
		double sum = 0;

		for (int q = i; q < 5; q++)
			sum += matrix[q][i];
		a->sum[i] = (float)sum;
		a->count[i] = 5 - (uint32_t)i;
	}
	return c;
}

static void
test_h2o(void)
{
	static const double sums[] = { 2.6, .72, 1.1, .33, .25 };
	struct kv_cache *c = cache_of_matrix();
	struct kv_received *a;
	double s[5];

	policy_scores(c, "--h2o --recent 0", s);
	is_near(policy_apart(s, sums, 5), 0, 1e-6, "column sums");
	policy_keeps(c, "--h2o -k 3 --recent 2", "0 3 4", "one heavy, two recent");
	small_feed(c, 1);
	a = policy_received(c, 0, 0);
	memcpy(a->sum, (float[]){ 2.7f, .83f, .45f, .20f }, 4 * sizeof *a->sum);
	policy_keeps(c, "--h2o -k 3 --recent 2", "0 4 5", "token 3 goes although the last query paid it most");
	policy_cache_free(c);
	c = cache_of_matrix();
	policy_keeps(c, "--h2o -k 3", "0 2 4", "half of 3, rounded down, is recent");
	policy_cache_free(c);
	c = cache_of_matrix();
	policy_keeps(c, "--h2o -k 2 --recent 2", "3 4", "no heavy ones: a window");
	policy_cache_free(c);
}

static void
test_observed(void)
{
	static const double means[] = { .52, .18, .366667, .165, .25 };
	struct kv_cache *c = cache_of_matrix();
	double s[5];

	policy_scores(c, "--observed", s);
	is_near(policy_apart(s, means, 5), 0, 1e-6, "means");
	policy_keeps(c, "--observed -k 3", "0 2 4", "the three largest");
	policy_cache_free(c);
}

static struct kv_cache *
cache_of_table(void)
{
	struct kv_cache *c = cache_of(5);
	struct kv_received *a = policy_received(c, 0, 0);

	memcpy(a->sum, (float[]){ 2, .4f, .36f, .3f, .5f }, 5 * sizeof *a->sum);
	memcpy(a->square, (float[]){ 1.2f, .13f, .045f, .0452f, .25f }, 5 * sizeof *a->square);
	memcpy(a->count, (uint32_t[]){ 5, 4, 3, 2, 1 }, 5 * sizeof *a->count);
	return c;
}

static void
test_roco(void)
{
	struct kv_cache *c = cache_of_table();
	double s[5];

	policy_scores(c, "--roco --recent 1", s);
	is_near(policy_apart(s, (double[]){ .4, .1, .12, .15 }, 4), 0, 1e-6, "means");
	ok(isinf(s[4]), "the guard");
	policy_keeps(c, "--roco -k 4 --recent 1 --rho 0.5", "0 1 3 4", "of the two that deviate least the lower mean goes");
	policy_cache_free(c);
	c = cache_of_table();
	policy_keeps(c, "--roco -k 4 --recent 1 --rho 0.25", "0 2 3 4", "of three");
	policy_cache_free(c);
	c = cache_of_table();
	policy_keeps(c, "--h2o -k 4 --recent 1", "0 1 2 4", "H2O would drop the smallest sum");
	policy_cache_free(c);
}

/* The same weight all the time: sums of squares that rounding has put below the square of the sum. */
static void
test_constant(void)
{
	struct kv_cache *c = cache_of(40);
	struct kv_received *a = policy_received(c, 0, 0);

	for (uint32_t i = 0; i < 40; i++)
		for (uint32_t q = i; q < 40; q++) {
			a->sum[i] += .1f;
			a->square[i] += .1f * .1f;
			a->count[i]++;
		}
	is_int(policy_evict(c, "--roco -k 20"), KV_OK, "constant weights have no deviation, not a negative one");
	ok(c->list[0].n == 20 && c->list[0].src[10] == 30, "and the guard holds");
	policy_cache_free(c);
}

static void
test_stale(void)
{
	static const char *const policies[] = { "h2o", "roco", "observed" };

	for (size_t i = 0; i < 3; i++) {
		struct kv_cache *c = cache_of(12);
		struct kv_err err = { 0 };
		char line[80];

		policy_receive(c);
		c->list[0].received->to = 9;
		snprintf(line, sizeof line, "--%s -k 5 --recent 0", policies[i]);
		is_int(small_run(&kv_stage_evict, line, c, 1, NULL, &err), KV_EFIT, "%s", err.text);
		ok(strstr(err.text, "last 3 tokens") && strstr(err.text, "--observe acc"), "it says by how much");
		snprintf(line, sizeof line, "--%s -k 5 --recent 0 --allow-stale", policies[i]);
		is_int(small_run(&kv_stage_evict, line, c, 1, NULL, &err), KV_OK, "--allow-stale");
		policy_cache_free(c);
	}
}

/*
 * What the papers' loops do token by token, on random attention, written down independently: tokens with their sums, one of which goes in
 * every step. The tool is given the sums and must come to the same kept set in each step.
 */
struct token {
	uint32_t src, count;
	double sum, square;
};

enum { BUDGET = 31, STEPS = 90, ROOM = BUDGET + 1 };

static uint32_t
h2o_victim(const struct token *t, uint32_t n)
{
	uint32_t worst = 0;

	for (uint32_t i = 1; i < n - BUDGET / 2; i++)
		if ((float)t[i].sum < (float)t[worst].sum)
			worst = i;
	return worst;
}

static int
by_deviation(const void *a, const void *b)
{
	const double *x = *(const double *const *)a, *y = *(const double *const *)b;

	return *x != *y ? (*x > *y) - (*x < *y) : (x > y) - (x < y);
}

/* EasyKV's decoding: rho 0.3, a guard of 10. */
static uint32_t
roco_victim(const struct token *t, uint32_t n)
{
	double deviation[ROOM];
	const double *order[ROOM];
	uint32_t open = n - 10, scope = BUDGET - 9, worst = UINT32_MAX;
	double least = INFINITY;

	for (uint32_t i = 0; i < open; i++) {
		double mean = (double)(float)t[i].sum / t[i].count, var = (double)(float)t[i].square / t[i].count - mean * mean;

		deviation[i] = (double)(float)sqrt(var > 0 ? var : 0);
		order[i] = &deviation[i];
	}
	qsort(order, open, sizeof *order, by_deviation);
	for (uint32_t i = 0; i < scope && i < open; i++) {
		uint32_t at = (uint32_t)(order[i] - deviation);
		double mean = (double)(float)((double)(float)t[at].sum / t[at].count);

		if (mean < least || (mean <= least && at < worst)) {
			least = mean;
			worst = at;
		}
	}
	return worst;
}

static double
random_share(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (double)(*state >> 40) * 0x1p-24;
}

/* A random row of attention, a few entries of it large, over all that are there. */
static void
attend(struct token *t, uint32_t n, uint64_t *state)
{
	double row[ROOM], sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += row[i] = pow(random_share(state), 4) + 1e-3;
	for (uint32_t i = 0; i < n; i++) {
		t[i].sum += row[i] / sum;
		t[i].square += row[i] / sum * (row[i] / sum);
		t[i].count++;
	}
}

static bool
same_set(const struct kv_list *l, const struct token *t, uint32_t n)
{
	bool same = l->n == n;

	for (uint32_t i = 0; same && i < n; i++)
		same = l->src[i] == t[i].src;
	return same;
}

static void
simulate(const char *line, uint32_t (*victim)(const struct token *, uint32_t), uint64_t seed)
{
	struct kv_cache *c = cache_of(0);
	struct token t[ROOM];
	uint32_t n = 0, wrong = 0, evictions = 0;
	uint64_t state = seed;

	for (uint32_t step = 0; step < BUDGET + STEPS; step++) {
		struct kv_received *a;

		small_feed(c, 1);
		t[n++] = (struct token){ .src = step };
		attend(t, n, &state);
		a = policy_received(c, 0, 0);
		for (uint32_t i = 0; i < n && i < c->list[0].n; i++) {
			a->sum[i] = (float)t[i].sum;
			a->square[i] = (float)t[i].square;
			a->count[i] = t[i].count;
		}
		if (n > BUDGET) {
			uint32_t v = victim(t, n);

			memmove(t + v, t + v + 1, (n - v - 1) * sizeof *t);
			n--;
			evictions++;
		}
		wrong += policy_evict(c, line) != KV_OK || !same_set(&c->list[0], t, n);
	}
	ok(!wrong && evictions == STEPS, "%s: %u steps as simulated, seed %u", line, evictions, (unsigned)seed);
	policy_cache_free(c);
}

int
main(void)
{
	test_h2o();
	test_observed();
	test_roco();
	test_constant();
	test_stale();
	for (uint64_t seed = 1; seed <= 3; seed++) {
		simulate("--h2o -k 31", h2o_victim, seed);
		simulate("--roco -k 31", roco_victim, seed);
	}
	return done_testing();
}
