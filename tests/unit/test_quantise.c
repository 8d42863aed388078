/* kv-quant as a stage: which rows are coded, what they take, what errors come of it, one run after another. */
#include "tap.h"

#include <stdlib.h>

#include "cache/segments.h"
#include "small_cache.h"

static struct kv_err err;

static struct kv_cache *
cache_of(unsigned d, unsigned layers, unsigned heads, uint32_t n)
{
	struct kv_cache *c = small_cache(small_geom(layers, heads, heads, d)), *read;

	small_feed(c, n);
	read = small_copy(c);
	kv_cache_free(c);
	return read;
}

static enum kv_status
quantise(struct kv_cache *c, const char *line)
{
	err.text[0] = 0;
	return small_run(&kv_stage_quant, line, c, 1, NULL, &err);
}

static uint32_t
coded(const struct kv_rows *r, uint32_t n)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += kv_rows_segment_of(r, n, i).dtype == KVS_CODES;
	return sum;
}

static double
bits(const struct kv_rows *r, uint32_t n)
{
	struct kv_rows_bytes b = kv_rows_bytes(r, n);

	return (double)(b.rows + b.scales + b.masks) * 8 / ((double)n * r->width);
}

/* Residual 128, groups of 32: keys in whole blocks, values but for the newest. */
static void
test_residual(void)
{
	static const struct { uint32_t n, k, v; double k2, v2, k4, v4; } row[] = {
		{ 100, 0, 0, 16, 16, 16, 16 }, { 128, 128, 0, 3, 16, 5, 16 }, { 300, 256, 172, 4.907, 8.547, 6.613, 9.693 },
		{ 512, 512, 384, 3, 6.25, 5, 7.75 }, { 2048, 2048, 1920, 3, 3.812, 5, 5.688 },
	};

	for (size_t i = 0; i < sizeof row / sizeof *row; i++)
		for (unsigned b = 2; b <= 4; b += 2) {
			struct kv_cache *c = cache_of(64, 1, 1, row[i].n), *back;
			const struct kv_list *l;
			char line[20];

			snprintf(line, sizeof line, "--kivi %u", b);
			is_int(quantise(c, line), KV_OK, "%u entries, %s: %s", row[i].n, line, err.text);
			back = small_copy(c);
			kv_cache_load(back, KV_LOAD_K | KV_LOAD_V, NULL, &err);
			l = &back->list[0];
			is_int(coded(&l->k, l->n), row[i].k, "keys in codes");
			is_int(coded(&l->v, l->n), row[i].v, "values in codes");
			is_near(bits(&l->k, l->n), b == 2 ? row[i].k2 : row[i].k4, 5e-4, "bits of a key's number");
			is_near(bits(&l->v, l->n), b == 2 ? row[i].v2 : row[i].v4, 6e-4, "bits of a value's number");
			kv_cache_free(back);
			kv_cache_free(c);
		}
}

/* Sinks stay; a second run codes what came since, a third has nothing to do. */
static void
test_again(void)
{
	struct kv_cache *c = cache_of(8, 1, 1, 50);
	const struct kv_list *l = &c->list[0];
	float before[8], after[8];
	bool same = true;

	is_int(quantise(c, "--kivi 2 --group 4 --residual 16 --sinks 3"), KV_OK, "%s", err.text);
	is_int(coded(&l->k, 50), 32, "two blocks of keys of the 47 behind the sinks");
	is_int(coded(&l->v, 50), 31, "values but for 16 and 3");
	ok(kv_rows_segment_of(&l->k, 50, 2).dtype == KVS_F16 && kv_rows_segment_of(&l->k, 50, 3).dtype == KVS_CODES, "the sinks are plain");
	is_int(quantise(c, "--kivi 2 --group 4 --residual 16 --sinks 3"), KV_EFIT, "nothing left");
	ok(strstr(err.text, "layer 0: K is quantised already (kivi, 2 bits); start from the snapshot before kv-quant") != NULL, "%s", err.text);
	kv_rows_get(&l->k, 20, before);
	small_feed(c, 20);
	l = &c->list[0];
	is_int(quantise(c, "--kivi 2 --group 4 --residual 16"), KV_OK, "20 more: %s", err.text);
	is_int(coded(&l->k, 70), 64, "67 behind the sinks are four blocks");
	is_int(coded(&l->v, 70), 51, "values but for 16 and 3");
	kv_rows_get(&l->k, 20, after);
	for (unsigned j = 0; j < 8; j++)
		same &= before[j] == after[j];
	ok(same, "what was in codes has not changed");
	is_int(quantise(c, "--restore"), KV_OK, "%s", err.text);
	is_int(coded(&l->k, 70) + coded(&l->v, 70), 0, "plain again");
	kv_rows_get(&l->k, 20, after);
	for (unsigned j = 0; j < 8; j++)
		same &= fabs((double)before[j] - (double)after[j]) < 2e-3;
	ok(same, "with what the codes said");
	kv_cache_free(c);
}

/* Groups of keys run along entries, those of values along channels: a large channel hurts no other key, a large entry no other value. */
static void
test_axes(void)
{
	struct kv_cache *c = cache_of(8, 1, 1, 8);
	struct kv_buf text = { 0 };
	float row[8], k[8], v[8];
	double k_apart = 0, v_apart = 0;

	for (uint32_t r = 0; r < 8; r++) {
		for (unsigned j = 0; j < 8; j++)
			row[j] = (float)((r * 3 + j) % 4) + (j == 2 ? 1000 + 100 * (float)r : 0);
		kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, &err);
		kv_rows_put(&c->list[0].k, r, 1, row, 8, &err);
		for (unsigned j = 0; j < 8; j++)
			row[j] = (float)((r + j * 3) % 4) + (r == 2 ? 1000 + 100 * (float)j : 0);
		kv_rows_put(&c->list[0].v, r, 1, row, 8, &err);
	}
	is_int(small_run(&kv_stage_quant, "--kivi 2 --group 8 --residual 0 --report", c, 1, &text, &err), KV_OK, "%s", err.text);
	for (uint32_t r = 0; r < 8; r++) {
		kv_rows_get(&c->list[0].k, r, k);
		kv_rows_get(&c->list[0].v, r, v);
		for (unsigned j = 0; j < 8; j++) {
			k_apart = j == 2 ? k_apart : fmax(k_apart, fabs((double)k[j] - (r * 3 + j) % 4));
			v_apart = r == 2 ? v_apart : fmax(v_apart, fabs((double)v[j] - (r + j * 3) % 4));
		}
	}
	is_near(k_apart, 0, 0, "0 to 3 in two bits: exact beside a large channel");
	is_near(v_apart, 0, 0, "and beside a large entry");
	ok(strstr((char *)text.p, "layer 0: relative squared error: keys ") && strstr((char *)text.p, ", their products with the last queries ") &&
		strstr((char *)text.p, "\"error_k\":["), "%s", text.p);
	kv_buf_free(&text);
	kv_cache_free(c);
}

static void
test_types(void)
{
	struct kv_cache *c = cache_of(8, 2, 1, 10);
	float row[8] = { 70000 };

	is_int(quantise(c, "--dtype f32"), KV_OK, "%s", err.text);
	is_int(c->geom.layer[1].k_dtype, KVS_F32, "new rows, too");
	is_int(kv_cache_list(c, 1, 0)->v.dtype, KVS_F32, "values");
	is_int(quantise(c, "--dtype bf16 --what v"), KV_OK, "%s", err.text);
	is_int(c->geom.layer[1].k_dtype, KVS_F32, "keys stay");
	is_int(kv_cache_list(c, 1, 0)->v.dtype, KVS_BF16, "values alone");
	kv_rows_put(&kv_cache_list(c, 1, 0)->k, 3, 1, row, 8, &err);
	is_int(quantise(c, "--dtype f16"), KV_EFIT, "70000 is too large for f16");
	ok(strstr(err.text, "layer 1 head 0: keys: ") != NULL, "%s", err.text);
	kv_cache_free(c);
}

/* Threads change nothing; keys narrowed before are coded as they are. */
static void
test_same(void)
{
	static const char *const line[] = { "--kivi 2 --group 4 --residual 8", "--kivi 4 --group 8 --residual 8", "--kivi 8 --group 4 --residual 0 --what k",
		"--dtype f32" };
	char one[33], two[33];

	for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
		struct kv_cache *a = cache_of(16, 3, 2, 90), *b;

		is_int(small_run(&kv_stage_prune, "--think 0.4 --last 4 --score random", a, 1, NULL, &err), KV_OK, "%s", err.text);
		b = small_copy(a);
		is_int(small_run(&kv_stage_quant, line[i], a, 1, NULL, &err), KV_OK, "%s: %s", line[i], err.text);
		is_int(small_run(&kv_stage_quant, line[i], b, 3, NULL, &err), KV_OK, "with three threads");
		is_str(small_digest(a, one), small_digest(b, two), "are the same");
		ok(kv_rows_rotated(&a->list[0].k, 0), "baked as before");
		kv_cache_free(a);
		kv_cache_free(b);
	}
}

int
main(void)
{
	test_residual();
	test_again();
	test_axes();
	test_types();
	test_same();
	return done_testing();
}
