/* Attention of one token at the level avx2; other rows than whole vectors of f16, and batches, are left to the generic table. */
#include "kernel/ops.h"

#if defined __AVX2__
#include "kernel/decode.h"
#include "kernel/generic.h"

bool
kv_avx2_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	return m == 1 && fits(a) ? kv_attend_one(pool, a, &decode, q, out) : kv_generic_attend(pool, a, q, m, out);
}
#endif
