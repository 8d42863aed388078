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

/* What moves positions, and nothing else. */
struct kv_pass {
	/* All entries are known, no rows are there: moves positions and next_pos. */
	enum kv_status (*move)(void *arg, struct kv_cache *c, struct kv_err *err);
	/* The snapshot has come to its right end, its digest is known: records the run. */
	enum kv_status (*done)(void *arg, struct kv_cache *c, struct kv_err *err);
	void *arg;
};

/*
 * After kvs_reader_begin: the next snapshot, moved, goes to w while it is read. Every frame is checked before it goes on, ENDS is written
 * after the right one was read; memory is bounded by one frame and by the positions.
 */
enum kv_status kv_cache_pass(struct kvs_reader *r, const struct kv_pass *p, struct kvs_writer *w, struct kv_err *err);

#endif
