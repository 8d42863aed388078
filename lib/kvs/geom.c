/* GEOM, ROPE, LAYR: bytes to values and back, and their rules. */
#include "kvs/geom.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kvs/frame.h"
#include "util/le.h"

enum {
	MAX_EMBD = 1 << 20,
	MAX_VOCAB = 1 << 24,
	FLAG_IDS = 1,
	ROPE_BYTES = 64,	/* of the descriptor, before the table */
	LAYER_BYTES = 16,
	ARCH = 32,
};

size_t
kvs_dtype_size(unsigned dtype)
{
	switch (dtype) {
	case KVS_F32:
		return 4;
	case KVS_F16:
	case KVS_BF16:
		return 2;
	}
	return 0;
}

const char *
kvs_dtype_name(unsigned dtype)
{
	switch (dtype) {
	case KVS_F32:
		return "f32";
	case KVS_F16:
		return "f16";
	case KVS_BF16:
		return "bf16";
	case KVS_CODES:
		return "codes";
	}
	return "?";
}

void
kvs_geom_put(struct kv_buf *out, const struct kvs_geom *g, const struct kvs_state *s)
{
	uint8_t *p = kv_buf_grow(out, KVS_GEOM_BYTES);

	if (!p)
		return;
	memset(p, 0, KVS_GEOM_BYTES);
	le32_put(p, g->n_layers);
	le32_put(p + 4, g->n_heads);
	le32_put(p + 8, g->n_heads_kv);
	le32_put(p + 12, g->d_k);
	le32_put(p + 16, g->d_v);
	le32_put(p + 20, g->n_embd);
	le32_put(p + 24, g->n_vocab);
	le32_put(p + 28, g->n_ctx_train);
	le32_put(p + 40, g->n_rope);
	lef32_put(p + 48, g->attn_scale);
	lef32_put(p + 52, g->attn_softcap);
	lef32_put(p + 56, g->final_softcap);
	le32_put(p + 60, g->fp_kind);
	memcpy(p + 64, g->fp_model, 16);
	memcpy(p + 80, g->fp_tokenizer, 16);
	memcpy(p + 96, g->fp_adapters, 16);
	memcpy(p + 112, g->arch, strnlen(g->arch, ARCH));
	le64_put(p + 144, s->consumed);
	le64_put(p + 152, s->hist_first);
	le32_put(p + 160, (uint32_t)s->next_pos);
	le32_put(p + 164, s->tail);
	le32_put(p + 168, s->ids ? FLAG_IDS : 0);
}

/* 1 … max: 0 contradicts itself, more than max is for a later version. */
static enum kv_status
within(const char *what, uint32_t v, uint32_t max, struct kv_err *err)
{
	if (!v)
		return kv_fail(err, KV_ECORRUPT, "%s is 0", what);
	if (v > max)
		return kv_fail(err, KV_EUNSUP, "%s is %" PRIu32 ", this version takes up to %" PRIu32, what, v, max);
	return KV_OK;
}

static enum kv_status
check_sizes(const struct kvs_geom *g, struct kv_err *err)
{
	enum kv_status rc;

	if ((rc = within("n_layers", g->n_layers, KVS_MAX_LAYERS, err)) != KV_OK ||
	    (rc = within("n_heads_q", g->n_heads, KVS_MAX_HEADS, err)) != KV_OK ||
	    (rc = within("n_heads_kv", g->n_heads_kv, KVS_MAX_HEADS, err)) != KV_OK ||
	    (rc = within("d_k", g->d_k, KVS_MAX_DIM, err)) != KV_OK ||
	    (rc = within("d_v", g->d_v, KVS_MAX_DIM, err)) != KV_OK ||
	    (rc = within("n_embd", g->n_embd, MAX_EMBD, err)) != KV_OK ||
	    (rc = within("n_vocab", g->n_vocab, MAX_VOCAB, err)) != KV_OK)
		return rc;
	if (g->n_heads % g->n_heads_kv)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu32 " query heads do not share %" PRIu32 " kv heads evenly", g->n_heads, g->n_heads_kv);
	if (g->n_rope > KVS_MAX_ROPE)
		return kv_fail(err, KV_EUNSUP, "n_rope is %" PRIu32 ", this version takes up to %d", g->n_rope, KVS_MAX_ROPE);
	return KV_OK;
}

static bool
is_cap(float f)
{
	return isfinite(f) && f >= 0;
}

static enum kv_status
get_arch(const uint8_t *p, char out[ARCH + 1], struct kv_err *err)
{
	size_t n = strnlen((const char *)p, ARCH);

	for (size_t i = 0; i < n; i++)
		if (!(p[i] >= 'a' && p[i] <= 'z') && !(p[i] >= '0' && p[i] <= '9') && !strchr("._-", p[i]))
			return kv_fail(err, KV_ECORRUPT, "byte %02x in the name of the architecture", p[i]);
	if (!kvs_all_zero(p + n, ARCH - n))
		return kv_fail(err, KV_ECORRUPT, "bytes after the name of the architecture");
	memcpy(out, p, n);
	memset(out + n, 0, ARCH + 1 - n);
	return KV_OK;
}

/* Bytes 0 to 143: the model. */
static enum kv_status
get_model(const uint8_t *p, struct kvs_geom *g, struct kv_err *err)
{
	enum kv_status rc;

	if (le32_get(p + 32))
		return kv_fail(err, KV_EUNSUP, "attn_kind %" PRIu32 " is not known to this version", le32_get(p + 32));
	if (le32_get(p + 36))
		return kv_fail(err, KV_EUNSUP, "k_basis %" PRIu32 " is not known to this version", le32_get(p + 36));
	g->n_layers = le32_get(p);
	g->n_heads = le32_get(p + 4);
	g->n_heads_kv = le32_get(p + 8);
	g->d_k = le32_get(p + 12);
	g->d_v = le32_get(p + 16);
	g->n_embd = le32_get(p + 20);
	g->n_vocab = le32_get(p + 24);
	g->n_ctx_train = le32_get(p + 28);
	g->n_rope = le32_get(p + 40);
	g->attn_scale = lef32_get(p + 48);
	g->attn_softcap = lef32_get(p + 52);
	g->final_softcap = lef32_get(p + 56);
	g->fp_kind = le32_get(p + 60);
	memcpy(g->fp_model, p + 64, 16);
	memcpy(g->fp_tokenizer, p + 80, 16);
	memcpy(g->fp_adapters, p + 96, 16);
	if ((rc = check_sizes(g, err)) != KV_OK || (rc = get_arch(p + 112, g->arch, err)) != KV_OK)
		return rc;
	if (!isfinite(g->attn_scale) || g->attn_scale <= 0 || !is_cap(g->attn_softcap) || !is_cap(g->final_softcap))
		return kv_fail(err, KV_ECORRUPT, "attention scale %g, caps %g and %g", g->attn_scale, g->attn_softcap, g->final_softcap);
	if (g->fp_kind > 1)
		return kv_fail(err, KV_EUNSUP, "fingerprints of kind %" PRIu32 " are not known to this version", g->fp_kind);
	if (!g->fp_kind && !kvs_all_zero(p + 64, 48))
		return kv_fail(err, KV_ECORRUPT, "fingerprints without a kind");
	return KV_OK;
}

/* Bytes 144 to 255: the state. */
static enum kv_status
get_state(const uint8_t *p, struct kvs_state *s, struct kv_err *err)
{
	uint32_t flags = le32_get(p + 168);

	s->consumed = le64_get(p + 144);
	s->hist_first = le64_get(p + 152);
	s->next_pos = (int32_t)le32_get(p + 160);
	s->tail = le32_get(p + 164);
	s->ids = flags & FLAG_IDS;
	if (flags & ~(uint32_t)FLAG_IDS)
		return kv_fail(err, KV_EUNSUP, "flags %" PRIx32 " are not known to this version", flags);
	if (s->consumed > UINT32_MAX)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu64 " tokens read", s->consumed);
	if (s->hist_first > s->consumed || s->tail > s->consumed || (!s->ids && s->hist_first != s->consumed))
		return kv_fail(err, KV_ECORRUPT, "%" PRIu64 " tokens read, history from %" PRIu64 ", tail %" PRIu32, s->consumed,
			s->hist_first, s->tail);
	if (s->next_pos < 0)
		return kv_fail(err, KV_ECORRUPT, "next position %" PRId32, s->next_pos);
	return KV_OK;
}

enum kv_status
kvs_geom_get(const uint8_t *p, size_t n, struct kvs_geom *g, struct kvs_state *s, struct kv_err *err)
{
	struct kvs_geom model;	/* only what comes before rope[] is set and copied */
	struct kvs_state state;
	enum kv_status rc;

	if (n != KVS_GEOM_BYTES)
		return kv_fail(err, KV_EUNSUP, "%zu bytes of geometry, this version reads %d", n, KVS_GEOM_BYTES);
	if (!kvs_all_zero(p + 44, 4) || !kvs_all_zero(p + 172, 84))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	if ((rc = get_model(p, &model, err)) != KV_OK || (rc = get_state(p, &state, err)) != KV_OK)
		return rc;
	memcpy(g, &model, offsetof(struct kvs_geom, rope));
	*s = state;
	return KV_OK;
}

void
kvs_rope_put(struct kv_buf *out, const struct kvs_rope *r)
{
	uint8_t *p = kv_buf_grow(out, ROPE_BYTES + 2 * (size_t)r->n_rot);

	if (!p)
		return;
	memset(p, 0, ROPE_BYTES);
	le32_put(p, r->kind);
	le32_put(p + 4, r->n_rot);
	lef32_put(p + 8, r->theta);
	le32_put(p + 12, r->scaling);
	lef32_put(p + 16, r->factor);
	le32_put(p + 20, r->n_ctx_orig);
	lef32_put(p + 24, r->magnitude);
	lef32_put(p + 28, r->beta_fast);
	lef32_put(p + 32, r->beta_slow);
	lef32_put(p + 36, r->ext_factor);
	for (uint32_t i = 0; i < r->n_rot / 2; i++)
		lef32_put(p + ROPE_BYTES + 4 * (size_t)i, r->inv_freq[i]);
}

static enum kv_status
check_rope(const struct kvs_rope *r, struct kv_err *err)
{
	bool good = isfinite(r->theta) && isfinite(r->factor) && isfinite(r->magnitude) && isfinite(r->beta_fast) &&
		isfinite(r->beta_slow) && isfinite(r->ext_factor);

	for (uint32_t i = 0; i < r->n_rot / 2; i++)
		good &= isfinite(r->inv_freq[i]);
	return good ? KV_OK : kv_fail(err, KV_ECORRUPT, "a number that is not finite");
}

enum kv_status
kvs_rope_get(const uint8_t *p, size_t n, const struct kvs_geom *g, struct kvs_rope *r, struct kv_err *err)
{
	struct kvs_rope v = { 0 };
	enum kv_status rc;

	if (n < ROPE_BYTES)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes", n);
	v.kind = le32_get(p);
	v.n_rot = le32_get(p + 4);
	v.theta = lef32_get(p + 8);
	v.scaling = le32_get(p + 12);
	v.factor = lef32_get(p + 16);
	v.n_ctx_orig = le32_get(p + 20);
	v.magnitude = lef32_get(p + 24);
	v.beta_fast = lef32_get(p + 28);
	v.beta_slow = lef32_get(p + 32);
	v.ext_factor = lef32_get(p + 36);
	if ((v.kind != KVS_ROPE_NORM && v.kind != KVS_ROPE_NEOX) || v.scaling > KVS_SCALE_YARN)
		return kv_fail(err, KV_EUNSUP, "kind %" PRIu32 " with scaling %" PRIu32 " is not known to this version", v.kind, v.scaling);
	if (!kvs_all_zero(p + 40, 24))
		return kv_fail(err, KV_EUNSUP, "a reserved field is set");
	if (v.n_rot < 2 || v.n_rot % 2 || v.n_rot > g->d_k || n != ROPE_BYTES + 2 * (size_t)v.n_rot)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " rotated channels of %" PRIu32, n, v.n_rot, g->d_k);
	for (uint32_t i = 0; i < v.n_rot / 2; i++)
		v.inv_freq[i] = lef32_get(p + ROPE_BYTES + 4 * (size_t)i);
	if ((rc = check_rope(&v, err)) != KV_OK)
		return rc;
	*r = v;
	return KV_OK;
}

void
kvs_layers_put(struct kv_buf *out, const struct kvs_geom *g)
{
	uint8_t *p = kv_buf_grow(out, (size_t)LAYER_BYTES * g->n_layers);

	if (!p)
		return;
	memset(p, 0, (size_t)LAYER_BYTES * g->n_layers);
	for (uint32_t l = 0; l < g->n_layers; l++, p += LAYER_BYTES) {
		p[0] = g->layer[l].rope;
		p[1] = g->layer[l].k_dtype;
		p[2] = g->layer[l].v_dtype;
		le32_put(p + 4, g->layer[l].window);
	}
}

enum kv_status
kvs_layers_get(const uint8_t *p, size_t n, struct kvs_geom *g, struct kv_err *err)
{
	if (n != (size_t)LAYER_BYTES * g->n_layers)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes for %" PRIu32 " layers", n, g->n_layers);
	for (uint32_t l = 0; l < g->n_layers; l++) {
		const uint8_t *q = p + (size_t)LAYER_BYTES * l;

		if (q[0] != KVS_NO_ROPE && q[0] >= g->n_rope)
			return kv_fail(err, KV_ECORRUPT, "layer %" PRIu32 " names RoPE set %u of %" PRIu32, l, q[0], g->n_rope);
		if (!kvs_dtype_size(q[1]) || !kvs_dtype_size(q[2]))
			return kv_fail(err, KV_EUNSUP, "layer %" PRIu32 ": element types %u and %u are not known to this version", l, q[1], q[2]);
		if (q[3] || !kvs_all_zero(q + 8, 8))
			return kv_fail(err, KV_EUNSUP, "layer %" PRIu32 ": a reserved field is set", l);
	}
	for (uint32_t l = 0; l < g->n_layers; l++, p += LAYER_BYTES)
		g->layer[l] = (struct kvs_layer){ .rope = p[0], .k_dtype = p[1], .v_dtype = p[2], .window = le32_get(p + 4) };
	return KV_OK;
}
