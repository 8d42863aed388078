/* Channel scores, choices, errors and maps on plain matrices: worked examples, and naive sums of another shape. */
#include "tap.h"

#include <math.h>
#include <stdlib.h>

#include "kernel/rope.h"
#include "policy/channels.h"
#include "util/half.h"

enum { MOST = 128 };

/* "1 2 5": the channels that stay, or go. */
static char *
channels(const uint8_t *drop, unsigned d, bool gone, char *out)
{
	int at = 0;

	*out = 0;
	for (unsigned j = 0; j < d; j++)
		if (drop[j] == gone)
			at += sprintf(out + at, "%s%u", at ? " " : "", j);
	return out;
}

static uint64_t
next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* Roughly normal, exact in f16. */
static float
noise(uint64_t *state)
{
	int s = 0;

	for (int i = 0; i < 6; i++)
		s += (int)(next_random(state) % 64) - 32;
	return (float)s / 32;
}

static void
energies(const float *q, size_t nq, const float *k, size_t nk, unsigned d, double *eq, double *ek)
{
	memset(eq, 0, d * sizeof *eq);
	memset(ek, 0, d * sizeof *ek);
	kv_channel_energy(eq, q, nq, d, d);
	kv_channel_energy(ek, k, nk, d, d);
}

static void
form_of(const float *q, size_t nq, const float *k, size_t nk, unsigned d, double *form)
{
	double *gk = calloc((size_t)d * d, sizeof *gk);

	memset(form, 0, (size_t)d * d * sizeof *form);
	kv_gram_add(form, q, nq, d, d);
	kv_gram_add(gk, k, nk, d, d);
	kv_form_make(form, gk, d);
	free(gk);
}

/* E(P) from the form; drop NULL: of all channels. */
static double
form_error(const double *form, unsigned d, const uint8_t *drop)
{
	double e = 0;

	for (size_t i = 0; i < d; i++)
		for (size_t j = 0; j < d && (!drop || drop[i]); j++)
			if (!drop || drop[j])
				e += form[i * d + j];
	return e;
}

/* Units that lose a part and keep one. */
static unsigned
units_broken(const struct kv_units *u, const uint8_t *drop)
{
	unsigned n = 0;

	for (unsigned i = 0; i < u->n; i++)
		n += drop[u->unit[i].a] != drop[u->unit[i].b];
	return n;
}

/* ||Q K^T - (QM)(KM)^T||^2, one product after the other. */
static double
error_naively(const float *q, size_t nq, const float *k, size_t nk, unsigned d, const uint8_t *drop)
{
	double e = 0;

	for (size_t i = 0; i < nq; i++)
		for (size_t t = 0; t < nk; t++) {
			double s = 0;

			for (unsigned j = 0; j < d; j++)
				s += !drop || drop[j] ? (double)q[i * d + j] * (double)k[t * d + j] : 0;
			e += s * s;
		}
	return e;
}

/* The score as the paper has it: the norm of the outer product of two columns, written out. */
static double
outer_naively(const float *q, size_t nq, const float *k, size_t nk, unsigned d, unsigned j)
{
	double e = 0;

	for (size_t i = 0; i < nq; i++)
		for (size_t t = 0; t < nk; t++) {
			double p = (double)q[i * d + j] * (double)k[t * d + j];

			e += p * p;
		}
	return sqrt(e);
}

static void
drop_alone(const double *eq, const double *ek, unsigned d, unsigned n, uint8_t *drop)
{
	struct kv_units u;

	kv_units_pairs(&u, d, NULL);
	is_int(kv_units_drop(&u, eq, ek, n, drop), n, "as many channels go as were asked for");
}

/* Three queries 1..10, 2..11, 3..12; three keys 10..1, 9..0, 8..-1. */
static void
test_vector_a(void)
{
	enum { D = 10 };
	static const double want[D] = { 58.566, 75.007, 86.313, 92.033, 92.033, 86.313, 75.007, 58.566, 38.859, 27.019 };
	float q[3 * D], k[3 * D];
	double eq[D], ek[D], form[D * D], diagonal = 0, best = 1e30;
	struct kv_units u;
	uint8_t drop[D];
	char s[64];
	int sets = 0;

	for (int t = 0; t < 3; t++)
		for (int j = 0; j < D; j++) {
			q[t * D + j] = (float)(1 + t + j);
			k[t * D + j] = (float)(10 - t - j);
		}
	energies(q, 3, k, 3, D, eq, ek);
	for (unsigned j = 0; j < D; j++) {
		is_near(sqrt(eq[j] * ek[j]), want[j], 5e-4, "vector A: score of channel %u", j + 1);
		is_near(outer_naively(q, 3, k, 3, D, j), want[j], 5e-4, "vector A: written out");
	}
	ok(fabs(sqrt(18. * 18 + 24 * 24 + 28 * 28) - sqrt(eq[1] * ek[1])) > 30, "element by element is another score");
	drop_alone(eq, ek, D, 4, drop);
	is_str(channels(drop, D, false, s), "1 2 3 4 5 6", "vector A: kept");
	form_of(q, 3, k, 3, D, form);
	is_near(form_error(form, D, drop), 26116, 1e-9, "vector A: E(P)");
	is_near(form_error(form, D, NULL), 434800, 1e-9, "vector A: E(all)");
	is_near(form_error(form, D, drop) / form_error(form, D, NULL), 0.060064, 5e-7, "vector A: the ratio");
	for (unsigned j = 0; j < D; j++)
		diagonal += drop[j] ? form[j * D + j] : 0;
	is_near(diagonal, 9100, 1e-9, "vector A: the diagonal alone says much less");
	drop_alone(eq, ek, D, 3, drop);
	is_str(channels(drop, D, true, s), "7 8 9", "vector A: of equal scores the higher channel goes");
	for (unsigned bits = 0; bits < 1u << D; bits++) {
		if (__builtin_popcount(bits) != 4)
			continue;
		for (unsigned j = 0; j < D; j++)
			drop[j] = bits >> j & 1;
		sets++;
		best = fmin(best, form_error(form, D, drop));
	}
	is_int(sets, 210, "vector A: all sets");
	is_near(best, 26116, 1e-9, "vector A: none is better");
	memset(drop, 7, sizeof drop);
	kv_units_pairs(&u, D, NULL);
	is_int(kv_units_drop_by_error(&u, form, 4, drop), 4, "vector A: by E(P)");
	is_str(channels(drop, D, true, s), "0 7 8 9", "vector A: by E(P) the same set");
}

static const float keys_b[5 * 4] = { 2, 0, 1, 1, 0, 1, -2, 1, 1, -1, 0, 3, -1, 2, 0, 0, 3, 1, 1, -1 };
static const float queries_b[4 * 4] = { 1, 0, 2, 1, 2, 1, 0, 1, 0, 3, 1, 1, 1, 2, 0, 0 };
static const struct kvs_rope neox_b = { .kind = KVS_ROPE_NEOX, .n_rot = 4, .magnitude = 1, .inv_freq = { 1, 0.01f } };
static const struct kvs_rope norm_b = { .kind = KVS_ROPE_NORM, .n_rot = 4, .magnitude = 1, .inv_freq = { 1, 0.01f } };

static void
test_vector_b(void)
{
	enum { D = 4 };
	static const struct { const char *drop; double e4, r4, e5, r5; } wants[] = {
		{ "0011", 52, 0.3291, 54, 0.2213 }, { "1010", 69, 0.4367, 140, 0.5738 },
		{ "0101", 101, 0.6392, 110, 0.4508 }, { "1100", 96, 0.6076, 188, 0.7705 },
	};
	double eq[D], ek[D], form[D * D];
	struct kv_units u;
	uint8_t drop[D];
	char s[32];

	energies(queries_b, 2, keys_b, 5, D, eq, ek);
	ok(eq[0] == 5 && eq[1] == 1 && eq[2] == 4 && eq[3] == 2, "vector B: energies of head 0");
	drop_alone(eq, ek, D, 2, drop);
	is_str(channels(drop, D, false, s), "0 2", "vector B: head 0 alone, the tie drops the higher");
	energies(queries_b + 8, 2, keys_b, 5, D, eq, ek);
	drop_alone(eq, ek, D, 2, drop);
	is_str(channels(drop, D, false, s), "0 1", "vector B: head 1 alone");
	energies(queries_b, 4, keys_b, 5, D, eq, ek);
	ok(eq[0] * ek[0] == 90 && eq[1] * ek[1] == 98 && eq[2] * ek[2] == 30 && eq[3] * ek[3] == 36, "vector B: the group");
	drop_alone(eq, ek, D, 2, drop);
	is_str(channels(drop, D, false, s), "0 1", "vector B: kept by the group");
	for (unsigned h = 0; h < 2; h++) {
		/* The mean of the queries in the place of the mean of their squares turns the order round. */
		double wrong0 = 0, wrong1 = 0;

		for (unsigned i = 0; i < 2; i++) {
			wrong0 += pow((double)(queries_b[i * 4] + queries_b[8 + i * 4]) / 2, 2) / 2 * ek[0] / 5;
			wrong1 += pow((double)(queries_b[i * 4 + 1] + queries_b[8 + i * 4 + 1]) / 2, 2) / 2 * ek[1] / 5;
		}
		ok(wrong0 > wrong1 && eq[0] * ek[0] < eq[1] * ek[1], "vector B: queries must not be averaged");
	}
	kv_units_pairs(&u, D, &neox_b);
	is_int(units_broken(&u, drop), 2, "vector B: the mask breaks both half-split pairs");
	is_int(kv_units_drop(&u, eq, ek, 2, drop), 2, "vector B: one half-split pair");
	is_str(channels(drop, D, false, s), "1 3", "vector B: 231 against 323");
	is_int(units_broken(&u, drop), 0, "vector B: no pair is broken");
	kv_units_pairs(&u, D, &norm_b);
	is_int(kv_units_drop(&u, eq, ek, 3, drop), 2, "vector B: an odd number leaves one over");
	is_str(channels(drop, D, false, s), "0 1", "vector B: 440 against 144");
	energies(queries_b, 4, keys_b, 4, D, eq, ek);
	ok(eq[0] * ek[0] == 36 && eq[1] * ek[1] == 84 && eq[2] * ek[2] == 25 && eq[3] * ek[3] == 33, "vector B: narrowed keys alone");
	for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) {
		for (unsigned j = 0; j < D; j++)
			drop[j] = wants[i].drop[j] == '1';
		form_of(queries_b, 4, keys_b, 4, D, form);
		is_near(form_error(form, D, NULL), 158, 1e-9, "vector B: E(all), narrowed rows");
		is_near(form_error(form, D, drop), wants[i].e4, 1e-9, "vector B: E of %s", wants[i].drop);
		is_near(form_error(form, D, drop) / 158, wants[i].r4, 5e-5, "vector B: its ratio");
		form_of(queries_b, 4, keys_b, 5, D, form);
		is_near(form_error(form, D, NULL), 244, 1e-9, "vector B: E(all), all rows");
		is_near(form_error(form, D, drop), wants[i].e5, 1e-9, "vector B: E of %s", wants[i].drop);
		is_near(form_error(form, D, drop) / 244, wants[i].r5, 5e-5, "vector B: its ratio");
	}
}

static void
turn_all(const struct kvs_rope *r, const float *x, const int32_t *pos, size_t n, int32_t shift, float *out)
{
	struct kv_angles *a = kv_angles_new(r->n_rot, r->inv_freq, r->magnitude);
	float cs[4];

	memcpy(out, x, n * 4 * sizeof *x);
	for (size_t i = 0; i < n; i++) {
		int32_t p = pos[i] + shift;

		kv_angles_get(a, &p, 1, cs);
		kv_rotate(out + 4 * i, 4, r->kind == KVS_ROPE_NEOX, cs);
	}
	kv_angles_free(a);
}

struct rotated {
	const struct kvs_rope *rope;
	int32_t shift;
	double ek[4], eq[4], score[4];
	const char *kept;
	double all;
	struct { const char *drop; double e; } error[4];
};

static const struct rotated rotated[] = {
	{ &neox_b, 0, { 9.4355, 7.1795, 11.5645, 11.8205 }, { 3.7747, 13.7275, 7.2253, 3.2725 }, { 5.9680, 9.9276, 9.1409, 6.2195 }, "1 2",
		237.3206, { { "1001", 53.4574 }, { "0110", 244.7359 }, { "1010", 150.7134 }, { "0101", 110.7703 } } },
	{ &neox_b, 100, { 12.7622, 13.2251, 8.2378, 5.7749 }, { 8.9845, 2.3590, 2.0155, 14.6410 }, { 10.7080, 5.5856, 4.0747, 9.1951 }, "0 3",
		237.3206, { { "1001", 156.5094 }, { "0110", 45.8514 }, { "1010", 150.7134 }, { "0101", 110.7703 } } },
	{ &norm_b, 0, { 6.9021, 15.0979, 6.1232, 11.8768 }, { 2.2019, 17.7981, 4.8190, 3.1810 }, { 3.8984, 16.3925, 5.4321, 6.1465 }, "1 3",
		260.7040, { { "1001", 37.4738 }, { "0110", 319.3686 }, { "0011", 54.2182 }, { "1100", 286.2886 } } },
	{ &norm_b, 100, { 10.9412, 11.0588, 12.1488, 5.8512 }, { 6.6686, 13.3314, 0.8907, 7.1093 }, { 8.5418, 12.1421, 3.2896, 6.4496 }, "0 1",
		260.7040, { { "1001", 76.4575 }, { "0110", 129.4970 }, { "0011", 54.2182 }, { "1100", 286.2886 } } },
};

static void
test_vector_c(void)
{
	static const int32_t key_pos[5] = { 0, 1, 2, 3, 4 }, query_pos[4] = { 3, 4, 3, 4 };
	double order[2] = { 0 };

	for (size_t i = 0; i < sizeof rotated / sizeof *rotated; i++) {
		const struct rotated *r = &rotated[i];
		const char *name = r->rope == &neox_b ? "half-split" : "interleaved";
		double ek[4], eq[4], still_ek[4], still_eq[4], form[16];
		float k[20], q[16];
		struct kv_units u;
		uint8_t drop[4];
		char s[32];

		turn_all(r->rope, keys_b, key_pos, 5, r->shift, k);
		turn_all(r->rope, queries_b, query_pos, 4, r->shift, q);
		energies(q, 4, k, 5, 4, eq, ek);
		energies(queries_b, 4, keys_b, 5, 4, still_eq, still_ek);
		for (unsigned j = 0; j < 4; j++) {
			is_near(ek[j], r->ek[j], 6e-5, "vector C: %s, shift %d: k^2 of channel %u", name, r->shift, j);
			is_near(eq[j], r->eq[j], 6e-5, "vector C: q^2 of channel %u", j);
			is_near(sqrt(eq[j] * ek[j]), r->score[j], 6e-5, "vector C: score of channel %u", j);
		}
		drop_alone(eq, ek, 4, 2, drop);
		is_str(channels(drop, 4, false, s), r->kept, "vector C: %s, shift %d: kept", name, r->shift);
		kv_units_pairs(&u, 4, r->rope);
		is_int(units_broken(&u, drop), i == 3 ? 0 : 2, "vector C: broken pairs");
		for (unsigned p = 0; p < 2; p++) {
			unsigned a = u.unit[p].a, b = u.unit[p].b;
			double turned = (eq[a] + eq[b]) * (ek[a] + ek[b]), still = (still_eq[a] + still_eq[b]) * (still_ek[a] + still_ek[b]);

			is_near(turned / still, 1, 1e-6, "vector C: %s, shift %d: pair %u does not feel rotation", name, r->shift, p);
			is_near(still, i < 2 ? (p ? 323 : 231) : (p ? 144 : 440), 1e-9, "vector C: score of pair %u", p);
		}
		if (i < 2)
			order[i] = eq[0] * ek[0] + eq[2] * ek[2] - eq[1] * ek[1] - eq[3] * ek[3];
		form_of(q, 4, k, 5, 4, form);
		is_near(form_error(form, 4, NULL), r->all, 6e-5, "vector C: E(all)");
		for (unsigned e = 0; e < 4; e++) {
			for (unsigned j = 0; j < 4; j++)
				drop[j] = r->error[e].drop[j] == '1';
			is_near(form_error(form, 4, drop), r->error[e].e, 6e-5, "vector C: E of %s", r->error[e].drop);
		}
	}
	ok(order[0] < 0 && order[1] > 0, "vector C: the sum of channel scores would turn with the position");
}

static void
test_ratios(void)
{
	static const struct { unsigned d; unsigned drop[4], paper[4]; } table[] = {
		{ 64, { 19, 25, 32, 38 }, { 44, 38, 32, 25 } }, { 80, { 24, 32, 40, 48 }, { 56, 48, 40, 32 } },
		{ 96, { 28, 38, 48, 57 }, { 67, 57, 48, 38 } }, { 128, { 38, 51, 64, 76 }, { 89, 76, 64, 51 } },
		{ 256, { 76, 102, 128, 153 }, { 179, 153, 128, 102 } },
	};
	static const char *const ratio[] = { "0.3", "0.4", "0.5", "0.6" }, *const bad[] = { "1", "-0.1", "0.4x", "4e-1", "", ".", "0.0000000001",
		"1.5", "40%", "0,4", " 0.4", "0.4.1", "+0.4", "nan" };
	const struct kv_ratio limit = { 6, 10 };
	struct kv_ratio r = { 0, 1 };
	struct kv_err err;

	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		for (unsigned j = 0; j < 4; j++) {
			unsigned d = table[i].d;

			kv_parse_ratio("--think", ratio[j], &r, &err);
			is_int(kv_channels_to_drop(r, d, KV_ROUND_CODE), table[i].drop[j], "%s of %u channels", ratio[j], d);
			is_int(d - kv_channels_to_drop(r, d, KV_ROUND_PAPER), table[i].paper[j], "%s of %u kept by the paper", ratio[j], d);
		}
	for (unsigned hundredths = 0; hundredths < 100; hundredths++) {
		char s[8];
		bool good = true;

		sprintf(s, "0.%02u", hundredths);
		good &= kv_parse_ratio("--think", s, &r, &err) == KV_OK;
		for (unsigned d = 64; d <= 256; d += 16) {
			unsigned most = d * hundredths, want = most / 100, paper = (most + 99) / 100;

			good &= kv_channels_to_drop(r, d, KV_ROUND_CODE) == want;
			good &= kv_channels_to_drop(r, d, KV_ROUND_PAPER) == (paper < d ? paper : d - 1);
		}
		ok(good, "%s: both roundings", s);
	}
	kv_parse_ratio("--think", "0.9", &r, &err);
	is_int(kv_channels_to_drop(r, 80, KV_ROUND_CODE), 72, "0.9 of 80");
	is_int(80 - kv_channels_to_drop(r, 80, KV_ROUND_PAPER), 8, "where binary fractions would keep 7");
	is_int(160 - kv_channels_to_drop(r, 160, KV_ROUND_PAPER), 16, "and 15 of 160");
	kv_parse_ratio("--think", "0.8", &r, &err);
	is_int(80 - kv_channels_to_drop(r, 80, KV_ROUND_PAPER), 16, "0.8 of 80");
	is_int(160 - kv_channels_to_drop(r, 160, KV_ROUND_PAPER), 32, "0.8 of 160");
	kv_parse_ratio("--think", "0.999", &r, &err);
	is_int(kv_channels_to_drop(r, 64, KV_ROUND_PAPER), 63, "one channel stays");
	is_int(kv_parse_ratio("--think", "0", &r, &err), KV_OK, "0");
	is_int(kv_channels_to_drop(r, 64, KV_ROUND_PAPER), 0, "drops nothing");
	is_int(kv_parse_ratio("--think", "0.60", &r, &err), KV_OK, "0.60");
	ok(!kv_ratio_above(r, limit), "is not above 0.6");
	is_int(kv_parse_ratio("--think", "0.61", &r, &err), KV_OK, "0.61");
	ok(kv_ratio_above(r, limit), "is");
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		is_int(kv_parse_ratio("--think", bad[i], &r, &err), KV_EUSAGE, "'%s' is refused", bad[i]);
}

struct scored {
	double s;
	unsigned j;
};

static int
by_score(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;

	return x->s < y->s ? -1 : x->s > y->s ? 1 : (int)y->j - (int)x->j;
}

/* Random heads: the set of the code is that of the sorted outer products; E(P) is the norm written out; searching lowers it. */
static void
test_random(void)
{
	static const unsigned dims[] = { 5, 16, 64, 128 };
	static double form[MOST * MOST];
	uint64_t state = 7;

	for (size_t i = 0; i < sizeof dims / sizeof *dims; i++) {
		unsigned d = dims[i], n = d * 2 / 5, nq = 9, nk = 21;
		float *q = malloc(nq * d * sizeof *q), *k = malloc(nk * d * sizeof *k);
		double eq[MOST], ek[MOST], by_energy, by_error;
		struct scored all[MOST];
		uint8_t drop[MOST], other[MOST], searched[MOST];
		struct kv_units u;
		bool same = true;

		for (unsigned j = 0; j < d; j++) {
			float size = 1 + (float)(next_random(&state) % 8);

			for (unsigned t = 0; t < nq; t++)
				q[t * d + j] = noise(&state) * size;
			for (unsigned t = 0; t < nk; t++)
				k[t * d + j] = noise(&state) * size + (float)(j % 3);
		}
		energies(q, nq, k, nk, d, eq, ek);
		drop_alone(eq, ek, d, n, drop);
		for (unsigned j = 0; j < d; j++)
			all[j] = (struct scored){ outer_naively(q, nq, k, nk, d, j), j };
		qsort(all, d, sizeof *all, by_score);
		memset(other, 0, sizeof other);
		for (unsigned j = 0; j < n; j++)
			other[all[j].j] = 1;
		same = !memcmp(drop, other, d);
		ok(same, "%u channels: the set of the outer products", d);
		form_of(q, nq, k, nk, d, form);
		by_energy = form_error(form, d, drop);
		is_near(by_energy / error_naively(q, nq, k, nk, d, drop), 1, 1e-12, "%u channels: E(P) is the norm", d);
		is_near(form_error(form, d, NULL) / error_naively(q, nq, k, nk, d, NULL), 1, 1e-12, "%u channels: so is E(all)", d);
		kv_units_pairs(&u, d, NULL);
		is_int(kv_units_drop_by_error(&u, form, n, searched), n, "%u channels: by E(P)", d);
		by_error = form_error(form, d, searched);
		ok(by_error <= by_energy, "%u channels: the search finds no worse, %.4g against %.4g", d, by_error, by_energy);
		for (unsigned out = 0; out < d; out++)
			for (unsigned in = 0; in < d; in++) {
				if (!searched[out] || searched[in])
					continue;
				searched[out] = 0;
				searched[in] = 1;
				same &= form_error(form, d, searched) >= by_error * (1 - 1e-9);
				searched[out] = 1;
				searched[in] = 0;
			}
		ok(same, "%u channels: no swap helps any more", d);
		free(q);
		free(k);
	}
}

/* Pairs and lone channels together: what fits, what is passed over, which go first among equals. */
static void
test_units(void)
{
	static const struct kvs_rope partial = { .kind = KVS_ROPE_NEOX, .n_rot = 4 };
	double ones[7] = { 1, 1, 1, 1, 1, 1, 1 }, ek[7] = { 1, 4, 1, 4, 9, 8, 7 }, form[49] = { 0 };
	struct kv_units u;
	uint8_t drop[7];
	char s[32];

	kv_units_pairs(&u, 7, &partial);
	is_int(u.n, 5, "two pairs and three channels");
	is_int(kv_units_drop(&u, ones, ek, 1, drop), 1, "a pair does not fit into 1");
	is_str(channels(drop, 7, true, s), "6", "the cheapest channel goes");
	is_int(kv_units_drop(&u, ones, ek, 2, drop), 2, "a pair fits into 2");
	is_str(channels(drop, 7, true, s), "0 2", "and costs least by channel");
	is_int(kv_units_drop(&u, ones, ek, 3, drop), 3, "3");
	is_str(channels(drop, 7, true, s), "0 2 6", "a pair that does not fit is passed over");
	is_int(kv_units_drop(&u, ones, ones, 3, drop), 3, "equals");
	is_str(channels(drop, 7, true, s), "4 5 6", "the higher first");
	is_int(kv_units_drop(&u, ones, ones, 6, drop), 5, "what is left over stays");
	is_str(channels(drop, 7, false, s), "0 2", "the lower pair");
	is_int(kv_units_drop(&u, ones, ek, 0, drop), 0, "none");
	is_str(channels(drop, 7, true, s), "", "of them");
	for (unsigned j = 0; j < 7; j++)
		form[j * 7 + j] = ek[j];
	form[0 * 7 + 2] = form[2 * 7 + 0] = 100;
	is_int(kv_units_drop_by_error(&u, form, 3, drop), 3, "cross terms count");
	is_str(channels(drop, 7, true, s), "1 3 6", "inside a pair");
	kv_units_pairs(&u, 7, NULL);
	is_int(u.n, 7, "every channel alone");
	is_int(units_broken(&u, drop), 0, "cannot be broken");
	for (unsigned d = 64; d <= 128; d *= 2) {
		struct kvs_rope r = { .kind = KVS_ROPE_NORM, .n_rot = d };
		double e[MOST];
		uint8_t gone[MOST];

		for (unsigned j = 0; j < d; j++)
			e[j] = 1 + j % 7;
		kv_units_pairs(&u, d, &r);
		is_int(kv_units_drop(&u, e, e, d * 2 / 5, gone), d == 64 ? 24 : 50, "whole pairs of %u", d);
		is_int(units_broken(&u, gone), 0, "are whole");
	}
}

/* Rows on an affine space of three dimensions come back as f16 allows; noise does not; and no row is needed. */
static void
test_rebuild(void)
{
	enum { D = 16, N = 200, KEPT = 10 };
	static float x[N * D];
	float a[D * D], b[D];
	double g[D * D] = { 0 }, sum[D] = { 0 }, apart = 0, size = 0, mean = 0;
	struct kv_moments m = { D, g, sum, N };
	uint8_t drop[D] = { 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0 };
	uint64_t state = 3;
	struct kv_err err;

	for (unsigned t = 0; t < N; t++) {
		double y[3] = { (double)noise(&state), (double)noise(&state), (double)noise(&state) };

		for (unsigned j = 0; j < D; j++) {
			double v = 5 * sin(j + 1.0);

			for (unsigned i = 0; i < 3; i++)
				v += y[i] * cos(1.0 + j * (i + 1) * (i + 2));
			x[t * D + j] = f16_to_f32(f32_to_f16((float)v));
			sum[j] += (double)x[t * D + j];
		}
	}
	kv_gram_add(g, x, N, D, D);
	is_int(kv_affine_fit(&m, drop, a, b, &err), KV_OK, "a map");
	for (unsigned t = 0; t < N; t++)
		for (unsigned j = 0, row = 0; j < D; j++) {
			double v = (double)b[row];

			if (!drop[j])
				continue;
			for (unsigned i = 0, col = 0; i < D; i++)
				v += drop[i] ? 0 : (double)a[row * KEPT + col++] * (double)x[t * D + i];
			v -= (double)x[t * D + j];
			mean += v;
			apart += v * v;
			size += (double)x[t * D + j] * (double)x[t * D + j];
			row++;
		}
	ok(sqrt(apart / size) < 1e-3, "rebuilt but for %.2g of their size", sqrt(apart / size));
	ok(fabs(mean) / (N * 6) < 2e-3, "and without bias, %.2g", mean / (N * 6));
	for (unsigned i = 0; i < 6 * KEPT; i++)
		if (a[i] != f16_to_f32(f32_to_f16(a[i])))
			mean = NAN;
	ok(!isnan(mean), "the map is f16");
	memset(g, 0, sizeof g);
	memset(sum, 0, sizeof sum);
	m.weight = 1;
	is_int(kv_affine_fit(&m, drop, a, b, &err), KV_OK, "a row of zeros has a map");
	ok(a[0] == 0 && b[0] == 0, "of zeros");
	g[0] = INFINITY;
	is_int(kv_affine_fit(&m, drop, a, b, &err), KV_EFIT, "what is not finite has none");
}

/* What the best affine map of the kept channels misses of the dropped ones, weighted: normal equations by Gauss, one channel after another. */
static double
missed_naively(const struct kv_moments *m, const double *eq, const uint8_t *drop)
{
	double sum = 0;

	for (unsigned j = 0; j < m->d; j++) {
		double a[MOST][MOST + 1] = { { 0 } }, rest = m->g[j * m->d + j] / m->weight - pow(m->sum[j] / m->weight, 2);
		unsigned kept[MOST], t = 0;

		for (unsigned i = 0; i < m->d; i++)
			if (!drop[i])
				kept[t++] = i;
		if (!drop[j])
			continue;
		for (unsigned r = 0; r < t; r++) {
			for (unsigned c = 0; c <= t; c++) {
				unsigned other = c < t ? kept[c] : j;

				a[r][c] = m->g[kept[r] * m->d + other] / m->weight - m->sum[kept[r]] * m->sum[other] / m->weight / m->weight;
			}
		}
		for (unsigned p = 0; p < t; p++)
			for (unsigned r = 0; r < t; r++) {
				double f = a[r][p] / a[p][p];

				for (unsigned c = p; c <= t && r != p; c++)
					a[r][c] -= f * a[p][c];
			}
		for (unsigned r = 0; r < t; r++)
			rest -= a[r][t] / a[r][r] * (m->g[kept[r] * m->d + j] / m->weight - m->sum[kept[r]] * m->sum[j] / m->weight / m->weight);
		sum += eq[j] * rest;
	}
	return sum;
}

/* The pair that is dropped is at each step the one whose loss a map makes good best; where a map can, energies alone choose worse. */
static void
test_missed(void)
{
	enum { D = 12, N = 60 };
	static const struct kvs_rope rope = { .kind = KVS_ROPE_NEOX, .n_rot = 8 };
	static float x[N * D];
	double g[D * D] = { 0 }, sum[D] = { 0 }, eq[D], ek[D] = { 0 }, mean[D];
	struct kv_moments m = { D, g, sum, N };
	struct kv_units u;
	uint8_t drop[D], before[D] = { 0 }, by_energy[D];
	uint64_t state = 11;
	struct kv_err err;
	unsigned gone = 0;

	for (unsigned t = 0; t < N; t++)
		for (unsigned j = 0; j < D; j++)
			x[t * D + j] = noise(&state) + (j ? x[t * D + j - 1] * (float)(j % 4) / 2 : 0) + (float)(j % 3);
	for (unsigned j = 0; j < D; j++) {
		eq[j] = 1 + (double)(next_random(&state) % 100) / 10;
		for (unsigned t = 0; t < N; t++)
			sum[j] += (double)x[t * D + j];
	}
	kv_gram_add(g, x, N, D, D);
	kv_channel_energy(ek, x, N, D, D);
	kv_units_pairs(&u, D, &rope);
	for (unsigned i = 0; i < u.n; i++)
		mean[u.unit[i].a] = mean[u.unit[i].b] = (eq[u.unit[i].a] + eq[u.unit[i].b]) / 2;
	for (unsigned step = 1; step <= 4; step++) {
		struct kv_unit least = { 0, 0 };
		double best = 1e300;

		for (unsigned i = 0; i < u.n; i++) {
			struct kv_unit y = u.unit[i];
			unsigned size = 1 + (y.a != y.b);
			double adds;

			memcpy(drop, before, D);
			if (drop[y.a] || gone + size > 2 * step)
				continue;
			drop[y.a] = drop[y.b] = 1;
			adds = (missed_naively(&m, mean, drop) - missed_naively(&m, mean, before)) / size;
			if (adds < best) {
				best = adds;
				least = y;
			}
		}
		gone += least.a != least.b ? 2 : 1;
		before[least.a] = before[least.b] = 1;
		is_int(kv_units_drop_by_missed(&u, &m, eq, gone, drop, &gone, &err), KV_OK, "step %u", step);
		ok(!memcmp(drop, before, D), "%u channels: those that are missed least", gone);
	}
	kv_units_drop(&u, eq, ek, gone, by_energy);
	ok(missed_naively(&m, mean, drop) < missed_naively(&m, mean, by_energy), "and less than those of least energy");
	g[3] = NAN;
	g[0] = INFINITY;
	is_int(kv_units_drop_by_missed(&u, &m, eq, 4, drop, &gone, &err), KV_EFIT, "what is not finite has no map");
}

int
main(void)
{
	test_vector_a();
	test_vector_b();
	test_vector_c();
	test_ratios();
	test_random();
	test_units();
	test_rebuild();
	test_missed();
	return done_testing();
}
