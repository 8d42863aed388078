/* The levels of the processor that tests can go through: those that a cap brings out. */
#include "levels.h"

size_t
levels_here(const struct kv_ops **out)
{
	static const char *const caps[KV_N_LEVELS] = { "generic", "avx2", "avx512", "amx" };
	size_t n = 0;

	for (size_t i = 0; i < KV_N_LEVELS; i++) {
		const struct kv_ops *ops;

		if (kv_ops_choose(caps[i], &ops, NULL) == KV_OK && (!n || ops != out[n - 1]))
			out[n++] = ops;
	}
	return n;
}
