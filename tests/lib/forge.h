/*
 * Snapshots taken apart and put together again with right hashes, whatever they say: for files that are wrong in one way alone.
 * Knows nothing of the library's writer.
 */
#ifndef KV_TESTS_FORGE_H
#define KV_TESTS_FORGE_H

#include "kvs/frame.h"
#include "util/mem.h"

struct forged {
	struct kvs_head head;		/* seq, lengths and hashes are worked out */
	struct kv_buf raw, enc;		/* enc: as stored, where head.codec is not 0 */
	bool two_hashes;		/* that of the decoded payload is wrong */
};

enum { FORGE_MAX = 64 };

struct forge {
	uint8_t prologue[64];
	struct forged f[FORGE_MAX];	/* without ENDS */
	size_t n;
	bool index;
	uint8_t ends[64];		/* xor-ed into the right ENDS payload */
	uint32_t ends_grow;		/* zeros after it */
	int seq_from;			/* sequence numbers from this frame on are one too high; -1 = none */
	struct kv_buf after;		/* bytes after the snapshot */
};

void forge_tiny(struct forge *f, const struct kv_buf *tiny);	/* from the bytes of a snapshot */
void forge_free(struct forge *f);
struct forged *forge_find(struct forge *f, uint32_t type);	/* the first of its type; it must be there */
struct forged *forge_insert(struct forge *f, const struct forged *before, uint32_t type, struct kvs_tag tag, const void *raw, size_t n);
void forge_remove(struct forge *f, struct forged *at);
void forge_pack(struct forged *at, uint8_t filter);		/* codec 1, every plane deflated or copied */
bool forge_bytes(const struct forge *f, struct kv_buf *out);

#endif
