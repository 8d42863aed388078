/* Attention of recorded queries in double precision, by the definition: turn, multiply, cap, exponentiate, divide. */
#include "weights.h"

#include <math.h>

static void
turn(double *x, const struct kvs_geom *g, unsigned rope, int32_t pos)
{
	const struct kvs_rope *r = &g->rope[rope];
	size_t half = r->n_rot / 2;

	for (size_t i = 0; i < half; i++) {
		double *a = &x[r->kind == KVS_ROPE_NEOX ? i : 2 * i], *b = &x[r->kind == KVS_ROPE_NEOX ? i + half : 2 * i + 1];
		double phi = (double)((float)pos * r->inv_freq[i]), was = *a;

		*a = (was * cos(phi) - *b * sin(phi)) * (double)r->magnitude;
		*b = (was * sin(phi) + *b * cos(phi)) * (double)r->magnitude;
	}
}

void
attention_weights(const struct kv_cache *c, unsigned layer, unsigned head, uint32_t w, double *weight)
{
	const struct kvs_geom *g = &c->geom;
	const struct kvs_layer *how = &g->layer[layer];
	const struct kv_list *l = kv_cache_list(c, layer, head / (g->n_heads / g->n_heads_kv));
	const struct kv_queries *q = &c->queries[layer];
	double query[KVS_MAX_DIM], key[KVS_MAX_DIM], total = 0;

	for (uint32_t i = 0; i < g->d_k; i++)
		query[i] = (double)q->q[((size_t)head * q->w + w) * g->d_k + i];
	turn(query, g, how->rope, q->pos[w]);
	for (uint32_t j = 0; j < l->n; j++) {
		float row[KVS_MAX_DIM];
		double s = 0;

		weight[j] = 0;
		if (l->src[j] > q->src[w] || (how->window && (int64_t)q->pos[w] - l->pos[j] >= how->window))
			continue;
		kv_rows_get(&l->k, j, row);
		for (uint32_t i = 0; i < g->d_k; i++)
			key[i] = (double)row[i];
		turn(key, g, how->rope, l->pos[j]);
		for (uint32_t i = 0; i < g->d_k; i++)
			s += query[i] * key[i];
		s *= (double)g->attn_scale;
		if (g->attn_softcap > 0)
			s = (double)g->attn_softcap * tanh(s / (double)g->attn_softcap);
		total += weight[j] = exp(s);
	}
	for (uint32_t j = 0; j < l->n; j++)
		weight[j] /= total;
}
