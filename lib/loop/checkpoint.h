/*
 * A job's state in a file: the cache (and its twin behind it) as snapshots, with a cKPT frame that says what job it is and how far it had come
 * (formats/kvs.md, section 12). Whoever gives the same command again goes on from there.
 */
#ifndef KV_LOOP_CHECKPOINT_H
#define KV_LOOP_CHECKPOINT_H

#include <jansson.h>

#include "cache/cache.h"

/* How far a job has come. */
struct kv_place {
	uint64_t round;			/* rounds that are done */
	uint64_t tokens;		/* of the text, read by them */
	uint8_t digest[16];		/* XXH3-128 of their ids, u32 each */
};

/* Writes the file, whole or not at all. job: what was asked for, an object of plain values. twin may be NULL. */
enum kv_status kv_checkpoint_save(const char *path, struct kv_cache *c, struct kv_cache *twin, json_t *job, const struct kv_place *at,
	struct kv_err *err);

/*
 * KV_END: there is no such file. KV_EFIT: it is of another job, and the text says where they differ. *twin is NULL where none was saved. The
 * caches are as they were, but for their digest.
 */
enum kv_status kv_checkpoint_load(const char *path, json_t *job, struct kv_cache **c, struct kv_cache **twin, struct kv_place *at,
	struct kv_err *err);

#endif
