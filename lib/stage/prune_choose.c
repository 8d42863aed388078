/* Which channels of a head go, and whether they can. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy/channel_view.h"
#include "policy/lot.h"
#include "stage/prune.h"
#include "util/mem.h"

/* What a choice is made of, for one list. */
struct choice {
	const struct prune_scene *s;
	const struct kv_list *list;
	unsigned layer, head;
	struct prune_plan *p;
	uint32_t first, end;		/* the entries that score */
	struct kv_units units;
	uint8_t drop[KVS_MAX_DIM];
};

static const struct kvs_rope *
rope_of(const struct kv_cache *c, unsigned layer)
{
	unsigned rope = c->geom.layer[layer].rope;

	return rope == KVS_NO_ROPE ? NULL : &c->geom.rope[rope];
}

static void
set_ones(double *e, unsigned d)
{
	for (unsigned j = 0; j < d; j++)
		e[j] = 1;
}

static enum kv_status
check_finite(const double *e, unsigned d, struct kv_err *err)
{
	for (unsigned j = 0; j < d; j++)
		if (!isfinite(e[j]))
			return kv_fail(err, KV_EFIT, "numbers that are not finite");
	return KV_OK;
}

/* Keys before RoPE as they are; energies of pairs are the same before and after it, but for the factor of its magnitude. */
static void
energy_before(const struct choice *x, double *e)
{
	const struct kvs_rope *rope = rope_of(x->s->cache, x->layer);
	unsigned d = x->s->cache->geom.d_k;
	float row[KVS_MAX_DIM];

	for (uint32_t r = x->first; r < x->end; r++) {
		kv_rows_get(&x->list->k, r, row);
		kv_channel_energy(e, row, 1, d, d);
	}
	for (unsigned j = 0; rope && j < rope->n_rot; j++)
		e[j] *= (double)rope->magnitude * (double)rope->magnitude;
}

static enum kv_status
energy_keys(const struct choice *x, bool pairs, double *e, struct kv_err *err)
{
	const struct kv_cache *c = x->s->cache;
	unsigned d = c->geom.d_k;
	enum kv_status rc;
	float *keys;

	if (pairs) {
		energy_before(x, e);
		return KV_OK;
	}
	if ((rc = kv_keys_turned(c, x->s->turns, x->layer, x->head, &keys, err)) != KV_OK)
		return rc;
	kv_channel_energy(e, keys + (size_t)x->first * d, x->end - x->first, d, d);
	kv_block_free(keys);
	return KV_OK;
}

static enum kv_status
energy_queries(const struct choice *x, bool pairs, double *e, struct kv_err *err)
{
	const struct kv_cache *c = x->s->cache;
	const struct kvs_rope *rope = rope_of(c, x->layer);
	struct kv_group_queries q;
	enum kv_status rc = kv_group_queries_get(c, pairs ? NULL : x->s->turns, x->layer, x->head, (uint32_t)x->s->how->last, &q, err);

	if (rc != KV_OK)
		return rc;
	kv_channel_energy(e, q.q, q.n, c->geom.d_k, c->geom.d_k);
	for (unsigned j = 0; pairs && rope && j < rope->n_rot; j++)
		e[j] *= (double)rope->magnitude * (double)rope->magnitude;
	kv_block_free(q.q);
	return KV_OK;
}

static enum kv_status
drop_by_energy(struct choice *x, struct kv_err *err)
{
	const struct prune *how = x->s->how;
	unsigned d = x->units.d;
	double eq[KVS_MAX_DIM] = { 0 }, e[KVS_MAX_DIM] = { 0 };
	struct kv_group_queries o;
	enum kv_status rc = KV_OK;

	if (how->score == PRUNE_RANDOM) {
		for (unsigned j = 0; j < d; j++)
			e[j] = kv_lot((uint64_t)how->seed, x->layer, x->head, j);
		set_ones(eq, d);
	} else if (how->values) {
		set_ones(eq, d);
		if ((rc = kv_group_outputs(x->s->cache, x->s->turns, x->layer, x->head, (uint32_t)how->last, x->first, x->end, &o, err)) != KV_OK)
			return rc;
		kv_channel_energy(e, o.q, o.n, d, d);
		kv_block_free(o.q);
	} else {
		if (how->score == PRUNE_KNORM)
			set_ones(eq, d);
		else
			rc = energy_queries(x, how->pairs, eq, err);
		if (rc != KV_OK || (rc = energy_keys(x, how->pairs, e, err)) != KV_OK)
			return rc;
	}
	if ((rc = check_finite(eq, d, err)) != KV_OK || (rc = check_finite(e, d, err)) != KV_OK)
		return rc;
	kv_units_drop(&x->units, eq, e, x->s->n_drop, x->drop);
	return KV_OK;
}

static enum kv_status
drop_by_error(struct choice *x, struct kv_err *err)
{
	const struct kv_cache *c = x->s->cache;
	unsigned d = x->units.d;
	double *form = kv_array_new((size_t)d * d, sizeof *form), *gram = kv_array_new((size_t)d * d, sizeof *gram);
	struct kv_group_queries q = { 0 };
	float *keys = NULL;
	enum kv_status rc = form && gram ? KV_OK : kv_fail_mem(err, "products of channels");

	if (rc == KV_OK)
		rc = kv_group_queries_get(c, x->s->turns, x->layer, x->head, (uint32_t)x->s->how->last, &q, err);
	if (rc == KV_OK)
		rc = kv_keys_turned(c, x->s->turns, x->layer, x->head, &keys, err);
	if (rc == KV_OK) {
		kv_gram_add(form, q.q, q.n, d, d);
		kv_gram_add(gram, keys + (size_t)x->first * d, x->end - x->first, d, d);
		kv_form_make(form, gram, d);
		for (unsigned j = 0; j < d && rc == KV_OK; j++)
			rc = check_finite(form + (size_t)j * d, d, err);
	}
	if (rc == KV_OK)
		kv_units_drop_by_error(&x->units, form, x->s->n_drop, x->drop);
	kv_block_free(keys);
	kv_block_free(q.q);
	free(gram);
	free(form);
	return rc;
}

/*
 * What an entry counts for when a map is fitted: half for being there, half by the attention it got from the recorded queries. Rows that are
 * much looked at come out better, and all others at most a little worse.
 */
static enum kv_status
weights(const struct choice *x, double *w, struct kv_err *err)
{
	uint32_t n = x->p->to - x->p->from;
	double sum = 0;
	enum kv_status rc;

	if ((rc = kv_group_attention(x->s->cache, x->s->turns, x->layer, x->head, (uint32_t)x->s->how->last, w, err)) != KV_OK)
		return rc;
	for (uint32_t r = x->p->from; r < x->p->to; r++)
		sum += w[r];
	for (uint32_t r = x->p->from; r < x->p->to; r++)
		w[r] = sum > 0 ? 0.5 + 0.5 * w[r] * n / sum : 1;
	return KV_OK;
}

/* Of the rows that will be narrowed, before RoPE. */
static enum kv_status
moments(const struct choice *x, struct kv_moments *m, struct kv_err *err)
{
	enum { AT_A_TIME = 64 };
	unsigned d = m->d;
	float *rows = kv_array_new(AT_A_TIME, d * sizeof *rows);
	double *w = kv_array_new(x->list->n, sizeof *w);
	enum kv_status rc = rows && w ? weights(x, w, err) : kv_fail_mem(err, "keys");

	for (uint32_t first = x->p->from; first < x->p->to && rc == KV_OK; first += AT_A_TIME) {
		uint32_t n = x->p->to - first < AT_A_TIME ? x->p->to - first : AT_A_TIME;

		for (uint32_t r = 0; r < n; r++) {
			float *row = rows + (size_t)r * d, root = (float)sqrt(w[first + r]);

			kv_rows_get(&x->list->k, first + r, row);
			for (unsigned j = 0; j < d; j++) {
				m->sum[j] += w[first + r] * (double)row[j];
				row[j] *= root;
			}
			m->weight += w[first + r];
		}
		kv_gram_add(m->g, rows, n, d, d);
	}
	free(w);
	free(rows);
	return rc;
}

static enum kv_status
drop_by_missed(struct choice *x, const struct kv_moments *m, struct kv_err *err)
{
	double eq[KVS_MAX_DIM] = { 0 };
	unsigned gone;
	enum kv_status rc = energy_queries(x, true, eq, err);

	return rc == KV_OK ? kv_units_drop_by_missed(&x->units, m, eq, x->s->n_drop, x->drop, &gone, err) : rc;
}

/* The map of the rows that will be narrowed, as kv_mask_set_map takes it. */
static enum kv_status
fit_map(const struct choice *x, const struct kv_moments *m, struct kv_mask *mask, struct kv_err *err)
{
	unsigned t = mask->n_kept, gone = mask->d - t;
	float *a = kv_array_new((size_t)gone * t, sizeof *a), *map = kv_array_new((size_t)gone * (t + 1), sizeof *map), b[KVS_MAX_DIM];
	enum kv_status rc = a && map ? kv_affine_fit(m, x->drop, a, b, err) : kv_fail_mem(err, "a map");

	for (unsigned i = 0; i < gone && rc == KV_OK; i++) {
		memcpy(map + (size_t)i * (t + 1), a + (size_t)i * t, t * sizeof *map);
		map[(size_t)i * (t + 1) + t] = b[i];
	}
	if (rc == KV_OK)
		rc = kv_mask_set_map(mask, KVS_F16, map, err);
	free(map);
	free(a);
	return rc;
}

/* A map of gone (kept + 1) halves must cost less than it saves. */
static bool
map_pays(const struct choice *x, unsigned kept)
{
	return (uint64_t)(x->p->to - x->p->from) * kvs_dtype_size(x->list->k.dtype) > ((uint64_t)kept + 1) * 2;
}

/* x->drop is made: the mask, and the map if there is to be one. */
static enum kv_status
make_mask(struct choice *x, const struct kv_moments *m, struct kv_err *err)
{
	const struct prune *how = x->s->how;
	uint8_t bits[KVS_MAX_DIM / 8] = { 0 };
	unsigned gone = 0;
	enum kv_status rc;

	for (unsigned j = 0; j < x->units.d; j++) {
		bits[j / 8] |= (uint8_t)(!x->drop[j] << j % 8);
		gone += x->drop[j];
	}
	x->p->idle = !gone ? PRUNE_NO_CHANNEL : how->rebuild && !map_pays(x, x->units.d - gone) ? PRUNE_NO_GAIN : PRUNE_BUSY;
	if (x->p->idle)
		return KV_OK;
	if ((rc = kv_mask_new(&x->s->cache->geom, x->layer, how->values, bits, &x->p->mask, err)) != KV_OK)
		return rc;
	return how->rebuild ? fit_map(x, m, x->p->mask, err) : KV_OK;
}

static enum kv_status
new_mask(struct choice *x, struct kv_err *err)
{
	const struct prune *how = x->s->how;
	unsigned d = how->values ? x->s->cache->geom.d_v : x->s->cache->geom.d_k;
	struct kv_moments m = { .d = d };
	enum kv_status rc = KV_OK;

	kv_units_pairs(&x->units, d, how->pairs ? rope_of(x->s->cache, x->layer) : NULL);
	if (how->rebuild) {
		m.g = kv_array_new((size_t)d * d, sizeof *m.g);
		m.sum = kv_array_new(d, sizeof *m.sum);
		rc = m.g && m.sum ? moments(x, &m, err) : kv_fail_mem(err, "a map");
	}
	if (rc == KV_OK)
		rc = how->score == PRUNE_REBUILT ? drop_by_missed(x, &m, err) : how->score == PRUNE_ERROR ? drop_by_error(x, err) : drop_by_energy(x, err);
	if (rc == KV_OK)
		rc = make_mask(x, &m, err);
	free(m.g);
	free(m.sum);
	return rc;
}

/* Looks for the mask that was used last: the rows behind it are those that go under it now. */
static enum kv_status
old_mask(const struct choice *x, bool *found, struct kv_err *err)
{
	const struct kv_rows *rows = x->s->how->values ? &x->list->v : &x->list->k;

	*found = false;
	for (size_t i = kv_rows_segments(rows, x->list->n); i-- > 0;) {
		struct kv_segment seg = kv_rows_segment(rows, x->list->n, i);

		if (!seg.mask)
			continue;
		*found = true;
		x->p->from = seg.first + seg.n;
		x->p->idle = x->p->from < x->p->to ? PRUNE_BUSY : PRUNE_SHORT;
		return x->p->idle ? KV_OK : kv_mask_copy(seg.mask, &x->p->mask, err);
	}
	return KV_OK;
}

/* Channels that the mask keeps and a segment has lost. */
static unsigned
lost(const struct kv_mask *mask, const struct kv_segment *seg)
{
	unsigned n = 0;

	for (unsigned j = 0; j < mask->d; j++)
		n += kv_mask_has(mask, j) && !kv_mask_has(seg->mask, j);
	return n;
}

/* Codes stay exact while their columns only go: not where they share scales with others, nor where rows must be turned. */
static bool
exact(const struct kv_segment *seg, const struct kv_mask *mask)
{
	return seg->dtype != KVS_CODES || (seg->code.scheme == KVS_PER_CHANNEL && (mask->values || seg->rotated == !mask->pairs));
}

static enum kv_status
check_segments(const struct choice *x, struct kv_err *err)
{
	const struct prune *how = x->s->how;
	const struct kv_rows *rows = how->values ? &x->list->v : &x->list->k;

	for (uint32_t r = x->p->from; r < x->p->to;) {
		struct kv_segment seg = kv_rows_segment_of(rows, x->list->n, r);
		unsigned n = lost(x->p->mask, &seg);
		bool pairs_help = seg.code.scheme == KVS_PER_CHANNEL && !seg.rotated && !how->values;

		if (n)
			return kv_fail(err, KV_EFIT, "layer %u head %u: %u channels asked for were dropped before and cannot come back; "
				"use --reuse-mask for newer entries", x->layer, x->head, n);
		if (!exact(&seg, x->p->mask) && !how->requant)
			return kv_fail(err, KV_EFIT, "layer %u: codes cannot be narrowed exactly; run kv-prune before kv-quant%s or accept --requant",
				x->layer, pairs_help ? ", prune with --pairs," : "");
		x->p->lossy |= !exact(&seg, x->p->mask);
		r = seg.first + seg.n;
	}
	return KV_OK;
}

enum kv_status
kv_prune_choose(struct prune_scene *s, size_t list, struct kv_err *err)
{
	const struct prune *how = s->how;
	struct choice x = { .s = s, .list = &s->cache->list[list], .layer = (unsigned)(list / s->cache->geom.n_heads_kv),
		.head = (unsigned)(list % s->cache->geom.n_heads_kv), .p = &s->plan[list] };
	uint32_t n = x.list->n;
	bool reused = false;
	enum kv_status rc = KV_OK;

	*x.p = (struct prune_plan){ .idle = PRUNE_SHORT, .error = NAN, .rebuilt = NAN };
	if (n <= how->recent)
		return KV_OK;
	x.p->to = n - (uint32_t)how->recent;
	x.p->from = how->sinks < n ? (uint32_t)how->sinks : n;
	if (how->reuse && (rc = old_mask(&x, &reused, err)) != KV_OK)
		return rc;
	if (!reused) {
		if (x.p->from >= x.p->to)
			return KV_OK;
		x.first = how->narrowed_keys ? x.p->from : 0;
		x.end = how->narrowed_keys ? x.p->to : n;
		x.p->idle = how->ratio_given ? s->n_drop ? PRUNE_BUSY : PRUNE_NO_CHANNEL : PRUNE_NO_MASK;
		if (!x.p->idle && (rc = new_mask(&x, err)) != KV_OK && rc != KV_ENOMEM)
			return kv_err_in(err, "layer %u head %u", x.layer, x.head);
	}
	if (rc == KV_OK && x.p->mask)
		rc = check_segments(&x, err);
	return rc;
}
