/* Snapshots in memory for tests: written through a temporary file, judged by reader, decoder and check together. */
#ifndef KV_TESTS_SNAPFILE_H
#define KV_TESTS_SNAPFILE_H

#include "kvs/writer.h"
#include "util/mem.h"
#include "util/pool.h"

/* What write says to a writer, as bytes appended to out. Any failure: out stays empty. */
enum kv_status snap_bytes(enum kv_status (*write)(struct kvs_writer *w, void *arg, struct kv_err *err), void *arg, enum kvs_packing packing,
	struct kv_pool *pool, struct kv_buf *out, struct kv_err *err);

/* Reads every snapshot in data[0..n) to its end, unpacking and checking all of it. KV_OK: all good. digest [16], of the last, may be NULL. */
enum kv_status snap_verdict(const void *data, size_t n, uint8_t digest[16], struct kv_err *err);

/* The whole file appended to out. */
enum kv_status snap_load(const char *path, struct kv_buf *out, struct kv_err *err);

#endif
