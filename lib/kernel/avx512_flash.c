/* Attention of a batch at the level avx512; of one token, as at avx2. */
#include "kernel/ops.h"

#if defined __AVX512F__
#include "kernel/avx2.h"
#include "kernel/flash.h"

bool
kv_avx512_flash(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	return m == 1 ? kv_avx512_attend(pool, a, q, m, out) : kv_attend_batch(pool, a, &flash, q, m, out);
}
#endif
