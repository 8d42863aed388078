/* What a snapshot says of itself as JSON: to people, and to the job that goes on from it. */
#include "cache/cache.h"
#include "cache/parts.h"
#include "kvs/digest.h"
#include "util/mem.h"

enum kv_status
kv_cache_set_info(struct kv_cache *c, const char *json, size_t n, struct kv_err *err)
{
	uint64_t hash = kvs_hash64(json, n);
	struct kvs_frame f = {
		.head = { .type = KVS_INFO, .enc_len = n, .raw_len = n, .enc_hash = hash, .raw_hash = hash, .tag = { KVS_ALL, KVS_ALL, 0 } },
		.payload = (const uint8_t *)json,
	};

	kv_cache_drop_other(c, KVS_INFO);
	return kv_held_add(&c->other, &c->n_other, &f, err);
}

enum kv_status
kv_cache_set_checkpoint(struct kv_cache *c, const char *json, size_t n, struct kv_err *err)
{
	kv_buf_free(&c->checkpoint);
	kv_buf_add(&c->checkpoint, json, n);
	return c->checkpoint.failed ? kv_fail_mem(err, "a checkpoint") : KV_OK;
}

const char *
kv_cache_checkpoint(const struct kv_cache *c, size_t *n)
{
	for (size_t i = 0; i < c->n_other; i++)
		if (c->other[i].head.type == KVS_CKPT && c->other[i].head.codec == KVS_CODEC_RAW) {
			*n = (size_t)c->other[i].head.raw_len;
			return (const char *)c->other[i].payload;
		}
	return NULL;
}
