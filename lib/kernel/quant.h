/* The block types of GGUF weights and their exact values (ggml's formulas, one rounding to f32 where they have one). */
#ifndef KV_KERNEL_QUANT_H
#define KV_KERNEL_QUANT_H

#include <stddef.h>
#include <stdint.h>

/* Numbers of the file format. */
enum kv_wtype {
	KV_W_F32 = 0, KV_W_F16 = 1, KV_W_Q4_0 = 2, KV_W_Q4_1 = 3, KV_W_Q5_0 = 6, KV_W_Q5_1 = 7, KV_W_Q8_0 = 8,
	KV_W_Q4_K = 12, KV_W_Q5_K = 13, KV_W_Q6_K = 14, KV_W_BF16 = 30,
};

/* Values and bytes of a block; both 0 for a type that we do not read. */
struct kv_wtype_info {
	const char *name;
	unsigned values, bytes;
};

const struct kv_wtype_info *kv_wtype_info(uint32_t type);	/* NULL: unknown */
const char *kv_wtype_name(uint32_t type);			/* also of types that we do not read: "IQ4_XS", "type 77" */

/* The six-bit scale and minimum of group g in the twelve bytes of Q4_K and Q5_K. */
static inline void
kv_scale_min(const uint8_t *s, int g, int *scale, int *min)
{
	if (g < 4) {
		*scale = s[g] & 63;
		*min = s[g + 4] & 63;
	} else {
		*scale = (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
		*min = s[g + 4] >> 4 | s[g] >> 6 << 4;
	}
}

/* n values, a multiple of the block, from src (any alignment) to dst. */
void kv_dequant(uint32_t type, const void *src, size_t n, float *dst);

#endif
