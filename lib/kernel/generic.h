/* The parts of the generic table of operations (kernel/ops.h says what each does); other tables have those that they cannot better. */
#ifndef KV_KERNEL_GENERIC_H
#define KV_KERNEL_GENERIC_H

#include "kernel/ops.h"

void kv_generic_embed(struct kv_pool *pool, const struct kv_weight *w, const uint32_t *ids, size_t m, float *out);
void kv_generic_rmsnorm(struct kv_pool *pool, const float *x, const float *gain, float eps, size_t m, size_t n, size_t ld, float *y);
void kv_generic_add_bias(float *y, const float *bias, size_t m, size_t n);
void kv_generic_rope(struct kv_pool *pool, float *x, size_t m, size_t heads, size_t d, unsigned n_rot, bool neox, const float *angles);
void kv_generic_activate(struct kv_pool *pool, enum kv_activation kind, float *gate, const float *up, size_t n);
bool kv_generic_matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add);
bool kv_generic_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);

#endif
