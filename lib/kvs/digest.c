/* XXH3, seed 0, default secret: as the format writes hashes and as people read them. */
#include "kvs/digest.h"

#include <stdio.h>
#include <stdlib.h>

#define XXH_INLINE_ALL	/* short inputs such as headers are hashed without a call */
#include <xxhash.h>

#include "util/le.h"

/* Both widths share one state; only the last step differs. */
struct kvs_digest {
	XXH3_state_t *state;
};

static void
put128(uint8_t out[16], XXH128_hash_t h)
{
	le64_put(out, h.low64);
	le64_put(out + 8, h.high64);
}

uint64_t
kvs_hash64(const void *p, size_t n)
{
	return XXH3_64bits(p, n);
}

void
kvs_hash128(const void *p, size_t n, uint8_t out[16])
{
	put128(out, XXH3_128bits(p, n));
}

char *
kvs_hex128(const uint8_t d[16], char out[33])
{
	for (int i = 0; i < 16; i++)
		snprintf(out + 2 * i, 3, "%02x", d[15 - i]);
	return out;
}

struct kvs_digest *
kvs_digest_new(void)
{
	struct kvs_digest *d = malloc(sizeof *d);

	if (!d || !(d->state = XXH3_createState())) {
		free(d);
		return NULL;
	}
	kvs_digest_reset(d);
	return d;
}

void
kvs_digest_free(struct kvs_digest *d)
{
	if (d)
		XXH3_freeState(d->state);
	free(d);
}

void
kvs_digest_reset(struct kvs_digest *d)
{
	XXH3_128bits_reset(d->state);
}

void
kvs_digest_add(struct kvs_digest *d, const void *p, size_t n)
{
	XXH3_128bits_update(d->state, p, n);
}

void
kvs_digest_add_frame(struct kvs_digest *d, const struct kvs_head *h)
{
	uint8_t record[28];

	le32_put(record, h->type);
	le16_put(record + 4, h->tag.layer);
	le16_put(record + 6, h->tag.head);
	le32_put(record + 8, h->tag.chunk);
	le64_put(record + 12, h->raw_len);
	le64_put(record + 20, h->raw_hash);
	kvs_digest_add(d, record, sizeof record);
}

void
kvs_digest_get(const struct kvs_digest *d, uint8_t out[16])
{
	put128(out, XXH3_128bits_digest(d->state));
}

uint64_t
kvs_digest_get64(const struct kvs_digest *d)
{
	return XXH3_64bits_digest(d->state);
}
