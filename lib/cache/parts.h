/* What the files of this room share about held frames, rows and tracks; nobody else includes it. */
#ifndef KV_CACHE_PARTS_H
#define KV_CACHE_PARTS_H

#include "cache/cache.h"

/* Appends the frame to *list [*n]: its block where that may be had, else a copy. */
enum kv_status kv_held_add(struct kv_held **list, size_t *n, const struct kvs_frame *f, struct kv_err *err);
void kv_held_drop(struct kv_held *h);	/* of one of them, which the caller then takes out */
void kv_held_free(struct kv_held *list, size_t n);
/* Its payload: in place if it is stored as it is, else decoded into *scratch, a block for the caller to free. */
enum kv_status kv_held_open(const struct kv_held *h, const uint8_t **raw, uint8_t **scratch, struct kv_err *err);

void kv_rows_free(struct kv_rows *r);
/* Held rows get room for `need`, those in segments included, when they are loaded. */
void kv_rows_expect(struct kv_rows *r, uint32_t need);
/* Room for `need` rows, those in segments included; the first n are there already. Held rows are loaded. */
enum kv_status kv_rows_reserve(struct kv_rows *r, uint32_t n, uint32_t need, struct kv_err *err);
/*
 * Keeps the rows keep[0..n), ascending, of n_rows. Of held rows it is noted which are left, where that will do, else they are copied out of
 * their frames. Loaded rows close up within their block as long as it stays half full: dropping one entry moves rows and copies nothing.
 */
enum kv_status kv_rows_keep(struct kv_rows *r, uint32_t n_rows, const uint32_t *keep, uint32_t n, struct kv_err *err);
/* Copies rows first … first + n - 1 of those that are left (kv_rows.left) to dst. */
enum kv_status kv_rows_left(const struct kv_rows *r, uint32_t first, uint32_t n, uint8_t *dst, struct kv_err *err);
/* Loads those that are left. */
enum kv_status kv_rows_gather_left(struct kv_rows *r, struct kv_err *err);
/* Puts a block of cap rows in the place of the plain rows, and of what is held. */
void kv_rows_replace(struct kv_rows *r, uint8_t *data, uint32_t cap);

void kv_queries_free(struct kv_queries *q);

/* A record with room for cap entries, nothing received by any. */
enum kv_status kv_received_new(uint32_t cap, struct kv_received **out, struct kv_err *err);
enum kv_status kv_received_reserve(struct kv_received *r, uint32_t cap, struct kv_err *err);
void kv_received_free(struct kv_received *r);
/* Entries first … first + m - 1 are new. */
void kv_received_clear(struct kv_received *r, uint32_t first, uint32_t m);
/* Keeps keep[0..n). */
void kv_received_keep(struct kv_received *r, const uint32_t *keep, uint32_t n);

/* Drops the frames of a type that are passed on; were there any? */
bool kv_cache_drop_other(struct kv_cache *c, uint32_t type);

void kv_sums_free(struct kv_sums *s, size_t n_lists);
/* What a frame says of one list; *taken = false where it cannot stand beside what others said: the caller carries the frame along. */
enum kv_status kv_sums_take(struct kv_cache *c, struct kvs_tag tag, const struct kvs_obsp *o, bool *taken, struct kv_err *err);
/* The payload for one list; appends nothing where there is no record. */
enum kv_status kv_sums_put(const struct kv_cache *c, enum kv_sums_of which, size_t list, struct kv_buf *out, struct kv_err *err);

/* Appends v[0..m) as the values of tokens `at` …; a hole before them is filled. at must not be below the dense part's end. */
enum kv_status kv_track_add(struct kv_track *t, uint32_t at, const uint32_t *v, uint32_t m, uint32_t filler, struct kv_err *err);
bool kv_track_get(const struct kv_track *t, uint32_t src, uint32_t *v);
void kv_track_free(struct kv_track *t);
/* alive [n] |= does src[j] stand in some list? src ascends. */
void kv_mark_alive(const struct kv_cache *c, const uint32_t *src, uint32_t n, uint8_t *alive);

#endif
