/* Tiles in plain C, after the description of the instructions in Intel's manual. */
#include "tiles.h"

#include <float.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/clones.h"
#include "util/half.h"
#include "util/le.h"

enum { TILES = 8, ROWS = 16, BYTES = 64, COLUMNS = BYTES / 4 };

struct tile {
	unsigned rows, bytes;
	uint8_t row[ROWS][BYTES];
};

static _Thread_local struct tile tiles[TILES];
static _Thread_local bool configured;

static void
must(bool good, const char *what)
{
	if (!good) {
		fprintf(stderr, "tiles: %s\n", what);
		abort();
	}
}

/* Tile i of at least one row, as all instructions but configuring want it. */
static struct tile *
tile(unsigned i)
{
	must(configured, "not configured");
	must(i < TILES && tiles[i].rows && tiles[i].bytes, "not in the configuration");
	return &tiles[i];
}

void
tiles_config(const void *config)
{
	const uint8_t *p = config;

	must(p[0] == 1, "palette 1 it must be");
	for (unsigned i = 1; i < 64; i++)
		must((i >= 16 && i < 32) || (i >= 48 && i < 56) || !p[i], "what is reserved must be 0");
	for (unsigned i = 0; i < TILES; i++) {
		tiles[i].bytes = le16_get(p + 16 + 2 * i);
		tiles[i].rows = p[48 + i];
		must(tiles[i].bytes <= BYTES && tiles[i].rows <= ROWS, "a tile is too large");
		must(!tiles[i].bytes == !tiles[i].rows, "a tile has rows or bytes, but not both");
		memset(tiles[i].row, 0, sizeof tiles[i].row);
	}
	configured = true;
}

void
tiles_release(void)
{
	memset(tiles, 0, sizeof tiles);
	configured = false;
}

void
tiles_load(unsigned i, const void *p, size_t stride)
{
	struct tile *t = tile(i);

	memset(t->row, 0, sizeof t->row);
	for (unsigned r = 0; r < t->rows; r++)
		memcpy(t->row[r], (const uint8_t *)p + r * stride, t->bytes);
}

void
tiles_store(unsigned i, void *p, size_t stride)
{
	const struct tile *t = tile(i);

	for (unsigned r = 0; r < t->rows; r++)
		memcpy((uint8_t *)p + r * stride, t->row[r], t->bytes);
}

void
tiles_zero(unsigned i)
{
	memset(tile(i)->row, 0, sizeof tiles->row);
}

/* What is subnormal is 0, as operand and as result. */
static inline float
flushed(float x)
{
	return x < FLT_MIN && x > -FLT_MIN ? 0 : x;
}

/*
 * A sum of the first and one of the second numbers of the pairs, each in order and rounded once a step (a product of two bf16 is exact in f32);
 * then both together, then to what was there.
 */
KV_CLONES static void
row_products(const float left[2 * COLUMNS], float right[COLUMNS][2][COLUMNS], unsigned pairs, float sum[COLUMNS])
{
	float part[2][COLUMNS] = { { 0 } };

	for (unsigned k = 0; k < pairs; k++)
		for (unsigned i = 0; i < 2; i++)
			for (unsigned n = 0; n < COLUMNS; n++)
				part[i][n] = flushed(part[i][n] + left[2 * k + i] * right[k][i][n]);
	for (unsigned n = 0; n < COLUMNS; n++)
		sum[n] = flushed(flushed(sum[n]) + flushed(part[0][n] + part[1][n]));
}

void
tiles_products(unsigned sum, unsigned left, unsigned right)
{
	struct tile *c = tile(sum), *a = tile(left), *b = tile(right);
	float numbers[COLUMNS][2][COLUMNS];

	must(sum != left && sum != right && left != right, "three different tiles it must be");
	must(c->rows == a->rows && c->bytes == b->bytes && a->bytes / 4 == b->rows && !(a->bytes % 4) && !(b->bytes % 4), "shapes do not fit");
	for (unsigned k = 0; k < b->rows; k++)
		for (unsigned n = 0; n < COLUMNS; n++)
			for (unsigned i = 0; i < 2; i++)
				numbers[k][i][n] = flushed(bf16_to_f32(le16_get(b->row[k] + 4 * n + 2 * i)));
	for (unsigned m = 0; m < c->rows; m++) {
		float row[2 * COLUMNS], sums[COLUMNS];

		for (unsigned k = 0; k < 2 * COLUMNS; k++)
			row[k] = flushed(bf16_to_f32(le16_get(a->row[m] + 2 * k)));
		memcpy(sums, c->row[m], sizeof sums);
		row_products(row, numbers, b->rows, sums);
		memcpy(c->row[m], sums, c->bytes);
	}
}
