/* What pruning did: the error of what is missing, for the queries on record; lines for people, figures for the provenance. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policy/channel_view.h"
#include "policy/policy.h"
#include "stage/prune.h"

enum { MOST_LISTS = 16384 };	/* whose figures fit into a provenance record */

/* Sum over the queries of (q . x)^2. */
static double
seen(const struct kv_group_queries *q, const float *x, unsigned d)
{
	double sum = 0;

	for (size_t i = 0; i < q->n; i++) {
		double z = 0;

		for (unsigned j = 0; j < d; j++)
			z += (double)q->q[i * d + j] * (double)x[j];
		sum += z * z;
	}
	return sum;
}

/* x [d]: a key before RoPE becomes what its map misses of it, 0 in the channels that stay. */
static void
missed(const struct kv_mask *m, unsigned dtype, float *x)
{
	float kept[KVS_MAX_DIM], back[KVS_MAX_DIM];

	for (uint32_t i = 0; i < m->n_kept; i++)
		kept[i] = x[m->channel[i]];
	kv_mask_widen(m, dtype, kept, back);
	for (uint32_t j = 0; j < m->d; j++)
		x[j] -= back[j];
}

static enum kv_status
measure_keys(const struct prune_scene *s, size_t list, struct prune_plan *p, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	unsigned d = c->geom.d_k, layer = (unsigned)(list / c->geom.n_heads_kv), head = (unsigned)(list % c->geom.n_heads_kv);
	const struct kv_list *l = &c->list[list];
	double all = 0, zeros = 0, rebuilt = 0;
	struct kv_group_queries q;
	float *keys, x[KVS_MAX_DIM];
	enum kv_status rc;

	if ((rc = kv_group_queries_get(c, s->turns, layer, head, (uint32_t)s->how->last, &q, err)) != KV_OK)
		return rc;
	if ((rc = kv_keys_turned(c, s->turns, layer, head, &keys, err)) != KV_OK) {
		kv_block_free(q.q);
		return rc;
	}
	for (uint32_t r = p->from; r < p->to; r++) {
		float *key = keys + (size_t)r * d;

		all += seen(&q, key, d);
		for (unsigned j = 0; j < d; j++)
			key[j] = kv_mask_has(p->mask, j) ? 0 : key[j];
		zeros += seen(&q, key, d);
		if (!p->mask->map)
			continue;
		kv_rows_get(&l->k, r, x);
		if (kv_rows_rotated(&l->k, r))
			kv_turn_back(c, s->turns, layer, l->pos[r], x);
		missed(p->mask, l->k.dtype, x);
		kv_turn(c, s->turns, layer, l->pos[r], x);
		rebuilt += seen(&q, x, d);
	}
	p->error = all > 0 ? zeros / all : 0;
	if (p->mask->map)
		p->rebuilt = all > 0 ? rebuilt / all : 0;
	kv_block_free(keys);
	kv_block_free(q.q);
	return KV_OK;
}

static enum kv_status
measure_values(const struct prune_scene *s, size_t list, struct prune_plan *p, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	unsigned d = c->geom.d_v, layer = (unsigned)(list / c->geom.n_heads_kv), head = (unsigned)(list % c->geom.n_heads_kv);
	uint32_t last = (uint32_t)s->how->last;
	double all[KVS_MAX_DIM] = { 0 }, part[KVS_MAX_DIM] = { 0 }, zeros = 0, sum = 0;
	struct kv_group_queries o;
	enum kv_status rc;

	if ((rc = kv_group_outputs(c, s->turns, layer, head, last, 0, c->list[list].n, &o, err)) != KV_OK)
		return rc;
	kv_channel_energy(all, o.q, o.n, d, d);
	kv_block_free(o.q);
	if ((rc = kv_group_outputs(c, s->turns, layer, head, last, p->from, p->to, &o, err)) != KV_OK)
		return rc;
	kv_channel_energy(part, o.q, o.n, d, d);
	kv_block_free(o.q);
	for (unsigned j = 0; j < d; j++) {
		sum += all[j];
		zeros += kv_mask_has(p->mask, j) ? 0 : part[j];
	}
	p->error = sum > 0 ? zeros / sum : 0;
	return KV_OK;
}

enum kv_status
kv_prune_measure(const struct prune_scene *s, size_t list, struct prune_plan *p, struct kv_err *err)
{
	if (!s->cache->queries[list / s->cache->geom.n_heads_kv].w)
		return KV_OK;
	return s->how->values ? measure_values(s, list, p, err) : measure_keys(s, list, p, err);
}

static size_t
n_lists(const struct prune_scene *s)
{
	return (size_t)s->cache->geom.n_layers * s->cache->geom.n_heads_kv;
}

static void
tell_idle(const struct prune_scene *s, enum prune_idle why, const char *text, struct kv_buf *out)
{
	size_t n = 0;

	for (size_t i = 0; i < n_lists(s); i++)
		n += s->plan[i].idle == why;
	if (n)
		kv_buf_printf(out, "%zu of %zu heads stay as they are: %s\n", n, n_lists(s), text);
}

/* Keys that were narrowed or coded before scores were made of them. */
static bool
approximate(const struct prune_scene *s)
{
	for (size_t i = 0; i < n_lists(s); i++)
		if (!kv_rows_plain(&s->cache->list[i].k))
			return true;
	return false;
}

static bool
lossy(const struct prune_scene *s)
{
	for (size_t i = 0; i < n_lists(s); i++)
		if (s->plan[i].lossy)
			return true;
	return false;
}

static void
tell_head(const struct prune_scene *s, size_t list, struct kv_buf *out)
{
	const struct prune_plan *p = &s->plan[list];
	unsigned heads = s->cache->geom.n_heads_kv;

	if (!p->mask)
		return;
	kv_buf_printf(out, "layer %zu head %zu: %u of %u channels dropped in %u of %u entries", list / heads, list % heads,
		p->mask->d - p->mask->n_kept, p->mask->d, p->to - p->from, s->cache->list[list].n);
	if (!isnan(p->error))
		kv_buf_printf(out, ", relative squared error %.4g", isnan(p->rebuilt) ? p->error : p->rebuilt);
	if (!isnan(p->rebuilt))
		kv_buf_printf(out, " (not rebuilt: %.4g)", p->error);
	kv_buf_printf(out, ", %" PRIu64 " of %" PRIu64 " bytes\n", p->after, p->before);
}

/* [[head, …], …] of one figure; null where there is none. */
static void
put_figures(const struct prune_scene *s, const char *key, double (*of)(const struct prune_plan *p), struct kv_buf *out)
{
	unsigned heads = s->cache->geom.n_heads_kv;

	kv_buf_printf(out, "%s\"%s\":[", out->len > 1 ? "," : "", key);
	for (size_t i = 0; i < n_lists(s); i++) {
		double x = of(&s->plan[i]);

		kv_buf_printf(out, "%s%s", i ? "," : "", i % heads ? "" : "[");
		if (isfinite(x))
			kv_buf_printf(out, "%.5g", x);
		else
			kv_buf_printf(out, "null");
		kv_buf_printf(out, "%s", i % heads == heads - 1 ? "]" : "");
	}
	kv_buf_printf(out, "]");
}

static double
dropped_of(const struct prune_plan *p)
{
	return p->mask ? p->mask->d - p->mask->n_kept : 0;
}

static double
error_of(const struct prune_plan *p)
{
	return p->error;
}

static double
rebuilt_of(const struct prune_plan *p)
{
	return p->rebuilt;
}

static void
put_detail(const struct prune_scene *s, struct kv_buf *out)
{
	kv_buf_printf(out, "{");
	put_figures(s, "dropped", dropped_of, out);
	put_figures(s, "error", error_of, out);
	if (s->how->rebuild)
		put_figures(s, "rebuilt_error", rebuilt_of, out);
	kv_buf_printf(out, "}");
}

static void
tell_all(const struct prune_scene *s, struct kv_buf *out)
{
	double error = 0, rebuilt = 0;
	uint64_t before = 0, after = 0;
	size_t n = 0;

	for (size_t i = 0; i < n_lists(s); i++) {
		const struct prune_plan *p = &s->plan[i];

		before += p->before;
		after += p->after;
		if (!p->mask)
			continue;
		n++;
		error += p->error;
		rebuilt += p->rebuilt;
	}
	kv_buf_printf(out, "%s: %" PRIu64 " of %" PRIu64 " bytes in all", s->how->values ? "values" : "keys", after, before);
	if (n && isfinite(error))
		kv_buf_printf(out, "; mean relative squared error of %s %.4g", s->how->values ? "outputs" : "products", (isfinite(rebuilt) ? rebuilt : error) /
			(double)n);
	kv_buf_printf(out, "\n");
}

void
kv_prune_tell(const struct prune_scene *s, struct kv_notes *notes)
{
	const struct prune *how = s->how;
	uint64_t stale = s->cache->state.consumed ? kv_queries_stale(s->cache) : 0;
	char text[80];

	if (stale && prune_wants_queries(how))
		kv_buf_printf(&notes->remarks, "queries are stale by %" PRIu64 " tokens\n", stale);
	snprintf(text, sizeof text, "no more than %" PRId64 " entries", how->recent + how->sinks);
	tell_idle(s, PRUNE_SHORT, how->reuse ? "nothing came since" : text, &notes->remarks);
	tell_idle(s, PRUNE_NO_CHANNEL, "the ratio is less than one channel, or pair", &notes->remarks);
	tell_idle(s, PRUNE_NO_MASK, "no mask to use again", &notes->remarks);
	tell_idle(s, PRUNE_NO_GAIN, "the map would take more bytes than it saves", &notes->remarks);
	if (how->values && approximate(s))
		kv_buf_printf(&notes->remarks, "scores are approximate: keys were pruned or quantised before\n");
	if (lossy(s))
		kv_buf_printf(&notes->remarks, "codes were made anew: lossy\n");
	if (how->report) {
		for (size_t i = 0; i < n_lists(s); i++)
			tell_head(s, i, &notes->remarks);
		if (n_lists(s) <= MOST_LISTS)
			put_detail(s, &notes->detail);
	}
	tell_all(s, how->report ? &notes->remarks : &notes->report);
}
