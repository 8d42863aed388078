/*
 * The levels of the processor. What is chosen, from made-up CPUID words; and the products of every level that runs here against double
 * loops over the same numbers: activations rounded to eight bits in blocks of 32, or left as they are where a level does so; with tiles,
 * activations and weights in bf16. With equal numbers only the sums differ, by less than 2e-6 of the root of the summed squares. What rounding
 * itself costs has a bound of its own.
 */
#define _DEFAULT_SOURCE	/* MAP_ANONYMOUS */
#include "kernel/level.h"

#include <float.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tap.h"
#include "kernel/quant.h"
#include "levels.h"
#include "util/half.h"

/* A processor with everything, and what becomes of it without some of it. */
static const struct kv_cpu everything = { 0x38001000, 0xc0030120, 0x802, 0x1400000, 0x20, 0x600e7, true };

static void
is_level(struct kv_cpu c, enum kv_level want, const char *what)
{
	is_int(kv_cpu_level(&c), want, "%s", what);
}

static void
test_choice(void)
{
	struct kv_cpu c = everything;

	is_level(c, KV_AMX, "all there is");
	is_level((struct kv_cpu){ 0 }, KV_GENERIC, "a processor that says nothing");
	c.leaf1_ecx &= ~(1u << 27);
	is_level(c, KV_GENERIC, "a system that does not use XSAVE");
	c = everything;
	c.xcr0 = 3;
	is_level(c, KV_GENERIC, "wide registers are not saved");
	c.xcr0 = 7;
	is_level(c, KV_AVX2, "those of AVX-512 are not saved");
	c.xcr0 = 0xe7;
	is_level(c, KV_AVX512, "tiles are not saved");
	for (unsigned bit = 0; bit < 32; bit++) {
		c = everything;
		c.leaf1_ecx &= ~(1u << bit);
		if (everything.leaf1_ecx >> bit & 1)
			is_level(c, KV_GENERIC, "a feature of leaf 1 is missing");
		c = everything;
		c.leaf7_ebx &= ~(1u << bit);
		if (everything.leaf7_ebx >> bit & 1)
			is_level(c, bit == 5 || bit == 8 ? KV_GENERIC : KV_AVX2, "a feature of leaf 7 is missing");
		c = everything;
		c.leaf7_ecx &= ~(1u << bit);
		if (everything.leaf7_ecx >> bit & 1)
			is_level(c, KV_AVX2, "VNNI or VBMI is missing");
	}
	for (unsigned bit = 22; bit <= 24; bit += 2) {
		c = everything;
		c.leaf7_edx &= ~(1u << bit);
		is_level(c, KV_AVX512, "tiles, or their products, are missing");
	}
	c = everything;
	c.leaf7_1_eax = 0;
	is_level(c, KV_AVX512, "no bf16");
	c = everything;
	c.tiles = false;
	is_level(c, KV_AVX512, "the system refuses tiles");
	c.xcr0 = 0xe7;
	is_level(c, KV_AVX512, "tiles neither saved nor allowed");
	c = everything;
	c.leaf1_ecx |= 1u << 31;
	is_level(c, KV_AMX, "a virtual machine that has it all");
}

/* What is taken of what there is. */
static void
test_caps(void)
{
	static const struct { const char *cap; enum kv_level of_all, of_avx2; } t[] = {
		{ NULL, KV_AVX512, KV_AVX2 }, { "", KV_AVX512, KV_AVX2 }, { "amx", KV_AMX, KV_AVX2 }, { "avx512", KV_AVX512, KV_AVX2 },
		{ "avx2", KV_AVX2, KV_AVX2 }, { "generic", KV_GENERIC, KV_GENERIC },
	};
	struct kv_cpu old = everything, refused = everything;
	enum kv_level level = KV_N_LEVELS;
	const struct kv_ops *ops = NULL;
	struct kv_err err;

	old.leaf7_ebx &= 0xffff;
	refused.tiles = false;
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		ok(kv_level_choose(&everything, t[i].cap, &level, &err) == KV_OK && level == t[i].of_all, "a cap of %s", t[i].cap ? t[i].cap : "none");
		ok(kv_level_choose(&old, t[i].cap, &level, &err) == KV_OK && level == t[i].of_avx2, "the same above the processor");
	}
	ok(kv_level_choose(&refused, "amx", &level, &err) == KV_OK && level == KV_AVX512, "tiles that are refused, though asked for");
	level = KV_N_LEVELS;
	ok(kv_level_choose(&everything, "AMX", &level, &err) == KV_EUSAGE && level == KV_N_LEVELS, "an unknown word is the user's error");
	is_int(kv_ops_choose("generic", &ops, &err), KV_OK, "a cap for this processor");
	is_str(ops->level, "generic", "is kept");
	is_int(kv_ops_choose("sse9", &ops, &err), KV_EUSAGE, "an unknown word, here too");
	ok(kv_ops_choose("amx", &ops, &err) == KV_OK && kv_ops_choose("", &ops, &err) == KV_OK && kv_ops_choose(NULL, &ops, &err) == KV_OK,
		"caps above the processor, empty and missing");
}

/* A linear congruence: numbers in [-1, 1). */
static uint32_t state = 1;

static float
next(void)
{
	state = state * 1664525u + 1013904223u;
	return (float)(int32_t)state * 0x1p-31f;
}

/* Scales and minima of a block are numbers of two bytes: where. */
static void
set_scales(uint32_t type, uint8_t *block, float d, float m)
{
	size_t at = type == KV_W_Q6_K ? 208 : 0;
	uint16_t h = f32_to_f16(d);

	if (kv_wtype_info(type)->values == 1)
		return;
	memcpy(block + at, &h, 2);
	h = f32_to_f16(m);
	if (type == KV_W_Q4_1 || type == KV_W_Q5_1 || type == KV_W_Q4_K || type == KV_W_Q5_K)
		memcpy(block + 2, &h, 2);
}

/* A matrix whose last byte is the last of a page, nothing readable behind it. */
struct matrix {
	struct kv_weight w;
	uint8_t *map;
	size_t size;
};

enum { EXTREME = 1 };

static struct matrix
matrix_new(uint32_t type, size_t n_in, size_t n_out, int how)
{
	const struct kv_wtype_info *t = kv_wtype_info(type);
	size_t page = (size_t)sysconf(_SC_PAGESIZE), row = n_in / t->values * t->bytes, pages = (row * n_out + page - 1) / page;
	struct matrix m = { .size = (pages + 1) * page };
	uint8_t *data;

	m.map = mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(m.map + pages * page, page, PROT_NONE);
	data = m.map + pages * page - row * n_out;
	for (size_t i = 0; i < row * n_out; i++)
		data[i] = how == EXTREME ? 0xff : (uint8_t)((uint32_t)(int32_t)(next() * 0x1p30f) >> 16);
	for (size_t i = 0; i < row * n_out / t->bytes; i++)
		set_scales(type, data + i * t->bytes, how == EXTREME ? 1 : next() / 16, how == EXTREME ? -1 : next() / 16);
	for (size_t i = 0; t->values == 1 && i < n_in * n_out; i++) {
		float f = next();
		uint16_t h = type == KV_W_F16 ? f32_to_f16(f) : f32_to_bf16(f);

		memcpy(data + i * t->bytes, t->bytes == 4 ? (void *)&f : &h, t->bytes);
	}
	for (size_t i = 0; how == EXTREME && type == KV_W_Q8_0 && i < row * n_out; i++)
		if (i % 34 > 1)
			data[i] = i % 3 ? 0x80 : 0x7f;
	m.w = (struct kv_weight){ data, type, n_out, n_in, row };
	return m;
}

/* x as a level that rounds sees it. */
static void
rounded(const float *x, size_t n, float *out)
{
	for (size_t b = 0; b < n; b += 32) {
		float top = 0, d;

		for (size_t i = 0; i < 32; i++)
			top = fmaxf(top, fabsf(x[b + i]));
		d = top > 1e-30f ? top / 127 : 0;
		for (size_t i = 0; i < 32; i++)
			out[b + i] = d > 0 ? d * rintf(x[b + i] * (127 / top)) : 0;
	}
}

/* A number as tiles see it. */
static float
in_bf16(float x)
{
	float y = bf16_to_f32(f32_to_bf16(x));

	return fabsf(y) < FLT_MIN ? 0 : y;
}

/*
 * Worst error of y = x w^T (+ before), as a share of the root of the summed squares of the terms. A term is as large as the row's largest
 * weight makes it: codes and minimum are multiplied apart, and cancel. Tiles: the weights are rounded too.
 */
static double
product_error(const struct kv_weight *w, const float *x, bool tiles, size_t m, const float *y, const float *before)
{
	float *row = malloc(w->n_in * sizeof *row);
	double worst = 0;

	for (size_t o = 0; o < w->n_out; o++) {
		double most = 0;

		kv_dequant(w->type, w->data + o * w->row_bytes, w->n_in, row);
		for (size_t k = 0; k < w->n_in; k++) {
			row[k] = tiles ? in_bf16(row[k]) : row[k];
			most = fmax(most, fabs((double)row[k]));
		}
		for (size_t i = 0; i < m; i++) {
			double want = before ? (double)before[i * w->n_out + o] : 0, square = want * want + 1e-9;

			for (size_t k = 0; k < w->n_in; k++) {
				double v = (double)x[i * w->n_in + k];

				want += (double)row[k] * v;
				square += most * most * v * v;
			}
			worst = fmax(worst, fabs((double)y[i * w->n_out + o] - want) / sqrt(square));
		}
	}
	free(row);
	return isfinite(worst) ? worst : INFINITY;
}

/* Ordinary numbers, an outlier, a block of zeros, one of numbers too small to divide by. */
static void
fill(float *x, size_t n, int how)
{
	for (size_t i = 0; i < n; i++)
		x[i] = how == EXTREME ? (next() < 0 ? -1 : 1) : i / 32 % 7 == 3 ? 0 : i / 32 % 7 == 5 ? next() * 1e-38f : next();
	if (how != EXTREME && n > 40)
		x[40] = 1e4f;
}

static void
test_product(const struct kv_ops *ops, struct kv_pool *pool, uint32_t type, size_t n_in, size_t n_out, size_t m, int how)
{
	struct matrix mat = matrix_new(type, n_in, n_out, how);
	size_t n = m * n_out;
	float *x = malloc(m * n_in * sizeof *x), *round = malloc(m * n_in * sizeof *round);
	float *y = malloc((n + 16) * sizeof *y), *before = malloc(n * sizeof *before);
	double plain, added, rounding;
	bool whole = true, tiles = !strcmp(ops->level, "amx") && m > 4;	/* few tokens do without */

	fill(x, m * n_in, how);
	memcpy(round, x, m * n_in * sizeof *round);
	for (size_t i = 0; tiles && i < m * n_in; i++)
		round[i] = in_bf16(x[i]);
	if (!tiles && n_in % 32 == 0)
		rounded(x, m * n_in, round);
	for (size_t i = 0; i < n + 16; i++)
		y[i] = 12345;
	whole &= ops->matmul(pool, &mat.w, x, m, y, false);
	plain = fmin(product_error(&mat.w, round, tiles, m, y, NULL), product_error(&mat.w, x, false, m, y, NULL));
	rounding = product_error(&mat.w, x, false, m, y, NULL);
	for (size_t i = 0; i < n; i++)
		y[i] = before[i] = next();
	whole &= ops->matmul(pool, &mat.w, x, m, y, true);
	added = fmin(product_error(&mat.w, round, tiles, m, y, before), product_error(&mat.w, x, false, m, y, before));
	for (size_t i = 0; i < 16; i++)
		whole &= y[n + i] == 12345;
	ok(whole && plain < 2e-6 && added < 2e-6 && rounding < 0.06, "%s %s [%zu x %zu] [%zu]%s (%.1e, rounding %.1e)", ops->level,
		kv_wtype_name(type), m, n_in, n_out, how == EXTREME ? " at the limits" : "", fmax(plain, added), rounding);
	free(x);
	free(round);
	free(y);
	free(before);
	munmap(mat.map, mat.size);
}

static const uint32_t types[] = { KV_W_Q4_0, KV_W_Q4_1, KV_W_Q8_0, KV_W_Q4_K, KV_W_Q6_K, KV_W_F16, KV_W_Q5_1, KV_W_Q5_0, KV_W_Q5_K, KV_W_BF16,
	KV_W_F32 };

static void
test_products(const struct kv_ops *ops, struct kv_pool *pool)
{
	static const size_t batch[] = { 1, 2, 3, 4, 5, 7, 8, 10, 11, 33, 65 }, outs[] = { 1, 2, 15, 16, 17, 31, 33, 65 };

	for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
		size_t n_in = kv_wtype_info(types[k])->values == 256 ? 256 : 96;

		for (size_t i = 0; i < sizeof batch / sizeof *batch; i++)
			test_product(ops, pool, types[k], n_in, outs[(i + k) % 8], batch[i], 0);
		for (size_t o = 0; o < sizeof outs / sizeof *outs; o++)
			test_product(ops, pool, types[k], n_in, outs[o], o % 2 ? 1 : 6, 0);
		for (size_t m = 1; m < 8; m += 5) {
			test_product(ops, pool, types[k], n_in == 96 ? 32 : 256, 3, m, 0);
			test_product(ops, pool, types[k], n_in == 96 ? 64 : 512, 5, m, 0);
			test_product(ops, pool, types[k], 1536, 18, m, 0);
			test_product(ops, pool, types[k], 1536, 18, m, EXTREME);
		}
		test_product(ops, pool, types[k], 768, 70, 67, 0);
	}
	test_product(ops, pool, KV_W_F16, 50, 10, 1, 0);
	test_product(ops, pool, KV_W_F32, 517, 10, 14, 0);
	test_product(ops, pool, KV_W_BF16, 3, 130, 6, 0);
	test_product(ops, pool, KV_W_F32, 1201, 40, 37, 0);
}

/* Bytes do not depend on the number of threads. */
static void
test_threads(const struct kv_ops *ops)
{
	enum { IN = 512, OUT = 203 };

	for (size_t k = 0; k < sizeof types / sizeof *types; k++)
		for (size_t m = 1; m <= 61; m += 30) {
			struct matrix mat = matrix_new(types[k], IN, OUT, 0);
			float *x = malloc(m * IN * sizeof *x), *y[3];
			bool good = true;

			fill(x, m * IN, 0);
			for (unsigned i = 0; i < 3; i++) {
				struct kv_pool *pool = kv_pool_new(i + 1);

				y[i] = malloc(m * OUT * sizeof *y[i]);
				good &= ops->matmul(pool, &mat.w, x, m, y[i], false) && !memcmp(y[i], y[0], m * OUT * sizeof *y[i]);
				kv_pool_free(pool);
			}
			ok(good, "%s %s, %zu tokens: three threads give the bytes of one", ops->level, kv_wtype_name(types[k]), m);
			for (unsigned i = 0; i < 3; i++)
				free(y[i]);
			free(x);
			munmap(mat.map, mat.size);
		}
}

int
main(void)
{
	struct kv_pool *pool = kv_pool_new(2);
	const struct kv_ops *ops[KV_N_LEVELS];
	size_t n = levels_here(ops);

	test_choice();
	test_caps();
	for (size_t i = 1; i < n; i++) {
		test_products(ops[i], pool);
		test_threads(ops[i]);
	}
	kv_pool_free(pool);
	return done_testing();
}
