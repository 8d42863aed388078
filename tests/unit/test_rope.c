/* Rotations and frequencies: worked numbers, and the published shapes of YaRN and of Llama 3's scaling. */
#include "kernel/rope.h"

#include <stdlib.h>

#include "tap.h"
#include "model/frequencies.h"
#include "synth.h"

static void
is_vector(const float *got, const double *want, size_t n, double tol, const char *what)
{
	double worst = 0;

	for (size_t i = 0; i < n; i++)
		worst = fmax(worst, fabs((double)got[i] - want[i]));
	is_near(worst, 0, tol, "%s", what);
}

/* base 10000, four channels, position 3: angles 3 and 0.03 */
static void
test_worked(void)
{
	struct kv_angles *a = kv_angles_new(4, (float[]){ 1, 0.01f }, 1);
	float cs[4], x[6] = { 1, 2, 3, 4, 5, 6 }, y[6] = { 1, 2, 3, 4, 5, 6 };

	kv_angles_get(a, (int32_t[]){ 3 }, 1, cs);
	kv_rotate(x, 4, 0, cs);
	is_vector(x, (double[]){ -1.27223251, -1.83886499, 2.87866810, 4.08818664 }, 4, 1e-6, "NORM: neighbours turn");
	kv_rotate(y, 4, 1, cs);
	is_vector(y, (double[]){ -1.41335252, 1.87911807, -2.82885748, 4.05819114 }, 4, 1e-6, "NEOX: halves turn");
	ok(x[4] == 5 && x[5] == 6 && y[4] == 5 && y[5] == 6, "channels beyond n_rot stay");
	kv_angles_free(a);
}

/* What a converter does to q and k of llama models: channel i of the first half to 2i, of the second to 2i + 1. */
static void
test_permuted(void)
{
	enum { D = 64 };
	float freq[D / 2], cs[D], neox[D], norm[D];
	struct kv_angles *a;
	bool same = true;

	for (int i = 0; i < D / 2; i++)
		freq[i] = (float)pow(1e5, -2.0 * i / D);
	a = kv_angles_new(D, freq, 1);
	kv_angles_get(a, (int32_t[]){ 4095 }, 1, cs);
	for (int i = 0; i < D; i++)
		neox[i] = (float)sin(i + 0.3);
	for (int i = 0; i < D / 2; i++) {
		norm[2 * i] = neox[i];
		norm[2 * i + 1] = neox[i + D / 2];
	}
	kv_rotate(neox, D, 1, cs);
	kv_rotate(norm, D, 0, cs);
	for (int i = 0; i < D / 2; i++)
		same &= norm[2 * i] == neox[i] && norm[2 * i + 1] == neox[i + D / 2];
	ok(same, "NORM on permuted channels is NEOX on the original ones, bit for bit");
	kv_angles_free(a);
}

/* Whatever the cache does, the numbers are those of the definition. */
static void
test_definition(void)
{
	static const int32_t pos[] = { 0, 1, 16384, 1, 0, 131071, 2147483647, 16384 + 131071, 131071, -5, 2147483647, 7, 7 };
	enum { PAIRS = 32, N = sizeof pos / sizeof *pos };
	float freq[PAIRS], got[N][PAIRS][2];
	struct kv_angles *a;
	bool same = true;

	for (int i = 0; i < PAIRS; i++)
		freq[i] = (float)pow(10000, -i / (double)PAIRS);
	a = kv_angles_new(2 * PAIRS, freq, 1.25f);
	for (int round = 0; round < 2; round++) {
		kv_angles_get(a, pos, N, &got[0][0][0]);
		for (int k = 0; k < N; k++)
			for (int i = 0; i < PAIRS; i++) {
				float phi = (float)pos[k] * freq[i];

				same &= got[k][i][0] == 1.25f * (float)cos((double)phi) && got[k][i][1] == 1.25f * (float)sin((double)phi);
			}
	}
	ok(same, "angles of near, far, colliding and repeated positions, with a magnitude");
	kv_angles_free(a);
}

static void
test_plain(void)
{
	struct kvs_rope r = { .n_rot = 64, .theta = 10000, .scaling = KVS_SCALE_LINEAR, .factor = 4 };
	float factors[32];

	kv_frequencies(&r, NULL, 1);
	ok(r.inv_freq[0] == 0.25f && r.inv_freq[16] == (float)(0.01 / 4) && r.magnitude == 1, "linear scaling divides");
	r.factor = 1;
	for (int i = 0; i < 32; i++)
		factors[i] = (float)(1 + i);
	kv_frequencies(&r, factors, 1.5);
	ok(r.inv_freq[0] == 1 && r.inv_freq[16] == (float)(0.01 / 17) && r.magnitude == 1.5f, "factors divide pair by pair");
}

static void
test_yarn(void)
{
	static const struct { int i; double share; } want[] = {
		{ 0, 1 }, { 23, 1 }, { 24, 0.955882 }, { 30, 0.691176 }, { 39, 0.294118 }, { 40, 0.25 }, { 63, 0.25 },
	};
	struct kvs_rope r = {
		.n_rot = 128, .theta = 1e6f, .scaling = KVS_SCALE_YARN, .factor = 4, .n_ctx_orig = 32768, .beta_fast = 32, .beta_slow = 1,
		.ext_factor = 1,
	};

	kv_frequencies(&r, NULL, 1);
	for (size_t k = 0; k < sizeof want / sizeof *want; k++)
		is_near((double)r.inv_freq[want[k].i] / pow(1e6, -2.0 * want[k].i / 128), want[k].share, 1e-6, "YaRN: pair %d", want[k].i);
	is_near((double)r.magnitude, 1.138629, 1e-6, "YaRN: magnitude");
	r.ext_factor = 0;
	kv_frequencies(&r, NULL, 1);
	ok(r.inv_freq[0] == 0.25f && r.magnitude == 1, "YaRN without extrapolation is linear, magnitude included");
}

static void
test_llama3(void)
{
	static const double wide[] = { 1, 1.207484, 1.553415, 2.026313, 2.694530, 3.684253, 5.257327, 8 };
	static const double small[] = { 1, 1.651329, 3.292262, 9.666729, 32 };
	float f[64];

	synth_llama3_factors(500000, 128, 8, 1, 4, 8192, f);
	is_vector(f + 28, wide, 8, 2e-6, "Llama 3.1's factors");
	synth_llama3_factors(500000, 64, 32, 1, 4, 8192, f);
	is_vector(f + 14, small, 5, 5e-6, "Llama 3.2's factors");
}

int
main(void)
{
	test_worked();
	test_permuted();
	test_definition();
	test_plain();
	test_yarn();
	test_llama3();
	return done_testing();
}
