/* Little-endian fields in byte buffers. No struct is ever read or written as a block. */
#ifndef KV_UTIL_LE_H
#define KV_UTIL_LE_H

#include <stdint.h>
#include <string.h>

static inline uint16_t
le16_get(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t
le32_get(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t
le64_get(const uint8_t *p)
{
	return le32_get(p) | (uint64_t)le32_get(p + 4) << 32;
}

static inline float
lef32_get(const uint8_t *p)
{
	uint32_t u = le32_get(p);
	float f;

	memcpy(&f, &u, sizeof f);
	return f;
}

static inline double
lef64_get(const uint8_t *p)
{
	uint64_t u = le64_get(p);
	double f;

	memcpy(&f, &u, sizeof f);
	return f;
}

static inline void
le16_put(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void
le32_put(uint8_t *p, uint32_t v)
{
	le16_put(p, (uint16_t)v);
	le16_put(p + 2, (uint16_t)(v >> 16));
}

static inline void
le64_put(uint8_t *p, uint64_t v)
{
	le32_put(p, (uint32_t)v);
	le32_put(p + 4, (uint32_t)(v >> 32));
}

static inline void
lef32_put(uint8_t *p, float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof u);
	le32_put(p, u);
}

static inline void
lef64_put(uint8_t *p, double f)
{
	uint64_t u;

	memcpy(&u, &f, sizeof u);
	le64_put(p, u);
}

#endif
