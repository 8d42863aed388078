/* The parts of the generic table of operations (kernel/ops.h says what each does). */
#ifndef KV_KERNEL_GENERIC_H
#define KV_KERNEL_GENERIC_H

#include "kernel/ops.h"

bool kv_generic_matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add);
bool kv_generic_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out);

#endif
