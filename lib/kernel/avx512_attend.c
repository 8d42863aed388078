/* Attention of one token at the level avx512; of rows that are no whole vectors of it, as at avx2. */
#include "kernel/ops.h"

#if defined __AVX512F__
#include "kernel/decode.h"

bool
kv_avx512_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	return m == 1 && fits(a) ? kv_attend_one(pool, a, &decode, q, out) : kv_avx2_attend(pool, a, q, m, out);
}
#endif
