/*
 * Which channels of a head can go, on plain matrices: ThinK (Xu et al., arXiv:2407.21018) and what it is compared with. A choice is an
 * array drop [d] of 0 and 1. Products of f32 are summed in f64 in a fixed order; among equals the higher channel goes.
 */
#ifndef KV_POLICY_CHANNELS_H
#define KV_POLICY_CHANNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvs/geom.h"
#include "util/err.h"

/* A part of a whole as it was written, 0 <= num < den: "0.4" is 4/10. Never a float: 0.9 of 80 channels are 72 and not 71. */
struct kv_ratio {
	uint64_t num, den;
};

/* A decimal number, no exponent, no sign. KV_EUSAGE names what. */
enum kv_status kv_parse_ratio(const char *what, const char *s, struct kv_ratio *out, struct kv_err *err);
bool kv_ratio_above(struct kv_ratio r, struct kv_ratio limit);

/* How many of d channels go: floor(d r) as ThinK's code has it, or all but floor(d (1 - r)) as the paper has it. At least one stays. */
enum kv_rounding { KV_ROUND_CODE, KV_ROUND_PAPER };
unsigned kv_channels_to_drop(struct kv_ratio r, unsigned d, enum kv_rounding how);

/* What goes together: rotary pairs, or every channel alone. */
struct kv_units {
	unsigned d, n;
	struct kv_unit {
		uint16_t a, b;		/* a < b, or a = b: a channel alone */
	} unit[KVS_MAX_DIM];
};

/* rope NULL: the layer does not rotate, all channels are alone. */
void kv_units_pairs(struct kv_units *u, unsigned d, const struct kvs_rope *rope);

/* e [d] += the squares of rows x [n][ld] */
void kv_channel_energy(double *e, const float *x, size_t n, size_t ld, unsigned d);

/*
 * Drops units that cost least, up to n channels, and returns how many went. A channel alone costs eq ek, the squared Frobenius norm of its
 * share in Q K^T; a pair Eq Ek / 2, what it costs on average over all angles between query and key. (The sum of the two channels' costs
 * would depend on where they stand.) Cheapest by channel first; a pair that no longer fits is passed over.
 */
unsigned kv_units_drop(const struct kv_units *u, const double *eq, const double *ek, unsigned n, uint8_t *drop);

/* g [d][d] += the sum of x^T x over rows x [n][ld] */
void kv_gram_add(double *g, const float *x, size_t n, size_t ld, unsigned d);
/* a [d][d] *= b, element by element: two Gram matrices make the form whose sum over P x P is ||Q K^T - (QM)(KM)^T||^2. */
void kv_form_make(double *a, const double *b, unsigned d);
/* As kv_units_drop, by that sum, E(P), itself: greedily the unit that adds least, then swaps of units of one size until none helps. */
unsigned kv_units_drop_by_error(const struct kv_units *u, const double *form, unsigned n, uint8_t *drop);

/*
 * Keys that are rebuilt: dropped channels as an affine map of the kept ones. Moments of the rows: g [d][d] = the sum of w x^T x, sum [d] of w x,
 * weight of w.
 */
struct kv_moments {
	unsigned d;
	double *g, *sum, weight;
};

/*
 * As kv_units_drop, for keys that will be rebuilt: greedily the unit whose loss adds least to the energy of queries eq times that of what
 * a map of the remaining channels misses.
 */
enum kv_status kv_units_drop_by_missed(const struct kv_units *u, const struct kv_moments *m, const double *eq, unsigned n, uint8_t *drop,
	unsigned *gone, struct kv_err *err);

/*
 * The least-squares map: dropped channels ~ a kept + b, a [dropped][kept], b [dropped], both already as f16 keeps them; b makes up for what
 * rounding did to a. A small ridge, so that any rows will do.
 */
enum kv_status kv_affine_fit(const struct kv_moments *m, const uint8_t *drop, float *a, float *b, struct kv_err *err);

#endif
