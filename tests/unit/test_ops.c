/*
 * Every operation of the generic table, and attention at every level, against double loops. Sums in f32 over n terms of size 1 are off by
 * some sqrt(n) 2^-24 of their spread in practice; 2e-6 times the root of the sum of squares of the terms is demanded of products, 3e-6
 * of the spread of the values of attention. Tiles round values, which are up to 2, and the weights that multiply them to bf16: 2^-9 each; but
 * scores are made of two numbers in bf16 for one, and what entries receive is exact to 2e-4.
 */
#include "kernel/ops.h"

#include <float.h>
#include <stdlib.h>

#include "tap.h"
#include "kernel/expf.h"
#include "kernel/quant.h"
#include "kernel/rope.h"
#include "levels.h"
#include "util/half.h"
#include "util/mem.h"

static const struct kv_ops *ops = &kv_ops_generic;

/* A linear congruence: numbers in [-1, 1). */
static uint32_t state = 1;

static float
next(void)
{
	state = state * 1664525u + 1013904223u;
	return (float)(int32_t)state * 0x1p-31f;
}

static float *
random_floats(size_t n, float size)
{
	float *x = malloc((n + 8) * sizeof *x);

	for (size_t i = 0; i < n; i++)
		x[i] = size * next();
	for (size_t i = 0; i < 8; i++)
		x[n + i] = 12345;	/* behind the end: must stay */
	return x;
}

static bool
end_is_whole(const float *x, size_t n)
{
	for (size_t i = 0; i < 8; i++)
		if (x[n + i] != 12345)
			return false;
	return true;
}

/* Worst error of a product, as a share of the root of the summed squares of its terms. */
static double
product_error(const struct kv_weight *w, const float *x, size_t m, const float *y, const float *before)
{
	float *row = malloc(w->n_in * sizeof *row);
	double worst = 0;

	for (size_t o = 0; o < w->n_out; o++) {
		kv_dequant(w->type, w->data + o * w->row_bytes, w->n_in, row);
		for (size_t i = 0; i < m; i++) {
			double want = before ? (double)before[i * w->n_out + o] : 0, square = want * want + 1e-9;

			for (size_t k = 0; k < w->n_in; k++) {
				double term = (double)row[k] * (double)x[i * w->n_in + k];

				want += term;
				square += term * term;
			}
			worst = fmax(worst, fabs((double)y[i * w->n_out + o] - want) / sqrt(square));
		}
	}
	free(row);
	return worst;
}

static void
test_matmul(struct kv_pool *pool, uint32_t type, size_t n_in, size_t n_out, size_t m)
{
	const struct kv_wtype_info *t = kv_wtype_info(type);
	size_t row_bytes = n_in / t->values * t->bytes;
	uint8_t *data = malloc(n_out * row_bytes);
	float *x = random_floats(m * n_in, 1), *y = random_floats(m * n_out, 1), *before = malloc(m * n_out * sizeof *y);
	struct kv_weight w = { data, type, n_out, n_in, row_bytes };

	for (size_t i = 0; i < n_out * row_bytes; i++)
		data[i] = (uint8_t)((uint32_t)(next() * 0x1p20f) & 0x3f);	/* no exponent that is not finite */
	if (type == KV_W_F32)
		for (size_t i = 0; i < n_out * n_in; i++)
			memcpy(data + 4 * i, &(float){ next() }, 4);
	memcpy(before, y, m * n_out * sizeof *y);
	ok(ops->matmul(pool, &w, x, m, y, true) && end_is_whole(y, m * n_out) && product_error(&w, x, m, y, before) < 2e-6,
		"%s [%zu x %zu] [%zu] added", t->name, m, n_in, n_out);
	ok(ops->matmul(pool, &w, x, m, y, false) && end_is_whole(y, m * n_out) && product_error(&w, x, m, y, NULL) < 2e-6,
		"%s [%zu x %zu] [%zu]", t->name, m, n_in, n_out);
	free(data);
	free(x);
	free(y);
	free(before);
}

static void
test_matmuls(struct kv_pool *pool)
{
	static const size_t rows[] = { 1, 2, 4, 5, 8, 33 }, outs[] = { 1, 16, 63, 64, 65, 97, 195, 1155 };

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		for (size_t o = 0; o < sizeof outs / sizeof *outs; o++)
			test_matmul(pool, KV_W_Q4_1, 96, outs[o], rows[i]);
	test_matmul(pool, KV_W_F32, 1, 3, 1);
	test_matmul(pool, KV_W_F32, 31, 5, 3);
	test_matmul(pool, KV_W_F32, 33, 5, 7);
	test_matmul(pool, KV_W_F32, 1027, 9, 1);	/* a chunk of a row and a rest */
	test_matmul(pool, KV_W_F32, 2100, 200, 6);
	test_matmul(pool, KV_W_Q4_K, 1280, 70, 2);
	test_matmul(pool, KV_W_Q6_K, 256, 100, 9);
	test_matmul(pool, KV_W_F16, 50, 10, 1);
}

static void
test_embed(struct kv_pool *pool)
{
	float table[5][7], out[3][7];
	struct kv_weight w = { (const uint8_t *)table, KV_W_F32, 5, 7, sizeof table[0] };

	for (int i = 0; i < 35; i++)
		table[i / 7][i % 7] = (float)i;
	ops->embed(pool, &w, (uint32_t[]){ 4, 0, 4 }, 3, &out[0][0]);
	ok(!memcmp(out[0], table[4], sizeof out[0]) && !memcmp(out[1], table[0], sizeof out[0]) && !memcmp(out[2], table[4], sizeof out[0]),
		"embed takes rows");
}

static void
test_rmsnorm(struct kv_pool *pool)
{
	static const size_t sizes[] = { 1, 7, 8, 9, 64, 100 };

	for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
		size_t n = sizes[k], m = 35, ld = n + 3;
		float *x = random_floats(m * ld, 2), *gain = random_floats(n, 1), *y = random_floats(m * ld, 1);
		double worst = 0;

		y[n] = 77;
		ops->rmsnorm(pool, x, gain, 1e-5f, m, n, ld, y);
		for (size_t r = 0; r < m; r++) {
			double sum = 0;

			for (size_t i = 0; i < n; i++)
				sum += (double)x[r * ld + i] * (double)x[r * ld + i];
			for (size_t i = 0; i < n; i++)
				worst = fmax(worst, fabs((double)y[r * ld + i] -
					(double)x[r * ld + i] / sqrt(sum / (double)n + (double)1e-5f) * (double)gain[i]));
		}
		ok(worst < 1e-6 && y[n] == 77, "rmsnorm of %zu, rows %zu apart", n, ld);
		ops->rmsnorm(pool, x, gain, 1e-5f, m, n, ld, x);
		ok(x[0] == y[0] && x[(m - 1) * ld + n - 1] == y[(m - 1) * ld + n - 1], "the same in place");
		free(x);
		free(gain);
		free(y);
	}
}

static void
test_exp(void)
{
	double worst = 0;

	for (float x = -87; x < 88; x += 0.00171f)
		worst = fmax(worst, fabs((double)kv_expf(x) / exp((double)x) - 1));
	is_near(worst, 0, 1.2e-7, "exp: relative error");
	ok(kv_expf(0) == 1 && kv_expf(-0.0f) == 1, "e^0 is 1");
	ok(kv_expf(-88) == 0 && kv_expf(-INFINITY) == 0 && kv_expf(-FLT_MAX) == 0, "what is too small is 0");
	ok(isfinite(kv_expf(1000)) && isnan(kv_expf(NAN)), "what is too large is finite, NaN stays");
}

static void
test_activate(struct kv_pool *pool)
{
	enum { M = 40003 };
	float *z = random_floats(M, 12), *up = random_floats(M, 1), *got = malloc((M + 8) * sizeof *got);

	for (int kind = KV_SILU; kind <= KV_GELU; kind++) {
		double worst = 0;

		z[0] = -200;
		z[1] = 200;
		z[2] = 0;
		memcpy(got, z, (M + 8) * sizeof *got);
		ops->activate(pool, (enum kv_activation)kind, got, up, M);
		for (size_t i = 0; i < M; i++) {
			double x = (double)z[i], want = x / (1 + exp(-x));

			if (kind == KV_GELU)
				want = 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
			worst = fmax(worst, fabs((double)got[i] - want * (double)up[i]) / fmax(1, fabs(x)));
		}
		ok(worst < 4e-7 && end_is_whole(got, M), "%s", kind == KV_SILU ? "silu" : "gelu");
	}
	free(z);
	free(up);
	free(got);
}

static void
test_rope_rows(struct kv_pool *pool)
{
	enum { ROWS = 37, HEADS = 3, D = 10, TURNED = 6 };
	float *x = random_floats(ROWS * HEADS * D, 1), *want = malloc(sizeof *want * ROWS * HEADS * D), *cs = random_floats(ROWS * TURNED, 1);

	for (int neox = 0; neox < 2; neox++) {
		memcpy(want, x, sizeof *want * ROWS * HEADS * D);
		for (size_t r = 0; r < ROWS * HEADS; r++)
			kv_rotate(want + r * D, TURNED, neox, cs + r / HEADS * TURNED);
		ops->rope(pool, x, ROWS, HEADS, D, TURNED, neox, cs);
		ok(!memcmp(x, want, sizeof *want * ROWS * HEADS * D), "rope turns every head, %s", neox ? "halves" : "neighbours");
	}
	free(x);
	free(want);
	free(cs);
}

static void
test_bias(void)
{
	float y[6] = { 1, 2, 3, 4, 5, 6 };

	ops->add_bias(y, (float[]){ 10, 20, 30 }, 2, 3);
	ok(y[0] == 11 && y[2] == 33 && y[3] == 14 && y[5] == 36, "a bias goes to every row");
}

/* A problem of attention, with lists of their own for each kv head. */
struct scene {
	struct kv_attn a;
	struct kv_attn_list list[4];
	struct kv_angles *angles;
	size_t m;
	float *q;
};

static float
element(unsigned dtype, const void *p, size_t i)
{
	const uint16_t *h = p;

	return dtype == 1 ? ((const float *)p)[i] : dtype == 2 ? f16_to_f32(h[i]) : bf16_to_f32(h[i]);
}

static void *
random_rows(unsigned dtype, size_t n)
{
	float *x = random_floats(n, 2);
	uint16_t *h = (uint16_t *)(void *)x;

	if (dtype == 1)
		return x;
	h = malloc((n + 1) * sizeof *h);
	for (size_t i = 0; i < n; i++)
		h[i] = dtype == 2 ? f32_to_f16(x[i]) : f32_to_bf16(x[i]);
	free(x);
	return h;
}

/* List g has n[g] entries with gaps; the queries are the newest m sources, and their own entries are the last of every list. */
static void
scene_make(struct scene *s, size_t heads, size_t kv_heads, size_t d_k, size_t d_v, const size_t *n, size_t m, unsigned dtype, unsigned n_rot)
{
	float freq[64];
	uint32_t *q_src = malloc(m * sizeof *q_src);
	int32_t *q_pos = malloc(m * sizeof *q_pos);
	const uint32_t before = 100000;

	for (size_t i = 0; i < 64; i++)
		freq[i] = 1.0f / (float)(1 + 3 * i);
	*s = (struct scene){ .m = m, .q = random_floats(m * heads * d_k, 2), .angles = n_rot ? kv_angles_new(n_rot, freq, 1.1f) : NULL };
	s->a = (struct kv_attn){ heads, kv_heads, d_k, d_v, 0.3f, 0, 0, n_rot, false, s->list, q_src, q_pos, NULL };
	for (size_t i = 0; i < m; i++) {
		q_src[i] = before + (uint32_t)i;
		q_pos[i] = (int32_t)(2 * before + i);
	}
	for (size_t g = 0; g < kv_heads; g++) {
		uint32_t *src = malloc(n[g] * sizeof *src);
		int32_t *pos = malloc(n[g] * sizeof *pos);
		float *cs = n_rot ? malloc(n[g] * n_rot * sizeof *cs) : NULL;

		for (size_t j = 0; j < n[g]; j++) {
			src[j] = j + m < n[g] ? (uint32_t)(3 * j + g) : before + (uint32_t)(j + m - n[g]);
			pos[j] = j + m < n[g] ? (int32_t)(2 * before - 2 * n[g] + 2 * j) : (int32_t)(2 * before + j + m - n[g]);
		}
		if (n_rot)
			kv_angles_get(s->angles, pos, n[g], cs);
		s->list[g] = (struct kv_attn_list){ .n = n[g], .k = random_rows(dtype, n[g] * d_k), .v = random_rows(dtype, n[g] * d_v),
			.k_dtype = (uint8_t)dtype, .v_dtype = (uint8_t)dtype, .src = src, .pos = pos, .angles = cs };
	}
}

static void
scene_free(struct scene *s)
{
	const void *p[5 * 4 + 3];
	size_t n = 0;

	for (size_t g = 0; g < s->a.kv_heads; g++) {
		p[n++] = s->list[g].k;
		p[n++] = s->list[g].v;
		p[n++] = s->list[g].src;
		p[n++] = s->list[g].pos;
		p[n++] = s->list[g].angles;	/* NULL where nothing turns */
	}
	p[n++] = s->a.q_src;
	p[n++] = s->a.q_pos;
	p[n++] = s->q;
	for (size_t i = 0; i < n; i++)
		free((void *)(uintptr_t)p[i]);
	kv_angles_free(s->angles);
}

/* One query head of one token, in doubles; share [n] += the weights over the number of heads of the group, if asked for. */
static void
attend_naive(const struct scene *s, size_t i, size_t h, double *out, double *share)
{
	const struct kv_attn *a = &s->a;
	const struct kv_attn_list *l = &s->list[h / (a->heads / a->kv_heads)];
	const float *q = s->q + (i * a->heads + h) * a->d_k;
	double *z = calloc(l->n, sizeof *z), top = -INFINITY, sum = 0;
	float k[128];

	for (size_t c = 0; c < a->d_v; c++)
		out[c] = 0;
	for (size_t j = 0; j < l->n; j++) {
		z[j] = -INFINITY;
		if (l->src[j] > a->q_src[i] || (a->window && (int64_t)a->q_pos[i] - l->pos[j] >= a->window))
			continue;
		for (size_t c = 0; c < a->d_k; c++)
			k[c] = element(l->k_dtype, l->k, j * a->d_k + c);
		if (l->angles)
			kv_rotate(k, a->n_rot, a->neox, l->angles + j * a->n_rot);
		z[j] = 0;
		for (size_t c = 0; c < a->d_k; c++)
			z[j] += (double)q[c] * (double)k[c] * (double)a->scale;
		if (a->softcap > 0)
			z[j] = (double)a->softcap * tanh(z[j] / (double)a->softcap);
		top = fmax(top, z[j]);
	}
	for (size_t j = 0; j < l->n; j++)
		sum += exp(z[j] - top);
	for (size_t j = 0; j < l->n; j++)
		for (size_t c = 0; c < a->d_v && exp(z[j] - top) > 0; c++)
			out[c] += exp(z[j] - top) / sum * (double)element(l->v_dtype, l->v, j * a->d_v + c);
	for (size_t j = 0; j < l->n && share && sum > 0; j++)
		share[j] += exp(z[j] - top) / sum / (double)(a->heads / a->kv_heads);
	free(z);
}

static double
attention_error(struct kv_pool *pool, const struct scene *s)
{
	const struct kv_attn *a = &s->a;
	float *out = random_floats(s->m * a->heads * a->d_v, 1);
	double want[128], worst = 0;
	size_t step = s->m > 50 ? 7 : 1;	/* of long ones some */

	if (!ops->attend(pool, a, s->q, s->m, out) || !end_is_whole(out, s->m * a->heads * a->d_v))
		worst = INFINITY;
	for (size_t i = 0; i < s->m; i += step)
		for (size_t h = 0; h < a->heads; h++) {
			attend_naive(s, i, h, want, NULL);
			for (size_t c = 0; c < a->d_v; c++) {
				double e = fabs((double)out[(i * a->heads + h) * a->d_v + c] - want[c]);

				worst = isfinite(e) ? fmax(worst, e) : INFINITY;
			}
		}
	free(out);
	return worst;
}

/* Does the level multiply queries and keys of a batch as integers? */
static bool
has_integers(const struct kv_attn *a, size_t m)
{
	return m > 1 && a->d_k % 16 == 0 && (!strcmp(ops->level, "avx512") || (!strcmp(ops->level, "amx") && (a->d_k % 32 || a->d_v % 32)));
}

static double
longest(const float *rows, size_t n, size_t d)
{
	double most = 0;

	for (size_t i = 0; i < n; i++) {
		double square = 0;

		for (size_t c = 0; c < d; c++)
			square += (double)rows[i * d + c] * (double)rows[i * d + c];
		most = fmax(most, sqrt(square));
	}
	return most;
}

/* What scores may be wrong by if they are products of integers of sixteen bits: a share of the norms' product. key: of the longest key. */
static double
integer_error(const struct scene *s, double key)
{
	return has_integers(&s->a, s->m) ? 0x1p-15 * longest(s->q, s->m * s->a.heads, s->a.d_k) * key * (double)s->a.scale : 0;
}

/* Room for the sums of every list, holding 1, 2 and, for every query head, 3 already. */
static struct kv_attn_sums *
sums_new(const struct scene *s)
{
	struct kv_attn_sums *sums = malloc(s->a.kv_heads * sizeof *sums);

	for (size_t g = 0; g < s->a.kv_heads; g++) {
		size_t n = s->list[g].n, rows = 2 + s->a.heads / s->a.kv_heads;

		sums[g].sum = malloc(rows * n * sizeof *sums[g].sum);
		sums[g].square = sums[g].sum + n;
		sums[g].by_head = sums[g].square + n;
		for (size_t j = 0; j < rows * n; j++)
			sums[g].sum[j] = j < n ? 1 : j < 2 * n ? 2 : 3;
	}
	return sums;
}

static void
sums_free(const struct scene *s, struct kv_attn_sums *sums)
{
	for (size_t g = 0; g < s->a.kv_heads; g++)
		free(sums[g].sum);
	free(sums);
}

/*
 * Worst error of what the entries of a list received, as a share of the largest; and of its total: each query that sees anything hands
 * out 1. The plain result must be the same bytes.
 */
static double
received_error(struct kv_pool *pool, struct scene *s)
{
	const struct kv_attn *a = &s->a;
	size_t width = s->m * a->heads * a->d_v, group = a->heads / a->kv_heads;
	struct kv_attn_sums *got = sums_new(s);
	float *plain = random_floats(width, 1), *out = random_floats(width, 1);
	double worst = 0, unused[128];

	if (!ops->attend(pool, a, s->q, s->m, plain))
		worst = INFINITY;
	s->a.received = got;
	if (!ops->attend(pool, a, s->q, s->m, out) || !end_is_whole(out, width))
		worst = INFINITY;
	s->a.received = NULL;
	for (size_t i = 0; i < width; i++)
		worst = fmax(worst, fabs((double)(plain[i] - out[i])));
	for (size_t g = 0; g < a->kv_heads; g++) {
		size_t n = s->list[g].n;
		double *want = calloc((3 + group) * n, sizeof *want), *share = want + 2 * n, *by_head = want + 3 * n, total = 0, most = 1e-9;

		for (size_t i = 0; i < s->m; i++) {
			memset(share, 0, n * sizeof *share);
			for (size_t h = 0; h < group; h++) {
				attend_naive(s, i, g * group + h, unused, share);
				attend_naive(s, i, g * group + h, unused, by_head + h * n);
			}
			for (size_t j = 0; j < n; j++) {
				want[j] += share[j];
				want[n + j] += share[j] * share[j];
				total += share[j];
			}
		}
		for (size_t j = 0; j < n; j++) {
			most = fmax(most, want[j]);
			total -= got[g].sum[j] - 1;
		}
		worst = fmax(worst, fabs(total) / (double)s->m);
		for (size_t j = 0; j < n; j++)
			worst = fmax(worst, fmax(fabs(got[g].sum[j] - 1 - want[j]), fabs(got[g].square[j] - 2 - want[n + j])) / most);
		for (size_t j = 0; j < group * n; j++)
			worst = fmax(worst, fabs((got[g].by_head[j] - 3) / (double)group - by_head[j]) / most);
		free(want);
	}
	sums_free(s, got);
	free(plain);
	free(out);
	return worst;
}

static void
test_attend(struct kv_pool *pool)
{
	static const struct { size_t heads, kv_heads, d_k, d_v, n[4], m; unsigned dtype, n_rot; uint32_t window; float softcap; } t[] = {
		{ 1, 1, 1, 1, { 1 }, 1, 1, 0, 0, 0 },
		{ 2, 1, 16, 16, { 7 }, 1, 1, 16, 0, 0 },
		{ 6, 3, 20, 12, { 300, 256, 5 }, 1, 2, 12, 0, 0 },
		{ 6, 3, 20, 12, { 700, 1, 513 }, 1, 3, 20, 40, 0 },
		{ 4, 2, 33, 31, { 257, 1300 }, 1, 2, 32, 0, 5 },
		{ 2, 2, 16, 16, { 5, 2 }, 2, 1, 16, 0, 0 },
		{ 6, 3, 20, 12, { 300, 256, 60 }, 17, 2, 12, 0, 0 },
		{ 9, 3, 64, 64, { 1030, 512, 513 }, 130, 2, 64, 0, 0 },
		{ 9, 3, 64, 64, { 1600, 200, 700 }, 129, 1, 64, 50, 0 },
		{ 4, 1, 24, 40, { 1111 }, 96, 3, 24, 0, 8 },
		{ 3, 3, 8, 8, { 40, 41, 42 }, 40, 1, 8, 1, 0 },
		{ 6, 3, 64, 64, { 1, 3, 1027 }, 1, 2, 64, 0, 0 },
		{ 5, 1, 64, 96, { 1026 }, 1, 2, 32, 100, 3 },
		{ 1, 1, 48, 32, { 515 }, 1, 2, 0, 0, 0 },
		{ 8, 2, 128, 128, { 259, 256 }, 1, 2, 128, 0, 0 },
		{ 8, 2, 128, 128, { 261, 256 }, 1, 2, 96, 0, 0 },
		{ 6, 1, 8, 8, { 600 }, 530, 1, 8, 0, 0 },	/* more tiles than have sums of their own at a time */
		{ 2, 1, 4, 4, { 25000 }, 49, 2, 4, 0, 0 },	/* more weights than a full tile may keep */
		{ 7, 1, 65, 63, { 321 }, 3, 2, 64, 0, 0 },	/* neither keys nor values fill vectors */
		{ 2, 1, 96, 80, { 700 }, 200, 3, 32, 300, 0 },
		{ 4, 4, 64, 128, { 64, 65, 63, 257 }, 63, 2, 64, 0, 0 },
		{ 7, 1, 32, 32, { 333 }, 37, 3, 32, 0, 5 },
		{ 2, 2, 96, 32, { 5, 600 }, 5, 1, 64, 90, 0 },
		{ 3, 1, 128, 64, { 2 }, 2, 2, 128, 0, 0 },
		{ 7, 1, 64, 64, { 523 }, 1, 2, 64, 0, 0 },	/* more heads than are multiplied at a time … */
		{ 7, 1, 64, 64, { 523 }, 1, 2, 64, 0, 0 },
		{ 18, 2, 96, 64, { 300, 77 }, 1, 2, 32, 0, 0 },	/* … and channels that do not turn */
		{ 18, 2, 96, 64, { 300, 77 }, 1, 2, 32, 0, 0 },
		{ 10, 1, 64, 32, { 260 }, 1, 2, 16, 0, 0 },	/* vectors of eight, but not of sixteen */
		{ 3, 1, 64, 64, { 15 }, 1, 2, 16, 0, 0 },
	};

	for (size_t k = 0; k < sizeof t / sizeof *t; k++) {
		struct scene s;
		bool tiles;
		double e, wrong;

		scene_make(&s, t[k].heads, t[k].kv_heads, t[k].d_k, t[k].d_v, t[k].n, t[k].m, t[k].dtype, t[k].n_rot);
		s.a.window = t[k].window;
		s.a.softcap = t[k].softcap;
		s.a.neox = k % 2;
		for (size_t g = 0; s.a.neox && s.angles && g < t[k].kv_heads; g++)
			kv_angles_get(s.angles, s.list[g].pos, s.list[g].n, (float *)(uintptr_t)s.list[g].angles);
		tiles = !strcmp(ops->level, "amx") && t[k].m > 1 && t[k].d_k % 32 == 0 && t[k].d_v % 32 == 0;
		wrong = integer_error(&s, sqrt((double)t[k].d_k));
		e = attention_error(pool, &s);
		is_near(e, 0, (tiles ? 2 * 0x1p-8 : 6e-6) + wrong, "%s attends: %zu of %zu, %zu heads on %zu, %zu and %zu channels, window %u, cap %g (%.1e)",
			ops->level, t[k].m, t[k].n[0], t[k].heads, t[k].kv_heads, t[k].d_k, t[k].d_v, t[k].window, (double)t[k].softcap, e);
		if (pool) {
			e = received_error(pool, &s);
			is_near(e, 0, (tiles ? 2e-4 : 6e-6) + wrong, "and what entries received (%.1e)", e);
		}
		scene_free(&s);
	}
}

/* Keys that make the maximum rise in every block, so that what was summed must be rescaled each time. */
static void
test_rising(struct kv_pool *pool, size_t d)
{
	bool tiles = !strcmp(ops->level, "amx") && d % 32 == 0;

	for (size_t m = 1; m <= 64; m += 63) {
		struct scene s;
		size_t n = 2000;
		double most = tiles && m > 1 ? 2 * 0x1p-8 : 2e-5, wrong;

		scene_make(&s, 2, 1, d, d, &n, m, 1, 0);
		for (size_t j = 0; j < n; j++)
			((float *)(uintptr_t)s.list[0].k)[d * j] = 0.05f * (float)j;
		for (size_t i = 0; i < 2 * m; i++)
			s.q[d * i] = 2 + s.q[d * i] / 10;
		wrong = integer_error(&s, 0.05 * 2000);
		is_near(attention_error(pool, &s), 0, most + wrong, "attend: scores that rise to %g, %zu queries, %zu channels", 0.05 * 2000 * 2 * 0.3, m, d);
		is_near(received_error(pool, &s), 0, (tiles ? 2e-3 : 2e-5) + wrong, "and what entries received");
		for (size_t i = 0; i < 2 * d * m; i++)
			s.q[i] *= 1e6f;
		is_near(attention_error(pool, &s), 0, fmax(most, 1e-3), "attend: scores of millions, %zu queries", m);
		is_near(received_error(pool, &s), 0, 1e-3, "and what entries received");
		scene_free(&s);
	}
}

static void
test_unseen(struct kv_pool *pool)
{
	struct scene s;
	size_t n = 20;
	float out[2 * 3 * 8];

	scene_make(&s, 2, 1, 8, 8, &n, 3, 2, 8);
	((uint32_t *)(uintptr_t)s.a.q_src)[0] = 0;	/* sees the first entry alone */
	is_near(attention_error(pool, &s), 0, 1e-6, "a query that sees one entry gets its value");
	is_near(received_error(pool, &s), 0, 2e-6, "that entry gets all of it");
	for (size_t j = 0; j < n; j++)
		((uint32_t *)(uintptr_t)s.list[0].src)[j] += 5;
	ops->attend(pool, &s.a, s.q, 3, out);
	ok(out[0] == 0 && out[15] == 0 && isfinite(out[16]), "a query that sees nothing gets zeros, not NaN");
	ops->attend(pool, &s.a, s.q, 1, out);
	ok(out[0] == 0 && out[15] == 0, "also alone");
	scene_free(&s);
}

/* What is not a number must show, whichever way scores are made. */
static void
test_nan(struct kv_pool *pool)
{
	enum { D = 64, M = 3 };

	for (size_t at = 0; at < D; at += 21) {
		struct scene s;
		size_t n = 300;
		float out[M * D];

		scene_make(&s, 1, 1, D, D, &n, M, 1, 0);
		s.q[D + at] = at % 2 ? NAN : INFINITY;
		ops->attend(pool, &s.a, s.q, M, out);
		ok(isfinite(out[0]) && !isfinite(out[D]) && isfinite(out[2 * D]), "%s: a query that is not finite, at %zu", ops->level, at);
		s.q[D + at] = 0;
		((float *)(uintptr_t)s.list[0].k)[at] = NAN;
		ops->attend(pool, &s.a, s.q, M, out);
		ok(!isfinite(out[0]) && !isfinite(out[D]), "%s: a key that is not finite, at %zu", ops->level, at);
		scene_free(&s);
	}
}

/* Bytes do not depend on the number of threads: out, then the sums of all lists. */
static void
run_with(unsigned threads, size_t m, struct kv_buf *bytes)
{
	size_t n[3] = { 1500, 900, 5001 };
	struct kv_pool *pool = kv_pool_new(threads);
	struct scene s;
	struct kv_attn_sums *sums;
	float *out = malloc(m * 6 * 32 * sizeof *out);

	state = 7;
	scene_make(&s, 6, 3, 32, 32, n, m, 2, 32);
	s.a.received = sums = sums_new(&s);
	ops->attend(pool, &s.a, s.q, m, out);
	kv_buf_add(bytes, out, m * 6 * 32 * sizeof *out);
	for (size_t g = 0; g < 3; g++)
		kv_buf_add(bytes, sums[g].sum, 4 * n[g] * sizeof *sums[g].sum);
	sums_free(&s, sums);
	scene_free(&s);
	kv_pool_free(pool);
	free(out);
}

static void
test_threads(void)
{
	static const size_t queries[] = { 1, 150, 700 };

	for (size_t i = 0; i < 3; i++) {
		struct kv_buf one = { 0 };

		run_with(1, queries[i], &one);
		for (unsigned threads = 2; threads <= 3; threads++) {
			struct kv_buf more = { 0 };

			run_with(threads, queries[i], &more);
			ok(more.len == one.len && !memcmp(more.p, one.p, one.len), "attend: %u threads give the bytes of one, %zu queries", threads,
				queries[i]);
			kv_buf_free(&more);
		}
		kv_buf_free(&one);
	}
}

int
main(void)
{
	struct kv_pool *pool = kv_pool_new(2);
	const struct kv_ops *level[KV_N_LEVELS];
	size_t n = levels_here(level);

	test_exp();
	test_embed(pool);
	test_rmsnorm(pool);
	test_matmuls(pool);
	test_bias();
	test_rope_rows(pool);
	test_activate(pool);
	test_attend(pool);
	test_attend(NULL);
	test_rising(pool, 4);
	test_unseen(pool);
	test_nan(pool);
	test_threads();
	/* Once more with the kernels of every level that this processor has. */
	for (size_t i = 1; i < n; i++) {
		ops = level[i];
		test_attend(pool);
		test_rising(pool, 4);
		test_rising(pool, 32);
		test_unseen(pool);
		test_nan(pool);
		test_threads();
	}
	kv_pool_free(pool);
	return done_testing();
}
