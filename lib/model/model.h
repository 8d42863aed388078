/* A transformer in a GGUF file: its numbers, checked, and its weights, in place. */
#ifndef KV_MODEL_MODEL_H
#define KV_MODEL_MODEL_H

#include "kernel/ops.h"
#include "kvs/geom.h"
#include "model/gguf.h"

/* One block. bias pointers may be NULL; so may the norms that only some architectures have. */
struct kv_block {
	const float *attn_norm, *ffn_norm;		/* [n_embd] */
	const float *q_norm, *k_norm;			/* [d_k] */
	struct kv_weight q, k, v, o, gate, up, down;
	const float *q_bias, *k_bias, *v_bias, *o_bias, *gate_bias, *up_bias, *down_bias;
};

struct kv_model {
	struct kv_gguf *gguf;
	struct kvs_geom geom;		/* as a snapshot of this model will say; element types as given to kv_model_open */
	uint32_t n_ff;
	float eps;
	enum kv_activation activation;
	struct kv_weight embd, output;	/* output = embd where tied */
	const float *output_norm;
	struct kv_block *block;		/* [n_layers] */
	struct kv_str name;		/* general.name; may be empty */
	void *owned;			/* vectors that were not f32 in the file */
};

/*
 * KV_EUNSUP: a model we cannot run, and why; KV_ECORRUPT: a missing or misshapen tensor or key. dtype: element type of new rows.
 */
enum kv_status kv_model_open(const char *path, enum kvs_dtype dtype, struct kv_model **out, struct kv_err *err);
enum kv_status kv_model_from(struct kv_gguf *g, enum kvs_dtype dtype, struct kv_model **out, struct kv_err *err);	/* takes g, also on failure */
void kv_model_free(struct kv_model *m);

#endif
