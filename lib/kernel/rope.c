/* Angles and rotations. The definition is three lines; the rest remembers what they gave. */
#include "kernel/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/clones.h"
#include "util/mem.h"

enum { CACHE_BYTES = 4 << 20 };	/* 16384 positions of SmolLM2's 32 pairs */

struct kv_angles {
	size_t pairs;		/* n_rot / 2 */
	float magnitude;
	float *inv_freq;	/* [pairs] */
	size_t slots;		/* a power of two */
	int32_t *at;		/* [slots] position whose angles stand there; -1 = none */
	float *cs;		/* [slots][pairs][2] */
};

struct kv_angles *
kv_angles_new(unsigned n_rot, const float *inv_freq, float magnitude)
{
	struct kv_angles *a = kv_array_new(1, sizeof *a);

	if (!a)
		return NULL;
	a->pairs = n_rot / 2;
	a->magnitude = magnitude;
	for (a->slots = 1; 2 * a->slots * a->pairs * 2 * sizeof *a->cs <= CACHE_BYTES; a->slots *= 2)
		;
	a->inv_freq = kv_array_new(a->pairs, sizeof *a->inv_freq);
	a->at = kv_array_new(a->slots, sizeof *a->at);
	a->cs = kv_block_new(a->slots * a->pairs, 2 * sizeof *a->cs);
	if (!a->inv_freq || !a->at || !a->cs) {
		kv_angles_free(a);
		return NULL;
	}
	memcpy(a->inv_freq, inv_freq, a->pairs * sizeof *inv_freq);
	for (size_t i = 0; i < a->slots; i++)
		a->at[i] = -1;
	return a;
}

void
kv_angles_free(struct kv_angles *a)
{
	if (!a)
		return;
	free(a->inv_freq);
	free(a->at);
	kv_block_free(a->cs);
	free(a);
}

/* cs [pairs][2] */
static void
angles_at(const struct kv_angles *a, int32_t pos, float *cs)
{
	for (size_t i = 0; i < a->pairs; i++) {
		float phi = (float)pos * a->inv_freq[i];

		cs[2 * i] = a->magnitude * (float)cos((double)phi);
		cs[2 * i + 1] = a->magnitude * (float)sin((double)phi);
	}
}

void
kv_angles_get(struct kv_angles *a, const int32_t *pos, size_t n, float *out)
{
	size_t width = 2 * a->pairs;

	for (size_t i = 0; i < n; i++, out += width) {
		size_t slot = (uint32_t)pos[i] & (a->slots - 1);
		float *cs = a->cs + slot * width;

		if (pos[i] < 0) {	/* no cache ever holds one; -1 marks an empty slot */
			angles_at(a, pos[i], out);
			continue;
		}
		if (a->at[slot] != pos[i]) {
			angles_at(a, pos[i], cs);
			a->at[slot] = pos[i];
		}
		memcpy(out, cs, width * sizeof *cs);
	}
}

KV_CLONES static void
rotate_halves(float *x, size_t pairs, const float *cs)
{
	float *y = x + pairs;

	for (size_t i = 0; i < pairs; i++) {
		float a = x[i], b = y[i], c = cs[2 * i], s = cs[2 * i + 1];

		x[i] = a * c - b * s;
		y[i] = a * s + b * c;
	}
}

/* No KV_CLONES: where there is FMA, gcc 12 contracts this loop (vfmaddsub), whatever -ffp-contract says. */
static void
rotate_neighbours(float *x, size_t pairs, const float *cs)
{
	for (size_t i = 0; i < pairs; i++) {
		float a = x[2 * i], b = x[2 * i + 1], c = cs[2 * i], s = cs[2 * i + 1];

		x[2 * i] = a * c - b * s;
		x[2 * i + 1] = a * s + b * c;
	}
}

void
kv_rotate(float *x, unsigned n_rot, int neox, const float *cs)
{
	if (neox)
		rotate_halves(x, n_rot / 2, cs);
	else
		rotate_neighbours(x, n_rot / 2, cs);
}
