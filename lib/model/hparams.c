/* The numbers of a model: keys of its GGUF file, each within the range that the program can carry. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/loader.h"
#include "util/text.h"

struct kv_arch {
	const char *name;
	uint32_t pairing;
	bool qk_norm;
};

static const struct kv_arch archs[] = {
	{ "llama", KVS_ROPE_NORM, false },
	{ "qwen2", KVS_ROPE_NEOX, false },
	{ "qwen3", KVS_ROPE_NEOX, true },
};

bool
kv_arch_has_qk_norm(const struct kv_arch *a)
{
	return a->qk_norm;
}

enum kv_status
kv_loader_fail(const struct kv_loader *l, enum kv_status code, const char *fmt, ...)
{
	char text[sizeof l->err->text];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	return kv_fail(l->err, code, "%s: %s", kv_gguf_name(l->m->gguf), text);
}

struct key {
	char s[96];
};

/* "llama.attention.head_count" */
static struct key
key_of(const struct kv_loader *l, const char *name)
{
	struct key k;

	snprintf(k.s, sizeof k.s, "%s.%s", l->arch->name, name);
	return k;
}

static enum kv_status
missing(const struct kv_loader *l, const char *name)
{
	return kv_loader_fail(l, KV_ECORRUPT, "key '%s' is missing", key_of(l, name).s);
}

/* An array with a value per layer: all the same, or we cannot run it. */
static enum kv_status
one_of_array(const struct kv_loader *l, const char *key, uint64_t max, uint64_t *out)
{
	struct kv_gguf_array a;
	uint64_t first, v;
	enum kv_status rc = kv_gguf_array(l->m->gguf, key, &a, l->err);

	if (rc != KV_OK)
		return rc;
	if (kv_gguf_elem_u64(&a, 0, max, &first) != KV_OK)
		return kv_loader_fail(l, KV_ECORRUPT, "key '%s': an array without a first number in range", key);
	for (uint64_t i = 1; i < a.n; i++) {
		if (kv_gguf_elem_u64(&a, i, max, &v) != KV_OK)
			return kv_loader_fail(l, KV_ECORRUPT, "key '%s': element %llu is out of range", key, (unsigned long long)i);
		if (v != first)
			return kv_loader_fail(l, KV_EUNSUP, "key '%s' differs between layers, which this program cannot run", key);
	}
	*out = first;
	return KV_OK;
}

/* An integer in [min, max]. KV_END: absent. */
static enum kv_status
maybe_int(const struct kv_loader *l, const char *name, uint64_t min, uint64_t max, uint32_t *out)
{
	struct key k = key_of(l, name);
	uint64_t v;
	enum kv_status rc;

	if (kv_gguf_is_array(l->m->gguf, k.s))
		rc = one_of_array(l, k.s, max, &v);
	else
		rc = kv_gguf_u64(l->m->gguf, k.s, max, &v, l->err);
	if (rc != KV_OK)
		return rc;
	if (v < min)
		return kv_loader_fail(l, KV_ECORRUPT, "key '%s' is %llu, less than %llu", k.s, (unsigned long long)v,
			(unsigned long long)min);
	*out = (uint32_t)v;
	return KV_OK;
}

static enum kv_status
need_int(const struct kv_loader *l, const char *name, uint64_t max, uint32_t *out)
{
	enum kv_status rc = maybe_int(l, name, 1, max, out);

	return rc == KV_END ? missing(l, name) : rc;
}

/* The same, else what *out holds. */
static enum kv_status
int_or(const struct kv_loader *l, const char *name, uint64_t min, uint64_t max, uint32_t *out)
{
	enum kv_status rc = maybe_int(l, name, min, max, out);

	return rc == KV_END ? KV_OK : rc;
}

/* A number that is at least min (above it, if `above`), else what *out holds. */
static enum kv_status
real_or(const struct kv_loader *l, const char *name, float min, bool above, float *out)
{
	struct key k = key_of(l, name);
	float v;
	enum kv_status rc = kv_gguf_f32(l->m->gguf, k.s, &v, l->err);

	if (rc == KV_END)
		return KV_OK;
	if (rc != KV_OK)
		return rc;
	if (!isfinite(v) || v < min || (above && v == min))
		return kv_loader_fail(l, KV_ECORRUPT, "key '%s' is %g, which is out of range", k.s, (double)v);
	*out = v;
	return KV_OK;
}

static enum kv_status
read_arch(struct kv_loader *l)
{
	const struct kv_gguf *g = l->m->gguf;
	struct kv_str s;
	char name[128];
	enum kv_status rc = kv_gguf_str(g, "general.architecture", &s, l->err);

	if (rc == KV_END)
		return kv_loader_fail(l, KV_ECORRUPT, "key 'general.architecture' is missing");
	if (rc != KV_OK)
		return rc;
	for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
		if (s.n == strlen(archs[i].name) && !memcmp(s.p, archs[i].name, s.n))
			l->arch = &archs[i];
	if (!l->arch)
		return kv_loader_fail(l, KV_EUNSUP, "architecture %s is not among those that this version runs: llama, qwen2, qwen3",
			kv_quote(name, sizeof name, s.p, s.n));
	snprintf(l->m->geom.arch, sizeof l->m->geom.arch, "%s", l->arch->name);
	return KV_OK;
}

/* What would change the computation in a way that is not ours. */
static enum kv_status
refuse_others(const struct kv_loader *l)
{
	uint32_t n = 0;
	enum kv_status rc;

	if ((rc = int_or(l, "expert_count", 0, UINT32_MAX, &n)) != KV_OK)
		return rc;
	if (n)
		return kv_loader_fail(l, KV_EUNSUP, "a mixture of %u experts, which this version does not run", n);
	if (maybe_int(l, "attention.sliding_window_pattern", 0, UINT32_MAX, &n) != KV_END)
		return kv_loader_fail(l, KV_EUNSUP, "layers with and without a window, which this version does not run");
	return KV_OK;
}

static enum kv_status
read_sizes(const struct kv_loader *l)
{
	struct kvs_geom *g = &l->m->geom;
	enum kv_status rc;

	if ((rc = need_int(l, "block_count", KVS_MAX_LAYERS, &g->n_layers)) != KV_OK ||
		(rc = need_int(l, "context_length", UINT32_MAX, &g->n_ctx_train)) != KV_OK ||
		(rc = need_int(l, "embedding_length", 1 << 20, &g->n_embd)) != KV_OK ||
		(rc = need_int(l, "feed_forward_length", 1 << 24, &l->m->n_ff)) != KV_OK ||
		(rc = need_int(l, "attention.head_count", KVS_MAX_HEADS, &g->n_heads)) != KV_OK)
		return rc;
	g->n_heads_kv = g->n_heads;
	g->d_k = g->d_v = g->n_embd / g->n_heads;
	if ((rc = int_or(l, "attention.head_count_kv", 1, KVS_MAX_HEADS, &g->n_heads_kv)) != KV_OK ||
		(rc = int_or(l, "attention.key_length", 1, KVS_MAX_DIM, &g->d_k)) != KV_OK ||
		(rc = int_or(l, "attention.value_length", 1, KVS_MAX_DIM, &g->d_v)) != KV_OK)
		return rc;
	if (g->n_heads % g->n_heads_kv)
		return kv_loader_fail(l, KV_ECORRUPT, "%u query heads do not share %u kv heads evenly", g->n_heads, g->n_heads_kv);
	if (g->d_k < 1 || g->d_k > KVS_MAX_DIM || g->d_v < 1 || g->d_v > KVS_MAX_DIM)
		return kv_loader_fail(l, KV_ECORRUPT, "heads of %u and %u channels are out of range", g->d_k, g->d_v);
	return KV_OK;
}

static enum kv_status
read_attention(const struct kv_loader *l, enum kvs_dtype dtype)
{
	struct kvs_geom *g = &l->m->geom;
	uint32_t window = 0;
	float scale = 0;
	enum kv_status rc;

	l->m->eps = -1;
	if ((rc = real_or(l, "attention.layer_norm_rms_epsilon", 0, true, &l->m->eps)) != KV_OK ||
		(rc = real_or(l, "attention.scale", 0, false, &scale)) != KV_OK ||
		(rc = real_or(l, "attn_logit_softcapping", 0, false, &g->attn_softcap)) != KV_OK ||
		(rc = real_or(l, "final_logit_softcapping", 0, false, &g->final_softcap)) != KV_OK ||
		(rc = int_or(l, "attention.sliding_window", 0, INT32_MAX, &window)) != KV_OK)
		return rc;
	if (l->m->eps < 0)
		return missing(l, "attention.layer_norm_rms_epsilon");
	g->attn_scale = scale > 0 ? scale : (float)(1 / sqrt((double)g->d_k));
	for (uint32_t i = 0; i < g->n_layers; i++)
		g->layer[i] = (struct kvs_layer){ .k_dtype = (uint8_t)dtype, .v_dtype = (uint8_t)dtype, .window = window };
	return KV_OK;
}

/* The name of the scaling rule; absent means linear, which without a factor is none. */
static enum kv_status
read_scaling(const struct kv_loader *l, struct kvs_rope *r)
{
	struct kv_str s = { "linear", 6 };
	char name[64];
	enum kv_status rc = kv_gguf_str(l->m->gguf, key_of(l, "rope.scaling.type").s, &s, l->err);

	if (rc != KV_OK && rc != KV_END)
		return rc;
	kv_quote(name, sizeof name, s.p, s.n);
	if (s.n == 4 && !memcmp(s.p, "none", 4))
		r->scaling = KVS_SCALE_NONE;
	else if (s.n == 6 && !memcmp(s.p, "linear", 6))
		r->scaling = KVS_SCALE_LINEAR;
	else if (s.n == 4 && !memcmp(s.p, "yarn", 4))
		r->scaling = KVS_SCALE_YARN;
	else
		return kv_loader_fail(l, KV_EUNSUP, "RoPE scaling %s, which this version does not know", name);
	return KV_OK;
}

static enum kv_status
read_yarn(const struct kv_loader *l, struct kvs_rope *r)
{
	float log_multiplier = 0;
	enum kv_status rc;

	r->n_ctx_orig = l->m->geom.n_ctx_train;
	r->beta_fast = 32;
	r->beta_slow = 1;
	r->ext_factor = 1;
	if ((rc = int_or(l, "rope.scaling.original_context_length", 1, UINT32_MAX, &r->n_ctx_orig)) != KV_OK ||
		(rc = real_or(l, "rope.scaling.yarn_beta_fast", 0, true, &r->beta_fast)) != KV_OK ||
		(rc = real_or(l, "rope.scaling.yarn_beta_slow", 0, true, &r->beta_slow)) != KV_OK ||
		(rc = real_or(l, "rope.scaling.yarn_ext_factor", 0, false, &r->ext_factor)) != KV_OK ||
		(rc = real_or(l, "rope.scaling.yarn_log_multiplier", -INFINITY, false, &log_multiplier)) != KV_OK)
		return rc;
	if (log_multiplier != 0)
		return kv_loader_fail(l, KV_EUNSUP, "YaRN with a logarithmic multiplier, which this version does not know");
	return KV_OK;
}

static enum kv_status
read_rope(struct kv_loader *l)
{
	struct kvs_geom *g = &l->m->geom;
	struct kvs_rope *r = &g->rope[0];
	float attn = 1, yarn_attn = 1;
	enum kv_status rc;

	g->n_rope = 1;
	*r = (struct kvs_rope){ .kind = l->arch->pairing, .n_rot = g->d_k, .theta = 10000, .factor = 1 };
	if ((rc = int_or(l, "rope.dimension_count", 2, KVS_MAX_DIM, &r->n_rot)) != KV_OK ||
		(rc = real_or(l, "rope.freq_base", 1, true, &r->theta)) != KV_OK || (rc = read_scaling(l, r)) != KV_OK ||
		(rc = real_or(l, "rope.scale_linear", 0, true, &r->factor)) != KV_OK ||
		(rc = real_or(l, "rope.scaling.factor", 0, true, &r->factor)) != KV_OK ||
		(rc = real_or(l, "rope.scaling.attn_factor", 0, true, &attn)) != KV_OK ||
		(rc = real_or(l, "rope.scaling.yarn_attn_factor", 0, true, &yarn_attn)) != KV_OK)
		return rc;
	l->attn_factor = (double)attn * (double)yarn_attn;
	if (r->n_rot % 2 || r->n_rot > g->d_k)
		return kv_loader_fail(l, KV_ECORRUPT, "RoPE turns %u of %u channels", r->n_rot, g->d_k);
	if (r->kind == KVS_ROPE_NORM && r->n_rot != g->d_k)
		return kv_loader_fail(l, KV_EUNSUP, "RoPE turns %u of %u channels, which this version does not run in a llama model",
			r->n_rot, g->d_k);
	if (r->scaling == KVS_SCALE_NONE)
		r->factor = 1;
	if (r->scaling == KVS_SCALE_LINEAR && r->factor == 1)
		r->scaling = KVS_SCALE_NONE;
	return r->scaling == KVS_SCALE_YARN ? read_yarn(l, r) : KV_OK;
}

enum kv_status
kv_hparams(struct kv_loader *l, enum kvs_dtype dtype)
{
	enum kv_status rc;

	if ((rc = read_arch(l)) != KV_OK || (rc = refuse_others(l)) != KV_OK || (rc = read_sizes(l)) != KV_OK)
		return rc;
	if ((rc = read_attention(l, dtype)) != KV_OK)
		return rc;
	return read_rope(l);
}
