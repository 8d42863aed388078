/* lib/kvs: reader and writer against the worked example, against damage, and against each other. */
#include "tap.h"

#include <stdlib.h>

#include "kvs/codec.h"
#include "kvs/digest.h"
#include "kvs/payload.h"
#include "kvs/reader.h"
#include "kvs/writer.h"
#include "snapfile.h"
#include "tiny.h"
#include "util/half.h"
#include "util/le.h"

enum { TINY = 2368, TINY_INDEXED = 2816 };

static const char tiny_digest[] = "fca8517fee53bf439cabfa144f6cfa2a";

static struct kv_err err;

static enum kv_status
plain_tiny(struct kvs_writer *w, void *arg, struct kv_err *e)
{
	kvs_writer_index(w, false);
	return tiny_write(w, arg, e);
}

static enum kv_status
indexed_tiny(struct kvs_writer *w, void *arg, struct kv_err *e)
{
	return tiny_write(w, arg, e);
}

static enum kv_status
torn_tiny(struct kvs_writer *w, void *arg, struct kv_err *e)
{
	enum kv_status rc = plain_tiny(w, arg, e);

	kvs_writer_tear(w);	/* what a tool does when the next snapshot fails */
	return rc;
}

static void
test_example(void)
{
	struct kv_buf made = { 0 }, gold = { 0 };
	uint8_t digest[16], read[16];
	char hex[33];

	ok(snap_bytes(plain_tiny, digest, KVS_PACK_RAW, NULL, &made, &err) == KV_OK, "the worked example is written");
	ok(snap_load("tests/files/good-tiny.kvs", &gold, &err) == KV_OK, "its bytes in the specification");
	is_int(made.len, TINY, "its length");
	ok(made.len == gold.len && !memcmp(made.p, gold.p, gold.len), "byte for byte");
	is_str(kvs_hex128(digest, hex), tiny_digest, "its digest");
	ok(snap_verdict(made.p, made.len, read, &err) == KV_OK && !memcmp(read, digest, 16), "it is read back");
	made.len = 0;
	ok(snap_bytes(indexed_tiny, digest, KVS_PACK_RAW, NULL, &made, &err) == KV_OK, "with an index");
	is_int(made.len, TINY_INDEXED, "its length with an index");
	is_str(kvs_hex128(digest, hex), tiny_digest, "the digest does not see the index");
	ok(snap_verdict(made.p, made.len, NULL, &err) == KV_OK, "and it is read back");
	kv_buf_free(&made);
	kv_buf_free(&gold);
}

static bool
refused(const uint8_t *p, size_t n)
{
	enum kv_status rc = snap_verdict(p, n, NULL, &err);

	return rc == KV_ECORRUPT || rc == KV_EUNSUP;
}

/* Every byte flipped in one and in all bits, and every length. */
static void
damage(const struct kv_buf *b, size_t seam, const char *what)
{
	int flips = 0, cuts = 0;
	uint8_t *copy = malloc(b->len);

	memcpy(copy, b->p, b->len);
	for (size_t i = 0; i < b->len; i++) {
		copy[i] = (uint8_t)(b->p[i] ^ 1 << i % 8);
		flips += !refused(copy, b->len);
		copy[i] = (uint8_t)~b->p[i];
		flips += !refused(copy, b->len);
		copy[i] = b->p[i];
		cuts += i != seam && !refused(copy, i);
	}
	is_int(flips, 0, "%s: no flipped byte of %zu goes unnoticed", what, b->len);
	is_int(cuts, 0, "%s: no cut goes unnoticed", what);
	free(copy);
}

static void
test_damage(void)
{
	static const char *const files[] = { "good-packed", "good-mask-broken", "good-quant", "good-unknown-private" };
	struct kv_buf b = { 0 };
	uint8_t digest[16];
	char path[64];

	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		snprintf(path, sizeof path, "tests/files/%s.kvs", files[i]);
		b.len = 0;
		ok(snap_load(path, &b, &err) == KV_OK, "%s", files[i]);
		damage(&b, SIZE_MAX, files[i]);
	}
	b.len = 0;

	ok(snap_bytes(plain_tiny, digest, KVS_PACK_RAW, NULL, &b, &err) == KV_OK, "a snapshot to damage");
	damage(&b, SIZE_MAX, "raw");
	b.len = 0;
	ok(snap_bytes(indexed_tiny, digest, KVS_PACK_ZLIB, NULL, &b, &err) == KV_OK, "one with an index");
	damage(&b, SIZE_MAX, "indexed");
	b.len = 0;
	ok(snap_bytes(plain_tiny, digest, KVS_PACK_RAW, NULL, &b, &err) == KV_OK &&
		   snap_bytes(plain_tiny, digest, KVS_PACK_RAW, NULL, &b, &err) == KV_OK, "two in a row");
	ok(snap_verdict(b.p, b.len, NULL, &err) == KV_OK, "two in a row are read");
	damage(&b, TINY, "two");
	kv_buf_add(&b, "x", 1);
	ok(snap_verdict(b.p, b.len, NULL, &err) == KV_ECORRUPT, "a byte after ENDS");
	kv_buf_free(&b);
	ok(snap_verdict("", 0, NULL, &err) == KV_ECORRUPT, "empty input");
	is_str(err.text, "empty input", "and its message");
}

static void
test_messages(void)
{
	struct kv_buf b = { 0 };
	uint8_t digest[16];

	snap_bytes(plain_tiny, digest, KVS_PACK_RAW, NULL, &b, &err);
	snap_verdict(b.p, 1800, NULL, &err);
	is_str(err.text, "truncated after frame 8 (KEYS layer 0 head 0)", "a truncated one");
	snap_verdict(b.p, 40, NULL, &err);
	is_str(err.text, "truncated in the prologue", "inside the prologue");
	snap_verdict(b.p, 100, NULL, &err);
	is_str(err.text, "truncated after the prologue", "before the first frame");
	b.p[1536 + 64 + 70] ^= 1;
	snap_verdict(b.p, b.len, NULL, &err);
	is_str(err.text, "frame 8 (KEYS layer 0 head 0): payload hash mismatch", "a damaged payload");
	b.p[0] = 'P';
	snap_verdict(b.p, b.len, NULL, &err);
	is_str(err.text, "not a kvs snapshot", "something else");
	kv_buf_free(&b);
}

static void
test_tear(void)
{
	struct kv_buf b = { 0 };
	uint8_t digest[16];

	ok(snap_bytes(torn_tiny, digest, KVS_PACK_RAW, NULL, &b, &err) == KV_OK, "a sequence that its writer tore");
	is_int(b.len, TINY + 8, "has the magic and no more at its end");
	ok(snap_verdict(b.p, b.len, NULL, &err) == KV_ECORRUPT, "and every reader refuses it");
	is_str(err.text, "truncated in the prologue", "for the right reason");
	kv_buf_free(&b);
}

static void
test_limit(void)
{
	struct kv_buf b = { 0 };
	uint8_t digest[16];

	snap_bytes(plain_tiny, digest, KVS_PACK_RAW, NULL, &b, &err);
	kv_mem_limit_set(1 << 20);
	ok(snap_verdict(b.p, b.len, NULL, &err) == KV_ENOMEM, "frames larger than --mem-limit");
	ok(strstr(err.text, "--mem-limit") != NULL, "and the message names it");
	kv_mem_limit_set(0);
	kv_buf_free(&b);
}

/* A larger snapshot: 2 layers of 2 heads, full chunks and a rest, values that pack. */
enum { BIG_LAYERS = 2, BIG_HEADS = 2, BIG_D = 64, BIG_N = 5000 };

static void
big_rows(struct kv_buf *b, uint32_t first, uint32_t n, uint32_t seed)
{
	struct kvs_rows r = { .first_row = first, .n_rows = n, .row_bytes = 2 * BIG_D, .width = BIG_D, .dtype = KVS_F16 };
	uint8_t *p;

	b->len = 0;
	p = kv_buf_grow(b, KVS_ROWS_HEADER + (size_t)n * r.row_bytes);
	kvs_rows_put(p, &r);
	for (size_t i = 0; i < (size_t)n * BIG_D; i++) {
		float x = 0;

		for (int k = 0; k < 4; k++) {	/* near enough to a normal distribution */
			seed = seed * 1664525 + 1013904223;
			x += (float)(seed >> 8) * 0x1p-24f - 0.5f;
		}
		le16_put(p + KVS_ROWS_HEADER + 2 * i, f32_to_f16(x));
	}
}

static enum kv_status
big_data(struct kvs_writer *w, struct kv_buf *b, struct kv_err *e)
{
	enum kv_status rc = KV_OK;

	for (uint16_t l = 0; l < BIG_LAYERS; l++)
		for (uint16_t h = 0; h < BIG_HEADS; h++)
			for (uint32_t side = 0; side < 2; side++)
				for (uint32_t first = 0; first < BIG_N && rc == KV_OK; first += KVS_CHUNK_ROWS) {
					uint32_t n = BIG_N - first < KVS_CHUNK_ROWS ? BIG_N - first : KVS_CHUNK_ROWS;

					big_rows(b, first, n, l * 1000u + h * 100u + side * 10u + first);
					rc = kvs_writer_put(w, side ? KVS_VALS : KVS_KEYS, (struct kvs_tag){ l, h, first / KVS_CHUNK_ROWS }, b->p,
						b->len, e);
				}
	return rc;
}

static enum kv_status
big_write(struct kvs_writer *w, void *digest, struct kv_err *e)
{
	static const struct kvs_tag all = { KVS_ALL, KVS_ALL, 0 };
	static struct kvs_geom g;
	static uint32_t src[BIG_N];
	static int32_t pos[BIG_N];
	struct kvs_state s = { .consumed = BIG_N, .hist_first = BIG_N, .next_pos = BIG_N };
	struct kv_buf b = { 0 };
	enum kv_status rc;

	tiny_geom(&g, &(struct kvs_state){ 0 });
	g.n_layers = BIG_LAYERS;
	g.n_heads = 4;
	g.n_heads_kv = BIG_HEADS;
	g.d_k = g.d_v = BIG_D;
	g.layer[1] = g.layer[0];
	for (uint32_t i = 0; i < BIG_N; i++) {
		src[i] = i;
		pos[i] = (int32_t)i;
	}
	rc = kvs_writer_begin(w, KVS_CHUNK_BYTES + KVS_ROWS_HEADER, e);
	kvs_geom_put(&b, &g, &s);
	rc = rc != KV_OK ? rc : kvs_writer_put(w, KVS_GEOM, all, b.p, b.len, e);
	b.len = 0;
	kvs_rope_put(&b, &g.rope[0]);
	rc = rc != KV_OK ? rc : kvs_writer_put(w, KVS_ROPE, all, b.p, b.len, e);
	b.len = 0;
	kvs_layers_put(&b, &g);
	rc = rc != KV_OK ? rc : kvs_writer_put(w, KVS_LAYR, all, b.p, b.len, e);
	b.len = 0;
	kvs_ents_put(&b, src, pos, BIG_N);
	rc = rc != KV_OK ? rc : kvs_writer_put(w, KVS_ENTS, all, b.p, b.len, e);
	rc = rc != KV_OK ? rc : big_data(w, &b, e);
	rc = rc != KV_OK ? rc : kvs_writer_end(w, digest, e);
	kv_buf_free(&b);
	return rc;
}

/* What kv-evict with nothing to do does: every frame is forwarded. */
static enum kv_status
copy(struct kvs_writer *w, void *arg, struct kv_err *e)
{
	const struct kv_buf *from = arg;
	struct kv_in *in = NULL;
	struct kvs_reader *r = NULL;
	struct kvs_frame f;
	enum kv_status rc;

	if ((rc = kv_in_mem("test", from->p, from->len, &in, e)) != KV_OK || (rc = kvs_reader_new(in, &r, e)) != KV_OK ||
	    (rc = kvs_reader_begin(r, e)) != KV_OK || (rc = kvs_writer_begin(w, kvs_reader_prologue(r)->max_raw, e)) != KV_OK)
		goto out;
	while ((rc = kvs_reader_next(r, &f, e)) == KV_OK)
		if (f.head.type != KVS_INDX && (rc = kvs_writer_forward(w, &f, e)) != KV_OK)
			goto out;
	if (rc == KV_END)
		rc = kvs_writer_end(w, NULL, e);
out:
	kvs_reader_free(r);
	kv_in_close(in);
	return rc;
}

static bool
same_bytes(const struct kv_buf *a, const struct kv_buf *b)
{
	return a->len == b->len && a->len && !memcmp(a->p, b->p, a->len);
}

static void
test_round_trips(void)
{
	struct kv_pool *pool = kv_pool_new(4);
	struct kv_buf raw = { 0 }, packed = { 0 }, again = { 0 };
	uint8_t digest[16], other[16];

	ok(snap_bytes(big_write, digest, KVS_PACK_RAW, NULL, &raw, &err) == KV_OK, "raw");
	ok(snap_verdict(raw.p, raw.len, other, &err) == KV_OK && !memcmp(other, digest, 16), "raw is read: %s", err.text);
	ok(snap_bytes(big_write, digest, KVS_PACK_ZLIB, NULL, &packed, &err) == KV_OK, "packed");
	ok(snap_verdict(packed.p, packed.len, other, &err) == KV_OK && !memcmp(other, digest, 16), "packed is read");
	ok((double)packed.len < 0.9 * (double)raw.len, "packing saves something: %zu of %zu", packed.len, raw.len);
	ok(snap_bytes(big_write, other, KVS_PACK_ZLIB, pool, &again, &err) == KV_OK && same_bytes(&packed, &again), "threads change no byte");
	is_int(memcmp(other, digest, 16), 0, "nor the digest");
	again.len = 0;
	ok(snap_bytes(copy, &raw, KVS_PACK_ZLIB, pool, &again, &err) == KV_OK && same_bytes(&packed, &again), "raw forwarded as packed");
	again.len = 0;
	ok(snap_bytes(copy, &packed, KVS_PACK_RAW, pool, &again, &err) == KV_OK && same_bytes(&raw, &again), "packed forwarded as raw");
	again.len = 0;
	ok(snap_bytes(copy, &packed, KVS_PACK_AUTO, NULL, &again, &err) == KV_OK && same_bytes(&packed, &again), "packed forwarded as it is");
	again.len = 0;
	ok(snap_bytes(copy, &raw, KVS_PACK_AUTO, NULL, &again, &err) == KV_OK && same_bytes(&packed, &again), "auto packs into a file");
	kv_buf_free(&raw);
	kv_buf_free(&packed);
	kv_buf_free(&again);
	kv_pool_free(pool);
}

int
main(void)
{
	test_example();
	test_damage();
	test_messages();
	test_tear();
	test_limit();
	test_round_trips();
	return done_testing();
}
