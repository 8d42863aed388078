/* Observations: what eviction policies need and keys and values cannot tell (formats/kvs.md, section 11). */
#include "kvs/payload.h"

#include <inttypes.h>
#include <string.h>

#include "kvs/frame.h"
#include "util/le.h"

enum { OBSQ_HEADER = 16, OBSN_HEADER = 32, OBS_HEADER = 64, HAS_SUM = 1, HAS_SQUARES = 2, HAS_COUNT = 4, MAX_REDUCTION = 2 };

static void
put_u32s(uint8_t *p, const uint32_t *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		le32_put(p + 4 * i, v[i]);
}

static void
put_f32s(uint8_t *p, const float *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		lef32_put(p + 4 * i, v[i]);
}

static enum kv_status
reserved_is_set(struct kv_err *err)
{
	return kv_fail(err, KV_EUNSUP, "a reserved field is set");
}

/* Source indices, source indices and positions: where the queries begin. */
static uint64_t
queries_at(uint32_t w)
{
	return (OBSQ_HEADER + 8 * (uint64_t)w + 63) / 64 * 64;
}

enum kv_status
kvs_obsq_get(const uint8_t *p, size_t n, const struct kvs_geom *g, const struct kvs_state *s, struct kvs_obsq *q, struct kv_err *err)
{
	struct kvs_obsq v = { 0 };
	uint64_t row = 4 * (uint64_t)g->n_heads * g->d_k, at;
	bool good = true;

	if (n < OBSQ_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.w = le32_get(p);
	at = queries_at(v.w);
	if (le32_get(p + 12))
		return reserved_is_set(err);
	if (!v.w || le32_get(p + 4) != g->n_heads || le32_get(p + 8) != g->d_k || n != at + v.w * row)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " queries of %" PRIu32 " heads", n, v.w, le32_get(p + 4));
	v.src = p + OBSQ_HEADER;
	v.pos = v.src + 4 * (size_t)v.w;
	v.q = p + at;
	for (size_t i = 1; i < v.w; i++)
		good &= le32_get(v.src + 4 * i - 4) < le32_get(v.src + 4 * i) &&
			(int32_t)le32_get(v.pos + 4 * i - 4) < (int32_t)le32_get(v.pos + 4 * i);
	if (!good || le32_get(v.src + 4 * (size_t)(v.w - 1)) >= s->consumed ||
	    (int32_t)le32_get(v.pos + 4 * (size_t)(v.w - 1)) >= s->next_pos)
		return kv_fail(err, KV_ECORRUPT, "sources or positions out of order");
	if (!kvs_all_zero(v.pos + 4 * (size_t)v.w, (size_t)(v.q - v.pos) - 4 * (size_t)v.w))
		return reserved_is_set(err);
	*q = v;
	return KV_OK;
}

void
kvs_obsq_put(struct kv_buf *out, const struct kvs_geom *g, uint32_t w, const uint32_t *src, const int32_t *pos, const float *q)
{
	size_t at = (size_t)queries_at(w), n = (size_t)g->n_heads * g->d_k * w;
	uint8_t *p = kv_buf_grow(out, at + 4 * n);

	if (!p)
		return;
	memset(p, 0, at);
	le32_put(p, w);
	le32_put(p + 4, g->n_heads);
	le32_put(p + 8, g->d_k);
	put_u32s(p + OBSQ_HEADER, src, w);
	for (size_t i = 0; i < w; i++)
		le32_put(p + OBSQ_HEADER + 4 * (w + i), (uint32_t)pos[i]);
	put_f32s(p + at, q, n);
}

enum kv_status
kvs_obsa_get(const uint8_t *p, size_t n, const struct kvs_state *s, struct kvs_obsa *a, struct kv_err *err)
{
	struct kvs_obsa v = { 0 };
	uint32_t fields;

	if (n < OBS_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.n = le32_get(p);
	fields = le32_get(p + 4);
	v.reduction = le32_get(p + 8);
	v.first = le32_get(p + 16);
	v.last = le32_get(p + 20);
	v.src_hash = le64_get(p + 24);
	if (fields > (HAS_SUM | HAS_SQUARES | HAS_COUNT) || v.reduction > MAX_REDUCTION)
		return kv_fail(err, KV_EUNSUP, "fields %" PRIu32 " with reduction %" PRIu32 " are not known to this version", fields, v.reduction);
	if (le32_get(p + 12) || !kvs_all_zero(p + 32, 32))
		return reserved_is_set(err);
	if (!(fields & HAS_SUM) || !(fields & HAS_COUNT) || n != OBS_HEADER + (fields & HAS_SQUARES ? 12 : 8) * (uint64_t)v.n)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for fields %" PRIu32 " of %" PRIu32 " entries", n, fields, v.n);
	if (v.first > v.last || v.last > s->consumed)
		return kv_fail(err, KV_ECORRUPT, "queries %" PRIu32 " to %" PRIu32 " of %" PRIu64, v.first, v.last, s->consumed);
	v.sum = p + OBS_HEADER;
	v.squares = fields & HAS_SQUARES ? v.sum + 4 * (size_t)v.n : NULL;
	v.count = v.sum + (fields & HAS_SQUARES ? 8 : 4) * (size_t)v.n;
	*a = v;
	return KV_OK;
}

void
kvs_obsa_put(struct kv_buf *out, const struct kvs_obsa *head, const float *sum, const float *squares, const uint32_t *count)
{
	size_t n = head->n;
	uint8_t *p = kv_buf_grow(out, OBS_HEADER + (squares ? 12 : 8) * n);

	if (!p)
		return;
	memset(p, 0, OBS_HEADER);
	le32_put(p, head->n);
	le32_put(p + 4, HAS_SUM | HAS_COUNT | (squares ? HAS_SQUARES : 0));
	le32_put(p + 8, head->reduction);
	le32_put(p + 16, head->first);
	le32_put(p + 20, head->last);
	le64_put(p + 24, head->src_hash);
	p += OBS_HEADER;
	put_f32s(p, sum, n);
	if (squares)
		put_f32s(p + 4 * n, squares, n);
	put_u32s(p + (squares ? 8 : 4) * n, count, n);
}

enum kv_status
kvs_obsp_get(const uint8_t *p, size_t n, const struct kvs_geom *g, struct kvs_obsp *o, struct kv_err *err)
{
	uint32_t group = g->n_heads / g->n_heads_kv;
	struct kvs_obsp v = { 0 };

	if (n < OBS_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.n_cols = le32_get(p);
	v.n_rows = le32_get(p + 4);
	v.n_queries = le32_get(p + 8);
	v.kind = p[12];
	v.statistic = p[13];
	v.reduction = p[14];
	v.scored = p[15];
	v.at = le32_get(p + 16);
	v.src_hash = le64_get(p + 24);
	v.probe_hash = le64_get(p + 32);
	v.sums = p + OBS_HEADER;
	if (v.kind > 1 || v.statistic > 1 || v.reduction > MAX_REDUCTION || v.scored > 1)
		return kv_fail(err, KV_EUNSUP, "kind %u, statistic %u, reduction %u, scope %u are not known to this version", v.kind, v.statistic,
			v.reduction, v.scored);
	if (le32_get(p + 20) || !kvs_all_zero(p + 40, 24))
		return reserved_is_set(err);
	if ((v.n_rows != 1 && v.n_rows != group) || n != OBS_HEADER + 4 * (uint64_t)v.n_rows * v.n_cols)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " rows of %" PRIu32, n, v.n_rows, v.n_cols);
	if (!v.n_queries || (v.reduction && (v.n_rows != 1 || group == 1)) || (!v.kind && v.probe_hash))
		return kv_fail(err, KV_ECORRUPT, "%" PRIu32 " queries, reduction %u, kind %u", v.n_queries, v.reduction, v.kind);
	*o = v;
	return KV_OK;
}

void
kvs_obsp_put(struct kv_buf *out, const struct kvs_obsp *head, const float *sums)
{
	size_t n = (size_t)head->n_rows * head->n_cols;
	uint8_t *p = kv_buf_grow(out, OBS_HEADER + 4 * n);

	if (!p)
		return;
	memset(p, 0, OBS_HEADER);
	le32_put(p, head->n_cols);
	le32_put(p + 4, head->n_rows);
	le32_put(p + 8, head->n_queries);
	p[12] = head->kind;
	p[13] = head->statistic;
	p[14] = head->reduction;
	p[15] = head->scored;
	le32_put(p + 16, head->at);
	le64_put(p + 24, head->src_hash);
	le64_put(p + 32, head->probe_hash);
	put_f32s(p + OBS_HEADER, sums, n);
}

enum kv_status
kvs_obsn_get(const uint8_t *p, size_t n, const struct kvs_state *s, struct kvs_obsn *o, struct kv_err *err)
{
	struct kvs_obsn v = { 0 };
	bool good = true;

	if (n < OBSN_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.first = le32_get(p);
	v.n_dense = le32_get(p + 4);
	v.n_sparse = le32_get(p + 8);
	v.kind = le32_get(p + 12);
	v.count_all = le64_get(p + 16);
	v.sum_all = lef64_get(p + 24);
	if (v.kind > 1)
		return kv_fail(err, KV_EUNSUP, "surprisal of kind %" PRIu32 " is not known to this version", v.kind);
	if (n != OBSN_HEADER + 8 * (uint64_t)v.n_sparse + 4 * (uint64_t)v.n_dense)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " and %" PRIu32 " values", n, v.n_sparse, v.n_dense);
	v.src = p + OBSN_HEADER;
	v.sparse = v.src + 4 * (size_t)v.n_sparse;
	v.dense = v.sparse + 4 * (size_t)v.n_sparse;
	for (size_t i = 1; i < v.n_sparse; i++)
		good &= le32_get(v.src + 4 * i - 4) < le32_get(v.src + 4 * i);
	if (!good || (v.n_sparse && le32_get(v.src + 4 * (size_t)(v.n_sparse - 1)) >= v.first) ||
	    (uint64_t)v.first + v.n_dense > s->consumed)
		return kv_fail(err, KV_ECORRUPT, "source indices out of order");
	*o = v;
	return KV_OK;
}

void
kvs_obsn_put(struct kv_buf *out, const struct kvs_obsn *head, const float *dense, const uint32_t *src, const float *sparse)
{
	size_t n_sparse = head->n_sparse;
	uint8_t *p = kv_buf_grow(out, OBSN_HEADER + 8 * n_sparse + 4 * (size_t)head->n_dense);

	if (!p)
		return;
	le32_put(p, head->first);
	le32_put(p + 4, head->n_dense);
	le32_put(p + 8, head->n_sparse);
	le32_put(p + 12, head->kind);
	le64_put(p + 16, head->count_all);
	lef64_put(p + 24, head->sum_all);
	p += OBSN_HEADER;
	put_u32s(p, src, n_sparse);
	put_f32s(p + 4 * n_sparse, sparse, n_sparse);
	put_f32s(p + 8 * n_sparse, dense, head->n_dense);
}

enum kv_status
kvs_obsr_get(const uint8_t *p, size_t n, struct kvs_obsr *o, struct kv_err *err)
{
	if (n != OBS_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	if (!kvs_all_zero(p + 24, 40))
		return reserved_is_set(err);
	*o = (struct kvs_obsr){ le64_get(p), le32_get(p + 8), le32_get(p + 12), le32_get(p + 16), le32_get(p + 20) };
	return KV_OK;
}

void
kvs_obsr_put(struct kv_buf *out, const struct kvs_obsr *o)
{
	uint8_t *p = kv_buf_grow(out, OBS_HEADER);

	if (!p)
		return;
	memset(p, 0, OBS_HEADER);
	le64_put(p, o->round);
	le32_put(p + 8, o->waiting);
	le32_put(p + 12, o->fill);
	le32_put(p + 16, o->probe);
	le32_put(p + 20, o->reserve);
}
