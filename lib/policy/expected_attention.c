/*
 * Expected attention: what queries to come would pay if they were drawn from a normal distribution with the mean and covariance of the
 * recorded ones, times the norm of the value (Devoto et al. 2510.00636, as in kvpress). On turned keys.
 */
#include <math.h>
#include <stdlib.h>

#include "kernel/rope.h"
#include "policy/policy.h"
#include "util/mem.h"

struct work {
	uint32_t d;
	float *turn;		/* [n_rot] mean cosines and sines of the positions to come; NULL without RoPE */
	double *mean, *moved;	/* [d] mean query; it or a query less it, turned */
	double *cov;		/* [d][d] */
	float *x, *mean_f, *cov_f;	/* [d], [d], [d][d] as they meet the keys */
	double *z;		/* [n] */
};

static void
work_free(struct work *w)
{
	free(w->turn);
	free(w->mean);
	free(w->moved);
	free(w->cov);
	free(w->x);
	free(w->mean_f);
	free(w->cov_f);
	free(w->z);
}

/* The mean of the rotations at the next `future` positions: pairs of cosines and sines, like one rotation. */
static enum kv_status
mean_turn(const struct kv_cache *c, unsigned layer, int64_t future, float **out, struct kv_err *err)
{
	const struct kvs_rope *r = &c->geom.rope[c->geom.layer[layer].rope];
	struct kv_angles *a = kv_angles_new(r->n_rot, r->inv_freq, r->magnitude);
	float *cs = kv_array_new(r->n_rot, sizeof *cs), *one = kv_array_new(r->n_rot, sizeof *one);
	double *sum = kv_array_new(r->n_rot, sizeof *sum);
	bool good = a && cs && one && sum;

	for (int64_t f = 0; good && f < future; f++) {
		int32_t pos = (int32_t)(c->state.next_pos + f);

		kv_angles_get(a, &pos, 1, one);
		for (unsigned i = 0; i < r->n_rot; i++)
			sum[i] += (double)one[i];
	}
	for (unsigned i = 0; good && i < r->n_rot; i++)
		cs[i] = (float)(sum[i] / (double)future);
	kv_angles_free(a);
	free(one);
	free(sum);
	if (!good) {
		free(cs);
		return kv_fail_mem(err, "angles");
	}
	*out = cs;
	return KV_OK;
}

static void
turn(const struct kv_cache *c, unsigned layer, const struct work *w, double *x)
{
	const struct kvs_rope *r;

	if (!w->turn)
		return;
	r = &c->geom.rope[c->geom.layer[layer].rope];
	for (unsigned i = 0; i < r->n_rot / 2; i++) {
		unsigned u = r->kind == KVS_ROPE_NEOX ? i : 2 * i, v = r->kind == KVS_ROPE_NEOX ? i + r->n_rot / 2 : 2 * i + 1;
		double cosine = (double)w->turn[2 * i], sine = (double)w->turn[2 * i + 1], a = x[u], b = x[v];

		x[u] = a * cosine - b * sine;
		x[v] = b * cosine + a * sine;
	}
}

/*
 * Mean and covariance (divided by the count) of the turned queries of one head, those of the first tokens left out: turning them and
 * then taking the moments is turning the moments.
 */
static bool
moments(const struct kv_scene *s, unsigned layer, unsigned q_head, struct work *w)
{
	const struct kv_queries *rec = &s->cache->queries[layer];
	uint32_t d = w->d, from = rec->w - kv_voters(s->opts, rec), n;
	const float *q = rec->q + (size_t)q_head * rec->w * d;	/* [w][d] */

	while (from < rec->w && rec->src[from] < s->opts->sinks)
		from++;
	if (!(n = rec->w - from))
		return false;
	for (uint32_t i = 0; i < d; i++) {
		w->mean[i] = 0;
		for (uint32_t r = from; r < rec->w; r++)
			w->mean[i] += (double)q[(size_t)r * d + i];
		w->mean[i] /= n;
	}
	for (size_t i = 0; i < (size_t)d * d; i++)
		w->cov[i] = 0;
	for (uint32_t r = from; r < rec->w; r++) {
		for (uint32_t i = 0; i < d; i++)
			w->moved[i] = (double)q[(size_t)r * d + i] - w->mean[i];
		turn(s->cache, layer, w, w->moved);
		for (uint32_t i = 0; i < d; i++)
			for (uint32_t j = 0; j <= i; j++)
				w->cov[(size_t)i * d + j] += w->moved[i] * w->moved[j];
	}
	turn(s->cache, layer, w, w->mean);
	for (uint32_t i = 0; i < d; i++) {
		w->mean_f[i] = (float)w->mean[i];
		for (uint32_t j = 0; j <= i; j++)
			w->cov_f[(size_t)i * d + j] = w->cov_f[(size_t)j * d + i] = (float)(w->cov[(size_t)i * d + j] / n);
	}
	return true;
}

/* Logarithm of the expected weight of a key: mean . k scale + k cov k scale^2 / 2 */
static double
log_weight(const struct work *w, const float *key, double scale)
{
	uint32_t d = w->d;
	double linear = 0, square = 0;

	for (uint32_t i = 0; i < d; i++)
		w->x[i] = 0;
	for (uint32_t j = 0; j < d; j++)
		for (uint32_t i = 0; i < d; i++)
			w->x[i] += w->cov_f[(size_t)j * d + i] * key[j];
	for (uint32_t i = 0; i < d; i++) {
		linear += (double)w->mean_f[i] * (double)key[i];
		square += (double)w->x[i] * (double)key[i];
	}
	return scale * linear + scale * scale * square / 2;
}

/* out += softmax over the entries behind the sinks of one head's expected weights. */
static void
add_head(const struct kv_scene *s, const float *keys, uint32_t sinks, uint32_t n, const struct work *w, double *out)
{
	double most = -INFINITY, sum = 0;

	for (uint32_t r = sinks; r < n; r++) {
		w->z[r] = log_weight(w, keys + (size_t)r * w->d, (double)s->cache->geom.attn_scale);
		most = w->z[r] > most || isnan(w->z[r]) ? w->z[r] : most;
	}
	for (uint32_t r = sinks; r < n; r++)
		sum += w->z[r] = exp(w->z[r] - most);
	for (uint32_t r = sinks; r < n; r++)
		out[r] += w->z[r] / sum;
}

static enum kv_status
times_value_norms(const struct kv_cache *c, const struct kv_list *l, unsigned group, double eps, double *out, struct kv_err *err)
{
	uint32_t d = c->geom.d_v;
	float *v = kv_array_new(d, sizeof *v);

	if (!v)
		return kv_fail_mem(err, "a value");
	for (uint32_t r = 0; r < l->n; r++) {
		double squares = 0;

		kv_rows_get(&l->v, r, v);
		for (uint32_t i = 0; i < d; i++)
			squares += (double)v[i] * (double)v[i];
		out[r] = (out[r] / group + eps) * sqrt(squares);
	}
	free(v);
	return KV_OK;
}

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	const struct kv_list *l = kv_cache_list(c, layer, head);
	unsigned group = c->geom.n_heads / c->geom.n_heads_kv;
	uint32_t d = c->geom.d_k, sinks = s->opts->sinks < l->n ? (uint32_t)s->opts->sinks : l->n;
	struct work w = { d, NULL, kv_array_new(d, sizeof *w.mean), kv_array_new(d, sizeof *w.moved), kv_array_new((size_t)d * d, sizeof *w.cov),
		kv_array_new(d, sizeof *w.x), kv_array_new(d, sizeof *w.mean_f), kv_array_new((size_t)d * d, sizeof *w.cov_f),
		kv_array_new(l->n, sizeof *w.z) };
	float *keys = NULL;
	enum kv_status rc;

	for (uint32_t i = 0; i < l->n; i++)
		out[i] = 0;
	if (!w.mean || !w.moved || !w.cov || !w.x || !w.mean_f || !w.cov_f || !w.z) {
		rc = kv_fail_mem(err, "moments");
		goto out;
	}
	if (c->geom.layer[layer].rope != KVS_NO_ROPE && (rc = mean_turn(c, layer, s->opts->future, &w.turn, err)) != KV_OK)
		goto out;
	if ((rc = kv_keys_turned(c, s->turns, layer, head, &keys, err)) != KV_OK)
		goto out;
	for (unsigned g = 0; g < group; g++)
		if (moments(s, layer, head * group + g, &w))
			add_head(s, keys, sinks, l->n, &w, out);
	rc = times_value_norms(c, l, group, s->opts->eps, out, err);
out:
	kv_block_free(keys);
	work_free(&w);
	return rc;
}

const struct kv_policy kv_policy_expected_attention = {
	.name = "expected-attention",
	.cite = "Devoto et al. 2025, arXiv:2510.00636",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_LAST | KV_TAKES_FUTURE | KV_TAKES_EPS,
	.needs = KV_NEEDS_LAST,
	.reads = KV_READS_K | KV_READS_V | KV_READS_TURNS,
	.record = 512,
	.defaults = { .scope = KV_SCOPE_HEAD, .sinks = 4, .last = KV_LAST_ALL, .future = 512 },
	.score = score,
};
