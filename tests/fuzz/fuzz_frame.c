/* One frame: prologue, header, payload unpacked, and packed again. */
#include <string.h>

#include "fuzz.h"
#include "kvs/codec.h"
#include "util/mem.h"

enum { MOST = 1 << 20 };

static void
pack_again(const uint8_t *raw, size_t n, uint8_t filter)
{
	struct kv_buf enc = { 0 };
	uint8_t *got = malloc(n + 1), codec;
	struct kvs_frame f = { .head = { .filter = filter, .raw_len = n } };
	struct kv_err err;

	MUST(got);
	MUST(kvs_encode(raw, n, filter, &enc, &codec, &err) == KV_OK);
	MUST(codec ? enc.len < n : enc.len == n);
	f.head.codec = codec;
	f.head.filter = codec ? filter : 0;
	f.head.enc_len = enc.len;
	f.payload = enc.p;
	MUST(kvs_decode(&f, got, &err) == KV_OK && (!n || !memcmp(raw, got, n)));
	kv_buf_free(&enc);
	free(got);
}

static void
unpack(const struct kvs_head *h, const uint8_t *payload)
{
	struct kvs_frame f = { .head = *h, .payload = payload };
	size_t n = (size_t)h->raw_len, some = n < 64 ? n : 64;
	uint8_t *raw = malloc(n + 1), head[64];
	enum kv_status whole, part;
	struct kv_err err;

	MUST(raw);
	whole = kvs_decode(&f, raw, &err);
	part = kvs_decode_head(&f, head, some, &err);
	if (whole == KV_OK) {
		MUST(part == KV_OK && !memcmp(raw, head, some));
		pack_again(raw, n, h->filter);
	}
	free(raw);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct kvs_prologue p;
	struct kvs_head h;
	struct kv_err err;
	uint8_t back[64];
	char name[64];

	if (n >= KVS_PROLOGUE)
		kvs_prologue_get(data, &p, &err);
	if (n < KVS_HEADER || kvs_head_get(data, &h, &err) != KV_OK)
		return 0;
	kvs_head_put(back, &h);
	MUST(!memcmp(back, data, 56));
	MUST(strlen(kvs_frame_name(name, sizeof name, &h)) < sizeof name);
	if (kvs_frame_readable(&h, &err) == KV_OK && h.enc_len <= n - KVS_HEADER && h.raw_len <= MOST)
		unpack(&h, data + KVS_HEADER);
	return 0;
}
