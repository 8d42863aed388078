/* The level amx: products of many tokens, and their attention, by tiles of numbers in bf16. All else is done as at the level avx512. */
#include "kernel/ops.h"

#if defined __AVX512BF16__
#include "kernel/amx.h"
#include "kernel/generic.h"

/* For few tokens reading the weights is all the work, and tiles would stay empty. */
static bool
matmul(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add)
{
	return (m <= KV_AVX2_GROUP ? kv_ops_avx512.matmul : kv_amx_matmul)(pool, w, x, m, y, add);
}

const struct kv_ops kv_ops_amx = KV_AVX2_OPS("amx", matmul, kv_amx_flash);
#endif
