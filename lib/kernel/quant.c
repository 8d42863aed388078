/* Dequantisation of GGUF's block types, straight from the formulas. Every order of operations below is ggml's, bit for bit. */
#include "kernel/quant.h"

#include <assert.h>
#include <stdio.h>

#include "kernel/clones.h"
#include "util/half.h"
#include "util/le.h"

static const struct kv_wtype_info types[] = {
	[0] = { "F32", 1, 4 },
	[1] = { "F16", 1, 2 },
	[2] = { "Q4_0", 32, 18 },
	[3] = { "Q4_1", 32, 20 },
	[4] = { "Q4_2", 0, 0 },
	[5] = { "Q4_3", 0, 0 },
	[6] = { "Q5_0", 32, 22 },
	[7] = { "Q5_1", 32, 24 },
	[8] = { "Q8_0", 32, 34 },
	[9] = { "Q8_1", 0, 0 },
	[10] = { "Q2_K", 0, 0 },
	[11] = { "Q3_K", 0, 0 },
	[12] = { "Q4_K", 256, 144 },
	[13] = { "Q5_K", 256, 176 },
	[14] = { "Q6_K", 256, 210 },
	[15] = { "Q8_K", 0, 0 },
	[16] = { "IQ2_XXS", 0, 0 },
	[17] = { "IQ2_XS", 0, 0 },
	[18] = { "IQ3_XXS", 0, 0 },
	[19] = { "IQ1_S", 0, 0 },
	[20] = { "IQ4_NL", 0, 0 },
	[21] = { "IQ3_S", 0, 0 },
	[22] = { "IQ2_S", 0, 0 },
	[23] = { "IQ4_XS", 0, 0 },
	[24] = { "I8", 0, 0 },
	[25] = { "I16", 0, 0 },
	[26] = { "I32", 0, 0 },
	[27] = { "I64", 0, 0 },
	[28] = { "F64", 0, 0 },
	[29] = { "IQ1_M", 0, 0 },
	[30] = { "BF16", 1, 2 },
	[31] = { "Q4_0_4_4", 0, 0 },
	[32] = { "Q4_0_4_8", 0, 0 },
	[33] = { "Q4_0_8_8", 0, 0 },
	[34] = { "TQ1_0", 0, 0 },
	[35] = { "TQ2_0", 0, 0 },
	[36] = { "IQ4_NL_4_4", 0, 0 },
	[37] = { "IQ4_NL_4_8", 0, 0 },
	[38] = { "IQ4_NL_8_8", 0, 0 },
	[39] = { "MXFP4", 0, 0 },
	[40] = { "NVFP4", 0, 0 },
};

const struct kv_wtype_info *
kv_wtype_info(uint32_t type)
{
	return type < sizeof types / sizeof *types ? &types[type] : NULL;
}

const char *
kv_wtype_name(uint32_t type)
{
	static _Thread_local char number[24];	/* like strerror's */
	const struct kv_wtype_info *t = kv_wtype_info(type);

	if (t)
		return t->name;
	snprintf(number, sizeof number, "type %u", (unsigned)type);
	return number;
}

static inline float
half_at(const uint8_t *p)
{
	return f16_to_f32(le16_get(p));
}

KV_CLONES static void
get_f32(const uint8_t *p, size_t n, float *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] = lef32_get(p + 4 * i);
}

KV_CLONES static void
get_f16(const uint8_t *p, size_t n, float *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] = half_at(p + 2 * i);
}

KV_CLONES static void
get_bf16(const uint8_t *p, size_t n, float *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] = bf16_to_f32(le16_get(p + 2 * i));
}

/* d, i8 q[32] */
KV_CLONES static void
get_q8_0(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 32, b += 34, y += 32) {
		float d = half_at(b);

		for (int j = 0; j < 32; j++)
			y[j] = (float)(int8_t)b[2 + j] * d;
	}
}

/*
 * The four- and five-bit types of 32 values, 16 at a time: low nibbles are values 0 to 15, high ones 16 to 31. In vectors of the
 * compiler's, since gcc makes a poor job of the loops.
 */
typedef uint8_t codes __attribute__((vector_size(16)));
typedef int32_t words __attribute__((vector_size(64)));
typedef float values __attribute__((vector_size(64)));

static const words lanes = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };

/* d, q[16] */
KV_CLONES static void
get_q4_0(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 32, b += 18, y += 32) {
		float d = half_at(b);
		codes q;
		values v[2];

		memcpy(&q, b + 2, sizeof q);
		v[0] = (__builtin_convertvector(__builtin_convertvector(q & 15, words), values) - 8) * d;
		v[1] = (__builtin_convertvector(__builtin_convertvector(q >> 4, words), values) - 8) * d;
		memcpy(y, v, sizeof v);
	}
}

/* d, m, q[16] */
KV_CLONES static void
get_q4_1(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 32, b += 20, y += 32) {
		float d = half_at(b), m = half_at(b + 2);
		codes q;
		values v[2];

		memcpy(&q, b + 4, sizeof q);
		v[0] = __builtin_convertvector(__builtin_convertvector(q & 15, words), values) * d + m;
		v[1] = __builtin_convertvector(__builtin_convertvector(q >> 4, words), values) * d + m;
		memcpy(y, v, sizeof v);
	}
}

/* d, fifth bits u32, q[16] */
KV_CLONES static void
get_q5_0(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 32, b += 22, y += 32) {
		float d = half_at(b);
		words high = ((int32_t)le32_get(b + 2) >> lanes & 0x10001) << 4;	/* bits j and j + 16 */
		codes q;
		values v[2];

		memcpy(&q, b + 6, sizeof q);
		v[0] = (__builtin_convertvector(__builtin_convertvector(q & 15, words) | (high & 16), values) - 16) * d;
		v[1] = (__builtin_convertvector(__builtin_convertvector(q >> 4, words) | high >> 16, values) - 16) * d;
		memcpy(y, v, sizeof v);
	}
}

/* d, m, fifth bits u32, q[16] */
KV_CLONES static void
get_q5_1(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 32, b += 24, y += 32) {
		float d = half_at(b), m = half_at(b + 2);
		words high = ((int32_t)le32_get(b + 4) >> lanes & 0x10001) << 4;
		codes q;
		values v[2];

		memcpy(&q, b + 8, sizeof q);
		v[0] = __builtin_convertvector(__builtin_convertvector(q & 15, words) | (high & 16), values) * d + m;
		v[1] = __builtin_convertvector(__builtin_convertvector(q >> 4, words) | high >> 16, values) * d + m;
		memcpy(y, v, sizeof v);
	}
}

/* d, dmin, scales[12], q[128]: eight groups of 32, two of them in the nibbles of 32 bytes */
KV_CLONES static void
get_q4_k(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 256, b += 144, y += 256) {
		float d = half_at(b), dmin = half_at(b + 2);

		for (int g = 0; g < 8; g++) {
			const uint8_t *q = b + 16 + 32 * (g / 2);
			int scale, min, shift = 4 * (g & 1);

			kv_scale_min(b + 4, g, &scale, &min);
			float a = d * (float)scale, m = dmin * (float)min;
			for (int l = 0; l < 32; l++)
				y[32 * g + l] = a * (float)(q[l] >> shift & 15) - m;
		}
	}
}

/* d, dmin, scales[12], fifth bits[32], q[128] */
KV_CLONES static void
get_q5_k(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 256, b += 176, y += 256) {
		float d = half_at(b), dmin = half_at(b + 2);

		for (int g = 0; g < 8; g++) {
			const uint8_t *q = b + 48 + 32 * (g / 2), *high = b + 16;
			int scale, min, shift = 4 * (g & 1);

			kv_scale_min(b + 4, g, &scale, &min);
			float a = d * (float)scale, m = dmin * (float)min;
			for (int l = 0; l < 32; l++)
				y[32 * g + l] = a * (float)((q[l] >> shift & 15) | (high[l] >> g & 1) << 4) - m;
		}
	}
}

/* low nibbles[128], high bit pairs[64], i8 scales[16], d: two halves of four groups of 32 */
KV_CLONES static void
get_q6_k(const uint8_t *b, size_t n, float *y)
{
	for (; n; n -= 256, b += 210, y += 256) {
		float d = half_at(b + 208);

		for (int g = 0; g < 16; g++) {	/* a scale covers 16 values */
			int half = g / 8, part = g % 8 / 2, at = 16 * (g & 1);
			const uint8_t *low = b + 64 * half + 32 * (part & 1) + at, *high = b + 128 + 32 * half + at;
			int low_shift = part < 2 ? 0 : 4, high_shift = 2 * part;
			float a = d * (float)(int8_t)b[192 + g];

			for (int l = 0; l < 16; l++)
				y[16 * g + l] = a * (float)(((low[l] >> low_shift & 15) | (high[l] >> high_shift & 3) << 4) - 32);
		}
	}
}

void
kv_dequant(uint32_t type, const void *src, size_t n, float *dst)
{
	const struct kv_wtype_info *t = kv_wtype_info(type);

	assert(t && t->values && n % t->values == 0);
	switch (type) {
	case KV_W_F32: get_f32(src, n, dst); break;
	case KV_W_F16: get_f16(src, n, dst); break;
	case KV_W_BF16: get_bf16(src, n, dst); break;
	case KV_W_Q8_0: get_q8_0(src, n, dst); break;
	case KV_W_Q4_0: get_q4_0(src, n, dst); break;
	case KV_W_Q4_1: get_q4_1(src, n, dst); break;
	case KV_W_Q5_0: get_q5_0(src, n, dst); break;
	case KV_W_Q5_1: get_q5_1(src, n, dst); break;
	case KV_W_Q4_K: get_q4_k(src, n, dst); break;
	case KV_W_Q5_K: get_q5_k(src, n, dst); break;
	case KV_W_Q6_K: get_q6_k(src, n, dst); break;
	}
}
