/* A model opened: its numbers read, its tensors found, their shapes checked against the numbers. */
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "model/frequencies.h"
#include "model/loader.h"
#include "util/text.h"

/* Vectors that could not be used where they lie. */
struct owned {
	struct owned *next;
	float v[];
};

/* The tensors of a block, after "blk.N.". Others in a file would mean a computation that is not ours. */
static const char *const block_names[] = {
	"attn_norm.weight", "ffn_norm.weight", "attn_q_norm.weight", "attn_k_norm.weight",
	"attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_qkv.weight", "attn_output.weight",
	"attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_qkv.bias", "attn_output.bias",
	"ffn_gate.weight", "ffn_up.weight", "ffn_down.weight", "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias",
};

static const char *const outer_names[] = {
	"token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight",
};

static bool
is_one_of(struct kv_str s, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (s.n == strlen(names[i]) && !memcmp(s.p, names[i], s.n))
			return true;
	return false;
}

/* "blk.17.attn_q.weight" → "attn_q.weight" */
static struct kv_str
inside_block(struct kv_str s)
{
	size_t i = 4;

	if (s.n < 4 || memcmp(s.p, "blk.", 4))
		return (struct kv_str){ s.p, 0 };
	while (i < s.n && s.p[i] >= '0' && s.p[i] <= '9')
		i++;
	i += i < s.n;
	return (struct kv_str){ s.p + i, s.n - i };
}

static enum kv_status
refuse_unknown_tensors(const struct kv_loader *l)
{
	const struct kv_gguf *g = l->m->gguf;
	char name[128];

	for (size_t i = 0; i < kv_gguf_n_tensors(g); i++) {
		const struct kv_tensor *t = kv_gguf_tensor_at(g, i);

		if (!is_one_of(t->name, outer_names, sizeof outer_names / sizeof *outer_names) &&
			!is_one_of(inside_block(t->name), block_names, sizeof block_names / sizeof *block_names))
			return kv_loader_fail(l, KV_EUNSUP, "tensor %s, which this version has no use for: another kind of model",
				kv_quote(name, sizeof name, t->name.p, t->name.n));
	}
	return KV_OK;
}

/* The tensor, of a type that we read and of the shape [n_in, n_out]. KV_END: absent. */
static enum kv_status
find(const struct kv_loader *l, const char *name, uint64_t n_in, uint64_t n_out, const struct kv_tensor **out)
{
	const struct kv_tensor *t = kv_gguf_tensor(l->m->gguf, name);
	const struct kv_wtype_info *type;

	if (!t)
		return KV_END;
	type = kv_wtype_info(t->type);
	if (!type || !type->values)
		return kv_loader_fail(l, KV_EUNSUP, "tensor %s is of type %s, which this version does not read", name,
			kv_wtype_name(t->type));
	if (t->dim[0] != n_in || t->dim[1] != n_out || t->dim[2] != 1 || t->dim[3] != 1)
		return kv_loader_fail(l, KV_ECORRUPT, "tensor %s has the shape [%llu, %llu, %llu, %llu], not [%llu, %llu]", name,
			(unsigned long long)t->dim[0], (unsigned long long)t->dim[1], (unsigned long long)t->dim[2],
			(unsigned long long)t->dim[3], (unsigned long long)n_in, (unsigned long long)n_out);
	if (n_in % type->values || t->bytes / n_out < n_in / type->values * type->bytes)
		return kv_loader_fail(l, KV_ECORRUPT, "tensor %s: rows of %llu values are no whole blocks of %s", name,
			(unsigned long long)n_in, type->name);
	*out = t;
	return KV_OK;
}

static enum kv_status
lacks(const struct kv_loader *l, const char *name)
{
	return kv_loader_fail(l, KV_ECORRUPT, "tensor %s is missing", name);
}

/* KV_END: absent. */
static enum kv_status
maybe_matrix(const struct kv_loader *l, const char *name, size_t n_in, size_t n_out, struct kv_weight *w)
{
	const struct kv_tensor *t;
	enum kv_status rc = find(l, name, n_in, n_out, &t);

	if (rc == KV_OK) {
		const struct kv_wtype_info *type = kv_wtype_info(t->type);

		*w = (struct kv_weight){ t->data, t->type, n_out, n_in, n_in / type->values * type->bytes };
	}
	return rc;
}

static enum kv_status
matrix(const struct kv_loader *l, const char *name, size_t n_in, size_t n_out, struct kv_weight *w)
{
	enum kv_status rc = maybe_matrix(l, name, n_in, n_out, w);

	return rc == KV_END ? lacks(l, name) : rc;
}

/* A vector as f32: where it lies in the file, or converted. KV_END: absent. */
static enum kv_status
maybe_vector(const struct kv_loader *l, const char *name, size_t n, const float **out)
{
	const struct kv_tensor *t;
	struct owned *o;
	enum kv_status rc = find(l, name, n, 1, &t);

	if (rc != KV_OK)
		return rc;
	if (t->type == KV_W_F32 && (uintptr_t)t->data % sizeof(float) == 0) {
		*out = (const float *)(const void *)t->data;
		return KV_OK;
	}
	if (!(o = malloc(sizeof *o + n * sizeof *o->v)))
		return kv_fail_mem(l->err, "a vector of the model");
	kv_dequant(t->type, t->data, n, o->v);
	o->next = l->m->owned;
	l->m->owned = o;
	*out = o->v;
	return KV_OK;
}

static enum kv_status
vector(const struct kv_loader *l, const char *name, size_t n, const float **out)
{
	enum kv_status rc = maybe_vector(l, name, n, out);

	return rc == KV_END ? lacks(l, name) : rc;
}

/* Vectors and matrices of block i, by their names inside it. */
struct wanted {
	const char *name;
	size_t n_in, n_out;		/* n_out = 0: a vector of n_in */
	bool optional;
	void *to;			/* const float **, or struct kv_weight * */
};

static enum kv_status
get_wanted(const struct kv_loader *l, uint32_t i, const struct wanted *w, size_t n)
{
	for (size_t k = 0; k < n; k++) {
		char name[64];
		enum kv_status rc;

		snprintf(name, sizeof name, "blk.%u.%s", i, w[k].name);
		if (w[k].n_out)
			rc = maybe_matrix(l, name, w[k].n_in, w[k].n_out, w[k].to);
		else
			rc = maybe_vector(l, name, w[k].n_in, w[k].to);
		if (rc == KV_END && !w[k].optional)
			rc = lacks(l, name);
		if (rc != KV_OK && rc != KV_END)
			return rc;
	}
	return KV_OK;
}

static void
slice(const struct kv_weight *w, size_t first, size_t n, struct kv_weight *out)
{
	*out = *w;
	out->data += first * w->row_bytes;
	out->n_out = n;
}

/* Queries, keys and values: three matrices, or one with the rows of all three. */
static enum kv_status
get_qkv(const struct kv_loader *l, uint32_t i)
{
	const struct kvs_geom *g = &l->m->geom;
	struct kv_block *b = &l->m->block[i];
	size_t d = g->n_embd, q = (size_t)g->n_heads * g->d_k, k = (size_t)g->n_heads_kv * g->d_k, v = (size_t)g->n_heads_kv * g->d_v;
	struct kv_weight all = { 0 };
	const float *bias = NULL;
	enum kv_status rc;

	if ((rc = get_wanted(l, i, (struct wanted[]){ { "attn_qkv.weight", d, q + k + v, true, &all } }, 1)) != KV_OK)
		return rc;
	if (!all.data)
		return get_wanted(l, i, (struct wanted[]){
			{ "attn_q.weight", d, q, false, &b->q }, { "attn_q.bias", q, 0, true, &b->q_bias },
			{ "attn_k.weight", d, k, false, &b->k }, { "attn_k.bias", k, 0, true, &b->k_bias },
			{ "attn_v.weight", d, v, false, &b->v }, { "attn_v.bias", v, 0, true, &b->v_bias },
		}, 6);
	slice(&all, 0, q, &b->q);
	slice(&all, q, k, &b->k);
	slice(&all, q + k, v, &b->v);
	if ((rc = get_wanted(l, i, (struct wanted[]){ { "attn_qkv.bias", q + k + v, 0, true, &bias } }, 1)) != KV_OK || !bias)
		return rc;
	b->q_bias = bias;
	b->k_bias = bias + q;
	b->v_bias = bias + q + k;
	return KV_OK;
}

static enum kv_status
get_block(const struct kv_loader *l, uint32_t i)
{
	const struct kvs_geom *g = &l->m->geom;
	struct kv_block *b = &l->m->block[i];
	size_t d = g->n_embd, f = l->m->n_ff;
	enum kv_status rc = get_qkv(l, i);

	if (rc == KV_OK && kv_arch_has_qk_norm(l->arch))
		rc = get_wanted(l, i, (struct wanted[]){
			{ "attn_q_norm.weight", g->d_k, 0, false, &b->q_norm }, { "attn_k_norm.weight", g->d_k, 0, false, &b->k_norm },
		}, 2);
	if (rc != KV_OK)
		return rc;
	return get_wanted(l, i, (struct wanted[]){
		{ "attn_norm.weight", d, 0, false, &b->attn_norm }, { "ffn_norm.weight", d, 0, false, &b->ffn_norm },
		{ "attn_output.weight", (size_t)g->n_heads * g->d_v, d, false, &b->o }, { "attn_output.bias", d, 0, true, &b->o_bias },
		{ "ffn_gate.weight", d, f, false, &b->gate }, { "ffn_gate.bias", f, 0, true, &b->gate_bias },
		{ "ffn_up.weight", d, f, false, &b->up }, { "ffn_up.bias", f, 0, true, &b->up_bias },
		{ "ffn_down.weight", f, d, false, &b->down }, { "ffn_down.bias", d, 0, true, &b->down_bias },
	}, 10);
}

/* The embedding says how large the vocabulary is; a key that says otherwise is a fault. */
static enum kv_status
get_outer(const struct kv_loader *l)
{
	struct kv_model *m = l->m;
	struct kvs_geom *g = &m->geom;
	const struct kv_tensor *t = kv_gguf_tensor(m->gguf, "token_embd.weight");
	char key[64];
	uint64_t said;
	enum kv_status rc;

	if (!t)
		return lacks(l, "token_embd.weight");
	if (t->dim[1] < 1 || t->dim[1] > 1 << 24)
		return kv_loader_fail(l, KV_ECORRUPT, "a vocabulary of %llu tokens is out of range", (unsigned long long)t->dim[1]);
	g->n_vocab = (uint32_t)t->dim[1];
	snprintf(key, sizeof key, "%s.vocab_size", g->arch);
	rc = kv_gguf_u64(m->gguf, key, UINT32_MAX, &said, l->err);
	if (rc == KV_OK && said != g->n_vocab)
		return kv_loader_fail(l, KV_ECORRUPT, "key '%s' is %llu, the embedding has %u rows", key, (unsigned long long)said,
			g->n_vocab);
	if (rc != KV_OK && rc != KV_END)
		return rc;
	if ((rc = matrix(l, "token_embd.weight", g->n_embd, g->n_vocab, &m->embd)) != KV_OK)
		return rc;
	m->output = m->embd;
	if ((rc = maybe_matrix(l, "output.weight", g->n_embd, g->n_vocab, &m->output)) != KV_OK && rc != KV_END)
		return rc;
	return vector(l, "output_norm.weight", g->n_embd, &m->output_norm);
}

static enum kv_status
get_frequencies(const struct kv_loader *l)
{
	struct kvs_rope *r = &l->m->geom.rope[0];
	const float *factors = NULL;
	enum kv_status rc = maybe_vector(l, "rope_freqs.weight", r->n_rot / 2, &factors);

	if (rc != KV_OK && rc != KV_END)
		return rc;
	for (uint32_t i = 0; factors && i < r->n_rot / 2; i++)
		if (!isfinite(factors[i]) || factors[i] <= 0)
			return kv_loader_fail(l, KV_ECORRUPT, "tensor rope_freqs.weight: value %u is %g", i, (double)factors[i]);
	if (factors && r->scaling == KVS_SCALE_NONE) {
		r->scaling = KVS_SCALE_FACTORS;
		r->n_ctx_orig = l->m->geom.n_ctx_train;
	}
	kv_frequencies(r, factors, l->attn_factor);
	for (uint32_t i = 0; i < r->n_rot / 2; i++)
		if (!isfinite(r->inv_freq[i]))
			return kv_loader_fail(l, KV_ECORRUPT, "RoPE's base and scaling give no frequency for pair %u", i);
	return KV_OK;
}

static enum kv_status
load(struct kv_loader *l, enum kvs_dtype dtype)
{
	struct kv_model *m = l->m;
	struct kvs_geom *g = &m->geom;
	enum kv_status rc;

	if ((rc = kv_hparams(l, dtype)) != KV_OK || (rc = refuse_unknown_tensors(l)) != KV_OK || (rc = get_outer(l)) != KV_OK ||
		(rc = get_frequencies(l)) != KV_OK)
		return rc;
	if (!(m->block = kv_array_new(g->n_layers, sizeof *m->block)))
		return kv_fail_mem(l->err, "the layers of a model");
	for (uint32_t i = 0; i < g->n_layers; i++)
		if ((rc = get_block(l, i)) != KV_OK)
			return rc;
	m->activation = KV_SILU;
	rc = kv_gguf_str(m->gguf, "general.name", &m->name, l->err);
	if (rc != KV_OK && rc != KV_END)
		return rc;
	g->fp_kind = 1;
	return kv_gguf_fingerprint(m->gguf, g->fp_model, g->fp_tokenizer, l->err);
}

enum kv_status
kv_model_from(struct kv_gguf *g, enum kvs_dtype dtype, struct kv_model **out, struct kv_err *err)
{
	struct kv_loader l = { .m = kv_array_new(1, sizeof *l.m), .err = err };
	enum kv_status rc;

	if (!l.m) {
		kv_gguf_close(g);
		return kv_fail_mem(err, "a model");
	}
	l.m->gguf = g;
	if ((rc = load(&l, dtype)) == KV_OK) {
		*out = l.m;
		return KV_OK;
	}
	kv_model_free(l.m);
	return rc;
}

enum kv_status
kv_model_open(const char *path, enum kvs_dtype dtype, struct kv_model **out, struct kv_err *err)
{
	struct kv_gguf *g;
	enum kv_status rc = kv_gguf_open(path, &g, err);

	return rc == KV_OK ? kv_model_from(g, dtype, out, err) : rc;
}

void
kv_model_free(struct kv_model *m)
{
	if (!m)
		return;
	for (struct owned *o = m->owned, *next; o; o = next) {
		next = o->next;
		free(o);
	}
	free(m->block);
	kv_gguf_close(m->gguf);
	free(m);
}
