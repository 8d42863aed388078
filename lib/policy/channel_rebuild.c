/*
 * Dropped channels as an affine map of those that stay. Keys before RoPE lie close to an affine space of few dimensions, so little of what
 * was dropped is lost; after RoPE they do not.
 */
#include <math.h>
#include <stdlib.h>

#include "policy/channels.h"
#include "util/half.h"
#include "util/mem.h"

/*
 * Added to the diagonal, relative to its mean. f16 rounds keys and map by about 2^-12 of their size, 6e-8 in squares: below that nothing
 * is to be gained, and without it the map of few rows would not be determined.
 */
static const double ridge = 1e-6;

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

static double
covariance(const double *g, const double *sum, size_t n, unsigned d, unsigned i, unsigned j)
{
	return g[(size_t)i * d + j] / (double)n - sum[i] / (double)n * (sum[j] / (double)n);
}

static float
as_f16(double x)
{
	return f16_to_f32(f32_to_f16((float)x));
}

enum kv_status
kv_affine_fit(const double *g, const double *sum, size_t n, unsigned d, const uint8_t *drop, float *a, float *b, struct kv_err *err)
{
	unsigned kept[KVS_MAX_DIM], t = 0, row = 0;
	double *c, x[KVS_MAX_DIM], trace = 0;

	for (unsigned j = 0; j < d; j++)
		if (!drop[j])
			kept[t++] = j;
	if (!(c = kv_array_new((size_t)t * t, sizeof *c)))
		return kv_fail_mem(err, "a map");
	for (unsigned i = 0; i < t; i++)
		for (unsigned j = 0; j < t; j++)
			c[i * t + j] = covariance(g, sum, n, d, kept[i], kept[j]);
	for (unsigned i = 0; i < t; i++)
		trace += c[i * t + i];
	for (unsigned i = 0; i < t; i++)
		c[i * t + i] += trace > 0 ? ridge * trace / t : 1;
	if (!factor(c, t)) {
		free(c);
		return kv_fail(err, KV_EFIT, "keys that are not finite");
	}
	for (unsigned i = 0; i < d; i++) {
		double mean = sum[i] / (double)n;

		if (!drop[i])
			continue;
		for (unsigned j = 0; j < t; j++)
			x[j] = covariance(g, sum, n, d, i, kept[j]);
		solve(c, t, x);
		for (unsigned j = 0; j < t; j++) {
			a[(size_t)row * t + j] = as_f16(x[j]);
			mean -= (double)a[(size_t)row * t + j] * (sum[kept[j]] / (double)n);
		}
		b[row++] = as_f16(mean);
	}
	free(c);
	return KV_OK;
}
