/*
 * Byte planes, each deflated on its own (formats/kvs.md, section 5). Matches are rare in keys and values, so the packer only
 * entropy-codes (Z_HUFFMAN_ONLY); the unpacker is plain inflate and takes any stream.
 */
#include "kvs/codec.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "kvs/digest.h"
#include "util/le.h"

enum {
	MIN_RAW = 512,		/* shorter payloads are always stored raw */
	TABLE = 16,		/* bytes a plane in the table before the planes */
	COPIED = 0,
	DEFLATED = 1,
	TRIAL = 1 << 16,	/* what a plane must gain on: 3 % of its first 64 KiB */
	MAX_RATIO = 1032,	/* deflate cannot do more */
};

static void
take_plane(uint8_t *plane, const uint8_t *raw, size_t m, unsigned planes, unsigned p)
{
	if (planes == 1)
		memcpy(plane, raw, m);
	else if (planes == 2)
		for (size_t i = 0; i < m; i++)
			plane[i] = raw[2 * i + p];
	else
		for (size_t i = 0; i < m; i++)
			plane[i] = raw[4 * i + p];
}

static void
give_plane(uint8_t *raw, const uint8_t *plane, size_t m, unsigned planes, unsigned p)
{
	if (planes == 2)
		for (size_t i = 0; i < m; i++)
			raw[2 * i + p] = plane[i];
	else
		for (size_t i = 0; i < m; i++)
			raw[4 * i + p] = plane[i];
}

/* Deflates in[0..n) into fewer than room bytes; 0 if it does not fit. */
static size_t
deflate_into(z_stream *z, const uint8_t *in, size_t n, uint8_t *out, size_t room)
{
	deflateReset(z);
	z->next_in = (z_const Bytef *)(uintptr_t)in;
	z->avail_in = (uInt)n;
	z->next_out = out;
	z->avail_out = (uInt)room;
	return deflate(z, Z_FINISH) == Z_STREAM_END ? z->total_out : 0;
}

/* Packs one plane to out[0 .. m); returns its length there, or 0: copy it instead. */
static size_t
pack_plane(z_stream *z, const uint8_t *plane, size_t m, uint8_t *out)
{
	size_t trial = m < TRIAL ? m : TRIAL, enough = trial - (trial * 3 + 99) / 100;
	size_t len = enough ? deflate_into(z, plane, trial, out, enough) : 0;

	return len && trial < m ? deflate_into(z, plane, m, out, m - 1) : len;
}

static enum kv_status
pack(z_stream *z, const uint8_t *raw, size_t n, uint8_t filter, uint8_t *plane, struct kv_buf *out, struct kv_err *err)
{
	unsigned planes = 1u << filter;
	size_t m = n / planes, table = out->len;
	uint8_t *dst;

	if (!(dst = kv_buf_grow(out, (size_t)TABLE * planes)))
		return kv_fail_mem(err, "a packed frame");
	memset(dst, 0, (size_t)TABLE * planes);
	for (unsigned p = 0; p < planes; p++) {
		size_t len;

		if (!(dst = kv_buf_grow(out, m)))
			return kv_fail_mem(err, "a packed frame");
		take_plane(plane, raw, m, planes, p);
		if (!(len = pack_plane(z, plane, m, dst)))
			memcpy(dst, plane, m);
		out->p[table + (size_t)TABLE * p] = len ? DEFLATED : COPIED;
		le64_put(out->p + table + (size_t)TABLE * p + 8, len ? len : m);
		out->len -= len ? m - len : 0;
	}
	return KV_OK;
}

enum kv_status
kvs_encode(const uint8_t *raw, size_t n, uint8_t filter, struct kv_buf *out, uint8_t *codec, struct kv_err *err)
{
	z_stream z = { 0 };
	size_t start = out->len;
	uint8_t *plane = NULL;
	enum kv_status rc = KV_OK;

	assert(filter <= 2);
	*codec = KVS_CODEC_RAW;
	if (n < MIN_RAW || n > KVS_MAX_RAW_HARD || n % (1u << filter)) {
		kv_buf_add(out, raw, n);
		return out->failed ? kv_fail_mem(err, "a frame") : KV_OK;
	}
	if (deflateInit2(&z, 6, Z_DEFLATED, -15, 9, Z_HUFFMAN_ONLY) != Z_OK || !(plane = kv_array_new(n >> filter, 1)))
		rc = kv_fail_mem(err, "packing a frame");
	else
		rc = pack(&z, raw, n, filter, plane, out, err);
	deflateEnd(&z);
	free(plane);
	if (rc != KV_OK)
		return rc;
	if (out->len - start < n) {
		*codec = KVS_CODEC_ZLIB;
		return KV_OK;
	}
	out->len = start;
	kv_buf_add(out, raw, n);
	return out->failed ? kv_fail_mem(err, "a frame") : KV_OK;
}

/* The first `want` bytes of a plane of m; all of them must end the stream. */
static enum kv_status
inflate_plane(const uint8_t *in, size_t len, uint8_t *out, size_t want, size_t m, struct kv_err *err)
{
	bool whole = want == m;
	z_stream z = { 0 };
	int end;

	if (inflateInit2(&z, -15) != Z_OK)
		return kv_fail_mem(err, "unpacking a frame");
	z.next_in = (z_const Bytef *)(uintptr_t)in;
	z.avail_in = (uInt)len;
	z.next_out = out;
	z.avail_out = (uInt)want;
	end = inflate(&z, whole ? Z_FINISH : Z_SYNC_FLUSH);
	inflateEnd(&z);
	if (end == Z_MEM_ERROR)
		return kv_fail_mem(err, "unpacking a frame");
	if (z.total_out != want || (whole ? end != Z_STREAM_END || z.avail_in : end != Z_OK))
		return kv_fail(err, KV_ECORRUPT, "a plane does not unpack to %zu bytes", m);
	return KV_OK;
}

/* A plane of m bytes: entry = its 16 bytes of the table, in = where it begins, left = payload bytes from there on. */
static enum kv_status
unpack_plane(const uint8_t *entry, const uint8_t *in, size_t left, uint8_t *out, size_t want, size_t m, size_t *used, struct kv_err *err)
{
	uint64_t len = le64_get(entry + 8);

	if (entry[0] > DEFLATED)
		return kv_fail(err, KV_EUNSUP, "plane method %u is not known to this version", entry[0]);
	if (!kvs_all_zero(entry + 1, 7))
		return kv_fail(err, KV_EUNSUP, "a reserved field of a plane is set");
	if (len > left || (entry[0] == COPIED ? len != m : len >= m || m / MAX_RATIO > len))
		return kv_fail(err, KV_ECORRUPT, "a plane of %zu bytes in %" PRIu64, m, len);
	*used = (size_t)len;
	if (entry[0] == DEFLATED)
		return inflate_plane(in, (size_t)len, out, want, m, err);
	memcpy(out, in, want);
	return KV_OK;
}

/* The first `want` bytes of the payload. */
static enum kv_status
unpack(const struct kvs_frame *f, uint8_t *dst, size_t want, uint8_t *plane, struct kv_err *err)
{
	unsigned planes = 1u << f->head.filter;
	size_t m = (size_t)f->head.raw_len / planes, n = (size_t)f->head.enc_len, at = (size_t)TABLE * planes, used = 0;
	enum kv_status rc;

	for (unsigned p = 0; p < planes; p++, at += used) {
		if ((rc = unpack_plane(f->payload + (size_t)TABLE * p, f->payload + at, n - at, plane ? plane : dst, want / planes, m, &used,
				err)) != KV_OK)
			return rc;
		if (plane)
			give_plane(dst, plane, want / planes, planes, p);
	}
	if (at != n)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes after the last plane", n - at);
	if (want == f->head.raw_len && !kvs_hash_is(kvs_hash64(dst, want), f->head.raw_hash))
		return kv_fail(err, KV_ECORRUPT, "hash of the unpacked payload is wrong");
	return KV_OK;
}

static enum kv_status
decode(const struct kvs_frame *f, uint8_t *dst, size_t want, struct kv_err *err)
{
	const struct kvs_head *h = &f->head;
	unsigned planes;
	uint8_t *plane = NULL;
	enum kv_status rc;

	if ((rc = kvs_frame_readable(h, err)) != KV_OK)
		return rc;
	if (h->codec == KVS_CODEC_RAW) {
		if (want)
			memcpy(dst, f->payload, want);
		return KV_OK;
	}
	planes = 1u << h->filter;
	/* The last comparison keeps the scratch below what the payload can become. */
	if (h->raw_len % planes || h->enc_len < (uint64_t)TABLE * planes || h->raw_len / MAX_RATIO > h->enc_len)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu64 " bytes cannot become %" PRIu64 " in %u planes", h->enc_len, h->raw_len, planes);
	if (planes > 1 && !(plane = kv_array_new(want / planes, 1)))
		return kv_fail_mem(err, "unpacking a frame");
	rc = unpack(f, dst, want, plane, err);
	free(plane);
	return rc;
}

enum kv_status
kvs_decode_head(const struct kvs_frame *f, uint8_t *dst, size_t n, struct kv_err *err)
{
	char name[64];
	enum kv_status rc;

	assert(n <= f->head.raw_len && (n % 4 == 0 || n == f->head.raw_len));
	if ((rc = decode(f, dst, n, err)) == KV_OK || !err)
		return rc;
	return kv_err_in(err, "frame %" PRIu64 " (%s)", f->head.seq, kvs_frame_name(name, sizeof name, &f->head));
}

enum kv_status
kvs_decode(const struct kvs_frame *f, uint8_t *dst, struct kv_err *err)
{
	return kvs_decode_head(f, dst, (size_t)f->head.raw_len, err);
}
