/* IEEE binary16 and bfloat16, one value at a time; round to nearest even, subnormals exact. */
#ifndef KV_UTIL_HALF_H
#define KV_UTIL_HALF_H

#include <stdint.h>
#include <string.h>

static inline float
bits_f32(uint32_t u)
{
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

static inline uint32_t
f32_bits(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof u);
	return u;
}

static inline float
f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fffu;
	/* Exponent moved up by 112, done by a multiplication so that subnormals come out exact. */
	float f = bits_f32(rest << 13) * 0x1p112f;

	if (rest >= 0x7c00)
		return bits_f32(sign | 0x7f800000u | (rest & 0x3ff) << 13);
	return bits_f32(sign | f32_bits(f));
}

static inline uint16_t
f32_to_f16(float f)
{
	uint32_t u = f32_bits(f), a = u & 0x7fffffffu;
	uint16_t sign = (uint16_t)(u >> 16 & 0x8000);

	if (a > 0x7f800000u)
		return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x3ff));
	if (a >= 0x477ff000u)	/* 65520 and more round to infinity */
		return (uint16_t)(sign | 0x7c00);
	if (a < 0x38800000u)	/* below 2^-14: adding 0.5 leaves the rounded subnormal in the low bits */
		return (uint16_t)(sign | (f32_bits(bits_f32(a) + 0.5f) - 0x3f000000u));
	a += 0xfff + (a >> 13 & 1);
	return (uint16_t)(sign | (a - 0x38000000u) >> 13);
}

static inline float
bf16_to_f32(uint16_t h)
{
	return bits_f32((uint32_t)h << 16);
}

static inline uint16_t
f32_to_bf16(float f)
{
	uint32_t u = f32_bits(f);

	if ((u & 0x7fffffffu) > 0x7f800000u)
		return (uint16_t)(u >> 16 | 0x40);
	return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

#endif
