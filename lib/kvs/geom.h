/* Geometry: what a snapshot knows of its model, and how far reading had come (formats/kvs.md, section 7). Plain values. */
#ifndef KV_KVS_GEOM_H
#define KV_KVS_GEOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"
#include "util/mem.h"

enum {
	KVS_MAX_LAYERS = 1024,
	KVS_MAX_HEADS = 1024,
	KVS_MAX_DIM = 1024,
	KVS_MAX_ROPE = 16,
	KVS_NO_ROPE = 0xff,	/* in kvs_layer.rope: the layer does not rotate */
	KVS_GEOM_BYTES = 256,
};

enum kvs_dtype { KVS_F32 = 1, KVS_F16 = 2, KVS_BF16 = 3, KVS_CODES = 16 };
enum kvs_pairing { KVS_ROPE_NORM = 1, KVS_ROPE_NEOX = 2 };	/* pairs (2i, 2i+1); (i, i + n_rot/2) */
enum kvs_scaling { KVS_SCALE_NONE, KVS_SCALE_LINEAR, KVS_SCALE_FACTORS, KVS_SCALE_YARN };

size_t kvs_dtype_size(unsigned dtype);		/* bytes of f32, f16, bf16; else 0 */
const char *kvs_dtype_name(unsigned dtype);

struct kvs_rope {
	uint32_t kind, n_rot;
	float theta;
	uint32_t scaling;
	float factor;
	uint32_t n_ctx_orig;
	float magnitude, beta_fast, beta_slow, ext_factor;
	float inv_freq[KVS_MAX_DIM / 2];	/* [n_rot/2]: angle of pair i at position p is f32(p * inv_freq[i]) */
};

struct kvs_layer {
	uint8_t rope, k_dtype, v_dtype;
	uint32_t window;	/* 0 = global; else key j is visible to query i iff pos_i - pos_j < window */
};

struct kvs_geom {
	uint32_t n_layers, n_heads, n_heads_kv, d_k, d_v;
	uint32_t n_embd, n_vocab, n_ctx_train, n_rope;
	float attn_scale, attn_softcap, final_softcap;
	uint32_t fp_kind;
	uint8_t fp_model[16], fp_tokenizer[16], fp_adapters[16];
	char arch[33];
	struct kvs_rope rope[KVS_MAX_ROPE];
	struct kvs_layer layer[KVS_MAX_LAYERS];
};

/* The rest of GEOM: how far reading had come. */
struct kvs_state {
	uint64_t consumed, hist_first;
	int32_t next_pos;
	uint32_t tail;
	bool ids;		/* token ids are present */
};

/* Payloads of GEOM, ROPE, LAYR. kvs_geom_get leaves rope[] and layer[] to the other two, which check against it. */
void kvs_geom_put(struct kv_buf *out, const struct kvs_geom *g, const struct kvs_state *s);
enum kv_status kvs_geom_get(const uint8_t *p, size_t n, struct kvs_geom *g, struct kvs_state *s, struct kv_err *err);
void kvs_rope_put(struct kv_buf *out, const struct kvs_rope *r);
enum kv_status kvs_rope_get(const uint8_t *p, size_t n, const struct kvs_geom *g, struct kvs_rope *r, struct kv_err *err);
void kvs_layers_put(struct kv_buf *out, const struct kvs_geom *g);
enum kv_status kvs_layers_get(const uint8_t *p, size_t n, struct kvs_geom *g, struct kv_err *err);

/*
 * Of one model? KV_OK, or KV_EFIT saying what differs ("… weights differ …"). Tables of inverse
 * frequencies may differ by 1e-6 relative. force: unknown fingerprints will do.
 */
enum kv_status kvs_geom_same_model(const struct kvs_geom *model, const struct kvs_geom *snap, bool force, struct kv_err *err);
/* The same for the tokenizer alone: asked where text goes in or comes out. */
enum kv_status kvs_geom_same_tokenizer(const struct kvs_geom *model, const struct kvs_geom *snap, bool force, struct kv_err *err);

#endif
