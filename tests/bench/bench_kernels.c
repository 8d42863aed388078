/* Products of matrices and attention, at the shapes of a small model (SmolLM2-135M). */
#include "bench.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "kernel/rope.h"
#include "util/half.h"

enum { BATCH = 512, HEADS = 9, KV_HEADS = 3, D = 64, ROUNDS = 7 };

struct product {
	const struct kv_ops *ops;
	struct kv_weight w;
	float *x, *y, *f32;	/* [BATCH][n_in], [BATCH][n_out], [n_out][n_in] */
};

static void
own(void *arg)
{
	struct product *p = arg;

	p->ops->matmul(NULL, &p->w, p->x, BATCH, p->y, false);
}

static void
blas(void *arg)
{
	struct product *p = arg;
	blasint n_in = (blasint)p->w.n_in, n_out = (blasint)p->w.n_out;

	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BATCH, n_out, n_in, 1, p->x, n_in, p->f32, n_in, 0, p->y, n_out);
}

static double
bench_product(const struct kv_ops *ops, uint32_t type, size_t n_in, size_t n_out, double floor)
{
	const struct kv_wtype_info *t = kv_wtype_info(type);
	size_t row = n_in / t->values * t->bytes;
	uint8_t *data = bench_alloc(n_out, row);
	struct product p = { ops, { data, type, n_out, n_in, row }, bench_alloc(BATCH, n_in * 4), bench_alloc(BATCH, n_out * 4),
		bench_alloc(n_out, n_in * 4) };
	struct job job[] = { { own, &p, 0 }, { blas, &p, 0 } };
	double flops = 2.0 * BATCH * (double)n_in * (double)n_out * 1e-9;
	char what[80];

	for (size_t i = 0; i < BATCH * n_in; i++)
		p.x[i] = bench_random();
	for (size_t i = 0; i < n_out * row; i++)
		data[i] = (uint8_t)(i * 7 % 61);	/* no scale that is not finite */
	for (size_t r = 0; r < n_out; r++)
		kv_dequant(type, data + r * row, n_in, p.f32 + r * n_in);
	bench_in_turn(job, 2, ROUNDS);
	snprintf(what, sizeof what, "product, %s, %zu to %zu", t->name, n_in, n_out);
	bench_print(&(struct figure){ what, flops / job[0].best, "GFLOP/s", job[1].best / job[0].best, "of sgemm", floor, false });
	free(data);
	free(p.x);
	free(p.y);
	free(p.f32);
	return flops / job[1].best;
}

/* BATCH or fewer queries behind n - m entries. */
struct scene {
	const struct kv_ops *ops;
	struct kv_attn a;
	size_t m;
	float *q, *out;
};

static void
attending(void *arg)
{
	struct scene *s = arg;

	s->ops->attend(NULL, &s->a, s->q, s->m, s->out);
}

static void *
random_halves(size_t n)
{
	uint16_t *h = bench_alloc(n, sizeof *h);

	for (size_t i = 0; i < n; i++)
		h[i] = f32_to_f16(2 * bench_random());
	return h;
}

static void
bench_attention(const struct kv_ops *ops, size_t n, size_t m, double sgemm, double ceiling)
{
	struct kv_attn_list list[KV_HEADS] = { { 0 } };
	struct kv_attn_sums means[KV_HEADS], heads[KV_HEADS];
	uint32_t *src = bench_alloc(n, sizeof *src);
	int32_t *pos = bench_alloc(n, sizeof *pos);
	float *cs = bench_alloc(n, D * sizeof *cs), freq[D / 2];
	double *sums = bench_alloc(n, (KV_HEADS * 2 + HEADS) * sizeof *sums), flops = 4.0 * HEADS * D * (double)m * (double)(n - m / 2) * 1e-9;
	struct kv_angles *angles;
	struct scene s[3];
	struct job job[3];
	char what[80];

	for (size_t i = 0; i < D / 2; i++)
		freq[i] = powf(1e5f, -2 * (float)i / D);
	for (size_t j = 0; j < n; j++) {
		src[j] = (uint32_t)j;
		pos[j] = (int32_t)j;
	}
	if ((angles = kv_angles_new(D, freq, 1)))
		kv_angles_get(angles, pos, n, cs);
	for (size_t h = 0; h < KV_HEADS; h++) {
		list[h].n = n;
		list[h].k = random_halves(n * D);
		list[h].v = random_halves(n * D);
		list[h].k_dtype = list[h].v_dtype = 2;
		list[h].src = src;
		list[h].pos = pos;
		list[h].angles = cs;
		means[h] = (struct kv_attn_sums){ sums + 2 * h * n, sums + (2 * h + 1) * n, NULL };
		heads[h] = (struct kv_attn_sums){ NULL, NULL, sums + (2 + h) * KV_HEADS * n };
	}
	for (size_t i = 0; i < 3; i++) {
		s[i] = (struct scene){ ops, { .heads = HEADS, .kv_heads = KV_HEADS, .d_k = D, .d_v = D, .scale = 0.125f, .n_rot = D, .list = list,
			.q_src = src + n - m, .q_pos = pos + n - m, .received = i == 0 ? NULL : i == 1 ? means : heads }, m,
			bench_alloc(m, HEADS * D * 4), bench_alloc(m, HEADS * D * 4) };
		for (size_t k = 0; k < m * HEADS * D; k++)
			s[i].q[k] = 2 * bench_random();
		job[i] = (struct job){ attending, &s[i], 0 };
	}
	bench_in_turn(job, 3, ROUNDS);
	snprintf(what, sizeof what, "attention, %zu queries of %zu", m, n);
	bench_print(&(struct figure){ what, flops / job[0].best, "GFLOP/s", flops / job[0].best / sgemm, "of sgemm", 0, false });
	bench_print(&(struct figure){ "  with sums of means", job[1].best * 1e3, "ms", job[1].best / job[0].best, "times as long", ceiling, true });
	bench_print(&(struct figure){ "  with sums by head", job[2].best * 1e3, "ms", job[2].best / job[0].best, "times as long", ceiling, true });
	for (size_t i = 0; i < 3; i++) {
		free(s[i].q);
		free(s[i].out);
	}
	for (size_t h = 0; h < KV_HEADS; h++) {
		free((void *)(uintptr_t)list[h].k);
		free((void *)(uintptr_t)list[h].v);
	}
	kv_angles_free(angles);
	free(src);
	free(pos);
	free(cs);
	free(sums);
}

void
bench_kernels(const struct kv_ops *ops)
{
	static const uint32_t types[] = { KV_W_Q4_0, KV_W_Q5_0, KV_W_Q5_1, KV_W_Q8_0, KV_W_Q4_K, KV_W_Q5_K, KV_W_Q6_K, KV_W_F16, KV_W_BF16, KV_W_F32 };
	bool generic = !strcmp(ops->level, "generic"), tiles = !strcmp(ops->level, "amx");
	double floor = generic ? 0 : tiles ? 5 : 1.5, ceiling = generic ? 0 : 1.2, sgemm;

	bench_product(ops, KV_W_Q4_1, 576, 576, floor);
	bench_product(ops, KV_W_Q4_1, 576, 192, floor);
	bench_product(ops, KV_W_Q4_1, 1536, 576, floor);
	sgemm = bench_product(ops, KV_W_Q4_1, 576, 1536, floor);
	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		bench_product(ops, types[i], 1536, 576, 0);
	bench_attention(ops, 512, 512, sgemm, 0);
	bench_attention(ops, 1280, 256, sgemm, ceiling);
	bench_attention(ops, 2048, 512, sgemm, ceiling);
	bench_attention(ops, 8192, 512, sgemm, ceiling);
}
