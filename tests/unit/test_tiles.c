/* The emulated tiles of tests/lib/tiles.c: what they compute, by hand, and what they refuse. */
#define _DEFAULT_SOURCE
#include "tiles.h"

#include <float.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"
#include "util/half.h"

struct config {
	uint8_t palette, start_row, reserved[14];
	uint16_t row_bytes[16];
	uint8_t rows[16];
};

static const struct config full = { 1, 0, { 0 }, { 64, 64, 64, 64, 64, 64, 64, 64 }, { 16, 16, 16, 16, 16, 16, 16, 16 } };
/* Sums [3][5], a left tile [3][7 pairs], a right one [7][5]. */
static const struct config small = { 1, 0, { 0 }, { 20, 28, 20 }, { 3, 3, 7 } };

static void
test_product(void)
{
	uint16_t a[3][14], b[7][5][2];
	float c[3][8], want;
	double worst = 0;

	for (unsigned i = 0; i < 3 * 14; i++)
		a[i / 14][i % 14] = f32_to_bf16((float)(i % 11) - 4.5f);
	for (unsigned i = 0; i < 7 * 10; i++)
		b[i / 10][i % 10 / 2][i % 2] = f32_to_bf16((float)(i % 13) / 8 - 1);
	for (unsigned i = 0; i < 24; i++)
		c[i / 8][i % 8] = (float)i;
	tiles_config(&small);
	tiles_load(0, c, sizeof c[0]);
	tiles_load(1, a, sizeof a[0]);
	tiles_load(2, b, sizeof b[0]);
	tiles_products(0, 1, 2);
	tiles_store(0, c, sizeof c[0]);
	for (unsigned m = 0; m < 3; m++)
		for (unsigned n = 0; n < 8; n++) {
			want = (float)(8 * m + n);
			for (unsigned k = 0; k < 14 && n < 5; k++)
				want += bf16_to_f32(a[m][k]) * bf16_to_f32(b[k / 2][n][k % 2]);
			worst = fmax(worst, fabs((double)(c[m][n] - want)));
		}
	is_near(worst, 0, 0, "a product of small tiles; nothing is written beside them");
	tiles_zero(0);
	tiles_store(0, c, sizeof c[0]);
	ok(c[0][0] == 0 && c[2][4] == 0 && c[0][5] == 5, "zeros");
	tiles_release();
}

/* One pair (a0, a1) times (b0, b1), added to c. */
static float
pair(float c, float a0, float a1, float b0, float b1)
{
	static const struct config one = { 1, 0, { 0 }, { 4, 4, 4 }, { 1, 1, 1 } };
	uint16_t a[2] = { f32_to_bf16(a0), f32_to_bf16(a1) }, b[2] = { f32_to_bf16(b0), f32_to_bf16(b1) };

	tiles_config(&one);
	tiles_load(0, &c, 4);
	tiles_load(1, a, 4);
	tiles_load(2, b, 4);
	tiles_products(0, 1, 2);
	tiles_store(0, &c, 4);
	tiles_release();
	return c;
}

static void
test_rounding(void)
{
	ok(pair(1, 0x1p-24f, 0x1p-24f, 1, 1) == 1 + 0x1p-23f, "the products of a pair are added to each other first");
	ok(pair(1, 0x1p-24f, 0, 1, 0) == 1 && pair(1 + 0x1p-23f, 0x1p-24f, 0, 1, 0) == 1 + 0x1p-22f, "ties go to even");
	ok(pair(0, 0x1p-127f, 0, 0x1p100f, 0) == 0, "subnormal operands are 0");
	ok(pair(0, 0x1p-70f, 0, 0x1p-70f, 0) == 0 && pair(0x1p-127f, 0, 0, 0, 0) == 0, "subnormal results too");
	ok(isnan(pair(0, NAN, 0, 1, 0)) && isnan(pair(0, INFINITY, 0, 0, 0)) && isinf(pair(0, 0x1p100f, 0, 0x1p100f, 0)), "NaN and infinity");
}

static void
unconfigured(void)
{
	tiles_zero(0);
}

static void
released(void)
{
	tiles_config(&full);
	tiles_release();
	tiles_zero(0);
}

static void
no_such_tile(void)
{
	tiles_config(&small);
	tiles_zero(3);
}

static void
misfit(void)
{
	tiles_config(&small);
	tiles_products(0, 2, 1);
}

static void
same_twice(void)
{
	tiles_config(&full);
	tiles_products(0, 1, 1);
}

/* What gcc 12 makes of a configuration on the stack. */
static void
lost_stores(void)
{
	struct config c = { .palette = 1 };

	tiles_config(&c);
	tiles_zero(0);
}

static void
dies(void (*fn)(void), const char *what)
{
	pid_t child;
	int status = 0;

	fflush(stdout);
	if ((child = fork()) == 0) {
		fclose(stderr);
		fn();
		_exit(0);
	}
	ok(child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "refused: %s", what);
}

int
main(void)
{
	test_product();
	test_rounding();
	dies(unconfigured, "tiles without a configuration");
	dies(released, "tiles after their release");
	dies(no_such_tile, "a tile that is not in the configuration");
	dies(misfit, "shapes that do not fit");
	dies(same_twice, "one tile as both operands");
	dies(lost_stores, "a configuration that has lost its rows");
	return done_testing();
}
