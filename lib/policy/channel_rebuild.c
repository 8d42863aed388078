/*
 * Dropped channels as an affine map of those that stay. Keys before RoPE lie close to an affine space of few dimensions, so little of what
 * was dropped is lost; after RoPE they do not.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/channels.h"
#include "util/half.h"
#include "util/mem.h"

/*
 * Added to the diagonal, relative to its mean. f16 rounds keys and map by about 2^-12 of their size, 6e-8 in squares: below that nothing
 * is to be gained, and without it the map of few rows would not be determined.
 */
static const double ridge = 1e-6;

/* c [n][n]: the covariance of some channels, with the ridge. False: not finite. */
static bool
covariances(const struct kv_moments *m, const unsigned *channel, size_t n, double *c)
{
	double trace = 0;

	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < n; j++)
			c[i * n + j] = m->g[(size_t)channel[i] * m->d + channel[j]] / m->weight -
				m->sum[channel[i]] / m->weight * (m->sum[channel[j]] / m->weight);
	for (size_t i = 0; i < n; i++)
		trace += c[i * n + i];
	for (size_t i = 0; i < n; i++)
		c[i * n + i] += trace > 0 ? ridge * trace / (double)n : 1;
	return isfinite(trace);
}

/* The lower triangle of the symmetric c [n][n] becomes its Cholesky factor; the ridge has made c positive. */
static bool
factor(double *c, size_t n)
{
	for (size_t j = 0; j < n; j++) {
		for (size_t i = j; i < n; i++) {
			double s = c[i * n + j];

			for (size_t k = 0; k < j; k++)
				s -= c[i * n + k] * c[j * n + k];
			c[i * n + j] = i == j ? sqrt(s) : s / c[j * n + j];
		}
		if (!(c[j * n + j] > 0) || !isfinite(c[j * n + j]))
			return false;
	}
	return true;
}

/* x [n]: from the right side to the solution. */
static void
solve(const double *c, size_t n, double *x)
{
	for (size_t i = 0; i < n; i++) {
		for (size_t k = 0; k < i; k++)
			x[i] -= c[i * n + k] * x[k];
		x[i] /= c[i * n + i];
	}
	for (size_t i = n; i-- > 0;) {
		for (size_t k = i + 1; k < n; k++)
			x[i] -= c[k * n + i] * x[k];
		x[i] /= c[i * n + i];
	}
}

static float
as_f16(double x)
{
	return f16_to_f32(f32_to_f16((float)x));
}

enum kv_status
kv_affine_fit(const struct kv_moments *m, const uint8_t *drop, float *a, float *b, struct kv_err *err)
{
	unsigned kept[KVS_MAX_DIM], t = 0, row = 0;
	double *c, x[KVS_MAX_DIM];

	for (unsigned j = 0; j < m->d; j++)
		if (!drop[j])
			kept[t++] = j;
	if (!(c = kv_array_new((size_t)t * t, sizeof *c)))
		return kv_fail_mem(err, "a map");
	if (!covariances(m, kept, t, c) || !factor(c, t)) {
		free(c);
		return kv_fail(err, KV_EFIT, "numbers that are not finite");
	}
	for (unsigned i = 0; i < m->d; i++) {
		double mean = m->sum[i] / m->weight;

		if (!drop[i])
			continue;
		for (unsigned j = 0; j < t; j++)
			x[j] = m->g[(size_t)i * m->d + kept[j]] / m->weight - mean * (m->sum[kept[j]] / m->weight);
		solve(c, t, x);
		for (unsigned j = 0; j < t; j++) {
			a[(size_t)row * t + j] = as_f16(x[j]);
			mean -= (double)a[(size_t)row * t + j] * (m->sum[kept[j]] / m->weight);
		}
		b[row++] = as_f16(mean);
	}
	free(c);
	return KV_OK;
}

/*
 * The sweep operator (Beaton 1964): swept over the kept channels, the block of the others in the covariance is that of what the best map of
 * the kept ones misses. Both ways are one formula but for a sign.
 */
static void
sweep(double *c, size_t d, size_t k, double sign)
{
	double pivot = c[k * d + k];

	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < d && i != k; j++)
			if (j != k)
				c[i * d + j] -= c[i * d + k] * c[k * d + j] / pivot;
	for (size_t i = 0; i < d; i++)
		if (i != k) {
			c[i * d + k] *= sign / pivot;
			c[k * d + i] *= sign / pivot;
		}
	c[k * d + k] = -1 / pivot;
}

/* What the map would miss in all, weighted, were channels a and b (or a alone) to go as well: two sweeps, on the diagonal of the others. */
static double
missed_without(const double *c, size_t d, const double *eq, const uint8_t *drop, struct kv_unit u)
{
	const double *a = c + u.a * d, *b = c + u.b * d;
	double link = a[u.b] / a[u.a], rest = b[u.b] - a[u.b] * link, sum = 0;

	for (size_t i = 0; i < d; i++) {
		double bi = b[i] - a[i] * link, e = c[i * d + i] - a[i] * a[i] / a[u.a];

		if (drop[i])
			sum += eq[i] * (u.a == u.b ? e : e - bi * bi / rest);
	}
	if (u.a == u.b)
		return sum - eq[u.a] / a[u.a];
	return sum + eq[u.a] * (-1 / a[u.a] - link * link / rest) - eq[u.b] / rest;
}

/* The unit that is cheapest to lose by channel, among those that fit into `left`. */
static bool
cheapest(const struct kv_units *u, const double *c, const double *eq, const uint8_t *drop, unsigned left, struct kv_unit *out)
{
	double now = 0, least = 0;
	bool found = false;

	for (size_t i = 0; i < u->d; i++)
		now += drop[i] ? eq[i] * c[i * u->d + i] : 0;
	for (unsigned i = u->n; i-- > 0;) {
		struct kv_unit x = u->unit[i];
		unsigned size = 1 + (x.a != x.b);
		double adds;

		if (drop[x.a] || size > left)
			continue;
		adds = (missed_without(c, u->d, eq, drop, x) - now) / size;
		if (!found || adds < least) {
			*out = x;
			least = adds;
			found = true;
		}
	}
	return found;
}

enum kv_status
kv_units_drop_by_missed(const struct kv_units *u, const struct kv_moments *m, const double *eq, unsigned n, uint8_t *drop, unsigned *gone,
	struct kv_err *err)
{
	double *c = kv_array_new((size_t)m->d * m->d, sizeof *c), mean[KVS_MAX_DIM];
	unsigned all[KVS_MAX_DIM], left = n;
	struct kv_unit x = { 0, 0 };

	if (!c)
		return kv_fail_mem(err, "a map");
	for (unsigned j = 0; j < m->d; j++)
		all[j] = j;
	if (!covariances(m, all, m->d, c)) {
		free(c);
		return kv_fail(err, KV_EFIT, "numbers that are not finite");
	}
	/* A pair turns by any angle between query and key: its channels count with the mean of its energies. */
	for (unsigned i = 0; i < u->n; i++)
		mean[u->unit[i].a] = mean[u->unit[i].b] = (eq[u->unit[i].a] + eq[u->unit[i].b]) / 2;
	for (size_t j = 0; j < m->d; j++)
		sweep(c, m->d, j, 1);
	memset(drop, 0, m->d);
	while (cheapest(u, c, mean, drop, left, &x)) {
		sweep(c, m->d, x.a, -1);
		if (x.b != x.a)
			sweep(c, m->d, x.b, -1);
		drop[x.a] = drop[x.b] = 1;
		left -= x.a != x.b ? 2 : 1;
	}
	*gone = n - left;
	free(c);
	return KV_OK;
}
