/* The generic table of operations: those that are loops over rows. */
#include "kernel/generic.h"

#include <math.h>

#include "kernel/clones.h"
#include "kernel/expf.h"
#include "kernel/quant.h"
#include "kernel/rope.h"

enum { ROWS = 16, PIECE = 16384 };	/* rows, and plain elements, in one item of work */

static size_t
pieces(size_t n, size_t size)
{
	return (n + size - 1) / size;
}

static size_t
smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

struct embed {
	const struct kv_weight *w;
	const uint32_t *ids;
	float *out;
};

static void
embed_row(void *arg, size_t i, unsigned thread)
{
	const struct embed *e = arg;

	(void)thread;
	kv_dequant(e->w->type, e->w->data + e->ids[i] * e->w->row_bytes, e->w->n_in, e->out + i * e->w->n_in);
}

void
kv_generic_embed(struct kv_pool *pool, const struct kv_weight *w, const uint32_t *ids, size_t m, float *out)
{
	struct embed e = { w, ids, out };

	kv_pool_run(pool, m, embed_row, &e);
}

struct norm {
	const float *x, *gain;	/* x [m][ld], gain [n] */
	float eps;
	size_t m, n, ld;
	float *y;		/* [m][ld] */
};

/* Sum of squares in f64: eight interleaved sums, then those in order. */
static inline double
sum_squares(const float *x, size_t n)
{
	double part[8] = { 0 }, sum = 0;
	size_t i = 0;

	for (; i + 8 <= n; i += 8)
		for (size_t j = 0; j < 8; j++)
			part[j] += (double)x[i + j] * (double)x[i + j];
	for (; i < n; i++)
		part[i % 8] += (double)x[i] * (double)x[i];
	for (size_t j = 0; j < 8; j++)
		sum += part[j];
	return sum;
}

KV_CLONES static void
norm_rows(void *arg, size_t item, unsigned thread)
{
	const struct norm *s = arg;
	size_t end = smaller(s->m, (item + 1) * ROWS);

	(void)thread;
	for (size_t r = item * ROWS; r < end; r++) {
		const float *x = s->x + r * s->ld;
		float *y = s->y + r * s->ld, scale = (float)(1 / sqrt(sum_squares(x, s->n) / (double)s->n + (double)s->eps));

		for (size_t i = 0; i < s->n; i++)
			y[i] = x[i] * scale * s->gain[i];
	}
}

void
kv_generic_rmsnorm(struct kv_pool *pool, const float *x, const float *gain, float eps, size_t m, size_t n, size_t ld, float *y)
{
	struct norm s = { x, gain, eps, m, n, ld, y };

	kv_pool_run(pool, pieces(m, ROWS), norm_rows, &s);
}

void
kv_generic_add_bias(float *y, const float *bias, size_t m, size_t n)
{
	for (size_t r = 0; r < m; r++)
		for (size_t i = 0; i < n; i++)
			y[r * n + i] += bias[i];
}

struct turn {
	float *x;		/* [m][heads][d] */
	size_t m, heads, d;
	unsigned n_rot;
	bool neox;
	const float *angles;	/* [m][n_rot/2][2] */
};

static void
turn_rows(void *arg, size_t item, unsigned thread)
{
	const struct turn *t = arg;
	size_t end = smaller(t->m, (item + 1) * ROWS);

	(void)thread;
	for (size_t r = item * ROWS; r < end; r++)
		for (size_t h = 0; h < t->heads; h++)
			kv_rotate(t->x + (r * t->heads + h) * t->d, t->n_rot, t->neox, t->angles + r * t->n_rot);
}

void
kv_generic_rope(struct kv_pool *pool, float *x, size_t m, size_t heads, size_t d, unsigned n_rot, bool neox, const float *angles)
{
	struct turn t = { x, m, heads, d, n_rot, neox, angles };

	kv_pool_run(pool, pieces(m, ROWS), turn_rows, &t);
}

struct gate {
	enum kv_activation kind;
	float *gate;
	const float *up;
	size_t n;
};

/* z / (1 + e^-z) */
KV_CLONES static void
silu(float *gate, const float *up, size_t n)
{
	for (size_t i = 0; i < n; i++)
		gate[i] = gate[i] / (1 + kv_expf(-gate[i])) * up[i];
}

/* 0.5 z (1 + tanh u), written as z / (1 + e^-2u) */
KV_CLONES static void
gelu(float *gate, const float *up, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		float z = gate[i], u = 0.797884561f * (z + 0.044715f * z * z * z);

		gate[i] = z / (1 + kv_expf(-2 * u)) * up[i];
	}
}

static void
gate_piece(void *arg, size_t item, unsigned thread)
{
	const struct gate *g = arg;
	size_t at = item * PIECE, n = smaller(PIECE, g->n - at);

	(void)thread;
	if (g->kind == KV_SILU)
		silu(g->gate + at, g->up + at, n);
	else
		gelu(g->gate + at, g->up + at, n);
}

void
kv_generic_activate(struct kv_pool *pool, enum kv_activation kind, float *gate, const float *up, size_t n)
{
	struct gate g = { kind, gate, up, n };

	kv_pool_run(pool, pieces(n, PIECE), gate_piece, &g);
}

const struct kv_ops kv_ops_generic = {
	.level = "generic",
	.batch = 512,
	.embed = kv_generic_embed,
	.rmsnorm = kv_generic_rmsnorm,
	.matmul = kv_generic_matmul,
	.add_bias = kv_generic_add_bias,
	.rope = kv_generic_rope,
	.attend = kv_generic_attend,
	.activate = kv_generic_activate,
};
