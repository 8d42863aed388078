/* What the files of this room share about segments; nobody else includes it. */
#ifndef KV_CACHE_SEGMENT_PARTS_H
#define KV_CACHE_SEGMENT_PARTS_H

#include "cache/segments.h"
#include "kvs/writer.h"

/* A segment of n rows kept as `like` is, its rows, groups and scales to be filled in; of groups it has n_groups, which per row is 0. */
enum kv_status kv_segment_room(const struct kv_segment *like, uint32_t n, uint32_t n_groups, struct kv_segment *out, struct kv_err *err);
void kv_segment_free(struct kv_segment *s);	/* what it points to */

size_t kv_segment_scale_bytes(const struct kv_segment *s);	/* of scales, and as many of minima */
struct kv_mask *kv_mask_share(struct kv_mask *m);		/* for one more owner, who frees it as the others do; takes NULL */
size_t kv_mask_bytes(const struct kv_mask *m);			/* bits and map */
/* The group that row i stands in. */
uint32_t kv_segment_group(const struct kv_segment *s, uint32_t i);

/*
 * A new segment from rows of s: those that keep[0..n) names, ascending ranks of the list; keep NULL: n rows from a on. Groups keep what is
 * left of them, with their scales.
 */
enum kv_status kv_segment_pick(const struct kv_segment *s, const uint32_t *keep, uint32_t a, uint32_t n, struct kv_segment *out, struct kv_err *err);

/* A new segment from rows a … b - 1 of s, changed. */
typedef enum kv_status kv_segment_change(const struct kv_segment *s, uint32_t a, uint32_t b, const void *how, struct kv_segment *out,
	struct kv_err *err);
kv_segment_change kv_segment_code;	/* into codes; how = a struct kv_coding. Codes are copied */
kv_segment_change kv_segment_plain;	/* into numbers; how = a uint8_t, their enum kvs_dtype */

/* Puts changed segments in the place of rows from … to - 1; what is alike then becomes one. */
enum kv_status kv_rows_change(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, kv_segment_change *change, const void *how,
	struct kv_err *err);
enum kv_status kv_rows_keep_segments(struct kv_rows *r, uint32_t n_rows, const uint32_t *keep, uint32_t n, struct kv_err *err);
/* Makes one of neighbours that are alike. */
enum kv_status kv_rows_merge(struct kv_rows *r, uint32_t n, struct kv_err *err);
/* Takes the plain rows at the end, if they are of full width, for those that grow. */
void kv_rows_find_tail(struct kv_rows *r);

/* n plain numbers, and x [n] rounded to them; false if a finite number has become infinite. */
void kv_numbers_get(const uint8_t *p, unsigned dtype, uint32_t n, float *out);
bool kv_numbers_put(uint8_t *to, unsigned dtype, const float *x, uint32_t n);
enum kv_status kv_fail_range(unsigned dtype, struct kv_err *err);

/* CMSK, CMAP, QUNT, KEYS, VALS of a list. buf is scratch space. */
enum kv_status kv_list_write(const struct kv_list *l, const struct kvs_geom *g, unsigned layer, unsigned head, struct kvs_writer *w,
	struct kv_buf *buf, struct kv_err *err);

#endif
