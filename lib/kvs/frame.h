/*
 * The frame: 64 bytes of header, payload, zeros up to a multiple of 64 (formats/kvs.md, sections 3 to 6).
 * Knows bytes, not attention.
 */
#ifndef KV_KVS_FRAME_H
#define KV_KVS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

#define KVS_TYPE(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)

enum kvs_type {
	KVS_GEOM = KVS_TYPE('G', 'E', 'O', 'M'),
	KVS_ROPE = KVS_TYPE('R', 'O', 'P', 'E'),
	KVS_LAYR = KVS_TYPE('L', 'A', 'Y', 'R'),
	KVS_TOKS = KVS_TYPE('T', 'O', 'K', 'S'),
	KVS_HIDN = KVS_TYPE('H', 'I', 'D', 'N'),
	KVS_ENTS = KVS_TYPE('E', 'N', 'T', 'S'),
	KVS_CMSK = KVS_TYPE('C', 'M', 'S', 'K'),
	KVS_CMAP = KVS_TYPE('C', 'M', 'A', 'P'),
	KVS_QUNT = KVS_TYPE('Q', 'U', 'N', 'T'),
	KVS_KEYS = KVS_TYPE('K', 'E', 'Y', 'S'),
	KVS_VALS = KVS_TYPE('V', 'A', 'L', 'S'),
	KVS_OBSQ = KVS_TYPE('o', 'B', 'S', 'Q'),
	KVS_OBSA = KVS_TYPE('o', 'B', 'S', 'A'),
	KVS_OBSP = KVS_TYPE('o', 'B', 'S', 'P'),
	KVS_OBSN = KVS_TYPE('o', 'B', 'S', 'n'),
	KVS_OBSR = KVS_TYPE('o', 'B', 'S', 'R'),
	KVS_CKPT = KVS_TYPE('c', 'K', 'P', 'T'),
	KVS_INFO = KVS_TYPE('i', 'N', 'F', 'o'),
	KVS_PROV = KVS_TYPE('p', 'R', 'O', 'v'),
	KVS_INDX = KVS_TYPE('i', 'N', 'D', 'X'),
	KVS_PADD = KVS_TYPE('p', 'A', 'D', 'D'),
	KVS_ENDS = KVS_TYPE('E', 'N', 'D', 'S'),
};

enum {
	KVS_ALIGN = 64,
	KVS_PROLOGUE = 64,
	KVS_HEADER = 64,
	KVS_ALL = 0xffff,	/* in a tag: every layer, every head */
	KVS_CODEC_RAW = 0,
	KVS_CODEC_ZLIB = 1,	/* byte planes, each its own raw deflate stream */
	KVS_FLAG_MUST = 0x00ff,	/* any of these bits: must be understood. None is known in 1.0 */
	KVS_FLAG_MAY = 0xff00,	/* any of these: may be ignored */
	KVS_CHUNK_ROWS = 4096,	/* most rows in a KEYS or VALS frame */
};

#define KVS_CHUNK_BYTES ((size_t)1 << 20)
#define KVS_MAX_RAW_DEFAULT ((uint64_t)64 << 20)
#define KVS_MAX_RAW_HARD ((uint64_t)1 << 30)
#define KVS_MAX_FRAMES ((uint64_t)1 << 24)

/* layer, head (a kv head), chunk; KVS_ALL where a frame is bound to none. */
struct kvs_tag {
	uint16_t layer, head;
	uint32_t chunk;
};

struct kvs_head {
	uint32_t type;
	uint8_t codec, filter;
	uint16_t flags;
	uint64_t seq, enc_len, raw_len;
	uint64_t enc_hash, raw_hash;	/* XXH3-64 of the payload as stored, and decoded */
	struct kvs_tag tag;
};

struct kv_in;

/*
 * A frame in hand: payload = head.enc_len bytes as stored. Who owns them, the giver says. Who wants to keep them and finds block set may have
 * that instead of a copy, and leaves NULL in *block; who finds in set may share what is mapped there, if anything is.
 */
struct kvs_frame {
	struct kvs_head head;
	const uint8_t *payload;
	uint8_t **block;
	const struct kv_in *in;
};

static inline bool
kvs_is_ancillary(uint32_t type)
{
	return type & 0x20;
}

static inline bool
kvs_is_safe_to_copy(uint32_t type)
{
	return type & 0x20000000;
}

bool kvs_is_known(uint32_t type);

/* "KEYS layer 3 head 1", "VALS layer 0 head 2 chunk 4": for messages, so parts that are all or 0 are left out. Returns buf. */
char *kvs_frame_name(char *buf, size_t size, const struct kvs_head *h);

bool kvs_all_zero(const uint8_t *p, size_t n);

extern const uint8_t kvs_magic[8];	/* a snapshot begins with it, and ends with the same bytes in reverse */

struct kvs_prologue {
	uint16_t major, minor;
	uint64_t max_raw;
};

/* Reading says KV_ECORRUPT or KV_EUNSUP as the order of checks in the specification demands. */
void kvs_prologue_put(uint8_t out[KVS_PROLOGUE], const struct kvs_prologue *p);
enum kv_status kvs_prologue_get(const uint8_t in[KVS_PROLOGUE], struct kvs_prologue *p, struct kv_err *err);
void kvs_head_put(uint8_t out[KVS_HEADER], const struct kvs_head *h);
/* Hash, letters of the type, the length rule. Whether codec, filter and flags are known is kvs_frame_readable(). */
enum kv_status kvs_head_get(const uint8_t in[KVS_HEADER], struct kvs_head *h, struct kv_err *err);
/* KV_EUNSUP if codec, filter or a must-understand flag are beyond this version. */
enum kv_status kvs_frame_readable(const struct kvs_head *h, struct kv_err *err);

#endif
