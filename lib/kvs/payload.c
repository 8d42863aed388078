/* TOKS, HIDN, ENTS: tokens, the last hidden state, and which tokens are still there. */
#include "kvs/payload.h"

#include <inttypes.h>
#include <string.h>

#include "kvs/frame.h"
#include "util/le.h"

enum { TOKS_HEADER = 16, HIDN_HEADER = 64 };

/* u32[n], strictly ascending, the last below end? */
static bool
ascends(const uint8_t *p, uint32_t n, uint64_t end)
{
	bool good = !n || le32_get(p + 4 * (size_t)(n - 1)) < end;

	for (uint32_t i = 1; i < n; i++)
		good &= le32_get(p + 4 * (size_t)i - 4) < le32_get(p + 4 * (size_t)i);
	return good;
}

static bool
all_below(const uint8_t *p, uint32_t n, uint32_t end)
{
	bool good = true;

	for (uint32_t i = 0; i < n; i++)
		good &= le32_get(p + 4 * (size_t)i) < end;
	return good;
}

static void
put_u32s(uint8_t *p, const uint32_t *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		le32_put(p + 4 * i, v[i]);
}

enum kv_status
kvs_toks_get(const uint8_t *p, size_t n, const struct kvs_geom *g, const struct kvs_state *s, struct kvs_toks *t, struct kv_err *err)
{
	struct kvs_toks v = { 0 };

	if (n < TOKS_HEADER)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.first = le32_get(p);
	v.n_dense = le32_get(p + 4);
	v.n_sparse = le32_get(p + 8);
	if (le32_get(p + 12))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	if (n != TOKS_HEADER + 8 * (uint64_t)v.n_sparse + 4 * (uint64_t)v.n_dense || v.n_dense > KVS_TOKS_DENSE)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " and %" PRIu32 " tokens", n, v.n_sparse, v.n_dense);
	if ((uint64_t)v.first + v.n_dense > s->consumed)
		return kv_fail(err, KV_ECORRUPT, "tokens that were not read yet");
	v.src = p + TOKS_HEADER;
	v.sparse = v.src + 4 * (size_t)v.n_sparse;
	v.dense = v.sparse + 4 * (size_t)v.n_sparse;
	if (!ascends(v.src, v.n_sparse, s->hist_first))
		return kv_fail(err, KV_ECORRUPT, "source indices out of order");
	if (!all_below(v.sparse, v.n_sparse, g->n_vocab) || !all_below(v.dense, v.n_dense, g->n_vocab))
		return kv_fail(err, KV_ECORRUPT, "a token id beyond the vocabulary of %" PRIu32, g->n_vocab);
	*t = v;
	return KV_OK;
}

void
kvs_toks_put(struct kv_buf *out, uint32_t first, const uint32_t *dense, uint32_t n_dense, const uint32_t *src, const uint32_t *sparse,
	uint32_t n_sparse)
{
	uint8_t *p = kv_buf_grow(out, TOKS_HEADER + 8 * (size_t)n_sparse + 4 * (size_t)n_dense);

	if (!p)
		return;
	le32_put(p, first);
	le32_put(p + 4, n_dense);
	le32_put(p + 8, n_sparse);
	le32_put(p + 12, 0);
	p += TOKS_HEADER;
	put_u32s(p, src, n_sparse);
	put_u32s(p + 4 * (size_t)n_sparse, sparse, n_sparse);
	put_u32s(p + 8 * (size_t)n_sparse, dense, n_dense);
}

enum kv_status
kvs_hidn_get(const uint8_t *p, size_t n, const struct kvs_geom *g, const struct kvs_state *s, const uint8_t **values, struct kv_err *err)
{
	if (n < HIDN_HEADER || n != HIDN_HEADER + 4 * (size_t)g->n_embd || le32_get(p) != g->n_embd)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for a hidden state of %" PRIu32, n, g->n_embd);
	if (!kvs_all_zero(p + 4, 4) || !kvs_all_zero(p + 16, 48))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	if (le64_get(p + 8) != s->consumed - 1 || !s->consumed)
		return kv_fail(err, KV_ECORRUPT, "state of token %" PRIu64 ", %" PRIu64 " were read", le64_get(p + 8), s->consumed);
	*values = p + HIDN_HEADER;
	return KV_OK;
}

void
kvs_hidn_put(struct kv_buf *out, const struct kvs_geom *g, const struct kvs_state *s, const float *values)
{
	uint8_t *p = kv_buf_grow(out, HIDN_HEADER + 4 * (size_t)g->n_embd);

	if (!p)
		return;
	memset(p, 0, HIDN_HEADER);
	le32_put(p, g->n_embd);
	le64_put(p + 8, s->consumed - 1);
	for (size_t i = 0; i < g->n_embd; i++)
		lef32_put(p + HIDN_HEADER + 4 * i, values[i]);
}

enum kv_status
kvs_ents_get(const uint8_t *p, size_t n, const struct kvs_state *s, struct kvs_ents *e, struct kv_err *err)
{
	struct kvs_ents v;

	if (n % 8 || n / 8 > UINT32_MAX)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes are not pairs of source and position", n);
	v = (struct kvs_ents){ .n = (uint32_t)(n / 8), .src = p, .pos = p + n / 2 };
	if (!ascends(v.src, v.n, s->consumed))
		return kv_fail(err, KV_ECORRUPT, "source indices do not ascend to less than %" PRIu64, s->consumed);
	/* As unsigned numbers negative positions are the largest, so one comparison refuses them too. */
	if (!ascends(v.pos, v.n, (uint64_t)s->next_pos))
		return kv_fail(err, KV_ECORRUPT, "positions do not ascend from 0 to less than %" PRId32, s->next_pos);
	*e = v;
	return KV_OK;
}

void
kvs_ents_put(struct kv_buf *out, const uint32_t *src, const int32_t *pos, uint32_t n)
{
	uint8_t *p = kv_buf_grow(out, 8 * (size_t)n);

	if (!p)
		return;
	put_u32s(p, src, n);
	p += 4 * (size_t)n;
	for (uint32_t i = 0; i < n; i++)
		le32_put(p + 4 * (size_t)i, (uint32_t)pos[i]);
}
