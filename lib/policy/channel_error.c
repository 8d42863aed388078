/* The true error of dropping channels, E(P) = sum over i, j in P of (q_i . q_j)(k_i . k_j), and the choice by it. */
#include <string.h>

#include "policy/channels.h"

enum { ROWS = 8, TILE = 4 };	/* rows at a time; width of a tile of sums */

/* g [TILE] += sum over the rows of x_r times y_r [TILE]: kept in registers. */
static void
add_tile(double *g, const double *x, const double *y, size_t rows, size_t ld)
{
	double s[TILE] = { 0 };

	for (size_t r = 0; r < rows; r++)
		for (size_t j = 0; j < TILE; j++)
			s[j] += x[r * ld] * y[r * ld + j];
	for (size_t j = 0; j < TILE; j++)
		g[j] += s[j];
}

void
kv_gram_add(double *g, const float *x, size_t n, size_t ld, unsigned d)
{
	double wide[ROWS * KVS_MAX_DIM];

	for (size_t first = 0; first < n; first += ROWS) {
		size_t rows = n - first < ROWS ? n - first : ROWS;

		for (size_t r = 0; r < rows; r++)
			for (size_t j = 0; j < d; j++)
				wide[r * d + j] = (double)x[(first + r) * ld + j];
		for (size_t i = 0; i < d; i++) {
			size_t j = 0;

			for (; j + TILE <= d; j += TILE)
				add_tile(g + i * d + j, wide + i, wide + j, rows, d);
			for (; j < d; j++)
				for (size_t r = 0; r < rows; r++)
					g[i * d + j] += wide[r * d + i] * wide[r * d + j];
		}
	}
}

void
kv_form_make(double *a, const double *b, unsigned d)
{
	for (size_t i = 0; i < (size_t)d * d; i++)
		a[i] *= b[i];
}

/* A choice on its way: near [i] = the sum of form_ij over the dropped j. */
struct search {
	const struct kv_units *u;
	const double *form;
	uint8_t *drop;
	double near[KVS_MAX_DIM];
};

static void
move_channel(struct search *s, unsigned j, bool drop)
{
	s->drop[j] = drop;
	for (size_t i = 0; i < s->u->d; i++)
		s->near[i] += (drop ? 1 : -1) * s->form[i * s->u->d + j];
}

static void
move_unit(struct search *s, struct kv_unit u, bool drop)
{
	move_channel(s, u.a, drop);
	if (u.b != u.a)
		move_channel(s, u.b, drop);
}

/* Sum of the form over two units. */
static double
between(const struct search *s, struct kv_unit x, struct kv_unit y)
{
	size_t d = s->u->d;
	double e = s->form[x.a * d + y.a];

	if (y.b != y.a)
		e += s->form[x.a * d + y.b];
	if (x.b != x.a)
		e += s->form[x.b * d + y.a] + (y.b != y.a ? s->form[x.b * d + y.b] : 0);
	return e;
}

static double
nearness(const struct search *s, struct kv_unit u)
{
	return s->near[u.a] + (u.b != u.a ? s->near[u.b] : 0);
}

static unsigned
size_of(struct kv_unit u)
{
	return 1 + (u.a != u.b);
}

static unsigned
drop_greedily(struct search *s, unsigned n)
{
	unsigned gone = 0;

	for (;;) {
		struct kv_unit best = { 0, 0 };
		double least = 0;
		bool found = false;

		for (unsigned i = s->u->n; i-- > 0;) {
			struct kv_unit u = s->u->unit[i];
			double adds;

			if (s->drop[u.a] || gone + size_of(u) > n)
				continue;
			adds = (between(s, u, u) + 2 * nearness(s, u)) / size_of(u);
			if (!found || adds < least) {
				best = u;
				least = adds;
				found = true;
			}
		}
		if (!found)
			return gone;
		move_unit(s, best, true);
		gone += size_of(best);
	}
}

/* The swap that lowers E(P) most, if one does by more than `worth`. */
static bool
swap_best(struct search *s, double worth)
{
	struct kv_unit out = { 0, 0 }, in = { 0, 0 };
	double best = -worth;

	for (unsigned i = 0; i < s->u->n; i++) {
		struct kv_unit x = s->u->unit[i];
		double back;

		if (!s->drop[x.a])
			continue;
		back = between(s, x, x) - 2 * nearness(s, x);
		for (unsigned j = 0; j < s->u->n; j++) {
			struct kv_unit y = s->u->unit[j];
			double change;

			if (s->drop[y.a] || size_of(y) != size_of(x))
				continue;
			change = back + between(s, y, y) + 2 * nearness(s, y) - 2 * between(s, x, y);
			if (change < best) {
				best = change;
				out = x;
				in = y;
			}
		}
	}
	if (best >= -worth)
		return false;
	move_unit(s, out, false);
	move_unit(s, in, true);
	return true;
}

unsigned
kv_units_drop_by_error(const struct kv_units *u, const double *form, unsigned n, uint8_t *drop)
{
	struct search s = { .u = u, .form = form, .drop = drop };
	double worth = 0;
	unsigned gone;

	memset(drop, 0, u->d);
	gone = drop_greedily(&s, n);
	/* Every swap lowers E(P) by more than rounding could raise it, so the search ends. */
	for (size_t i = 0; i < u->d; i++)
		worth += form[i * u->d + i];
	worth *= 1e-9;
	while (swap_best(&s, worth))
		;
	return gone;
}
