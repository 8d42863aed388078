/* Small models made from a seed. Quantised blocks are drawn directly: what a code means is the reader's business. */
#include "synth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "model/sample.h"
#include "synth_vocab.h"
#include "util/half.h"
#include "util/le.h"

void
synth_defaults(struct synth *s, const char *arch, uint32_t type, uint64_t seed)
{
	bool wide = type == KV_W_Q4_K || type == KV_W_Q5_K || type == KV_W_Q6_K || type == SYNTH_MIXED;

	*s = (struct synth){
		.arch = arch, .type = type, .seed = seed, .layers = wide ? 2 : 3, .heads = 4, .heads_kv = 2, .d_head = wide ? 64 : 16,
		.n_embd = wide ? 256 : 64, .n_ff = wide ? 256 : 96, .tied = true, .theta = 10000,
	};
	if (!strcmp(arch, "qwen2"))
		s->bias = true;
	if (!strcmp(arch, "qwen3")) {
		s->qk_norm = true;
		s->d_head = wide ? 64 : 24;	/* heads * d_head is not n_embd */
		s->heads = wide ? 8 : 4;
		s->theta = 1000000;
	}
}

/* [-1, 1) */
static double
uniform(struct kv_rng *r)
{
	return 2 * kv_rng_next(r) - 1;
}

static void
random_bytes(struct kv_rng *r, uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(256 * kv_rng_next(r));
}

/* Six-bit scales and minima of eight groups, packed as in Q4_K and Q5_K; the minima equal the scales. */
static void
put_scales(struct kv_rng *r, uint8_t *s)
{
	unsigned v[8];

	for (int g = 0; g < 8; g++)
		v[g] = 32 + (unsigned)(32 * kv_rng_next(r));
	for (int g = 0; g < 4; g++) {
		s[g] = s[g + 4] = (uint8_t)(v[g] | v[g + 4] >> 4 << 6);
		s[g + 8] = (uint8_t)((v[g + 4] & 15) | (v[g + 4] & 15) << 4);
	}
}

/* A block of values spread evenly over about [-a, a]. */
static void
put_block(struct kv_rng *r, uint32_t type, double a, uint8_t *b)
{
	const struct kv_wtype_info *t = kv_wtype_info(type);
	double own = a * (1 + 0.4 * uniform(r));	/* no two blocks have one scale */

	random_bytes(r, b, t->bytes);
	switch (type) {
	case KV_W_F32: lef32_put(b, (float)(a * uniform(r))); break;
	case KV_W_F16: le16_put(b, f32_to_f16((float)(a * uniform(r)))); break;
	case KV_W_BF16: le16_put(b, f32_to_bf16((float)(a * uniform(r)))); break;
	case KV_W_Q8_0: le16_put(b, f32_to_f16((float)(own / 127))); break;
	case KV_W_Q4_0: le16_put(b, f32_to_f16((float)(own / 8))); break;
	case KV_W_Q5_0: le16_put(b, f32_to_f16((float)(own / 16))); break;
	case KV_W_Q4_1:
	case KV_W_Q5_1:
		le16_put(b, f32_to_f16((float)(2 * own / (type == KV_W_Q4_1 ? 15 : 31))));
		le16_put(b + 2, f32_to_f16((float)-own));
		break;
	case KV_W_Q4_K:
	case KV_W_Q5_K: {
		double half = type == KV_W_Q4_K ? 7.5 : 15.5;

		le16_put(b, f32_to_f16((float)(own / (63 * half))));
		le16_put(b + 2, f32_to_f16((float)(own / 63)));
		put_scales(r, b + 4);
		break;
	}
	case KV_W_Q6_K:
		for (int g = 0; g < 16; g++)
			b[192 + g] = (uint8_t)(64 + (b[192 + g] & 63));
		le16_put(b + 208, f32_to_f16((float)(own / (127 * 32))));
		break;
	}
}

struct maker {
	const struct synth *s;
	struct ggufbuild b;
	unsigned tensors;	/* so far: turns the types of a mixed model */
};

static bool
left_out(const struct maker *m, const char *name)
{
	return m->s->without && !strcmp(m->s->without, name);
}

/* Every tensor has a generator of its own, so that leaving one out changes no other. */
static struct kv_rng
rng_for(const struct maker *m, const char *name)
{
	uint64_t h = m->s->seed;
	struct kv_rng r;

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * 0x100000001b3u;
	kv_rng_seed(&r, h);
	return r;
}

static void
put_tensor(struct maker *m, const char *name, uint32_t type, uint64_t n_in, uint64_t n_out, double middle, double a)
{
	const struct kv_wtype_info *t = kv_wtype_info(type);
	struct kv_rng r = rng_for(m, name);
	size_t blocks = (size_t)(n_in * (n_out ? n_out : 1) / t->values);
	uint8_t *data = malloc(blocks * t->bytes);

	if (data && !left_out(m, name)) {
		for (size_t i = 0; i < blocks; i++) {
			put_block(&r, type, a, data + i * t->bytes);
			if (type == KV_W_F32 && middle != 0)
				lef32_put(data + 4 * i, lef32_get(data + 4 * i) + (float)middle);
			if (type == KV_W_F16 && middle != 0)
				le16_put(data + 2 * i, f32_to_f16(f16_to_f32(le16_get(data + 2 * i)) + (float)middle));
		}
		gb_tensor(&m->b, name, type, n_out ? 2 : 1, (uint64_t[]){ n_in, n_out }, data, blocks * t->bytes);
	}
	if (!data)
		m->b.data.failed = true;
	free(data);
}

/* A weight matrix whose outputs have `gain` times the spread of its inputs. */
static void
put_matrix(struct maker *m, const char *name, uint64_t n_in, uint64_t n_out, double gain)
{
	static const uint32_t mix[] = {
		KV_W_Q6_K, KV_W_Q8_0, KV_W_Q4_K, KV_W_F16, KV_W_Q5_1, KV_W_Q4_0, KV_W_Q5_K, KV_W_BF16, KV_W_Q4_1, KV_W_Q5_0, KV_W_F32,
	};
	uint32_t type = m->s->type;

	if (type == SYNTH_MIXED)
		type = mix[m->tensors++ % (sizeof mix / sizeof *mix)];
	put_tensor(m, name, type, n_in, n_out, 0, gain * sqrt(3.0 / (double)n_in));
}

static void
put_norm(struct maker *m, const char *name, uint64_t n)
{
	put_tensor(m, name, m->s->half_norms ? KV_W_F16 : KV_W_F32, n, 0, 1, 0.3);
}

static void
put_bias(struct maker *m, const char *name, uint64_t n)
{
	put_tensor(m, name, KV_W_F32, n, 0, 0, 0.5);
}

static void
put_layer(struct maker *m, uint32_t layer)
{
	const struct synth *s = m->s;
	uint64_t d = s->n_embd, q = (uint64_t)s->heads * s->d_head, kv = (uint64_t)s->heads_kv * s->d_head;
	char name[64];

#define NAME(x) (snprintf(name, sizeof name, "blk.%u." x, layer), name)
	put_norm(m, NAME("attn_norm.weight"), d);
	if (s->fused_qkv) {
		put_matrix(m, NAME("attn_qkv.weight"), d, q + 2 * kv, 1.5);
	} else {
		put_matrix(m, NAME("attn_q.weight"), d, q, 1.5);
		put_matrix(m, NAME("attn_k.weight"), d, kv, 1.5);
		put_matrix(m, NAME("attn_v.weight"), d, kv, 1);
	}
	if (s->bias && s->fused_qkv) {
		put_bias(m, NAME("attn_qkv.bias"), q + 2 * kv);
	} else if (s->bias) {
		put_bias(m, NAME("attn_q.bias"), q);
		put_bias(m, NAME("attn_k.bias"), kv);
		put_bias(m, NAME("attn_v.bias"), kv);
	}
	if (s->qk_norm) {
		put_norm(m, NAME("attn_q_norm.weight"), s->d_head);
		put_norm(m, NAME("attn_k_norm.weight"), s->d_head);
	}
	put_matrix(m, NAME("attn_output.weight"), q, d, 1);
	put_norm(m, NAME("ffn_norm.weight"), d);
	put_matrix(m, NAME("ffn_gate.weight"), d, s->n_ff, 1.5);
	put_matrix(m, NAME("ffn_up.weight"), d, s->n_ff, 1);
	put_matrix(m, NAME("ffn_down.weight"), s->n_ff, d, 1);
	if (s->bias && !strcmp(s->arch, "llama")) {
		put_bias(m, NAME("attn_output.bias"), d);
		put_bias(m, NAME("ffn_gate.bias"), s->n_ff);
		put_bias(m, NAME("ffn_up.bias"), s->n_ff);
		put_bias(m, NAME("ffn_down.bias"), d);
	}
#undef NAME
}

void
synth_llama3_factors(double base, uint32_t n_rot, double factor, double low, double high, double n_ctx_orig, float *out)
{
	for (uint32_t i = 0; i < n_rot / 2; i++) {
		double length = 2 * 3.14159265358979323846 / pow(base, -2.0 * i / n_rot);
		double t = (n_ctx_orig / length - low) / (high - low);

		if (length < n_ctx_orig / high)
			out[i] = 1;
		else if (length > n_ctx_orig / low)
			out[i] = (float)factor;
		else
			out[i] = (float)(1 / ((1 - t) / factor + t));
	}
}

static void
put_u32(struct maker *m, const char *what, uint32_t v)
{
	char key[96];

	snprintf(key, sizeof key, "%s.%s", m->s->arch, what);
	if (!left_out(m, what))
		gb_u32(&m->b, key, v);
}

static void
put_f32(struct maker *m, const char *what, float v)
{
	char key[96];

	snprintf(key, sizeof key, "%s.%s", m->s->arch, what);
	if (!left_out(m, what))
		gb_f32(&m->b, key, v);
}

static void
put_scaling(struct maker *m, const char *type, float factor)
{
	char key[96];

	snprintf(key, sizeof key, "%s.rope.scaling.type", m->s->arch);
	gb_str(&m->b, key, type);
	put_f32(m, "rope.scaling.factor", factor);
}

static void
put_keys(struct maker *m, uint32_t n_vocab)
{
	const struct synth *s = m->s;

	gb_str(&m->b, "general.architecture", s->arch);
	gb_str(&m->b, "general.name", "synthetic");
	put_u32(m, "block_count", s->layers);
	put_u32(m, "context_length", 2048);
	put_u32(m, "embedding_length", s->n_embd);
	put_u32(m, "feed_forward_length", s->n_ff);
	put_u32(m, "attention.head_count", s->heads);
	put_u32(m, "attention.head_count_kv", s->heads_kv);
	put_u32(m, "attention.key_length", s->d_head);
	put_u32(m, "attention.value_length", s->d_head);
	put_f32(m, "attention.layer_norm_rms_epsilon", 1e-5f);
	put_u32(m, "rope.dimension_count", s->d_head);
	put_f32(m, "rope.freq_base", s->theta);
	put_u32(m, "vocab_size", n_vocab);
	if (s->window)
		put_u32(m, "attention.sliding_window", s->window);
	if (s->softcap > 0)
		put_f32(m, "attn_logit_softcapping", s->softcap);
	if (s->final_softcap > 0)
		put_f32(m, "final_logit_softcapping", s->final_softcap);
	if (s->rope == SYNTH_LINEAR)
		put_scaling(m, "linear", 4);
	if (s->rope == SYNTH_YARN) {
		put_scaling(m, "yarn", 4);
		put_u32(m, "rope.scaling.original_context_length", 512);
	}
}

bool
synth_make(const struct synth *s, struct kv_buf *out)
{
	struct maker m = { .s = s };
	uint32_t n_vocab = synth_vocab_size(s->spm);

	gb_begin(&m.b);
	put_keys(&m, n_vocab);
	synth_put_vocab(&m.b, s->spm);
	put_matrix(&m, "token_embd.weight", s->n_embd, n_vocab, 4);	/* the spread of the logits, where tied */
	if (s->rope == SYNTH_LLAMA3) {
		float f[512];
		uint8_t bytes[4 * 512];

		synth_llama3_factors((double)s->theta, s->d_head, 8, 1, 4, 512, f);
		for (uint32_t i = 0; i < s->d_head / 2; i++)
			lef32_put(bytes + 4 * i, f[i]);
		gb_tensor(&m.b, "rope_freqs.weight", KV_W_F32, 1, (uint64_t[]){ s->d_head / 2 }, bytes, 2 * (size_t)s->d_head);
	}
	for (uint32_t i = 0; i < s->layers; i++)
		put_layer(&m, i);
	put_norm(&m, "output_norm.weight", s->n_embd);
	if (!s->tied)
		put_matrix(&m, "output.weight", s->n_embd, n_vocab, 4);
	if (s->more)
		s->more(&m.b);
	return gb_finish(&m.b, out);
}
