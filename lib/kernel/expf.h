/*
 * e^x in plain C that compilers vectorise; relative error below 1.2e-7. What would be subnormal is 0, what would be infinite is
 * e^88. (x = n ln 2 + r; n by the usual large constant, e^r by a polynomial fitted to |r| <= ln 2 / 2, 2^n by its bits.)
 */
#ifndef KV_KERNEL_EXPF_H
#define KV_KERNEL_EXPF_H

#include "util/half.h"

static inline float
kv_expf(float x)
{
	const float shift = 0x1.8p23f;
	float c = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
	float t = c * 1.44269504f + shift, n = t - shift;
	float r = (c - n * 0x1.63p-1f) - n * -0x1.bd0106p-13f;	/* ln 2 in two parts, the first with few bits: n times it is exact */
	float p = 0.00138146023f;

	p = p * r + 0.00836871564f;
	p = p * r + 0.041668389f;
	p = p * r + 0.166665211f;
	p = p * r + 0.49999994f;
	p = p * (r * r) + r + 1;
	p *= bits_f32((f32_bits(t) << 23) + 0x3f800000u);
	return x < -87.0f ? 0 : p;
}

#endif
