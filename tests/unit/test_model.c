/* Opening a model: what its numbers become, and what is refused, with which status and which words. */
#include "model/model.h"

#include <stdlib.h>

#include "tap.h"
#include "kernel/quant.h"
#include "synth.h"

/* Makes s, opens it; *m is NULL on failure. */
static enum kv_status
open_synth(const struct synth *s, struct kv_buf *file, struct kv_model **m, struct kv_err *err)
{
	struct kv_gguf *g;
	enum kv_status rc;

	*m = NULL;
	if (!synth_make(s, file))
		return kv_fail_mem(err, "a synthetic model");
	if ((rc = kv_gguf_mem(file->p, file->len, &g, err)) != KV_OK)
		return rc;
	return kv_model_from(g, KVS_F16, m, err);
}

static void
test_geometry(void)
{
	struct kv_buf file = { 0 }, other = { 0 };
	struct kv_err err = { 0 };
	struct kv_model *m, *n;
	struct synth s;

	synth_defaults(&s, "qwen3", KV_W_Q4_1, 1);
	s.window = 100;
	s.final_softcap = 30;
	is_int(open_synth(&s, &file, &m, &err), KV_OK, "a qwen3 model opens");
	if (!m) {
		printf("# %s\n", err.text);
		return;
	}
	is_str(m->geom.arch, "qwen3", "its architecture");
	ok(m->geom.n_layers == 3 && m->geom.n_heads == 4 && m->geom.n_heads_kv == 2 && m->geom.d_k == 24 && m->geom.d_v == 24 &&
		m->geom.n_embd == 64 && m->n_ff == 96 && m->geom.n_ctx_train == 2048, "its sizes");
	ok(m->geom.n_vocab == m->embd.n_out && m->output.data == m->embd.data, "tied: the embedding is the output");
	ok(m->geom.n_rope == 1 && m->geom.rope[0].kind == KVS_ROPE_NEOX && m->geom.rope[0].n_rot == 24 && m->geom.rope[0].theta == 1e6f &&
		m->geom.rope[0].scaling == KVS_SCALE_NONE && m->geom.rope[0].magnitude == 1 && m->geom.rope[0].inv_freq[0] == 1, "its RoPE");
	ok(m->geom.layer[2].window == 100 && m->geom.layer[2].k_dtype == KVS_F16 && m->geom.layer[2].v_dtype == KVS_F16, "its layers");
	is_near((double)m->geom.attn_scale, 1 / sqrt(24), 1e-7, "the scale of attention is 1 / sqrt(d)");
	ok(m->geom.final_softcap == 30 && m->geom.attn_softcap == 0 && m->geom.fp_kind == 1, "soft caps and fingerprint");
	ok(m->name.n == 9 && !memcmp(m->name.p, "synthetic", 9), "its name");
	s.seed = 2;
	if (open_synth(&s, &other, &n, &err) == KV_OK)
		ok(memcmp(m->geom.fp_model, n->geom.fp_model, 16) && !memcmp(m->geom.fp_tokenizer, n->geom.fp_tokenizer, 16),
			"other weights: another model, the same tokenizer");
	kv_model_free(n);
	kv_model_free(m);
	kv_buf_free(&file);
	kv_buf_free(&other);
}

static void
more_yarn(struct ggufbuild *b)
{
	gb_str(b, "llama.rope.scaling.type", "yarn");
	gb_f32(b, "llama.rope.scaling.factor", 4);
	gb_f32(b, "llama.rope.scaling.attn_factor", 2);
	gb_u32(b, "llama.rope.scaling.original_context_length", 512);
	gb_f32(b, "llama.attention.scale", 0.5f);
}

static void
test_scaling(void)
{
	struct kv_buf file = { 0 };
	struct kv_err err = { 0 };
	struct kv_model *m;
	struct synth s;

	synth_defaults(&s, "llama", KV_W_F32, 1);
	s.more = more_yarn;
	is_int(open_synth(&s, &file, &m, &err), KV_OK, "a model with YaRN");
	if (m) {
		ok(m->geom.rope[0].scaling == KVS_SCALE_YARN && m->geom.rope[0].factor == 4 && m->geom.rope[0].n_ctx_orig == 512 &&
			m->geom.rope[0].beta_fast == 32 && m->geom.rope[0].ext_factor == 1, "its numbers");
		is_near((double)m->geom.rope[0].magnitude, 2 * (1 + 0.1 * log(4)), 1e-6, "its magnitude");
		ok(m->geom.attn_scale == 0.5f, "a scale of its own");
	}
	kv_model_free(m);
	kv_buf_free(&file);
	s.more = NULL;
	s.rope = SYNTH_LLAMA3;
	is_int(open_synth(&s, &file, &m, &err), KV_OK, "a model with Llama 3's factors");
	if (m)
		ok(m->geom.rope[0].scaling == KVS_SCALE_FACTORS && m->geom.rope[0].inv_freq[0] == 1 &&
			m->geom.rope[0].inv_freq[7] == (float)(pow(10000, -14.0 / 16) / 8), "fast pairs stay, slow ones are divided by 8");
	kv_model_free(m);
	kv_buf_free(&file);
}

static void more_experts(struct ggufbuild *b) { gb_u32(b, "llama.expert_count", 8); }
static void more_split(struct ggufbuild *b) { gb_u16(b, "split.count", 3); }
static void more_pattern(struct ggufbuild *b) { gb_u32(b, "llama.attention.sliding_window_pattern", 6); }
static void more_longrope(struct ggufbuild *b) { gb_str(b, "llama.rope.scaling.type", "longrope"); }
static void more_factor(struct ggufbuild *b) { gb_f32(b, "llama.rope.scaling.factor", 0); }
static void more_unequal(struct ggufbuild *b) { gb_u32s(b, "llama.attention.head_count_kv", (uint32_t[]){ 2, 2, 1 }, 3); }
static void more_equal(struct ggufbuild *b) { gb_u32s(b, "llama.attention.head_count_kv", (uint32_t[]){ 2, 2, 2 }, 3); }
static void more_empty(struct ggufbuild *b) { gb_u32s(b, "llama.attention.head_count_kv", (uint32_t[]){ 2 }, 0); }
static void more_uneven(struct ggufbuild *b) { gb_u32(b, "llama.attention.head_count_kv", 3); }
static void more_none(struct ggufbuild *b) { gb_u32(b, "llama.block_count", 0); }
static void more_layers(struct ggufbuild *b) { gb_u32(b, "llama.block_count", 1025); }
static void more_fewer(struct ggufbuild *b) { gb_u32(b, "llama.block_count", 2); }
static void more_eps(struct ggufbuild *b) { gb_f32(b, "llama.attention.layer_norm_rms_epsilon", -1); }
static void more_odd(struct ggufbuild *b) { gb_u32(b, "llama.rope.dimension_count", 7); }
static void more_half(struct ggufbuild *b) { gb_u32(b, "llama.rope.dimension_count", 8); }
static void more_vocab(struct ggufbuild *b) { gb_u32(b, "llama.vocab_size", 5); }

static void
more_gate(struct ggufbuild *b)
{
	static const uint8_t zeros[64 * 4];

	gb_tensor(b, "blk.0.ffn_gate_inp.weight", KV_W_F32, 1, (uint64_t[]){ 64 }, zeros, sizeof zeros);
}

static void
more_norm(struct ggufbuild *b)
{
	static const uint8_t zeros[65 * 4];

	gb_tensor(b, "output_norm.weight", KV_W_F32, 1, (uint64_t[]){ 65 }, zeros, sizeof zeros);
}

static void
more_iq4(struct ggufbuild *b)
{
	static const uint8_t zeros[4096];

	gb_tensor(b, "blk.1.attn_q.weight", 23, 2, (uint64_t[]){ 64, 64 }, zeros, sizeof zeros);
}

static void
more_freqs(struct ggufbuild *b)
{
	static const float f[8] = { 1, 1, 1, 0, 1, 1, 1, 1 };

	gb_tensor(b, "rope_freqs.weight", KV_W_F32, 1, (uint64_t[]){ 8 }, f, sizeof f);
}

struct refusal {
	enum kv_status status;
	const char *says, *without;
	void (*more)(struct ggufbuild *b);
};

static void
test_refusals(void)
{
	static const struct refusal t[] = {
		{ KV_EUNSUP, "mixture of 8 experts", NULL, more_experts },
		{ KV_EUNSUP, "split into 3 files", NULL, more_split },
		{ KV_EUNSUP, "layers with and without a window", NULL, more_pattern },
		{ KV_EUNSUP, "longrope", NULL, more_longrope },
		{ KV_ECORRUPT, "rope.scaling.factor", NULL, more_factor },
		{ KV_EUNSUP, "differs between layers", "attention.head_count_kv", more_unequal },
		{ KV_OK, "", "attention.head_count_kv", more_equal },
		{ KV_ECORRUPT, "head_count_kv", "attention.head_count_kv", more_empty },
		{ KV_ECORRUPT, "do not share 3 kv heads", "attention.head_count_kv", more_uneven },
		{ KV_ECORRUPT, "attn_k.weight", "attention.head_count_kv", NULL },	/* as many kv heads as heads: another shape */
		{ KV_ECORRUPT, "block_count", "block_count", NULL },
		{ KV_ECORRUPT, "block_count", "block_count", more_none },
		{ KV_ECORRUPT, "block_count", "block_count", more_layers },
		{ KV_OK, "", "block_count", more_fewer },
		{ KV_ECORRUPT, "layer_norm_rms_epsilon' is missing", "attention.layer_norm_rms_epsilon", NULL },
		{ KV_ECORRUPT, "layer_norm_rms_epsilon", "attention.layer_norm_rms_epsilon", more_eps },
		{ KV_ECORRUPT, "turns 7 of 16", "rope.dimension_count", more_odd },
		{ KV_EUNSUP, "turns 8 of 16", "rope.dimension_count", more_half },
		{ KV_OK, "", "rope.dimension_count", NULL },
		{ KV_ECORRUPT, "vocab_size' is 5", "vocab_size", more_vocab },
		{ KV_OK, "", "vocab_size", NULL },
		{ KV_ECORRUPT, "token_embd.weight is missing", "token_embd.weight", NULL },
		{ KV_ECORRUPT, "blk.2.ffn_down.weight is missing", "blk.2.ffn_down.weight", NULL },
		{ KV_ECORRUPT, "blk.0.attn_norm.weight is missing", "blk.0.attn_norm.weight", NULL },
		{ KV_ECORRUPT, "output_norm.weight has the shape [65, 1, 1, 1]", "output_norm.weight", more_norm },
		{ KV_EUNSUP, "type IQ4_XS", "blk.1.attn_q.weight", more_iq4 },
		{ KV_EUNSUP, "blk.0.ffn_gate_inp.weight", NULL, more_gate },
		{ KV_ECORRUPT, "rope_freqs.weight: value 3 is 0", NULL, more_freqs },
	};

	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		struct kv_buf file = { 0 };
		struct kv_err err = { 0 };
		struct kv_model *m;
		struct synth s;

		synth_defaults(&s, "llama", KV_W_Q8_0, 1);
		s.without = t[i].without;
		s.more = t[i].more;
		is_int(open_synth(&s, &file, &m, &err), t[i].status, "%s%s%s", t[i].without ? "without " : "", t[i].without ? t[i].without : "",
			*t[i].says ? "" : ": opens all the same");
		ok(strstr(err.text, t[i].says) != NULL, "says: %s", err.text);
		kv_model_free(m);
		kv_buf_free(&file);
	}
}

static void
test_architectures(void)
{
	static const char *const names[] = { "gemma3", "phi3", "mamba", "qwen2moe", "llama4", "" };

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct kv_buf file = { 0 };
		struct kv_err err = { 0 };
		struct kv_model *m;
		struct synth s;

		synth_defaults(&s, names[i], KV_W_F32, 1);
		is_int(open_synth(&s, &file, &m, &err), KV_EUNSUP, "architecture \"%s\" is refused", names[i]);
		ok(strstr(err.text, names[i]) != NULL, "by name: %s", err.text);
		kv_buf_free(&file);
	}
}

int
main(void)
{
	test_geometry();
	test_scaling();
	test_refusals();
	test_architectures();
	return done_testing();
}
