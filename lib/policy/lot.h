/* Lots that depend on what they are drawn for and on nothing else. */
#ifndef KV_POLICY_LOT_H
#define KV_POLICY_LOT_H

#include <stdint.h>

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of x reaches every bit of the result. */
static inline uint64_t
kv_lot_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* A number in [0, 1), exact as f32, for item i of a list. */
static inline double
kv_lot(uint64_t seed, unsigned layer, unsigned head, uint64_t i)
{
	const uint64_t golden = 0x9e3779b97f4a7c15u;
	uint64_t stream = kv_lot_mix(kv_lot_mix(seed + golden) + ((uint64_t)layer << 32 | head) * golden);

	return (double)(kv_lot_mix(stream + (i + 1) * golden) >> 40) * 0x1p-24;
}

#endif
