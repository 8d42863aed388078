/* Are two geometries of one model? Says what differs first, and both sides of it (formats/kvs.md, sections 7.1 to 7.4). */
#include "kvs/geom.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kvs/digest.h"

static enum kv_status
differs(struct kv_err *err, const char *what, const char *model, const char *snap)
{
	return kv_fail(err, KV_EFIT, "%s: the model has %s, the snapshot has %s", what, model, snap);
}

static enum kv_status
same_number(const char *what, uint32_t model, uint32_t snap, struct kv_err *err)
{
	char a[16], b[16];

	if (model == snap)
		return KV_OK;
	snprintf(a, sizeof a, "%" PRIu32, model);
	snprintf(b, sizeof b, "%" PRIu32, snap);
	return differs(err, what, a, b);
}

static enum kv_status
same_real(const char *what, float model, float snap, struct kv_err *err)
{
	char a[32], b[32];

	if (model == snap)
		return KV_OK;
	snprintf(a, sizeof a, "%.9g", (double)model);
	snprintf(b, sizeof b, "%.9g", (double)snap);
	return differs(err, what, a, b);
}

/* The first 12 digits tell two models apart for a person. */
static enum kv_status
same_print(const char *what, const uint8_t model[16], const uint8_t snap[16], struct kv_err *err)
{
	char a[33], b[33];

	if (!memcmp(model, snap, 16))
		return KV_OK;
	return kv_fail(err, KV_EFIT, "snapshot was made with another model: %s differ in fingerprint (snapshot %.12s…, model %.12s…)", what,
		kvs_hex128(snap, b), kvs_hex128(model, a));
}

/* The training context is for warnings alone, and may be unknown. */
static enum kv_status
same_numbers(const struct kvs_geom *m, const struct kvs_geom *s, struct kv_err *err)
{
	const struct { const char *what; uint32_t m, s; } rows[] = {
		{ "layers", m->n_layers, s->n_layers },
		{ "query heads", m->n_heads, s->n_heads },
		{ "kv heads", m->n_heads_kv, s->n_heads_kv },
		{ "width of a key", m->d_k, s->d_k },
		{ "width of a value", m->d_v, s->d_v },
		{ "hidden size", m->n_embd, s->n_embd },
		{ "vocabulary", m->n_vocab, s->n_vocab },
		{ "RoPE sets", m->n_rope, s->n_rope },
	};
	enum kv_status rc;

	if (strcmp(m->arch, s->arch))
		return differs(err, "architecture", *m->arch ? m->arch : "none", *s->arch ? s->arch : "none");
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if ((rc = same_number(rows[i].what, rows[i].m, rows[i].s, err)) != KV_OK)
			return rc;
	if ((rc = same_real("attention scale", m->attn_scale, s->attn_scale, err)) != KV_OK ||
	    (rc = same_real("cap of attention scores", m->attn_softcap, s->attn_softcap, err)) != KV_OK ||
	    (rc = same_real("cap of logits", m->final_softcap, s->final_softcap, err)) != KV_OK)
		return rc;
	return KV_OK;
}

/* Frequencies come from pow() of whoever wrote them: the last bits may differ. */
static enum kv_status
same_rope(unsigned set, const struct kvs_rope *m, const struct kvs_rope *s, struct kv_err *err)
{
	char what[48];
	enum kv_status rc;

	snprintf(what, sizeof what, "kind of RoPE set %u", set);
	if ((rc = same_number(what, m->kind, s->kind, err)) != KV_OK)
		return rc;
	snprintf(what, sizeof what, "rotated channels of RoPE set %u", set);
	if ((rc = same_number(what, m->n_rot, s->n_rot, err)) != KV_OK)
		return rc;
	snprintf(what, sizeof what, "magnitude of RoPE set %u", set);
	if ((rc = same_real(what, m->magnitude, s->magnitude, err)) != KV_OK)
		return rc;
	for (uint32_t i = 0; i < m->n_rot / 2; i++) {
		double a = m->inv_freq[i], b = s->inv_freq[i];

		if (fabs(a - b) <= 1e-6 * fabs(b))
			continue;
		snprintf(what, sizeof what, "frequency %" PRIu32 " of RoPE set %u", i, set);
		return same_real(what, m->inv_freq[i], s->inv_freq[i], err);
	}
	return KV_OK;
}

static enum kv_status
same_layers(const struct kvs_geom *m, const struct kvs_geom *s, struct kv_err *err)
{
	char what[48];
	enum kv_status rc;

	for (uint32_t l = 0; l < m->n_layers; l++) {
		snprintf(what, sizeof what, "RoPE set of layer %" PRIu32, l);
		if ((rc = same_number(what, m->layer[l].rope, s->layer[l].rope, err)) != KV_OK)
			return rc;
		snprintf(what, sizeof what, "window of layer %" PRIu32, l);
		if ((rc = same_number(what, m->layer[l].window, s->layer[l].window, err)) != KV_OK)
			return rc;
	}
	return KV_OK;
}

/* Both sides have fingerprints? KV_END: one has not, and force says that this will do. */
static enum kv_status
have_prints(const struct kvs_geom *m, const struct kvs_geom *s, bool force, struct kv_err *err)
{
	if (m->fp_kind && s->fp_kind)
		return KV_OK;
	if (force)
		return KV_END;
	return kv_fail(err, KV_EFIT, "the fingerprint of the %s is unknown, so nothing proves that they belong together; --force goes on",
		s->fp_kind ? "model" : "snapshot's model");
}

enum kv_status
kvs_geom_same_model(const struct kvs_geom *model, const struct kvs_geom *snap, bool force, struct kv_err *err)
{
	enum kv_status rc;

	if ((rc = same_numbers(model, snap, err)) != KV_OK)
		return rc;
	for (unsigned i = 0; i < model->n_rope; i++)
		if ((rc = same_rope(i, &model->rope[i], &snap->rope[i], err)) != KV_OK)
			return rc;
	if ((rc = same_layers(model, snap, err)) != KV_OK)
		return rc;
	if ((rc = have_prints(model, snap, force, err)) != KV_OK)
		return rc == KV_END ? KV_OK : rc;
	if ((rc = same_print("weights", model->fp_model, snap->fp_model, err)) != KV_OK)
		return rc;
	return same_print("adapters", model->fp_adapters, snap->fp_adapters, err);
}

enum kv_status
kvs_geom_same_tokenizer(const struct kvs_geom *model, const struct kvs_geom *snap, bool force, struct kv_err *err)
{
	enum kv_status rc = have_prints(model, snap, force, err);

	if (rc != KV_OK)
		return rc == KV_END ? KV_OK : rc;
	return same_print("vocabularies", model->fp_tokenizer, snap->fp_tokenizer, err);
}
