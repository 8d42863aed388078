/*
 * Attention over rows in segments, at every level of the processor: against double loops over the same rows (3e-6 of the size of the values,
 * as for plain ones), and at the generic level against a plain cache in f32 that holds what they stand for: the same bytes.
 */
#include "kernel/ops.h"

#include <stdlib.h>
#include <string.h>

#include "tap.h"
#include "kernel/rope.h"
#include "levels.h"
#include "util/half.h"
#include "util/le.h"
#include "util/mem.h"

enum { MAX_D = 128, F32 = 1, F16 = 2, BF16 = 3, CODES = 16, SINKS = 5, MIDDLE = 300, TAIL = 70, N = SINKS + MIDDLE + TAIL };

/* How the rows in the middle are kept. */
struct kind {
	const char *name;
	uint8_t dtype, bits, scheme;
	unsigned group;
	unsigned kept;			/* channels; 0 = all */
	bool pairs;			/* whole pairs; else any channels, which means that the keys are turned */
};

static size_t heads = 4;	/* query heads of the one kv head */

static uint32_t state = 1;

static uint32_t
next_bits(void)
{
	state = state * 1664525u + 1013904223u;
	return state;
}

static float
next(void)
{
	return (float)(int32_t)next_bits() * 0x1p-31f;
}

struct side {
	struct kv_attn_segment seg[2];	/* the sinks, the middle */
	void *plain;			/* the tail, in f16 */
	float *whole;			/* [N][d] what all rows stand for */
	size_t d;
};

struct scene {
	struct kv_attn a;
	struct kv_attn_list list;
	struct side k, v;
	uint32_t src[N], q_src[3];
	int32_t pos[N], q_pos[3];
	float *angles, *q;
	struct kv_angles *turns;
};

/* n f16 numbers, in a block that ends where they end; what they are goes to out. */
static uint8_t *
halves(size_t n, float *out)
{
	uint8_t *p = malloc(2 * n + 1);

	for (size_t i = 0; i < n; i++) {
		le16_put(p + 2 * i, f32_to_f16(next()));
		if (out)
			out[i] = f16_to_f32(le16_get(p + 2 * i));
	}
	return p;
}

/* Some channels, ascending; whole pairs if that is asked. */
static uint16_t *
channels(const struct kind *k, size_t d, unsigned n_rot, bool neox)
{
	bool keep[MAX_D] = { 0 };
	uint16_t *c = malloc(k->kept * sizeof *c);
	unsigned n = 0;

	while (n < k->kept) {
		size_t j = next_bits() / 7 % d, with = j;

		if (k->pairs && j < n_rot)
			with = neox ? (j + n_rot / 2) % n_rot : j ^ 1;
		if (keep[j] || (with != j && n + 2 > k->kept))
			continue;
		keep[j] = keep[with] = true;
		n += with == j ? 1 : 2;
	}
	n = 0;
	for (size_t j = 0; j < d; j++)
		if (keep[j])
			c[n++] = (uint16_t)j;
	return c;
}

/* Random codes and scales; x [MIDDLE][width] = what they stand for. */
static void
make_codes(const struct kind *k, struct kv_attn_segment *s, float *x)
{
	size_t cells, at = 0;
	uint8_t *data, *scales, *minima;
	uint32_t *end = malloc((MIDDLE + 1) * sizeof *end);

	s->bits = k->bits;
	s->scheme = k->scheme;
	s->scale_dtype = F16;
	s->group = k->group;
	s->row_bytes = (s->width * k->bits + 7) / 8;
	for (s->n_groups = 0; at < MIDDLE; s->n_groups++) {
		at += 1 + next_bits() / 5 % k->group;	/* any number of rows up to the nominal one */
		at = at < MIDDLE ? at : MIDDLE;
		end[s->n_groups] = (uint32_t)at;
	}
	cells = k->scheme == 1 ? s->n_groups * s->width : MIDDLE * (s->width / k->group);
	data = calloc(MIDDLE, s->row_bytes);
	scales = halves(cells, NULL);
	minima = halves(cells, NULL);
	for (size_t i = 0; i < cells; i++)
		le16_put(scales + 2 * i, f32_to_f16(fabsf(f16_to_f32(le16_get(scales + 2 * i))) / (float)(1u << k->bits)));
	for (size_t r = 0, g = 0; r < MIDDLE; r++) {
		g += r == end[g];
		for (size_t c = 0; c < s->width; c++) {
			unsigned code = next_bits() >> 20 & ((1u << k->bits) - 1);
			size_t cell = k->scheme == 1 ? g * s->width + c : r * (s->width / k->group) + c / k->group;
			float product = (float)code * f16_to_f32(le16_get(scales + 2 * cell));

			data[r * s->row_bytes + c * k->bits / 8] |= (uint8_t)(code << c * k->bits % 8);
			x[r * s->width + c] = product + f16_to_f32(le16_get(minima + 2 * cell));
		}
	}
	s->group_end = end;
	s->data = data;
	s->scales = scales;
	s->minima = minima;
}

static void
make_side(struct side *s, const struct kind *k, size_t d, unsigned n_rot, bool neox)
{
	float *x = malloc(MIDDLE * d * sizeof *x);
	struct kv_attn_segment *m = &s->seg[1];

	s->d = d;
	s->whole = calloc(N * d, sizeof *s->whole);
	s->seg[0] = (struct kv_attn_segment){ .to = SINKS, .width = d, .row_bytes = 2 * d, .dtype = F16, .data = halves(SINKS * d, s->whole) };
	s->plain = halves(TAIL * d, s->whole + (SINKS + MIDDLE) * d);
	*m = (struct kv_attn_segment){ .from = SINKS, .to = SINKS + MIDDLE, .width = k->kept ? k->kept : d, .dtype = k->dtype,
		.turned = k->kept && !k->pairs };
	m->channel = k->kept ? channels(k, d, n_rot, neox) : NULL;
	m->row_bytes = m->width * (k->dtype == F32 ? 4 : 2);
	if (k->dtype == CODES) {
		make_codes(k, m, x);
	} else if (k->dtype == F16) {
		m->data = halves(MIDDLE * m->width, x);
	} else {
		uint8_t *p = malloc(MIDDLE * m->row_bytes);

		for (size_t i = 0; i < MIDDLE * m->width; i++) {
			x[i] = bf16_to_f32(f32_to_bf16(next()));
			if (k->dtype == F32)
				lef32_put(p + 4 * i, x[i]);
			else
				le16_put(p + 2 * i, f32_to_bf16(x[i]));
		}
		m->data = p;
	}
	for (size_t r = 0; r < MIDDLE; r++)
		for (size_t c = 0; c < m->width; c++)
			s->whole[(SINKS + r) * d + (m->channel ? m->channel[c] : c)] = x[r * m->width + c];
	free(x);
}

static void
free_const(const void *p)
{
	free((void *)(uintptr_t)p);
}

static void
side_free(struct side *s)
{
	for (size_t i = 0; i < 2; i++) {
		free_const(s->seg[i].data);
		free_const(s->seg[i].channel);
		free_const(s->seg[i].group_end);
		free_const(s->seg[i].scales);
		free_const(s->seg[i].minima);
	}
	free(s->plain);
	free(s->whole);
}

static void
scene_make(struct scene *s, const struct kind *k, const struct kind *v, size_t d_k, size_t d_v, unsigned n_rot, bool neox, uint32_t window)
{
	float freq[MAX_D];

	for (size_t i = 0; i < MAX_D; i++)
		freq[i] = 1.0f / (float)(1 + 3 * i);
	*s = (struct scene){ .turns = n_rot ? kv_angles_new(n_rot, freq, 1.1f) : NULL, .q = malloc(3 * heads * d_k * sizeof *s->q) };
	make_side(&s->k, k, d_k, n_rot, neox);
	make_side(&s->v, v, d_v, 0, false);
	for (size_t i = 0; i < 3 * heads * d_k; i++)
		s->q[i] = 2 * next();
	for (uint32_t j = 0; j < N; j++) {
		s->src[j] = 3 * j;
		s->pos[j] = (int32_t)(2 * j + (j > 9));
	}
	for (uint32_t i = 0; i < 3; i++) {
		s->q_src[i] = s->src[N - 3 + i];
		s->q_pos[i] = s->pos[N - 3 + i];
	}
	if (n_rot) {
		s->angles = malloc(N * n_rot * sizeof *s->angles);
		kv_angles_get(s->turns, s->pos, N, s->angles);
	}
	s->list = (struct kv_attn_list){ .n = N, .k = s->k.plain, .v = s->v.plain, .k_dtype = F16, .v_dtype = F16, .src = s->src, .pos = s->pos,
		.angles = s->angles, .k_seg = s->k.seg, .v_seg = s->v.seg, .n_k_seg = 2, .n_v_seg = 2 };
	s->a = (struct kv_attn){ .heads = heads, .kv_heads = 1, .d_k = d_k, .d_v = d_v, .scale = 0.3f, .window = window, .n_rot = n_rot,
		.neox = neox, .list = &s->list, .q_src = s->q_src, .q_pos = s->q_pos };
}

static void
scene_free(struct scene *s)
{
	side_free(&s->k);
	side_free(&s->v);
	free(s->angles);
	free(s->q);
	kv_angles_free(s->turns);
}

static bool
is_turned(const struct scene *s, size_t j)
{
	return j >= SINKS && j < SINKS + MIDDLE && s->k.seg[1].turned;
}

/* One head of the query at q_src[i], in doubles; its queries are the last m ones. */
static void
naive(const struct scene *s, size_t i, size_t h, const float *q, double *out)
{
	const struct kv_attn *a = &s->a;
	double z[N], sum = 0, top = -INFINITY;
	float k[MAX_D];

	for (size_t j = 0; j < N; j++) {
		z[j] = -INFINITY;
		if (s->src[j] > a->q_src[i] || (a->window && (int64_t)a->q_pos[i] - s->pos[j] >= a->window))
			continue;
		memcpy(k, s->k.whole + j * a->d_k, a->d_k * sizeof *k);
		if (s->angles && !is_turned(s, j))
			kv_rotate(k, a->n_rot, a->neox, s->angles + j * a->n_rot);
		z[j] = 0;
		for (size_t c = 0; c < a->d_k; c++)
			z[j] += (double)q[(i * heads + h) * a->d_k + c] * (double)k[c] * (double)a->scale;
		top = fmax(top, z[j]);
	}
	for (size_t c = 0; c < a->d_v; c++)
		out[c] = 0;
	for (size_t j = 0; j < N; j++)
		sum += exp(z[j] - top);
	for (size_t j = 0; j < N; j++)
		for (size_t c = 0; c < a->d_v; c++)
			out[c] += exp(z[j] - top) / sum * (double)s->v.whole[j * a->d_v + c];
}

static double
largest(const float *x, size_t n)
{
	double most = 1;

	for (size_t i = 0; i < n; i++)
		most = fmax(most, fabs((double)x[i]));
	return most;
}

static double
error_of(const struct scene *s, const struct kv_ops *ops, struct kv_pool *pool, size_t m)
{
	size_t width = heads * s->a.d_v;
	float *out = malloc(3 * width * sizeof *out);
	double want[MAX_D], worst = ops->attend(pool, &s->a, s->q, m, out) ? 0 : INFINITY;

	for (size_t i = 0; i < m; i++)
		for (size_t h = 0; h < heads; h++) {
			naive(s, i, h, s->q, want);
			for (size_t c = 0; c < s->a.d_v; c++) {
				double e = fabs((double)out[i * width + h * s->a.d_v + c] - want[c]);

				worst = isfinite(e) ? fmax(worst, e) : INFINITY;
			}
		}
	free(out);
	return worst / largest(s->v.whole, N * s->a.d_v);
}

/* A plain cache in f32 of what the rows stand for, before RoPE or, where some are turned, with all turned. */
static bool
same_as_plain(const struct scene *s, struct kv_pool *pool, size_t m)
{
	size_t width = heads * s->a.d_v;
	float *got = malloc(m * width * sizeof *got), *want = malloc(m * width * sizeof *want);
	struct scene p = *s;
	bool same;

	p.k.whole = malloc(N * s->a.d_k * sizeof *p.k.whole);
	memcpy(p.k.whole, s->k.whole, N * s->a.d_k * sizeof *p.k.whole);
	for (size_t j = 0; j < N; j++)
		if (s->angles && !is_turned(s, j))
			kv_rotate(p.k.whole + j * s->a.d_k, s->a.n_rot, s->a.neox, s->angles + j * s->a.n_rot);
	p.list = (struct kv_attn_list){ .n = N, .k = p.k.whole, .v = p.v.whole, .k_dtype = F32, .v_dtype = F32, .src = s->src, .pos = s->pos };
	p.a.list = &p.list;
	p.a.n_rot = 0;
	same = kv_ops_generic.attend(pool, &s->a, s->q, m, got) && kv_ops_generic.attend(pool, &p.a, s->q, m, want) &&
		!memcmp(got, want, m * width * sizeof *got);
	free(p.k.whole);
	free(got);
	free(want);
	return same;
}

/* The same bytes with 1, 2 and 4 threads. */
static bool
threads_agree(const struct scene *s, const struct kv_ops *ops)
{
	size_t bytes = heads * s->a.d_v * sizeof(float);
	float *one = malloc(bytes), *more = malloc(bytes);
	bool same = ops->attend(NULL, &s->a, s->q, 1, one);

	for (unsigned n = 2; n <= 4; n += 2) {
		struct kv_pool *pool = kv_pool_new(n);

		same &= ops->attend(pool, &s->a, s->q, 1, more) && !memcmp(one, more, bytes);
		kv_pool_free(pool);
	}
	free(one);
	free(more);
	return same;
}

/* What a batch may be wrong by: tiles round values and weights, integers of sixteen bits are some 2^-16 of the norms of queries and keys off. */
static double
most_error(const struct kv_ops *ops, size_t d_k, size_t d_v)
{
	if (!strcmp(ops->level, "amx") && d_k % 32 == 0 && d_v % 32 == 0)
		return 0x1p-7;
	return strstr("avx512 amx", ops->level) && d_k % 16 == 0 ? 0x1p-11 : 3e-6;
}

static void
test_kind(const struct kind *k, const struct kind *v, size_t d_k, size_t d_v, unsigned n_rot, bool neox, uint32_t window)
{
	const struct kv_ops *ops[KV_N_LEVELS];
	size_t levels = levels_here(ops);
	struct kv_pool *pool = kv_pool_new(2);
	struct scene s;

	scene_make(&s, k, v, d_k, d_v, n_rot, neox, window);
	for (size_t i = 0; i < levels; i++) {
		double one = error_of(&s, ops[i], pool, 1), some = error_of(&s, ops[i], pool, 3);

		ok(one < 3e-6 && some < most_error(ops[i], d_k, d_v) && threads_agree(&s, ops[i]),
			"%s: %s, %s: %zu and %zu channels, %zu heads, %u %s%s (%.1e, %.1e)", ops[i]->level, k->name, v->name, d_k, d_v, heads, n_rot, neox ? "halves" : "neighbours", window ? ", a window" : "", one, some);
	}
	ok(same_as_plain(&s, pool, 1) && same_as_plain(&s, pool, 3), "generic: the bytes of a plain cache");
	scene_free(&s);
	kv_pool_free(pool);
}

int
main(void)
{
	static const struct kind plain = { .name = "f16", .dtype = F16 };
	static const struct kind keys[] = {
		{ .name = "39 channels, turned", .dtype = F16, .kept = 39 },
		{ .name = "38 channels in pairs", .dtype = F16, .kept = 38, .pairs = true },
		{ .name = "40 channels in pairs", .dtype = F16, .kept = 40, .pairs = true },
		{ .name = "2 channels in pairs", .dtype = F16, .kept = 2, .pairs = true },
		{ .name = "1 channel, turned", .dtype = F16, .kept = 1 },
		{ .name = "bf16, 39 channels, turned", .dtype = BF16, .kept = 39 },
		{ .name = "f32, 38 channels in pairs", .dtype = F32, .kept = 38, .pairs = true },
		{ .name = "2 bits", .dtype = CODES, .bits = 2, .scheme = 1, .group = 32 },
		{ .name = "4 bits", .dtype = CODES, .bits = 4, .scheme = 1, .group = 32 },
		{ .name = "8 bits", .dtype = CODES, .bits = 8, .scheme = 1, .group = 16 },
		{ .name = "2 bits, 39 channels, turned", .dtype = CODES, .bits = 2, .scheme = 1, .group = 32, .kept = 39 },
		{ .name = "4 bits, 39 channels, turned", .dtype = CODES, .bits = 4, .scheme = 1, .group = 32, .kept = 39 },
		{ .name = "8 bits, 38 channels in pairs", .dtype = CODES, .bits = 8, .scheme = 1, .group = 32, .kept = 38, .pairs = true },
		{ .name = "4 bits by rows", .dtype = CODES, .bits = 4, .scheme = 2, .group = 16 },
	};
	static const struct kind values[] = {
		{ .name = "2 bits", .dtype = CODES, .bits = 2, .scheme = 2, .group = 32 },
		{ .name = "4 bits", .dtype = CODES, .bits = 4, .scheme = 2, .group = 32 },
		{ .name = "8 bits", .dtype = CODES, .bits = 8, .scheme = 2, .group = 32 },
		{ .name = "4 bits, groups of 8", .dtype = CODES, .bits = 4, .scheme = 2, .group = 8 },
		{ .name = "4 bits, groups of 4", .dtype = CODES, .bits = 4, .scheme = 2, .group = 4 },
		{ .name = "4 bits by channels", .dtype = CODES, .bits = 4, .scheme = 1, .group = 32 },
		{ .name = "39 channels", .dtype = F16, .kept = 39 },
		{ .name = "2 bits, 48 channels", .dtype = CODES, .bits = 2, .scheme = 2, .group = 16, .kept = 48 },
		{ .name = "bf16", .dtype = BF16 },
	};

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		test_kind(&keys[i], &plain, 64, 64, 64, false, 0);
		test_kind(&keys[i], &plain, 64, 64, 64, true, 0);
		test_kind(&keys[i], &plain, 128, 64, 64, i % 2, 0);
		test_kind(&keys[i], &plain, 80, 32, 0, false, 200);
	}
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		test_kind(&plain, &values[i], 64, 64, 64, false, 0);
		test_kind(&keys[i % 14], &values[i], 64, 96, 64, false, 100);
	}
	/* Kernels for one head, two and three; four and what is left. */
	for (size_t i = 7; i < 10; i++)
		for (heads = 1; heads <= 7; heads += 1 + heads / 3)
			for (unsigned neox = 0; neox < 2; neox++)
				test_kind(&keys[i], &values[i - 7], 64, 64, 32, neox, 0);
	return done_testing();
}
