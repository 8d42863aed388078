/* Products of a batch with weights in F32, F16 and BF16 at the level avx512. */
#include "kernel/ops.h"

#if defined __AVX512F__
#include "kernel/floats.h"

bool
kv_avx512_floats(struct kv_pool *pool, const struct kv_weight *w, const float *x, size_t m, float *y, bool add)
{
	return multiply_floats(pool, w, x, m, y, add);
}
#endif
