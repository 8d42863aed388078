/* Digests and hashes as the format writes them. */
#ifndef KV_KVS_DIGEST_H
#define KV_KVS_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "kvs/frame.h"

uint64_t kvs_hash64(const void *p, size_t n);			/* XXH3-64 */
void kvs_hash128(const void *p, size_t n, uint8_t out[16]);	/* XXH3-128 as stored: low half first */
char *kvs_hex128(const uint8_t d[16], char out[33]);		/* as printed: high half first. Returns out */

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
