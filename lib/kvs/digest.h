/* Digests and hashes as the format writes them. */
#ifndef KV_KVS_DIGEST_H
#define KV_KVS_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvs/frame.h"

uint64_t kvs_hash64(const void *p, size_t n);			/* XXH3-64 */
void kvs_hash128(const void *p, size_t n, uint8_t out[16]);	/* XXH3-128 as stored: low half first */
char *kvs_hex128(const uint8_t d[16], char out[33]);		/* as printed: high half first. Returns out */

/*
 * Is a hash the one that it should be? All reading asks here. A fuzzer's build takes any, for it would never get past them; they are
 * still worked out.
 */
static inline bool
kvs_hash_is(uint64_t is, uint64_t should)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
	(void)is;
	(void)should;
	return true;
#else
	return is == should;
#endif
}

/* Something hashed piece by piece; the content digest of a snapshot is one over (type, tag, raw_len, raw_hash). */
struct kvs_digest;

struct kvs_digest *kvs_digest_new(void);	/* NULL: no memory */
void kvs_digest_free(struct kvs_digest *d);
void kvs_digest_reset(struct kvs_digest *d);
void kvs_digest_add(struct kvs_digest *d, const void *p, size_t n);
void kvs_digest_add_frame(struct kvs_digest *d, const struct kvs_head *h);	/* the 28-byte record; the caller picks the frames */
void kvs_digest_get(const struct kvs_digest *d, uint8_t out[16]);
uint64_t kvs_digest_get64(const struct kvs_digest *d);

#endif
