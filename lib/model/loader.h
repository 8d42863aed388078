/* What model.c, which opens a model, shares with hparams.c, which reads its numbers. */
#ifndef KV_MODEL_LOADER_H
#define KV_MODEL_LOADER_H

#include "model/model.h"

struct kv_loader {
	struct kv_model *m;
	const struct kv_arch *arch;
	double attn_factor;
	struct kv_err *err;
};

/* Architecture, sizes, epsilon, scales, window and RoPE's rule, all of them checked; the vocabulary is left to the embedding. */
enum kv_status kv_hparams(struct kv_loader *l, enum kvs_dtype dtype);
/* kv_fail with the model file's name in front. */
enum kv_status kv_loader_fail(const struct kv_loader *l, enum kv_status code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
bool kv_arch_has_qk_norm(const struct kv_arch *a);

#endif
