/*
 * Products of a batch with weights that are numbers: a panel of rows is widened to f32 once, a chunk of inputs at a time, and used for all
 * tokens. For files of a level alone.
 */
#ifndef KV_KERNEL_FLOATS_H
#define KV_KERNEL_FLOATS_H

#if defined __AVX2__
#include <string.h>

#include "kernel/quant.h"
#include "kernel/simd_product.h"
#include "util/mem.h"

enum { CHUNK = 512 };	/* inputs: a panel of them fits the second cache */

struct floats {
	const struct kv_weight *w;
	const float *x;		/* [m][n_in] */
	size_t m;
	float *y;		/* [m][n_out] */
	bool add;
	float *rows, *panel;	/* [threads][KV_PANEL][CHUNK], and turned round */
	float *rest;		/* [KV_ROWS][n_in] the last tokens of x, and zeros */
};

/* Inputs [at, at + n) of rows first … */
static void
widen(const struct kv_weight *w, size_t first, size_t at, size_t n, float *rows, float *panel)
{
	for (size_t r = 0; r < KV_PANEL; r++) {
		size_t row = first + r < w->n_out ? first + r : w->n_out - 1;

		kv_dequant(w->type, w->data + row * w->row_bytes + at * kv_wtype_info(w->type)->bytes, n, rows + r * CHUNK);
	}
	kv_transpose(rows, CHUNK, n, panel);
}

static void
float_rows(void *arg, size_t item, unsigned thread)
{
	const struct floats *f = arg;
	const struct kv_weight *w = f->w;
	size_t first = item * KV_PANEL, width = w->n_out - first < KV_PANEL ? w->n_out - first : KV_PANEL;
	float *rows = f->rows + thread * KV_PANEL * CHUNK, *panel = f->panel + thread * KV_PANEL * CHUNK, out[KV_ROWS * KV_PANEL];

	for (size_t at = 0; at < w->n_in; at += CHUNK) {
		size_t n = w->n_in - at < CHUNK ? w->n_in - at : CHUNK;

		widen(w, first, at, n, rows, panel);
		for (size_t t = 0; t < f->m; t += KV_ROWS) {
			bool whole = f->m - t >= KV_ROWS;
			size_t tokens = whole ? KV_ROWS : f->m - t;

			kv_multiply((whole ? f->x + t * w->n_in : f->rest) + at, w->n_in, panel, KV_PANEL, n, NULL, out, KV_PANEL, width);
			for (size_t k = 0; k < tokens; k++) {
				float *y = f->y + (t + k) * w->n_out + first;

				for (size_t r = 0; r < width; r++)
					y[r] = at || f->add ? y[r] + out[k * KV_PANEL + r] : out[k * KV_PANEL + r];
			}
		}
	}
}

static bool
multiply_floats(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add)
{
	size_t threads = kv_pool_threads(pool), rest = m % KV_ROWS;
	struct floats f = { .w = w, .x = x, .m = m, .y = y, .add = add };
	bool done;

	f.rows = kv_block_new(threads * KV_PANEL, CHUNK * sizeof *f.rows);
	f.panel = kv_block_new(threads * KV_PANEL, CHUNK * sizeof *f.panel);
	f.rest = kv_block_new(KV_ROWS, w->n_in * sizeof *f.rest);
	if ((done = f.rows && f.panel && f.rest)) {
		memcpy(f.rest, x + (m - rest) * w->n_in, rest * w->n_in * sizeof *x);
		memset(f.rest + rest * w->n_in, 0, (KV_ROWS - rest) * w->n_in * sizeof *x);
		kv_pool_run(pool, (w->n_out + KV_PANEL - 1) / KV_PANEL, float_rows, &f);
	}
	kv_block_free(f.rows);
	kv_block_free(f.panel);
	kv_block_free(f.rest);
	return done;
}

#endif
#endif
