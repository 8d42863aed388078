/* Snapshots taken apart and put together again. */
#include "forge.h"

#include <assert.h>
#include <string.h>
#include <zlib.h>

#include "kvs/digest.h"
#include "util/le.h"

void
forge_tiny(struct forge *f, const struct kv_buf *tiny)
{
	size_t at = 64;
	struct kvs_head h;

	memset(f, 0, sizeof *f);
	f->seq_from = -1;
	memcpy(f->prologue, tiny->p, 64);
	while (at + 64 < tiny->len && kvs_head_get(tiny->p + at, &h, NULL) == KV_OK && h.type != KVS_ENDS) {
		assert(f->n < FORGE_MAX && h.codec == 0);
		f->f[f->n].head = h;
		kv_buf_add(&f->f[f->n++].raw, tiny->p + at + 64, (size_t)h.raw_len);
		at += 64 + ((size_t)h.raw_len + 63) / 64 * 64;
	}
}

void
forge_free(struct forge *f)
{
	for (size_t i = 0; i < f->n; i++) {
		kv_buf_free(&f->f[i].raw);
		kv_buf_free(&f->f[i].enc);
	}
	kv_buf_free(&f->after);
}

struct forged *
forge_find(struct forge *f, uint32_t type)
{
	size_t i = 0;

	while (i < f->n && f->f[i].head.type != type)
		i++;
	assert(i < f->n);
	return &f->f[i];
}

struct forged *
forge_insert(struct forge *f, const struct forged *before, uint32_t type, struct kvs_tag tag, const void *raw, size_t n)
{
	size_t i = before ? (size_t)(before - f->f) : f->n;

	assert(f->n < FORGE_MAX);
	memmove(&f->f[i + 1], &f->f[i], (f->n++ - i) * sizeof f->f[0]);
	memset(&f->f[i], 0, sizeof f->f[i]);
	f->f[i].head.type = type;
	f->f[i].head.tag = tag;
	kv_buf_add(&f->f[i].raw, raw, n);
	return &f->f[i];
}

void
forge_remove(struct forge *f, struct forged *at)
{
	size_t i = (size_t)(at - f->f);

	kv_buf_free(&at->raw);
	kv_buf_free(&at->enc);
	memmove(at, at + 1, (--f->n - i) * sizeof *at);
}

void
forge_pack(struct forged *at, uint8_t filter)
{
	size_t planes = (size_t)1 << filter, m = at->raw.len / planes;
	uint8_t plane[8192], *dst;

	assert(m <= sizeof plane && at->raw.len % planes == 0);
	at->head.codec = 1;
	at->head.filter = filter;
	at->enc.len = 0;
	memset(kv_buf_grow(&at->enc, 16 * planes), 0, 16 * planes);
	for (size_t p = 0; p < planes; p++) {
		z_stream z = { 0 };
		bool small;

		for (size_t i = 0; i < m; i++)
			plane[i] = at->raw.p[i * planes + p];
		dst = kv_buf_grow(&at->enc, m);
		deflateInit2(&z, 6, Z_DEFLATED, -15, 9, Z_HUFFMAN_ONLY);
		z.next_in = plane;
		z.avail_in = (uInt)m;
		z.next_out = dst;
		z.avail_out = (uInt)m - 1;
		small = deflate(&z, Z_FINISH) == Z_STREAM_END;
		if (!small)
			memcpy(dst, plane, m);
		at->enc.p[16 * p] = small;
		le64_put(at->enc.p + 16 * p + 8, small ? z.total_out : m);
		at->enc.len -= small ? m - z.total_out : 0;
		deflateEnd(&z);
	}
}

struct sums {
	struct kvs_digest *content, *heads;
	struct kv_buf index;
	uint64_t raw, seq;
};

/* h.raw_hash: xor-ed into the right one. */
static void
put_frame(struct kv_buf *out, struct kvs_head h, const struct kv_buf *raw, const struct kv_buf *enc, struct sums *s)
{
	uint8_t p[64], entry[32] = { 0 };
	const struct kv_buf *stored = h.codec ? enc : raw;

	h.enc_len = stored->len;
	h.raw_len = raw->len;
	h.enc_hash = kvs_hash64(stored->p, stored->len);
	h.raw_hash ^= kvs_hash64(raw->p, raw->len);
	kvs_head_put(p, &h);
	le32_put(entry, h.type);
	memcpy(entry + 8, p + 48, 8);
	le64_put(entry + 16, out->len);
	le64_put(entry + 24, h.raw_len);
	if (h.type != KVS_PADD)
		kv_buf_add(&s->index, entry, sizeof entry);
	if (!kvs_is_ancillary(h.type))
		kvs_digest_add_frame(s->content, &h);
	kvs_digest_add(s->heads, p, sizeof p);
	s->raw += h.raw_len;
	s->seq++;
	kv_buf_add(out, p, sizeof p);
	kv_buf_add(out, stored->p, stored->len);
	memset(kv_buf_grow(out, -stored->len % 64), 0, -stored->len % 64);
}

static void
put_ends(const struct forge *f, struct kv_buf *out, uint64_t start, uint64_t index_at, struct sums *s)
{
	struct kvs_head h = { .type = KVS_ENDS, .seq = s->seq + (f->seq_from >= 0), .tag = { KVS_ALL, KVS_ALL, 0 } };
	struct kv_buf raw = { 0 };
	uint8_t *p = kv_buf_grow(&raw, 64 + f->ends_grow);

	memset(p, 0, 64 + f->ends_grow);
	le64_put(p, s->seq + 1);
	le64_put(p + 8, s->raw);
	le64_put(p + 16, out->len - start + 128);
	le64_put(p + 24, index_at ? out->len - index_at : 0);
	kvs_digest_get(s->content, p + 32);
	le64_put(p + 48, kvs_digest_get64(s->heads));
	for (int i = 0; i < 8; i++)
		p[56 + i] = kvs_magic[7 - i];
	for (int i = 0; i < 64; i++)
		p[i] ^= f->ends[i];
	put_frame(out, h, &raw, NULL, s);
	kv_buf_free(&raw);
}

bool
forge_bytes(const struct forge *f, struct kv_buf *out)
{
	struct sums s = { .content = kvs_digest_new(), .heads = kvs_digest_new() };
	uint64_t start = out->len, index_at = 0;

	kv_buf_add(out, f->prologue, 64);
	le64_put(out->p + start + 56, kvs_hash64(out->p + start, 56));
	kvs_digest_add(s.heads, out->p + start, 64);
	for (size_t i = 0; i < f->n; i++) {
		struct kvs_head h = f->f[i].head;

		h.seq = s.seq + (f->seq_from >= 0 && i >= (size_t)f->seq_from);
		h.raw_hash = f->f[i].two_hashes;
		if (h.type == KVS_INDX)
			index_at = out->len;
		put_frame(out, h, &f->f[i].raw, &f->f[i].enc, &s);
	}
	if (f->index) {
		struct kv_buf index = s.index;

		s.index = (struct kv_buf){ 0 };
		index_at = out->len;
		put_frame(out, (struct kvs_head){ .type = KVS_INDX, .seq = s.seq, .tag = { KVS_ALL, KVS_ALL, 0 } }, &index, NULL, &s);
		kv_buf_free(&index);
	}
	put_ends(f, out, start, index_at, &s);
	kv_buf_add(out, f->after.p, f->after.len);
	kv_buf_free(&s.index);
	kvs_digest_free(s.content);
	kvs_digest_free(s.heads);
	return !out->failed;
}
