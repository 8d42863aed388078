/* What can be read is written, raw and packed, and read again: the same content, twice the same bytes. */
#include <string.h>

#include "cache/snapshot.h"
#include "fuzz.h"
#include "kvs/codec.h"
#include "kvs/digest.h"
#include "snapfile.h"
#include "util/in.h"

static enum kv_status
write_cache(struct kvs_writer *w, void *cache, struct kv_err *err)
{
	return kv_cache_write(cache, w, err);
}

/* In this build the hashes of the input may be anything, and frames that are passed on would keep them. */
static bool
mend(struct kv_held *h)
{
	struct kvs_frame f = { .head = h->head, .payload = h->payload };
	uint8_t *raw = malloc((size_t)h->head.raw_len + 1);
	bool good;
	struct kv_err err;

	MUST(raw);
	good = kvs_decode(&f, raw, &err) == KV_OK;
	h->head.enc_hash = kvs_hash64(h->payload, (size_t)h->head.enc_len);
	h->head.raw_hash = good ? kvs_hash64(raw, (size_t)h->head.raw_len) : 0;
	free(raw);
	return good;
}

static struct kv_cache *
read_cache(const uint8_t *data, size_t n)
{
	struct kv_cache *c = NULL;
	struct kvs_reader *r;
	struct kv_in *in;
	struct kv_err err;

	MUST(kv_in_mem("it", data, n, &in, &err) == KV_OK && kvs_reader_new(in, &r, &err) == KV_OK);
	if (kvs_reader_begin(r, &err) == KV_OK && kv_cache_read(r, &c, &err) == KV_OK) {
		bool good = kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, &err) == KV_OK;

		for (size_t i = 0; i < c->n_other && good; i++)
			good = mend(&c->other[i]);
		if (!good) {
			kv_cache_free(c);
			c = NULL;
		}
	}
	kvs_reader_free(r);
	kv_in_close(in);
	return c;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const enum kvs_packing packings[] = { KVS_PACK_RAW, KVS_PACK_ZLIB };
	struct kv_buf first[2] = { { 0 } }, again = { 0 };
	uint8_t digest[2][16];
	struct kv_cache *c, *d;
	struct kv_err err;

	setenv("TMPDIR", "/dev/shm", 0);
	kv_mem_limit_set((uint64_t)256 << 20);
	if (!(c = read_cache(data, n)))
		return 0;
	for (int i = 0; i < 2; i++) {
		MUST(snap_bytes(write_cache, c, packings[i], NULL, &first[i], &err) == KV_OK);
		MUST(snap_verdict(first[i].p, first[i].len, digest[i], &err) == KV_OK);
	}
	MUST(!memcmp(digest[0], digest[1], 16));
	for (int i = 0; i < 2; i++) {
		MUST((d = read_cache(first[i].p, first[i].len)));
		MUST(snap_bytes(write_cache, d, KVS_PACK_RAW, NULL, &again, &err) == KV_OK);
		MUST(again.len == first[0].len && !memcmp(again.p, first[0].p, again.len));
		again.len = 0;
		kv_cache_free(d);
	}
	for (int i = 0; i < 2; i++)
		kv_buf_free(&first[i]);
	kv_buf_free(&again);
	kv_cache_free(c);
	return 0;
}
