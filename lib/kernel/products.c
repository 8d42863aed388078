/* Products of a few vectors with many: rows go through in panels, turned so that a lane stands for a row. */
#include "kernel/products.h"

#include <string.h>

#include "kernel/clones.h"
#include "util/mem.h"

enum { LANES = 16, QUERIES = 4 };

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

/* panel [d][LANES] = rows [n][d], n <= LANES; lanes beyond them are 0. */
KV_CLONES static void
turn_panel(const float *rows, size_t n, size_t d, float *panel)
{
	if (n < LANES)
		memset(panel, 0, d * LANES * sizeof *panel);
	for (size_t j = 0; j < n; j++)
		for (size_t i = 0; i < d; i++)
			panel[i * LANES + j] = rows[j * d + i];
}

/* s [QUERIES][LANES] = products of four vectors with the rows of a panel. */
KV_CLONES static void
four(const float *const q[QUERIES], const float *panel, size_t d, float *s)
{
	lanes a = { 0 }, b = { 0 }, c = { 0 }, e = { 0 }, x;

	for (size_t i = 0; i < d; i++) {
		memcpy(&x, panel + i * LANES, sizeof x);
		a += q[0][i] * x;
		b += q[1][i] * x;
		c += q[2][i] * x;
		e += q[3][i] * x;
	}
	memcpy(s, &a, sizeof a);
	memcpy(s + LANES, &b, sizeof b);
	memcpy(s + 2 * LANES, &c, sizeof c);
	memcpy(s + 3 * LANES, &e, sizeof e);
}

bool
kv_products(const float *q, size_t m, const float *rows, size_t n, size_t d, float scale, float *s, size_t ld)
{
	float *panel = kv_block_new(d, LANES * sizeof *panel), part[QUERIES * LANES];

	if (!panel)
		return false;
	for (size_t at = 0; at < n; at += LANES) {
		size_t here = n - at < LANES ? n - at : LANES;

		turn_panel(rows + at * d, here, d, panel);
		for (size_t i = 0; i < m; i += QUERIES) {
			const float *four_q[QUERIES];

			for (size_t k = 0; k < QUERIES; k++)
				four_q[k] = q + (i + k < m ? i + k : m - 1) * d;
			four(four_q, panel, d, part);
			for (size_t k = 0; k < QUERIES && i + k < m; k++)
				for (size_t j = 0; j < here; j++)
					s[(i + k) * ld + at + j] = scale * part[k * LANES + j];
		}
	}
	kv_block_free(panel);
	return true;
}

KV_CLONES static void
one(const float *q, const float *rows, size_t n, size_t d, float scale, float *s)
{
	for (size_t j = 0; j < n; j++, rows += d) {
		float part[16] = { 0 };
		size_t i = 0;

		for (; i + 16 <= d; i += 16)
			for (size_t k = 0; k < 16; k++)
				part[k] += q[i + k] * rows[i + k];
		for (; i < d; i++)
			part[i % 16] += q[i] * rows[i];
		for (size_t width = 8; width; width /= 2)
			for (size_t k = 0; k < width; k++)
				part[k] += part[k + width];
		s[j] = part[0] * scale;
	}
}

void
kv_product(const float *q, const float *rows, size_t n, size_t d, float scale, float *s)
{
	one(q, rows, n, d, scale, s);
}
