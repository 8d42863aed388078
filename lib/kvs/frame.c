/* Prologue and frame header: bytes to fields, with the checks that need nothing but these 64 bytes. */
#include "kvs/frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kvs/digest.h"
#include "util/le.h"

const uint8_t kvs_magic[8] = { 0x8b, 'K', 'V', 'S', '\r', '\n', 0x1a, '\n' };

enum { MAJOR = 1, MAX_FILTER = 2 };

bool
kvs_all_zero(const uint8_t *p, size_t n)
{
	uint8_t any = 0;

	for (size_t i = 0; i < n; i++)
		any |= p[i];
	return !any;
}

bool
kvs_is_known(uint32_t type)
{
	switch ((enum kvs_type)type) {
	case KVS_GEOM:
	case KVS_ROPE:
	case KVS_LAYR:
	case KVS_TOKS:
	case KVS_HIDN:
	case KVS_ENTS:
	case KVS_CMSK:
	case KVS_CMAP:
	case KVS_QUNT:
	case KVS_KEYS:
	case KVS_VALS:
	case KVS_OBSQ:
	case KVS_OBSA:
	case KVS_OBSP:
	case KVS_OBSN:
	case KVS_OBSR:
	case KVS_CKPT:
	case KVS_INFO:
	case KVS_PROV:
	case KVS_INDX:
	case KVS_PADD:
	case KVS_ENDS:
		return true;
	}
	return false;
}

char *
kvs_frame_name(char *buf, size_t size, const struct kvs_head *h)
{
	uint32_t chunk = h->tag.chunk;
	size_t n = 0;
	char type[5] = { 0 };

	for (int i = 0; i < 4; i++) {
		char c = (char)(h->type >> 8 * i & 0xff);
		type[i] = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ? c : '?';
	}
	n += (size_t)snprintf(buf, size, "%s", type);
	if (h->tag.layer != KVS_ALL && n < size)
		n += (size_t)snprintf(buf + n, size - n, " layer %u", h->tag.layer);
	if (h->tag.head != KVS_ALL && n < size)
		n += (size_t)snprintf(buf + n, size - n, " head %u", h->tag.head);
	if (h->type == KVS_QUNT && n < size)
		n += (size_t)snprintf(buf + n, size - n, chunk >> 31 ? " values" : " keys");
	if (h->type == KVS_QUNT)
		chunk &= 0x7fffffff;
	if (chunk && n < size)
		snprintf(buf + n, size - n, " chunk %" PRIu32, chunk);
	return buf;
}

void
kvs_prologue_put(uint8_t out[KVS_PROLOGUE], const struct kvs_prologue *p)
{
	memset(out, 0, KVS_PROLOGUE);
	memcpy(out, kvs_magic, sizeof kvs_magic);
	le16_put(out + 8, p->major);
	le16_put(out + 10, p->minor);
	le64_put(out + 16, p->max_raw);
	le64_put(out + 56, kvs_hash64(out, 56));
}

enum kv_status
kvs_prologue_get(const uint8_t in[KVS_PROLOGUE], struct kvs_prologue *p, struct kv_err *err)
{
	struct kvs_prologue r = { .major = le16_get(in + 8), .minor = le16_get(in + 10), .max_raw = le64_get(in + 16) };

	if (memcmp(in, kvs_magic, sizeof kvs_magic))
		return kv_fail(err, KV_ECORRUPT, "not a kvs snapshot");
	if (!kvs_hash_is(le64_get(in + 56), kvs_hash64(in, 56)))
		return kv_fail(err, KV_ECORRUPT, "prologue: hash mismatch");
	if (r.major != MAJOR)
		return kv_fail(err, KV_EUNSUP, "format %u.%u, this program reads %d.x", r.major, r.minor, MAJOR);
	if (!kvs_all_zero(in + 12, 4) || !kvs_all_zero(in + 24, 32))
		return kv_fail(err, KV_EUNSUP, "prologue: flags or fields that this version does not know");
	if (r.max_raw > KVS_MAX_RAW_HARD)
		return kv_fail(err, KV_EUNSUP, "prologue: frames of up to %" PRIu64 " bytes, this program takes 1 GiB", r.max_raw);
	*p = r;
	return KV_OK;
}

void
kvs_head_put(uint8_t out[KVS_HEADER], const struct kvs_head *h)
{
	le32_put(out, h->type);
	out[4] = h->codec;
	out[5] = h->filter;
	le16_put(out + 6, h->flags);
	le64_put(out + 8, h->seq);
	le64_put(out + 16, h->enc_len);
	le64_put(out + 24, h->raw_len);
	le64_put(out + 32, h->enc_hash);
	le64_put(out + 40, h->raw_hash);
	le16_put(out + 48, h->tag.layer);
	le16_put(out + 50, h->tag.head);
	le32_put(out + 52, h->tag.chunk);
	le64_put(out + 56, kvs_hash64(out, 56));
}

static bool
is_letter(uint8_t c)
{
	c |= 0x20;
	return c >= 'a' && c <= 'z';
}

enum kv_status
kvs_head_get(const uint8_t in[KVS_HEADER], struct kvs_head *h, struct kv_err *err)
{
	struct kvs_head r = {
		.type = le32_get(in),
		.codec = in[4],
		.filter = in[5],
		.flags = le16_get(in + 6),
		.seq = le64_get(in + 8),
		.enc_len = le64_get(in + 16),
		.raw_len = le64_get(in + 24),
		.enc_hash = le64_get(in + 32),
		.raw_hash = le64_get(in + 40),
		.tag = { .layer = le16_get(in + 48), .head = le16_get(in + 50), .chunk = le32_get(in + 52) },
	};

	if (!kvs_hash_is(le64_get(in + 56), kvs_hash64(in, 56)))
		return kv_fail(err, KV_ECORRUPT, "header hash mismatch");
	if (!is_letter(in[0]) || !is_letter(in[1]) || !is_letter(in[2]) || !is_letter(in[3]))
		return kv_fail(err, KV_ECORRUPT, "frame type %02x%02x%02x%02x is not four letters", in[0], in[1], in[2], in[3]);
	if (r.codec == KVS_CODEC_RAW ? r.enc_len != r.raw_len : r.enc_len >= r.raw_len)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu64 " bytes stored for %" PRIu64, r.enc_len, r.raw_len);
	/* Raw payloads are hashed once, when they are read; the second hash only has to agree. */
	if (r.codec == KVS_CODEC_RAW && !kvs_hash_is(r.enc_hash, r.raw_hash))
		return kv_fail(err, KV_ECORRUPT, "two hashes of one raw payload");
	*h = r;
	return KV_OK;
}

enum kv_status
kvs_frame_readable(const struct kvs_head *h, struct kv_err *err)
{
	if (h->flags & KVS_FLAG_MUST)
		return kv_fail(err, KV_EUNSUP, "flags %02x must be understood and are not known to this version", h->flags & KVS_FLAG_MUST);
	if (h->codec > KVS_CODEC_ZLIB)
		return kv_fail(err, KV_EUNSUP, "codec %u is not known to this version", h->codec);
	if (h->filter > MAX_FILTER || (h->codec == KVS_CODEC_RAW && h->filter))
		return kv_fail(err, KV_EUNSUP, "filter %u with codec %u is not known to this version", h->filter, h->codec);
	return KV_OK;
}
