/*
 * Forward only: header, payload, padding, next. Every length is checked before it is used, and the buffer grows as bytes
 * arrive, never on a promise (formats/kvs.md, sections 15 and 17).
 */
#include "kvs/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvs/digest.h"
#include "util/le.h"
#include "util/mem.h"

enum {
	FIRST_CAP = (1 << 20) + 64,	/* a full chunk of rows */
	INDEX_ENTRY = 32,
	MAX_RATIO = 1032,		/* of deflate */
};

struct kvs_reader {
	struct kv_in *in;
	struct kvs_prologue prologue;
	uint64_t n_snapshots;		/* read whole */
	uint64_t start;			/* of this snapshot in the input */
	uint64_t seq, sum_raw, index_at, n_indexed;
	uint64_t length, n_frames;	/* of the last whole one */
	struct kvs_digest *content, *heads, *index;	/* what ENDS and iNDX must say */
	uint8_t digest[16];
	char last[64];			/* the frame before, for messages */
	const uint8_t *payload;		/* in hand: the input's, or buf */
	size_t in_place;		/* its bytes if it is the input's */
	uint8_t *buf;			/* block of cap bytes; NULL: none yet, or given away */
	size_t cap;
	bool gives, skims;
};

enum kv_status
kvs_reader_new(struct kv_in *in, struct kvs_reader **out, struct kv_err *err)
{
	struct kvs_reader *r = calloc(1, sizeof *r);

	if (!r || !(r->content = kvs_digest_new()) || !(r->heads = kvs_digest_new()) || !(r->index = kvs_digest_new())) {
		kvs_reader_free(r);
		return kv_fail_mem(err, "reading a snapshot");
	}
	r->in = in;
	*out = r;
	return KV_OK;
}

void
kvs_reader_free(struct kvs_reader *r)
{
	if (!r)
		return;
	kvs_digest_free(r->content);
	kvs_digest_free(r->heads);
	kvs_digest_free(r->index);
	kv_block_free(r->buf);
	free(r);
}

static enum kv_status
truncated(const struct kvs_reader *r, struct kv_err *err)
{
	if (!r->seq)
		return kv_fail(err, KV_ECORRUPT, "truncated after the prologue");
	return kv_fail(err, KV_ECORRUPT, "truncated after frame %" PRIu64 " (%s)", r->seq - 1, r->last);
}

/* n bytes or the verdict that the input ends too early. */
static enum kv_status
take(struct kvs_reader *r, void *dst, size_t n, struct kv_err *err)
{
	enum kv_status rc;
	size_t got;

	if ((rc = kv_in_read(r->in, dst, n, &got, err)) != KV_OK)
		return rc;
	return got == n ? KV_OK : truncated(r, err);
}

enum kv_status
kvs_reader_begin(struct kvs_reader *r, struct kv_err *err)
{
	uint8_t p[KVS_PROLOGUE];
	uint64_t start = kv_in_offset(r->in);
	enum kv_status rc;
	size_t got;

	if ((rc = kv_in_read(r->in, p, sizeof p, &got, err)) != KV_OK)
		return rc;
	if (!got)
		return r->n_snapshots ? KV_END : kv_fail(err, KV_ECORRUPT, "empty input");
	if (got < sizeof p && !memcmp(p, kvs_magic, got < sizeof kvs_magic ? got : sizeof kvs_magic))
		return kv_fail(err, KV_ECORRUPT, "truncated in the prologue");
	memset(p + got, 0, sizeof p - got);
	if ((rc = kvs_prologue_get(p, &r->prologue, err)) != KV_OK)
		return rc;
	if (!kv_mem_allows(r->prologue.max_raw))
		return kv_fail(err, KV_ENOMEM, "frames of up to %" PRIu64 " bytes are more than --mem-limit leaves", r->prologue.max_raw);
	r->start = start;
	r->seq = r->sum_raw = r->index_at = r->n_indexed = 0;
	kvs_digest_reset(r->content);
	kvs_digest_reset(r->index);
	kvs_digest_reset(r->heads);
	kvs_digest_add(r->heads, p, sizeof p);
	return KV_OK;
}

/* A larger block with the same beginning. */
static enum kv_status
grow(struct kvs_reader *r, size_t used, size_t cap, struct kv_err *err)
{
	uint8_t *p = kv_block_new(cap, 1);

	if (!p)
		return kv_fail_mem(err, "a frame");
	if (used)
		memcpy(p, r->buf, used);
	kv_block_free(r->buf);
	r->buf = p;
	r->cap = cap;
	return KV_OK;
}

/* The payload in place, or into buf: each step at most doubles what has arrived. */
static enum kv_status
take_payload(struct kvs_reader *r, size_t n, struct kv_err *err)
{
	size_t have = 0, first = n < FIRST_CAP && r->gives ? n + !n : FIRST_CAP;
	enum kv_status rc;

	/* Whoever kept the one before finds it in the file again; memory need not hold them all until then. */
	if (r->in_place)
		kv_in_forget(r->in, r->payload, r->in_place);
	r->in_place = 0;
	if ((r->payload = kv_in_view(r->in, n))) {
		r->in_place = n;
		return KV_OK;
	}
	if (r->gives && r->cap != n) {
		kv_block_free(r->buf);
		r->buf = NULL;
	}
	if (!r->buf && (rc = grow(r, 0, first, err)) != KV_OK)
		return rc;
	do {
		size_t step;

		if (have == r->cap && (rc = grow(r, have, n / 2 < have ? n : 2 * have, err)) != KV_OK)
			return rc;
		step = (n < r->cap ? n : r->cap) - have;
		if ((rc = take(r, r->buf + have, step, err)) != KV_OK)
			return rc;
		have += step;
	} while (have < n);
	r->payload = r->buf;
	return KV_OK;
}

static enum kv_status
take_padding(struct kvs_reader *r, const struct kvs_head *h, struct kv_err *err)
{
	uint8_t pad[KVS_ALIGN];
	size_t n = (size_t)(-h->enc_len % KVS_ALIGN);
	char name[64];
	enum kv_status rc;

	if ((rc = take(r, pad, n, err)) != KV_OK)
		return rc;
	if (kvs_all_zero(pad, n))
		return KV_OK;
	return kv_fail(err, KV_ECORRUPT, "padding after frame %" PRIu64 " (%s) is not zero", r->seq, kvs_frame_name(name, sizeof name, h));
}

/* What a right header may still be too much for. */
static enum kv_status
check_head(const struct kvs_reader *r, const struct kvs_head *h, struct kv_err *err)
{
	if (h->seq != r->seq)
		return kv_fail(err, KV_ECORRUPT, "says that it is frame %" PRIu64 ": a frame is lost, doubled or moved", h->seq);
	if (h->raw_len > r->prologue.max_raw)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu64 " bytes where the prologue promised at most %" PRIu64, h->raw_len,
			r->prologue.max_raw);
	if (r->seq >= KVS_MAX_FRAMES)
		return kv_fail(err, KV_EUNSUP, "more than %" PRIu64 " frames", KVS_MAX_FRAMES);
	if (!kvs_is_ancillary(h->type)) {
		if (!kvs_is_known(h->type))
			return kv_fail(err, KV_EUNSUP, "a critical frame of this type is not known to this version");
		if (kvs_frame_readable(h, err) != KV_OK)
			return KV_EUNSUP;
	}
	if (h->codec == KVS_CODEC_ZLIB && h->raw_len / MAX_RATIO > h->enc_len)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu64 " bytes cannot be packed into %" PRIu64, h->raw_len, h->enc_len);
	if (h->type != KVS_ENDS)
		return KV_OK;
	if (h->codec != KVS_CODEC_RAW || h->tag.layer != KVS_ALL || h->tag.head != KVS_ALL || h->tag.chunk)
		return kv_fail(err, KV_ECORRUPT, "is packed or tagged");
	return h->raw_len == 64 ? KV_OK : kv_fail(err, KV_EUNSUP, "%" PRIu64 " bytes, this version reads 64", h->raw_len);
}

/* The index repeats what has gone by, so its hash is known before it comes. */
static enum kv_status
check_index(struct kvs_reader *r, const struct kvs_head *h, uint64_t at, struct kv_err *err)
{
	if (r->index_at)
		return kv_fail(err, KV_ECORRUPT, "a second index");
	if (h->raw_len != r->n_indexed * INDEX_ENTRY || !kvs_hash_is(h->raw_hash, kvs_digest_get64(r->index)))
		return kv_fail(err, KV_ECORRUPT, "does not list the frames before it");
	r->index_at = at;
	return KV_OK;
}

static void
note_frame(struct kvs_reader *r, const uint8_t raw[KVS_HEADER], const struct kvs_head *h, uint64_t at)
{
	uint8_t entry[INDEX_ENTRY] = { 0 };

	if (!kvs_is_ancillary(h->type))
		kvs_digest_add_frame(r->content, h);
	kvs_digest_add(r->heads, raw, KVS_HEADER);
	if (h->type != KVS_PADD) {
		memcpy(entry, raw, 4);
		memcpy(entry + 8, raw + 48, 8);
		le64_put(entry + 16, at);
		le64_put(entry + 24, h->raw_len);
		kvs_digest_add(r->index, entry, sizeof entry);
		r->n_indexed++;
	}
	r->sum_raw += h->raw_len;
	r->seq++;
	kvs_frame_name(r->last, sizeof r->last, h);
}

static enum kv_status
finish(struct kvs_reader *r, uint64_t at, struct kv_err *err)
{
	const uint8_t *p = r->payload;
	uint64_t length = kv_in_offset(r->in) - r->start;

	kvs_digest_get(r->content, r->digest);
	if (le64_get(p) != r->seq + 1)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu64 " frames announced, %" PRIu64 " found", le64_get(p), r->seq + 1);
	if (le64_get(p + 8) != r->sum_raw || le64_get(p + 16) != length)
		return kv_fail(err, KV_ECORRUPT, "lengths do not add up");
	if (le64_get(p + 24) != (r->index_at ? at - r->index_at : 0))
		return kv_fail(err, KV_ECORRUPT, "does not point at the index");
	if (!kvs_hash_is(le64_get(p + 32), le64_get(r->digest)) || !kvs_hash_is(le64_get(p + 40), le64_get(r->digest + 8)))
		return kv_fail(err, KV_ECORRUPT, "content digest is wrong");
	if (!kvs_hash_is(le64_get(p + 48), kvs_digest_get64(r->heads)))
		return kv_fail(err, KV_ECORRUPT, "hash of the headers is wrong");
	for (int i = 0; i < 8; i++)
		if (p[56 + i] != kvs_magic[7 - i])
			return kv_fail(err, KV_ECORRUPT, "end magic is wrong");
	r->length = length;
	r->n_frames = r->seq + 1;
	r->n_snapshots++;
	return KV_END;
}

static enum kv_status
check_payload(struct kvs_reader *r, const struct kvs_head *h, uint64_t at, struct kv_err *err)
{
	bool closed = r->skims && h->type != KVS_INDX && h->type != KVS_ENDS;

	if (!closed && !kvs_hash_is(kvs_hash64(r->payload, (size_t)h->enc_len), h->enc_hash))
		return kv_fail(err, KV_ECORRUPT, "payload hash mismatch");
	if (h->type == KVS_ENDS)
		return finish(r, at, err);
	return h->type == KVS_INDX ? check_index(r, h, at, err) : KV_OK;
}

enum kv_status
kvs_reader_next(struct kvs_reader *r, struct kvs_frame *f, struct kv_err *err)
{
	uint8_t raw[KVS_HEADER];
	uint64_t at = kv_in_offset(r->in) - r->start;
	struct kvs_head h;
	struct kv_err unheard;
	char name[64];
	enum kv_status rc;

	if (!err)
		err = &unheard;
	if ((rc = take(r, raw, sizeof raw, err)) != KV_OK)
		return rc;
	if (kvs_head_get(raw, &h, err) != KV_OK)
		return kv_err_in(err, "frame %" PRIu64, r->seq);
	kvs_frame_name(name, sizeof name, &h);
	if (check_head(r, &h, err) != KV_OK)
		return kv_err_in(err, "frame %" PRIu64 " (%s)", r->seq, name);
	if ((rc = take_payload(r, (size_t)h.enc_len, err)) != KV_OK || (rc = take_padding(r, &h, err)) != KV_OK)
		return rc;
	if ((rc = check_payload(r, &h, at, err)) == KV_END)
		return rc;
	if (rc != KV_OK)
		return kv_err_in(err, "frame %" PRIu64 " (%s)", r->seq, name);
	note_frame(r, raw, &h, at);
	*f = (struct kvs_frame){ .head = h, .payload = r->payload };
	if (r->gives && r->payload == r->buf)
		f->block = &r->buf;
	else if (r->gives)
		f->in = r->in;
	return KV_OK;
}

void
kvs_reader_give(struct kvs_reader *r, bool on)
{
	r->gives = on;
}

bool
kvs_reader_skim(struct kvs_reader *r)
{
	return r->skims = kv_in_skim(r->in);
}

const struct kvs_prologue *
kvs_reader_prologue(const struct kvs_reader *r)
{
	return &r->prologue;
}

const uint8_t *
kvs_reader_digest(const struct kvs_reader *r)
{
	return r->digest;
}

uint64_t
kvs_reader_length(const struct kvs_reader *r)
{
	return r->length;
}

uint64_t
kvs_reader_n_frames(const struct kvs_reader *r)
{
	return r->n_frames;
}
