/* Rotation frequencies: plain, linear, by a table of factors (Llama 3), and YaRN (arXiv:2309.00071). */
#include "model/frequencies.h"

#include <math.h>

/* The pair that turns x times within the original context: YaRN, equation 19 solved for the dimension. */
static double
pair_of(const struct kvs_rope *r, double x)
{
	const double pi = 3.14159265358979323846;

	return r->n_rot * log(r->n_ctx_orig / (2 * pi * x)) / (2 * log((double)r->theta));
}

/* Share of the unscaled frequency in pair i: 1 for fast ones, 0 for those that never complete a turn. */
static double
ramp(const struct kvs_rope *r, uint32_t i)
{
	double low = fmax(0, floor(pair_of(r, (double)r->beta_fast)));
	double high = fmin((double)r->n_rot - 1, ceil(pair_of(r, (double)r->beta_slow)));
	double y = (i - low) / fmax(0.001, high - low);

	return (1 - fmin(1, fmax(0, y))) * (double)r->ext_factor;
}

void
kv_frequencies(struct kvs_rope *r, const float *factors, double attn_factor)
{
	double factor = (double)r->factor, stretch = 1;

	for (uint32_t i = 0; i < r->n_rot / 2; i++) {
		double f = pow((double)r->theta, -2.0 * i / r->n_rot) / (factors ? (double)factors[i] : 1);

		if (r->scaling == KVS_SCALE_YARN)
			r->inv_freq[i] = (float)(f / factor * (1 - ramp(r, i)) + f * ramp(r, i));
		else
			r->inv_freq[i] = (float)(f / factor);
	}
	if (r->scaling == KVS_SCALE_YARN && r->ext_factor != 0)
		stretch = 1 + 0.1 * log(factor);
	r->magnitude = (float)(attn_factor * stretch);
}
