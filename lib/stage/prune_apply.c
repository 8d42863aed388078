/* Rows narrowed to a mask: exactly where columns only go, through numbers where rows must be turned or coded anew. */
#include <string.h>

#include "stage/prune.h"
#include "util/mem.h"

/* A run of rows that are kept in one way. */
struct run {
	const struct prune_scene *s;
	size_t list;
	unsigned layer;
	struct kv_segment seg;		/* the segment before the change; nothing in it is looked at afterwards */
	uint32_t from, to;
};

/* Row r at full width, in the basis that the mask asks for. */
static void
row_for(const struct run *u, bool baked, uint32_t r, float *x)
{
	const struct kv_cache *c = u->s->cache;
	int32_t pos = c->list[u->list].pos[r];

	kv_rows_get(prune_rows(u->s, u->list), r, x);
	if (baked && !u->seg.rotated)
		kv_turn(c, u->s->turns, u->layer, pos, x);
	if (!baked && u->seg.rotated)
		kv_turn_back(c, u->s->turns, u->layer, pos, x);
}

/* Numbers out, channels gathered, numbers back in; codes as they were made before. */
static enum kv_status
narrow_anew(const struct run *u, const struct kv_mask *mask, struct kv_err *err)
{
	struct kv_rows *rows = prune_rows(u->s, u->list);
	uint32_t n = u->s->cache->list[u->list].n, t = mask->n_kept;
	bool baked = !mask->values && !mask->pairs, coded = u->seg.dtype == KVS_CODES;
	struct kv_coding code = u->seg.code;
	float *x = kv_block_new((size_t)(u->to - u->from) * t, sizeof *x), whole[KVS_MAX_DIM];
	enum kv_status rc;

	if (!x)
		return kv_fail_mem(err, "rows");
	for (uint32_t r = u->from; r < u->to; r++) {
		row_for(u, baked, r, whole);
		for (uint32_t j = 0; j < t; j++)
			x[(size_t)(r - u->from) * t + j] = whole[mask->channel[j]];
	}
	rc = kv_rows_put_narrow(rows, n, u->from, u->to, mask, baked, x, err);
	kv_block_free(x);
	return rc == KV_OK && coded ? kv_rows_code(rows, n, u->from, u->to, &code, err) : rc;
}

/* Can the columns simply go? */
static bool
gathers(const struct kv_segment *seg, const struct kv_mask *mask)
{
	if (seg->dtype == KVS_CODES && seg->code.scheme != KVS_PER_CHANNEL)
		return false;
	return mask->values || seg->rotated == !mask->pairs;
}

enum kv_status
kv_prune_apply(struct prune_scene *s, size_t list, struct kv_err *err)
{
	struct kv_rows *rows = prune_rows(s, list);
	struct prune_plan *p = &s->plan[list];
	unsigned heads = s->cache->geom.n_heads_kv;
	uint32_t n = s->cache->list[list].n;
	struct kv_rows_bytes bytes = kv_rows_bytes(rows, n);
	enum kv_status rc = KV_OK;

	p->before = p->after = bytes.rows + bytes.masks + bytes.scales;
	if (!p->mask)
		return KV_OK;
	for (uint32_t r = p->from; r < p->to && rc == KV_OK;) {
		struct run u = { s, list, (unsigned)(list / heads), kv_rows_segment_of(rows, n, r), r, 0 };

		u.to = u.seg.first + u.seg.n < p->to ? u.seg.first + u.seg.n : p->to;
		rc = gathers(&u.seg, p->mask) ? kv_rows_narrow(rows, n, u.from, u.to, p->mask, err) : narrow_anew(&u, p->mask, err);
		r = u.to;
	}
	if (rc != KV_OK)
		return rc == KV_ENOMEM ? rc : kv_err_in(err, "layer %zu head %zu", list / heads, list % heads);
	bytes = kv_rows_bytes(rows, n);
	p->after = bytes.rows + bytes.masks + bytes.scales;
	return KV_OK;
}
