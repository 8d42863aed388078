/*
 * Matrix products of the generic table. Weights stay packed in the mapped file; a panel of rows at a time is unpacked into scratch
 * memory about the size of a cache and used for the whole batch. The panels depend on the shape of the matrix alone.
 */
#include "kernel/generic.h"

#include <assert.h>
#include <string.h>

#include "kernel/blas.h"
#include "kernel/clones.h"
#include "kernel/quant.h"
#include "util/mem.h"

enum {
	FEW = 4,		/* up to so many tokens, dot products are faster than sgemm */
	CHUNK = 1024,		/* values of a weight row unpacked at a time for them */
	FEW_ROWS = 64,		/* rows in one item of work */
	LANES = 32,		/* independent sums of a dot product */
	PANEL = 192,		/* rows in a panel for sgemm, if they fit */
	PANEL_BYTES = 3 << 19,
};

struct product {
	const struct kv_weight *w;
	const float *x;		/* [m][n_in] */
	size_t m;
	float *y;		/* [m][n_out] */
	bool add;
	size_t panel;		/* rows */
	float *scratch;		/* [threads][panel][n_in] */
};

static inline void
multiply_add(float *sum, const float *a, const float *b, size_t n)
{
	float s[LANES];
	size_t i = 0;

	memcpy(s, sum, sizeof s);
	for (; i + LANES <= n; i += LANES)
		for (size_t j = 0; j < LANES; j++)
			s[j] += a[i + j] * b[i + j];
	for (; i < n; i++)
		s[i % LANES] += a[i] * b[i];
	memcpy(sum, s, sizeof s);
}

static inline float
fold(float *s)
{
	for (size_t width = LANES / 2; width; width /= 2)
		for (size_t j = 0; j < width; j++)
			s[j] += s[j + width];
	return s[0];
}

/* Rows one by one, each unpacked once for all of the few tokens. */
KV_CLONES static void
few_rows(void *arg, size_t item, unsigned thread)
{
	const struct product *p = arg;
	const struct kv_weight *w = p->w;
	size_t first = item * FEW_ROWS, end = first + FEW_ROWS < w->n_out ? first + FEW_ROWS : w->n_out;
	const struct kv_wtype_info *type = kv_wtype_info(w->type);
	float row[CHUNK];

	(void)thread;
	for (size_t r = first; r < end; r++) {
		float sum[FEW][LANES];

		memset(sum, 0, p->m * sizeof *sum);
		for (size_t at = 0; at < w->n_in; at += CHUNK) {
			size_t n = w->n_in - at < CHUNK ? w->n_in - at : CHUNK;

			kv_dequant(w->type, w->data + r * w->row_bytes + at / type->values * type->bytes, n, row);
			for (size_t i = 0; i < p->m; i++)
				multiply_add(sum[i], row, p->x + i * w->n_in + at, n);
		}
		for (size_t i = 0; i < p->m; i++) {
			float *y = p->y + i * w->n_out + r;

			*y = p->add ? *y + fold(sum[i]) : fold(sum[i]);
		}
	}
}

static void
panel_rows(void *arg, size_t item, unsigned thread)
{
	const struct product *p = arg;
	const struct kv_weight *w = p->w;
	size_t first = item * p->panel, n = w->n_out - first < p->panel ? w->n_out - first : p->panel;
	float *rows = p->scratch + thread * p->panel * w->n_in;

	for (size_t r = 0; r < n; r++)
		kv_dequant(w->type, w->data + (first + r) * w->row_bytes, w->n_in, rows + r * w->n_in);
	kv_blas_multiply(p->m, n, w->n_in, 1, p->x, w->n_in, rows, true, w->n_in, p->add ? 1 : 0, p->y + first, w->n_out);
}

/* Smaller panels for small matrices, so that a few threads find work. */
static size_t
panel_of(const struct kv_weight *w)
{
	size_t rows = PANEL_BYTES / (w->n_in * sizeof(float));

	if (rows > PANEL)
		rows = PANEL;
	if (rows > 96 && w->n_out < 6 * PANEL)
		rows = 96;
	return rows < 32 ? 32 : rows;
}

bool
kv_generic_matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add)
{
	struct product p = { .w = w, .x = x, .m = m, .y = y, .add = add };

	if (m <= FEW) {
		kv_pool_run(pool, (w->n_out + FEW_ROWS - 1) / FEW_ROWS, few_rows, &p);
		return true;
	}
	assert(m <= INT32_MAX && w->n_in <= INT32_MAX && w->n_out <= INT32_MAX);
	p.panel = panel_of(w);
	if (kv_blas_load(NULL) != KV_OK || !(p.scratch = kv_block_new(kv_pool_threads(pool) * p.panel, w->n_in * sizeof *p.scratch)))
		return false;
	kv_pool_run(pool, (w->n_out + p.panel - 1) / p.panel, panel_rows, &p);
	kv_block_free(p.scratch);
	return true;
}
