/* Channels that go together, and the choice by energies. */
#include <stdlib.h>
#include <string.h>

#include "policy/channels.h"

void
kv_units_pairs(struct kv_units *u, unsigned d, const struct kvs_rope *rope)
{
	unsigned turned = rope ? rope->n_rot : 0;

	u->d = d;
	u->n = 0;
	for (unsigned i = 0; i < turned / 2; i++)
		u->unit[u->n++] = rope->kind == KVS_ROPE_NEOX ? (struct kv_unit){ (uint16_t)i, (uint16_t)(i + turned / 2) } :
			(struct kv_unit){ (uint16_t)(2 * i), (uint16_t)(2 * i + 1) };
	for (unsigned j = turned; j < d; j++)
		u->unit[u->n++] = (struct kv_unit){ (uint16_t)j, (uint16_t)j };
}

void
kv_channel_energy(double *e, const float *x, size_t n, size_t ld, unsigned d)
{
	for (size_t r = 0; r < n; r++)
		for (unsigned j = 0; j < d; j++)
			e[j] += (double)(x[r * ld + j] * x[r * ld + j]);
}

struct cost {
	double each;		/* a channel */
	struct kv_unit unit;
};

static int
cheapest_first(const void *a, const void *b)
{
	const struct cost *x = a, *y = b;

	if (x->each != y->each)
		return x->each < y->each ? -1 : 1;
	return (int)y->unit.a - (int)x->unit.a;
}

unsigned
kv_units_drop(const struct kv_units *u, const double *eq, const double *ek, unsigned n, uint8_t *drop)
{
	struct cost cost[KVS_MAX_DIM];
	unsigned gone = 0;

	for (unsigned i = 0; i < u->n; i++) {
		unsigned a = u->unit[i].a, b = u->unit[i].b;

		cost[i].unit = u->unit[i];
		cost[i].each = a == b ? eq[a] * ek[a] : (eq[a] + eq[b]) * (ek[a] + ek[b]) / 4;
	}
	qsort(cost, u->n, sizeof *cost, cheapest_first);
	memset(drop, 0, u->d);
	for (unsigned i = 0; i < u->n; i++) {
		unsigned size = 1 + (cost[i].unit.a != cost[i].unit.b);

		if (gone + size > n)
			continue;
		drop[cost[i].unit.a] = drop[cost[i].unit.b] = 1;
		gone += size;
	}
	return gone;
}
