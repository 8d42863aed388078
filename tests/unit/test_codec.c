/* lib/kvs: hashes, and codec 1 against its vector, other packers and malformed payloads. */
#include "tap.h"

#include <stdlib.h>
#include <zlib.h>

#include "kvs/codec.h"
#include "kvs/digest.h"
#include "util/le.h"

static struct kv_err err;

static void
test_hashes(void)
{
	struct kvs_digest *d = kvs_digest_new();
	uint8_t h[16], piecewise[16], data[1000];
	char hex[33];

	ok(kvs_hash64("", 0) == 0x2d06800538d394c2, "XXH3-64 of nothing");
	ok(kvs_hash64("abc", 3) == 0x78af5f94892f3950, "XXH3-64 of abc");
	kvs_hash128("", 0, h);
	is_str(kvs_hex128(h, hex), "99aa06d3014798d86001c324468d497f", "XXH3-128 of nothing");
	kvs_hash128("abc", 3, h);
	is_str(kvs_hex128(h, hex), "06b05ab6733a618578af5f94892f3950", "XXH3-128 of abc");
	for (size_t i = 0; i < sizeof data; i++)
		data[i] = (uint8_t)(i * i);
	kvs_digest_add(d, "x", 1);
	kvs_digest_reset(d);
	kvs_digest_add(d, data, 1);
	kvs_digest_add(d, data + 1, 600);
	kvs_digest_add(d, data + 601, 399);
	kvs_hash128(data, sizeof data, h);
	kvs_digest_get(d, piecewise);
	ok(!memcmp(h, piecewise, 16), "128 bits, piece by piece");
	ok(kvs_digest_get64(d) == kvs_hash64(data, sizeof data), "64 bits from the same state");
	kvs_digest_free(d);
}

/* The vector of formats/kvs.md, section 5. */
static void
vector_raw(uint8_t raw[128])
{
	for (unsigned i = 0; i < 64; i++) {
		raw[2 * i] = (uint8_t)(37 * i);
		raw[2 * i + 1] = 0x3c;
	}
}

static const uint8_t high_plane[21] = { 0x05, 0xc1, 0x81, 0, 0, 0, 0, 0, 0x90, 0x31, 0xff, 0x5d, 0, 0, 0, 0, 0, 0, 0, 0, 0x08 };

static struct kvs_frame
vector_frame(uint8_t enc[117])
{
	struct kvs_frame f = { .head = { .type = KVS_KEYS, .codec = KVS_CODEC_ZLIB, .filter = 1, .enc_len = 117, .raw_len = 128 }, .payload = enc };

	memset(enc, 0, 32);
	enc[8] = 64;
	enc[16] = 1;
	enc[24] = sizeof high_plane;
	for (unsigned i = 0; i < 64; i++)
		enc[32 + i] = (uint8_t)(37 * i);
	memcpy(enc + 96, high_plane, sizeof high_plane);
	f.head.raw_hash = 0x4a8997a05db489a1;
	return f;
}

static void
test_vector(void)
{
	uint8_t raw[128], enc[117], got[128];
	struct kvs_frame f = vector_frame(enc);

	vector_raw(raw);
	ok(kvs_hash64(enc, sizeof enc) == 0xac59e3e42e5fcb78, "the vector's encoded hash");
	ok(kvs_hash64(raw, sizeof raw) == f.head.raw_hash, "its raw hash");
	ok(kvs_decode(&f, got, &err) == KV_OK && !memcmp(got, raw, sizeof raw), "it unpacks");
	f.head.raw_hash ^= 1;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a wrong raw hash is noticed");
}

static void
test_malformed(void)
{
	uint8_t enc[160], got[256];
	struct kvs_frame f = vector_frame(enc);

	enc[0] = 2;
	ok(kvs_decode(&f, got, &err) == KV_EUNSUP, "an unknown method is unsupported");
	enc[0] = 0;
	enc[3] = 1;
	ok(kvs_decode(&f, got, &err) == KV_EUNSUP, "so is a reserved field");
	enc[3] = 0;
	enc[8] = 63;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a copied plane that is too short");
	enc[8] = 65;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "or too long");
	enc[8] = 64;
	le64_put(enc + 24, UINT64_MAX - 60);
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a length whose sum overflows");
	le64_put(enc + 24, 20);
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a stream that is cut");
	le64_put(enc + 24, 22);
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a plane beyond the payload");
	f.head.enc_len = 118;
	enc[117] = 0;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "input left over in a plane");
	le64_put(enc + 24, 21);
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a byte after the last plane");
	f = vector_frame(enc);
	f.head.raw_len = 130;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a stream that ends early");
	f.head.raw_len = 126;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "a stream that runs over");
	f.head.raw_len = 129;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "planes of unequal length");
	f.head.raw_len = (uint64_t)1 << 30;
	ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "more than deflate can do");
	f = vector_frame(enc);
	f.head.codec = 2;
	ok(kvs_decode(&f, got, &err) == KV_EUNSUP, "codec 2");
	f.head.codec = 1;
	f.head.filter = 3;
	ok(kvs_decode(&f, got, &err) == KV_EUNSUP, "filter 3");
	f.head.filter = 1;
	f.head.flags = 0x0010;
	ok(kvs_decode(&f, got, &err) == KV_EUNSUP, "a flag that must be understood");
	f.head.flags = 0x1000;
	ok(kvs_decode(&f, got, &err) == KV_OK, "one that may be ignored");
}

static bool
round_trip(const uint8_t *raw, size_t n, uint8_t filter, uint8_t *codec, size_t *stored)
{
	struct kv_buf enc = { 0 };
	uint8_t *got = malloc(n + 1);
	struct kvs_frame f = { .head = { .filter = filter, .raw_len = n, .raw_hash = kvs_hash64(raw, n) }, .payload = NULL };
	bool same;

	kv_buf_add(&enc, "before", 6);
	same = kvs_encode(raw, n, filter, &enc, codec, &err) == KV_OK && !memcmp(enc.p, "before", 6);
	f.head.codec = *codec;
	f.head.filter = *codec ? filter : 0;
	f.head.enc_len = *stored = enc.len - 6;
	f.payload = enc.p + 6;
	same = same && kvs_decode(&f, got, &err) == KV_OK && !memcmp(got, raw, n) && (*codec ? *stored < n : *stored == n);
	kv_buf_free(&enc);
	free(got);
	return same;
}

/* The beginning without the rest: what a packed chunk of rows says of itself. */
static void
test_heads(void)
{
	enum { N = 1 << 16 };
	uint8_t *p = malloc(N), *got = malloc(N), codec;
	uint32_t x = 1;

	for (size_t i = 0; i < N; i++) {
		x = x * 1664525 + 1013904223;
		p[i] = (uint8_t)(i % 4 < 2 ? x >> 24 : 0x38 | (x >> 24 & 3));
	}
	for (uint8_t filter = 0; filter <= 2; filter++) {
		struct kv_buf enc = { 0 };
		struct kvs_frame f = { .head = { .filter = filter, .raw_len = N, .raw_hash = 1 }, .payload = NULL };

		kvs_encode(p, N, filter, &enc, &codec, &err);
		f.payload = enc.p;
		f.head.codec = codec;
		f.head.enc_len = enc.len;
		memset(got, 0xee, N);
		ok(codec == KVS_CODEC_ZLIB && kvs_decode_head(&f, got, 64, &err) == KV_OK && !memcmp(p, got, 64) && got[64] == 0xee,
			"64 bytes of %u planes, whatever the hash of the rest", 1u << filter);
		ok(kvs_decode(&f, got, &err) == KV_ECORRUPT, "all of them are hashed");
		f.head.enc_len--;
		ok(kvs_decode_head(&f, got, 64, &err) == KV_ECORRUPT, "the planes must add up all the same");
		f.head.enc_len++;
		le64_put(enc.p + 8, enc.p[0] ? le64_get(enc.p + 8) - 1 : N);
		ok(kvs_decode_head(&f, got, 64, &err) == KV_ECORRUPT, "and each have its length");
		kv_buf_free(&enc);
	}
	free(p);
	free(got);
}

static void
test_round_trips(void)
{
	enum { N = 1 << 18 };
	uint8_t *p = malloc(N), codec;
	uint32_t x = 1;
	size_t stored;

	for (size_t i = 0; i < N; i++) {	/* a noisy byte, then one of few values, as in f16 */
		x = x * 1664525 + 1013904223;
		p[i] = (uint8_t)(i % 2 ? 0x38 | (x >> 24 & 7) : x >> 24);
	}
	ok(round_trip(p, N, 1, &codec, &stored) && codec == KVS_CODEC_ZLIB, "two planes");
	ok(stored < N * 3 / 4, "the high one shrinks: %zu of %d", stored, N);
	ok(round_trip(p, N, 2, &codec, &stored) && codec == KVS_CODEC_ZLIB, "four planes");
	ok(round_trip(p, N, 0, &codec, &stored), "one plane");
	ok(round_trip(p, 511, 0, &codec, &stored) && codec == KVS_CODEC_RAW, "short payloads stay raw");
	ok(round_trip(p, 512, 1, &codec, &stored) && codec == KVS_CODEC_ZLIB, "the smallest that is packed");
	ok(round_trip(p, 1001, 1, &codec, &stored) && codec == KVS_CODEC_RAW, "what planes do not divide stays raw");
	ok(round_trip(p, 0, 0, &codec, &stored) && codec == KVS_CODEC_RAW, "an empty payload");
	for (size_t i = 0; i < N; i++)
		p[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
	ok(round_trip(p, N, 1, &codec, &stored) && codec == KVS_CODEC_RAW, "noise stays raw");
	memset(p, 0, N);
	ok(round_trip(p, N, 2, &codec, &stored) && stored < N / 7, "zeros: %zu", stored);
	free(p);
}

/* The unpacker takes what any deflate makes. */
static void
test_other_packers(void)
{
	static const int strategies[] = { Z_DEFAULT_STRATEGY, Z_FILTERED, Z_HUFFMAN_ONLY, Z_RLE, Z_FIXED };
	enum { N = 4096 };
	uint8_t raw[N], enc[N + 64], got[N];
	int bad = 0;

	for (size_t i = 0; i < N; i++)
		raw[i] = (uint8_t)(i % 7 * (i / 100));
	for (int s = 0; s < 5; s++)
		for (int level = 1; level <= 9; level++) {
			struct kvs_frame f = { .head = { .codec = 1, .raw_len = N, .raw_hash = kvs_hash64(raw, N) }, .payload = enc };
			z_stream z = { 0 };

			memset(enc, 0, 16);
			enc[0] = 1;
			deflateInit2(&z, level, Z_DEFLATED, -15, 8, strategies[s]);
			z.next_in = raw;
			z.avail_in = N;
			z.next_out = enc + 16;
			z.avail_out = N;
			bad += deflate(&z, Z_FINISH) != Z_STREAM_END;
			le64_put(enc + 8, z.total_out);
			f.head.enc_len = 16 + z.total_out;
			deflateEnd(&z);
			bad += kvs_decode(&f, got, &err) != KV_OK || memcmp(raw, got, N);
		}
	is_int(bad, 0, "streams of every strategy and level");
}

int
main(void)
{
	test_hashes();
	test_vector();
	test_malformed();
	test_heads();
	test_round_trips();
	test_other_packers();
	return done_testing();
}
