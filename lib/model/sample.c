/* From logits to a token: greedy, or drawn. Everything is decided by the logits, the options and the state of the generator. */
#include "model/sample.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* splitmix64: spreads a seed over the state, as the authors of xoshiro advise. */
void
kv_rng_seed(struct kv_rng *r, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		uint64_t z = seed += 0x9e3779b97f4a7c15u;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		r->s[i] = z ^ z >> 31;
	}
}

static uint64_t
rotate_left(uint64_t x, int k)
{
	return x << k | x >> (64 - k);
}

/* xoshiro256** (Blackman and Vigna); the upper 53 bits make the number. */
double
kv_rng_next(struct kv_rng *r)
{
	uint64_t *s = r->s, out = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;

	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rotate_left(s[3], 45);
	return (double)(out >> 11) * 0x1p-53;
}

uint32_t
kv_argmax(const float *logits, size_t n)
{
	size_t best = 0;

	for (size_t i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return (uint32_t)best;
}

double
kv_log_sum_exp(const float *logits, size_t n)
{
	double top = (double)logits[kv_argmax(logits, n)], sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += exp((double)logits[i] - top);
	return top + log(sum);
}

double
kv_logprob(const float *logits, size_t n, uint32_t id)
{
	return (double)logits[id] - kv_log_sum_exp(logits, n);
}

/* Best first, the lowest id among equals. */
static int
by_rank(const void *a, const void *b)
{
	const struct kv_candidate *x = a, *y = b;

	if (x->p != y->p)
		return x->p > y->p ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

static void
swap(struct kv_candidate *a, struct kv_candidate *b)
{
	struct kv_candidate t = *a;

	*a = *b;
	*b = t;
}

/* Brings the best k of c[0..n) to the front (Hoare's selection; the pivot is the median of three). */
static void
select_best(struct kv_candidate *c, size_t n, size_t k)
{
	while (n > 2 && k && k < n) {
		struct kv_candidate pivot;
		size_t i = 0, j = n - 1, mid = n / 2;

		if (by_rank(&c[mid], &c[0]) < 0)
			swap(&c[mid], &c[0]);
		if (by_rank(&c[j], &c[0]) < 0)
			swap(&c[j], &c[0]);
		if (by_rank(&c[j], &c[mid]) < 0)
			swap(&c[j], &c[mid]);
		pivot = c[mid];
		for (;;) {
			while (by_rank(&c[i], &pivot) < 0)
				i++;
			while (by_rank(&pivot, &c[j]) < 0)
				j--;
			if (i >= j)
				break;
			swap(&c[i++], &c[j--]);
		}
		if (k <= j + 1) {	/* all of the best stand in c[0..j] */
			n = j + 1;
		} else {
			c += j + 1;
			n -= j + 1;
			k -= j + 1;
		}
		if (n == 2)
			break;
	}
	if (n == 2 && by_rank(&c[1], &c[0]) < 0)
		swap(&c[0], &c[1]);
}

/* Turns the candidates' logits into probabilities at a temperature; the sum of them is 1 before rounding. */
static void
soften(struct kv_candidate *c, size_t n, double temp)
{
	double top = (double)c[0].p, sum = 0;

	for (size_t i = 1; i < n; i++)
		top = (double)c[i].p > top ? (double)c[i].p : top;
	for (size_t i = 0; i < n; i++)
		sum += exp(((double)c[i].p - top) / temp);
	for (size_t i = 0; i < n; i++)
		c[i].p = (float)(exp(((double)c[i].p - top) / temp) / sum);
}

/* Keeps those whose probability is at least p, in their order. */
static size_t
at_least(struct kv_candidate *c, size_t n, double p)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++)
		if ((double)c[i].p >= p)
			c[kept++] = c[i];
	return kept;
}

/*
 * The shortest prefix of the ranking that holds the mass top_p. What is rarer than (1 - top_p) / n each cannot belong to it: all of
 * it together is too little to be missed. So the bulk of a vocabulary never gets sorted.
 */
static size_t
nucleus(struct kv_candidate *c, size_t n, double top_p)
{
	double mass = 0;
	size_t i = 0;

	n = at_least(c, n, (1 - top_p) / (double)n * 0.999);
	qsort(c, n, sizeof *c, by_rank);
	while (i < n && mass < top_p)
		mass += (double)c[i++].p;
	return i ? i : 1;
}

static uint32_t
draw(const struct kv_candidate *c, size_t n, struct kv_rng *rng)
{
	double sum = 0, at, so_far = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)c[i].p;
	at = kv_rng_next(rng) * sum;
	for (size_t i = 0; i < n; i++)
		if ((so_far += (double)c[i].p) > at)
			return c[i].id;
	return c[n - 1].id;
}

uint32_t
kv_sample(const float *logits, size_t n, const struct kv_sampling *how, struct kv_rng *rng, struct kv_candidate *scratch)
{
	struct kv_candidate *c = scratch;
	uint32_t best = kv_argmax(logits, n);
	double most = 0;

	if (how->temp <= 0)
		return best;
	for (size_t i = 0; i < n; i++)
		c[i] = (struct kv_candidate){ (uint32_t)i, logits[i] };
	if (how->top_k && how->top_k < n) {
		select_best(c, n, how->top_k);
		n = how->top_k;
		qsort(c, n, sizeof *c, by_rank);
	}
	soften(c, n, how->temp);
	if (how->top_p < 1)
		n = nucleus(c, n, how->top_p);
	if (how->min_p > 0) {
		for (size_t i = 0; i < n; i++)
			most = (double)c[i].p > most ? (double)c[i].p : most;
		n = at_least(c, n, how->min_p * most);
	}
	return n ? draw(c, n, rng) : best;
}
