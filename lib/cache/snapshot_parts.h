/* Reading and writing a snapshot step by step: what kv_cache_read, kv_cache_write and kv_cache_pass are made of; nobody else includes it. */
#ifndef KV_CACHE_SNAPSHOT_PARTS_H
#define KV_CACHE_SNAPSHOT_PARTS_H

#include "cache/segments.h"
#include "cache/snapshot.h"
#include "kvs/check.h"

/*
 * ENTS as it came. One frame may stand for a million lists, so the lists get their copies at the end, when all their rows have come as
 * well: memory follows what was read, not what was promised.
 */
struct kv_entries {
	uint32_t n;
	uint8_t *bytes;		/* an array: u32 src[n], i32 pos[n] */
};

struct kv_reading {
	struct kvs_check *check;
	struct kv_cache *cache;	/* made at GEOM, which the checks want first */
	struct kv_entries *ents;
	size_t n_ents;
	uint32_t *ents_of;	/* [list] which of them */
	struct kv_mask **mask;	/* an array [n_masks] of the list in hand, by id - 1 */
	size_t n_masks, mask_list;
	uint8_t *scratch;	/* a block: the payload in hand, unpacked */
	size_t scratch_size;
};

enum kv_status kv_reading_new(struct kv_reading *rd, struct kv_err *err);
void kv_reading_free(struct kv_reading *rd);
/*
 * Every frame must come by here, in order. raw [n] = its payload unpacked, of rows just their header; valid until the next call. KV_END: an
 * editor has no use for it.
 */
enum kv_status kv_reading_check(struct kv_reading *rd, const struct kvs_frame *f, const uint8_t **raw, size_t *n, struct kv_err *err);
/* Takes a frame that was checked into the cache. */
enum kv_status kv_reading_take(struct kv_reading *rd, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err);
/* After all ENTS: every list gets its own source indices and positions; plain rows at its end, if rows are there, are those that will grow. */
enum kv_status kv_reading_give_entries(struct kv_reading *rd, struct kv_err *err);
/* After all rows: plain ones at the end are those that will grow. */
enum kv_status kv_reading_settle_rows(struct kv_reading *rd, struct kv_err *err);

struct kv_writing {
	const struct kv_cache *cache;
	struct kvs_writer *w;
	struct kv_buf buf;			/* one payload */
	const struct kv_held **other;		/* [n_other] the frames that go on, in canonical order */
	size_t n_other, next_other;
};

/* Prologue to ENTS. max_raw: of frames that the cache does not know yet; 0 = it knows them all. */
enum kv_status kv_writing_head(struct kv_writing *wr, uint64_t max_raw, struct kv_err *err);
enum kv_status kv_writing_queries(struct kv_writing *wr, unsigned layer, struct kv_err *err);
/* What was observed of a layer: oBSQ, oBSA, oBSP. */
enum kv_status kv_writing_observations(struct kv_writing *wr, unsigned layer, struct kv_err *err);
/* What belongs behind the last layer; ENDS. */
enum kv_status kv_writing_tail(struct kv_writing *wr, struct kv_err *err);
void kv_writing_free(struct kv_writing *wr);

#endif
