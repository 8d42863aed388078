/*
 * The forward pass of a decoder-only transformer, one function a layer. m tokens are read at once; H query heads share the K kv heads,
 * D channels a head, E the width of the residual stream, F of the feed-forward network. What is computed is in the comments, how
 * in kernel/ops.h.
 */
#include "model/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/forward_parts.h"
#include "util/mem.h"

enum kv_status
kv_engine_new(const struct kv_model *m, const struct kv_ops *ops, struct kv_pool *pool, struct kv_engine **out, struct kv_err *err)
{
	struct kv_engine *e = kv_array_new(1, sizeof *e);

	if (e) {
		e->m = m;
		e->ops = ops;
		e->pool = pool;
		e->key = kv_array_new(m->geom.n_heads_kv, sizeof *e->key);
		e->list = kv_array_new(m->geom.n_heads_kv, sizeof *e->list);
		e->received = kv_array_new(m->geom.n_heads_kv, sizeof *e->received);
	}
	if (!e || !e->key || !e->list || !e->received) {
		kv_engine_free(e);
		return kv_fail_mem(err, "the forward pass");
	}
	*out = e;
	return KV_OK;
}

static void
turned_free(struct turned *t)
{
	kv_block_free(t->pos);
	kv_block_free(t->cs);
	*t = (struct turned){ 0 };
}

static void
free_batch(struct kv_engine *e)
{
	float **buffer[] = { &e->x, &e->h, &e->q, &e->k, &e->v, &e->o, &e->gate, &e->up };

	for (size_t i = 0; i < sizeof buffer / sizeof *buffer; i++) {
		kv_block_free(*buffer[i]);
		*buffer[i] = NULL;
	}
	kv_block_free(e->src);
	e->src = NULL;
	e->room = 0;
}

void
kv_engine_free(struct kv_engine *e)
{
	if (!e)
		return;
	for (size_t i = 0; i < KVS_MAX_ROPE; i++)
		kv_angles_free(e->angles[i]);
	for (size_t h = 0; e->key && h < e->m->geom.n_heads_kv; h++)
		turned_free(&e->key[h]);
	turned_free(&e->query);
	free_batch(e);
	kv_block_free(e->logits);
	kv_block_free(e->sums);
	free(e->key);
	free(e->segment);
	free(e->list);
	free(e->received);
	free(e);
}

static enum kv_status
make_room(struct kv_engine *e, size_t m, struct kv_err *err)
{
	const struct kvs_geom *g = &e->m->geom;
	size_t heads_k = (size_t)g->n_heads * g->d_k, heads_v = (size_t)g->n_heads * g->d_v;

	if (m <= e->room)
		return KV_OK;
	free_batch(e);
	e->x = kv_block_new(m, g->n_embd * sizeof *e->x);
	e->h = kv_block_new(m, g->n_embd * sizeof *e->h);
	e->q = kv_block_new(m, heads_k * sizeof *e->q);
	e->k = kv_block_new(m, heads_k * sizeof *e->k);
	e->v = kv_block_new(m, heads_v * sizeof *e->v);
	e->o = kv_block_new(m, heads_v * sizeof *e->o);
	e->gate = kv_block_new(m, e->m->n_ff * sizeof *e->gate);
	e->up = kv_block_new(m, e->m->n_ff * sizeof *e->up);
	e->src = kv_block_new(m, sizeof *e->src);
	if (!e->x || !e->h || !e->q || !e->k || !e->v || !e->o || !e->gate || !e->up || !e->src) {
		free_batch(e);
		return kv_fail_mem(err, "a batch of the forward pass");
	}
	e->room = m;
	return KV_OK;
}

static enum kv_status
no_scratch(struct kv_err *err)
{
	return kv_fail_mem(err, "scratch space of the forward pass");
}

/* The cache's own tables of frequencies count, not the model's. */
static enum kv_status
use_frequencies(struct kv_engine *e, const struct kvs_geom *g, struct kv_err *err)
{
	for (uint32_t i = 0; i < g->n_rope; i++) {
		const struct kvs_rope *r = &g->rope[i];

		if (e->angles[i] && e->rope[i].n_rot == r->n_rot && e->rope[i].magnitude == r->magnitude &&
			!memcmp(e->rope[i].inv_freq, r->inv_freq, r->n_rot / 2 * sizeof *r->inv_freq))
			continue;
		kv_angles_free(e->angles[i]);
		if (!(e->angles[i] = kv_angles_new(r->n_rot, r->inv_freq, r->magnitude)))
			return kv_fail_mem(err, "rotation angles");
		e->rope[i] = *r;
		e->query.n = 0;
		for (uint32_t h = 0; h < g->n_heads_kv; h++)
			e->key[h].n = 0;
	}
	return KV_OK;
}

static bool
turned_fits(const struct turned *t, unsigned rope, const int32_t *pos, size_t n)
{
	return t->rope == rope && t->n == n && !memcmp(t->pos, pos, n * sizeof *pos);
}

/* Angles of pos[0..n). What t holds already, at the front, is not asked for again. */
static enum kv_status
turn(struct kv_engine *e, struct turned *t, unsigned rope, const int32_t *pos, size_t n, struct kv_err *err)
{
	size_t width = e->rope[rope].n_rot, known = 0;

	if (n > t->cap || t->rope != rope) {
		size_t cap = n + n / 4;

		turned_free(t);
		t->pos = kv_block_new(cap, sizeof *t->pos);
		t->cs = kv_block_new(cap, width * sizeof *t->cs);
		if (!t->pos || !t->cs) {
			turned_free(t);
			return kv_fail_mem(err, "rotation angles");
		}
		t->cap = cap;
		t->rope = rope;
	}
	if (t->n <= n && (!t->n || !memcmp(t->pos, pos, t->n * sizeof *pos)))
		known = t->n;
	kv_angles_get(e->angles[rope], pos + known, n - known, t->cs + known * width);
	memcpy(t->pos + known, pos + known, (n - known) * sizeof *pos);
	t->n = n;
	return KV_OK;
}

/* Angles of the entries of kv head h; heads whose entries stand at the same positions share them. */
static enum kv_status
key_angles(struct kv_engine *e, unsigned rope, const struct kv_list *l, unsigned h, const float **out, struct kv_err *err)
{
	enum kv_status rc;

	for (unsigned other = 0; other <= h; other++)
		if (turned_fits(&e->key[other], rope, l->pos, l->n)) {
			*out = e->key[other].cs;
			return KV_OK;
		}
	if ((rc = turn(e, &e->key[h], rope, l->pos, l->n, err)) == KV_OK)
		*out = e->key[h].cs;
	return rc;
}

/* y [m][w->n_out] = x w^T + bias */
static bool
project(const struct kv_engine *e, const struct kv_weight *w, const float *bias, const float *x, size_t m, float *y)
{
	if (!e->ops->matmul(e->pool, w, x, m, y, false))
		return false;
	if (bias)
		e->ops->add_bias(y, bias, m, w->n_out);
	return true;
}

/* x [m][E] += y w^T + bias */
static bool
add_back(const struct kv_engine *e, const struct kv_weight *w, const float *bias, const float *y, size_t m)
{
	if (!e->ops->matmul(e->pool, w, y, m, e->x, true))
		return false;
	if (bias)
		e->ops->add_bias(e->x, bias, m, w->n_out);
	return true;
}

/* The new rows of k and v, rounded to the cache's type: from here on only the rounded ones are used. */
static enum kv_status
append(const struct kv_engine *e, struct kv_cache *c, unsigned layer, size_t m, struct kv_err *err)
{
	const struct kvs_geom *g = &c->geom;
	size_t row_k = (size_t)g->n_heads_kv * g->d_k, row_v = (size_t)g->n_heads_kv * g->d_v;

	for (uint32_t h = 0; h < g->n_heads_kv; h++) {
		struct kv_list *l = kv_cache_list(c, layer, h);
		uint32_t first = l->n - (uint32_t)m;
		enum kv_status rc;

		if ((rc = kv_rows_put(&l->k, first, (uint32_t)m, e->k + h * g->d_k, row_k, err)) != KV_OK ||
			(rc = kv_rows_put(&l->v, first, (uint32_t)m, e->v + h * g->d_v, row_v, err)) != KV_OK) {
			kv_err_in(err, "layer %u head %u", layer, h);
			return rc;
		}
	}
	return KV_OK;
}

/* o = softmax(scale rope(q) rope(K)^T) V over what each query may see of its kv head's entries */
static enum kv_status
attend(struct kv_engine *e, struct kv_cache *c, unsigned layer, size_t m, const int32_t *pos, const struct kv_observe *see,
	struct kv_err *err)
{
	const struct kvs_geom *g = &c->geom;
	const struct kvs_layer *how = &g->layer[layer];
	bool record = see->received || e->by_head;
	struct kv_attn a = {
		.heads = g->n_heads, .kv_heads = g->n_heads_kv, .d_k = g->d_k, .d_v = g->d_v, .scale = g->attn_scale,
		.softcap = g->attn_softcap, .window = how->window, .list = e->list, .q_src = e->src, .q_pos = pos,
	};
	enum kv_status rc;

	if (how->rope != KVS_NO_ROPE) {
		a.n_rot = g->rope[how->rope].n_rot;
		a.neox = g->rope[how->rope].kind == KVS_ROPE_NEOX;
		if ((rc = turn(e, &e->query, how->rope, pos, m, err)) != KV_OK)
			return rc;
		e->ops->rope(e->pool, e->q, m, g->n_heads, g->d_k, a.n_rot, a.neox, e->query.cs);
	}
	if ((rc = kv_lists_offer(e, c, layer, err)) != KV_OK)
		return rc;
	for (uint32_t h = 0; h < g->n_heads_kv; h++) {
		const struct kv_list *l = kv_cache_list(c, layer, h);

		if (how->rope != KVS_NO_ROPE && (rc = key_angles(e, how->rope, l, h, &e->list[h].angles, err)) != KV_OK)
			return rc;
	}
	if (record && (rc = kv_received_begin(e, c, layer, see->received, err)) != KV_OK)
		return rc;
	a.received = record ? e->received : NULL;
	if (!e->ops->attend(e->pool, &a, e->q, m, e->o))
		return no_scratch(err);
	return record ? kv_received_end(e, c, layer, m, see->received, err) : KV_OK;
}

/*
 *	q, k, v = Wq n + bq, Wk n + bk, Wv n + bv	n = rms(x); qwen3: q and k normed head by head
 *	x += Wo attend(q, K, V) + bo			K, V with k, v appended
 */
static enum kv_status
attention(struct kv_engine *e, struct kv_cache *c, unsigned layer, size_t m, const int32_t *pos, const struct kv_observe *see,
	struct kv_err *err)
{
	const struct kvs_geom *g = &c->geom;
	const struct kv_block *b = &e->m->block[layer];
	const struct kv_ops *ops = e->ops;
	float eps = e->m->eps;
	enum kv_status rc;

	ops->rmsnorm(e->pool, e->x, b->attn_norm, eps, m, g->n_embd, g->n_embd, e->h);
	if (!project(e, &b->q, b->q_bias, e->h, m, e->q) || !project(e, &b->k, b->k_bias, e->h, m, e->k) ||
		!project(e, &b->v, b->v_bias, e->h, m, e->v))
		return no_scratch(err);
	if (b->q_norm)
		ops->rmsnorm(e->pool, e->q, b->q_norm, eps, m * g->n_heads, g->d_k, g->d_k, e->q);
	if (b->k_norm)
		ops->rmsnorm(e->pool, e->k, b->k_norm, eps, m * g->n_heads_kv, g->d_k, g->d_k, e->k);
	if ((rc = append(e, c, layer, m, err)) != KV_OK)
		return rc;
	if (see->last && (rc = kv_queries_add(c, layer, see->last, (uint32_t)m, e->src[0], pos[0], e->q, err)) != KV_OK)
		return rc;
	if ((rc = attend(e, c, layer, m, pos, see, err)) != KV_OK)
		return rc;
	return add_back(e, &b->o, b->o_bias, e->o, m) ? KV_OK : no_scratch(err);
}

/* x += Wdown (act(Wgate n) * Wup n)		n = rms(x) */
static enum kv_status
feed_forward(struct kv_engine *e, unsigned layer, size_t m, struct kv_err *err)
{
	const struct kv_model *model = e->m;
	const struct kv_block *b = &model->block[layer];

	e->ops->rmsnorm(e->pool, e->x, b->ffn_norm, model->eps, m, model->geom.n_embd, model->geom.n_embd, e->h);
	if (!project(e, &b->gate, b->gate_bias, e->h, m, e->gate) || !project(e, &b->up, b->up_bias, e->h, m, e->up))
		return no_scratch(err);
	e->ops->activate(e->pool, model->activation, e->gate, e->up, m * model->n_ff);
	return add_back(e, &b->down, b->down_bias, e->gate, m) ? KV_OK : no_scratch(err);
}

bool
kv_unembed(const struct kv_engine *e, const float *hidden, size_t m, float *logits)
{
	float cap = e->m->geom.final_softcap;

	if (!project(e, &e->m->output, NULL, hidden, m, logits))
		return false;
	for (size_t i = 0; cap > 0 && i < m * e->m->geom.n_vocab; i++)
		logits[i] = cap * tanhf(logits[i] / cap);
	return true;
}

enum kv_status
kv_logits(struct kv_engine *e, const float *hidden, float *logits, struct kv_err *err)
{
	return kv_unembed(e, hidden, 1, logits) ? KV_OK : no_scratch(err);
}

/* The final norm, and what is kept of it. */
static enum kv_status
finish(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, const struct kv_observe *see, struct kv_err *err)
{
	size_t d = e->m->geom.n_embd, first = see->nll ? 0 : m - 1;
	enum kv_status rc;

	e->ops->rmsnorm(e->pool, e->x + first * d, e->m->output_norm, e->m->eps, m - first, d, d, e->h + first * d);
	if ((rc = kv_cache_add_tokens(c, ids, (uint32_t)m, err)) != KV_OK)
		return rc;
	if (see->nll && (rc = kv_observe_nll(e, c, ids, m, err)) != KV_OK)
		return rc;
	if (!c->hidden && !(c->hidden = kv_array_new(d, sizeof *c->hidden)))
		return kv_fail_mem(err, "the last hidden state");
	memcpy(c->hidden, e->h + (m - 1) * d, d * sizeof *c->hidden);
	return KV_OK;
}

/* Sizes that the buffers and loops above rely on. Whether it is the same model is the caller's question. */
static enum kv_status
check(const struct kv_engine *e, const struct kv_cache *c, const uint32_t *ids, size_t m, struct kv_err *err)
{
	const struct kvs_geom *a = &e->m->geom, *b = &c->geom;

	if (a->n_layers != b->n_layers || a->n_heads != b->n_heads || a->n_heads_kv != b->n_heads_kv || a->d_k != b->d_k ||
		a->d_v != b->d_v || a->n_embd != b->n_embd || a->n_vocab != b->n_vocab || !b->n_rope)
		return kv_fail(err, KV_EFIT, "the cache is of a model of another shape");
	if (m > UINT32_MAX)
		return kv_fail(err, KV_EFIT, "a batch of %zu tokens is too long", m);
	for (size_t i = 0; i < m; i++)
		if (ids[i] >= a->n_vocab)
			return kv_fail(err, KV_EFIT, "token id %u is beyond the model's %u", ids[i], a->n_vocab);
	return KV_OK;
}

enum kv_status
kv_forward_layers(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, const struct kv_observe *see, struct kv_err *err)
{
	uint32_t src = (uint32_t)c->state.consumed;
	const int32_t *pos;
	enum kv_status rc;

	if ((rc = check(e, c, ids, m, err)) != KV_OK || (rc = use_frequencies(e, &c->geom, err)) != KV_OK ||
		(rc = kv_lists_ready(e, c, err)) != KV_OK || (rc = make_room(e, m, err)) != KV_OK ||
		(rc = kv_cache_extend(c, (uint32_t)m, err)) != KV_OK)
		return rc;
	for (size_t i = 0; i < m; i++)
		e->src[i] = src + (uint32_t)i;
	pos = c->list[0].pos + c->list[0].n - m;	/* the new entries stand at the same positions in every list */
	e->ops->embed(e->pool, &e->m->embd, ids, m, e->x);
	for (unsigned layer = 0; layer < c->geom.n_layers; layer++)
		if ((rc = attention(e, c, layer, m, pos, see, err)) != KV_OK || (rc = feed_forward(e, layer, m, err)) != KV_OK)
			return rc;
	return KV_OK;
}

/* The record that this pass adds to; NULL: none, or nothing was there to be seen. */
static struct kv_sums *
chunk_sums(struct kv_cache *c, const struct kv_observe *see)
{
	struct kv_sums *s = &c->sums[KV_SUMS_CHUNK];
	size_t n = (size_t)c->geom.n_layers * c->geom.n_heads_kv;

	for (size_t i = 0; see->chunk && s->there && i < n; i++)
		if (s->list[i].cols)
			return s;
	return NULL;
}

enum kv_status
kv_forward(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, const struct kv_observe *see, struct kv_err *err)
{
	static const struct kv_observe nothing;
	bool alone = !c->reading;
	enum kv_status rc = KV_OK;

	if (!m)
		return KV_OK;
	if (!see)
		see = &nothing;
	if (alone) {
		kv_cache_begin_round(c);
		if (see->chunk)
			rc = kv_cache_new_sums(c, KV_SUMS_CHUNK, (uint32_t)m, (uint32_t)c->state.consumed, err);
	}
	e->by_head = chunk_sums(c, see);
	if (rc == KV_OK && (rc = kv_forward_layers(e, c, ids, m, see, err)) == KV_OK)
		rc = finish(e, c, ids, m, see, err);
	e->by_head = NULL;
	if (alone)
		kv_cache_end_round(c, (uint32_t)m);
	return rc;
}
