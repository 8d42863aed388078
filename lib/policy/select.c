/* The selection step all policies share: a linear select over keys that are all different, so that no input makes it slow. */
#include "policy/select.h"

#include <assert.h>
#include <math.h>

#include "util/half.h"

struct row {
	const float *score;	/* [n] */
	uint32_t from, to;	/* ranks that compete */
};

/* Orders by score, then by rank, and time order is rank order: among equals the oldest is the smallest. */
static uint64_t
key(const struct row *r, uint32_t i)
{
	uint32_t bits = f32_bits(r->score[i] + 0.0f);	/* -0 becomes 0 */

	bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
	return (uint64_t)bits << 32 | i;
}

/* The key that has `below` smaller ones among those that compete. Settles it byte by byte from the top. */
static uint64_t
nth_key(const struct row *r, uint32_t below)
{
	uint64_t prefix = 0;

	for (int shift = 56; shift >= 0; shift -= 8) {
		uint32_t count[256] = { 0 };
		unsigned b = 0;

		for (uint32_t i = r->from; i < r->to; i++) {
			uint64_t k = key(r, i);

			if (shift == 56 || k >> (shift + 8) == prefix)
				count[k >> shift & 0xff]++;
		}
		while (below >= count[b])
			below -= count[b++];
		prefix = prefix << 8 | b;
	}
	return prefix;
}

enum kv_status
kv_select(const float *score, uint32_t n, uint32_t k, uint32_t sinks, uint32_t newest, uint32_t *keep, struct kv_err *err)
{
	struct row r = { score, sinks, n - newest };
	uint32_t kept = 0;
	uint64_t cut;

	assert(k < n && sinks <= k && newest <= k - sinks);
	for (uint32_t i = 0; i < n; i++)
		if (isnan(score[i]))
			return kv_fail(err, KV_EFIT, "the score of entry %u is not a number", i);
	cut = nth_key(&r, n - k - 1);
	for (uint32_t i = 0; i < n; i++)
		if (i < r.from || i >= r.to || key(&r, i) > cut)
			keep[kept++] = i;
	assert(kept == k);
	return KV_OK;
}
