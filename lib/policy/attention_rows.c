/* Attention rows recomputed from keys and queries before RoPE. */
#include <stdlib.h>
#include <string.h>

#include "cache/segments.h"
#include "kernel/attend.h"
#include "kernel/products.h"
#include "kernel/quant.h"
#include "kernel/rope.h"
#include "policy/rows.h"
#include "util/mem.h"

/* The positions in use under one set of frequencies. */
struct turn_set {
	size_t n;
	int32_t *pos;		/* [n] ascending */
	float *cs;		/* a block [n][n_rot/2][2] */
	unsigned n_rot;
};

struct kv_turns {
	struct turn_set set[KVS_MAX_ROPE];
};

static int
by_value(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;

	return (x > y) - (x < y);
}

/* Merges the ascending more[0..n) into the set. */
static bool
add_positions(struct turn_set *s, const int32_t *more, size_t n)
{
	int32_t *all;
	size_t i = 0, j = 0, k = 0;

	if (s->n == n && (!n || !memcmp(s->pos, more, n * sizeof *more)))
		return true;	/* lists that nobody has cut are all the same */
	if (!(all = kv_array_new(s->n + n, sizeof *all)))
		return false;
	while (i < s->n || j < n) {
		int32_t next = j == n || (i < s->n && s->pos[i] <= more[j]) ? s->pos[i] : more[j];

		i += i < s->n && s->pos[i] == next;
		j += j < n && more[j] == next;
		all[k++] = next;
	}
	free(s->pos);
	s->pos = all;
	s->n = k;
	return true;
}

static bool
collect(struct kv_turns *t, const struct kv_cache *c)
{
	const struct kvs_geom *g = &c->geom;

	for (unsigned l = 0; l < g->n_layers; l++) {
		struct turn_set *s;

		if (g->layer[l].rope == KVS_NO_ROPE)
			continue;
		s = &t->set[g->layer[l].rope];
		for (unsigned h = 0; h < g->n_heads_kv; h++) {
			const struct kv_list *list = kv_cache_list(c, l, h);

			if (!add_positions(s, list->pos, list->n))
				return false;
		}
	}
	for (unsigned l = 0; l < g->n_layers; l++)
		if (g->layer[l].rope != KVS_NO_ROPE && !add_positions(&t->set[g->layer[l].rope], c->queries[l].pos, c->queries[l].w))
			return false;
	return true;
}

static bool
compute(struct turn_set *s, const struct kvs_rope *r)
{
	struct kv_angles *a;

	if (!s->n)
		return true;
	s->n_rot = r->n_rot;
	s->cs = kv_block_new(s->n, r->n_rot * sizeof *s->cs);
	if (!s->cs || !(a = kv_angles_new(r->n_rot, r->inv_freq, r->magnitude)))
		return false;
	kv_angles_get(a, s->pos, s->n, s->cs);
	kv_angles_free(a);
	return true;
}

enum kv_status
kv_turns_new(const struct kv_cache *c, struct kv_turns **out, struct kv_err *err)
{
	struct kv_turns *t = kv_array_new(1, sizeof *t);
	bool good = t && collect(t, c);

	for (uint32_t i = 0; good && i < c->geom.n_rope; i++)
		good = compute(&t->set[i], &c->geom.rope[i]);
	if (!good) {
		kv_turns_free(t);
		return kv_fail_mem(err, "angles");
	}
	*out = t;
	return KV_OK;
}

void
kv_turns_free(struct kv_turns *t)
{
	for (unsigned i = 0; t && i < KVS_MAX_ROPE; i++) {
		free(t->set[i].pos);
		kv_block_free(t->set[i].cs);
	}
	free(t);
}

static const float *
turn_of(const struct turn_set *s, int32_t pos)
{
	const int32_t *p = bsearch(&pos, s->pos, s->n, sizeof *s->pos, by_value);

	return s->cs + (size_t)(p - s->pos) * s->n_rot;
}

void
kv_turn(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, int32_t pos, float *x)
{
	unsigned rope = c->geom.layer[layer].rope;

	if (rope != KVS_NO_ROPE)
		kv_rotate(x, t->set[rope].n_rot, c->geom.rope[rope].kind == KVS_ROPE_NEOX, turn_of(&t->set[rope], pos));
}

void
kv_turn_back(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, int32_t pos, float *x)
{
	unsigned rope = c->geom.layer[layer].rope;
	float back[KVS_MAX_DIM], m;
	const float *cs;

	if (rope == KVS_NO_ROPE)
		return;
	m = c->geom.rope[rope].magnitude * c->geom.rope[rope].magnitude;
	cs = turn_of(&t->set[rope], pos);
	for (unsigned i = 0; i < t->set[rope].n_rot; i++)
		back[i] = (i % 2 ? -cs[i] : cs[i]) / m;
	kv_rotate(x, t->set[rope].n_rot, c->geom.rope[rope].kind == KVS_ROPE_NEOX, back);
}

/* Rows behind the segments, as f32 in their places. */
static void
plain_rows(const struct kv_rows *r, uint32_t n, float *out)
{
	static const uint32_t type[] = { [KVS_F32] = KV_W_F32, [KVS_F16] = KV_W_F16, [KVS_BF16] = KV_W_BF16 };

	if (n > r->front)
		kv_dequant(type[r->dtype], r->data, (size_t)(n - r->front) * r->width, out + (size_t)r->front * r->width);
}

/* Turns all keys that are not turned yet. Positions ascend in the list and in the set: one walk through both. */
static void
turn_rows(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, const struct kv_list *l, float *keys)
{
	unsigned rope = c->geom.layer[layer].rope;
	const struct turn_set *s;
	size_t at = 0;

	if (rope == KVS_NO_ROPE)
		return;
	s = &t->set[rope];
	for (uint32_t r = 0; r < l->n; r++) {
		while (s->pos[at] < l->pos[r])
			at++;
		if (r >= l->k.front || !kv_rows_rotated(&l->k, r))
			kv_rotate(keys + (size_t)r * l->k.width, s->n_rot, c->geom.rope[rope].kind == KVS_ROPE_NEOX, s->cs + at * s->n_rot);
	}
}

enum kv_status
kv_keys_turned(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, unsigned head, float **out, struct kv_err *err)
{
	const struct kv_list *l = kv_cache_list(c, layer, head);
	size_t d = c->geom.d_k;
	float *keys = kv_block_new(l->n, d * sizeof *keys);

	if (!keys)
		return kv_fail_mem(err, "keys");
	for (uint32_t r = 0; r < l->k.front; r++)
		kv_rows_get(&l->k, r, keys + r * d);
	plain_rows(&l->k, l->n, keys);
	turn_rows(c, t, layer, l, keys);
	*out = keys;
	return KV_OK;
}

/* The entries [*from, *to) that a query sees. */
static void
visible(const struct kv_list *l, uint32_t src, int32_t pos, uint32_t window, uint32_t *from, uint32_t *to)
{
	*from = 0;
	*to = l->n;
	while (*to && l->src[*to - 1] > src)
		(*to)--;
	while (window && *from < *to && (int64_t)pos - l->pos[*from] >= (int64_t)window)
		(*from)++;
}

/* Scaled products become the weights of a softmax over [from, to), 0 elsewhere. */
static void
soften(const struct kvs_geom *g, float *row, uint32_t n, uint32_t from, uint32_t to)
{
	double sum;

	memset(row, 0, from * sizeof *row);
	memset(row + to, 0, (n - to) * sizeof *row);
	if (g->attn_softcap > 0)
		kv_attn_soft_cap(row + from, to - from, g->attn_softcap);
	sum = kv_attn_exp(row + from, to - from, kv_attn_top(row + from, to - from));
	/* Not a number must stay one: it is reported where scores are compared. */
	for (uint32_t r = from; r < to; r++)
		row[r] = (float)((double)row[r] / sum);
}

enum kv_status
kv_attention_rows(const struct kv_cache *c, const struct kv_turns *t, unsigned layer, unsigned q_head, uint32_t w, uint32_t m,
	const float *keys_turned, float *rows, struct kv_err *err)
{
	const struct kvs_geom *g = &c->geom;
	const struct kv_queries *rec = &c->queries[layer];
	const struct kv_list *l = kv_cache_list(c, layer, q_head / (g->n_heads / g->n_heads_kv));
	float *q = kv_array_new((size_t)m * g->d_k, sizeof *q);
	bool done = q != NULL;

	for (uint32_t i = 0; done && i < m; i++) {
		memcpy(q + (size_t)i * g->d_k, rec->q + ((size_t)q_head * rec->w + w + i) * g->d_k, g->d_k * sizeof *q);
		kv_turn(c, t, layer, rec->pos[w + i], q + (size_t)i * g->d_k);
	}
	if (done && m == 1)
		kv_product(q, keys_turned, l->n, g->d_k, g->attn_scale, rows);
	else
		done = done && kv_products(q, m, keys_turned, l->n, g->d_k, g->attn_scale, rows, l->n);
	free(q);
	if (!done)
		return kv_fail_mem(err, "rows of attention");
	for (uint32_t i = 0; i < m; i++) {
		uint32_t from, to;

		visible(l, rec->src[w + i], rec->pos[w + i], g->layer[layer].window, &from, &to);
		soften(g, rows + (size_t)i * l->n, l->n, from, to);
	}
	return KV_OK;
}
