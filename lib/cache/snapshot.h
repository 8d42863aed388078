/* A cache to and from its file form. */
#ifndef KV_CACHE_SNAPSHOT_H
#define KV_CACHE_SNAPSHOT_H

#include "cache/cache.h"
#include "kvs/reader.h"
#include "kvs/writer.h"

/* After kvs_reader_begin: reads to the right end of one snapshot or fails; *out is untouched on failure. */
enum kv_status kv_cache_read(struct kvs_reader *r, struct kv_cache **out, struct kv_err *err);

/* Writes c, in the canonical order of frames, from prologue to ENDS. Held rows are forwarded. */
enum kv_status kv_cache_write(const struct kv_cache *c, struct kvs_writer *w, struct kv_err *err);

#endif
