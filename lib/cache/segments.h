/*
 * Rows that are not plain: narrowed by a channel mask (ThinK, Xu et al. 2407.21018), in codes (KIVI, Liu et al. 2402.02750), or both
 * (formats/kvs.md, section 10). They stand in segments before the plain rows of a kv_rows, each a run of rows that are kept in one way. New
 * rows are always plain and of full width.
 *
 * Keys under a mask that keeps rotary pairs whole are before RoPE like all others; under one that breaks pairs they are *baked*, turned
 * at the position that their entry has, and must not move.
 *
 * Functions that change rows take one kv_rows, so that lists can be worked on at the same time; they load what is held, keep the order of
 * rows and merge neighbours that are kept in the same way. Who calls them sets cache->edited. On failure nothing has changed.
 */
#ifndef KV_CACHE_SEGMENTS_H
#define KV_CACHE_SEGMENTS_H

#include "cache/cache.h"

/* The channels that narrowed rows still have. Segments of the same rows share it; no two lists do. */
struct kv_mask {
	uint32_t d, n_kept;		/* 1 <= n_kept < d */
	bool values;			/* of values, not of keys */
	bool pairs;			/* keys: every rotary pair is kept or dropped as a whole */
	uint8_t bits[KVS_MAX_DIM / 8];	/* channel j = byte j / 8, bit j % 8 */
	uint16_t *channel;		/* [n_kept] the channels kept, ascending: column c of a row is channel[c] */
	/*
	 * Dropped channels count as 0, or are rebuilt: map times the kept ones, plus what follows it, for each dropped channel in ascending
	 * order, in keys before RoPE. Only with pairs.
	 */
	uint8_t map_dtype;		/* KVS_F32, KVS_F16; 0 = no map */
	uint8_t *map;			/* [d - n_kept][n_kept], then [d - n_kept], of map_dtype, little-endian */
	size_t refs;
};

/* How codes were made. x = f32(f32(code * scale) + min) */
struct kv_coding {
	uint8_t scheme;			/* KVS_PER_CHANNEL: groups of rows; KVS_PER_ROW: groups of channels; 0 = plain numbers */
	uint8_t bits;			/* 2, 4, 8 */
	uint8_t scale_dtype;		/* KVS_F16, KVS_F32 */
	uint32_t group;			/* rows, or channels, of a group */
	uint32_t residual;		/* what the quantiser left plain at the end: for its next run */
};

struct kv_segment {
	uint32_t first, n;		/* rows first … first + n - 1 of the list */
	uint8_t dtype;			/* enum kvs_dtype; KVS_CODES: see code */
	bool rotated;			/* keys: baked */
	uint32_t width;			/* elements of a row: the channels, or what the mask keeps */
	uint32_t row_bytes;
	struct kv_mask *mask;		/* NULL: all channels */
	struct kv_coding code;
	uint8_t *data;			/* block [n][row_bytes], as in the format; NULL while held */
	uint32_t n_groups;		/* per channel: groups of rows … */
	uint32_t *group_end;		/* … an array [n_groups]: one past the last row of each, counted from first; per row: NULL */
	uint8_t *whole;			/* block [n][d] of the plain rows' type: rebuilt by kv_rows_rebuild; else NULL */
	uint8_t *scales, *minima;	/* arrays of scale_dtype: [n_groups][width] per channel, [n][width / group] per row */
};

/* bits as in struct kv_mask. KV_EFIT if they keep nothing or everything. */
enum kv_status kv_mask_new(const struct kvs_geom *g, unsigned layer, bool values, const uint8_t *bits, struct kv_mask **out, struct kv_err *err);
/* map [d - n_kept][n_kept + 1]: row by row the factors, then the constant; rounded to dtype. Takes the place of any that is there. */
enum kv_status kv_mask_set_map(struct kv_mask *m, unsigned dtype, const float *map, struct kv_err *err);
enum kv_status kv_mask_copy(const struct kv_mask *m, struct kv_mask **out, struct kv_err *err);
void kv_mask_free(struct kv_mask *m);
bool kv_mask_same(const struct kv_mask *a, const struct kv_mask *b);	/* maps included; NULL = all channels */
bool kv_mask_within(const struct kv_mask *a, const struct kv_mask *b);	/* does b keep all that a keeps? NULL = all channels */
/* A narrow row x [n_kept] at full width: what was dropped is 0, or rebuilt and rounded to dtype. */
void kv_mask_widen(const struct kv_mask *m, unsigned dtype, const float *x, float *out);

static inline bool
kv_mask_has(const struct kv_mask *m, uint32_t channel)
{
	return !m || m->bits[channel / 8] >> channel % 8 & 1;
}

/* Segments of n rows, the plain ones at the end as one more. The segment is a view: nothing in it is to be freed or changed. */
size_t kv_rows_segments(const struct kv_rows *r, uint32_t n);
struct kv_segment kv_rows_segment(const struct kv_rows *r, uint32_t n, size_t i);
/* The same of one row. */
struct kv_segment kv_rows_segment_of(const struct kv_rows *r, uint32_t n, uint32_t row);
/* KV_EFIT, in a sentence: the positions of baked keys would change. */
enum kv_status kv_fail_baked(const struct kvs_geom *g, unsigned layer, unsigned head, const struct kv_mask *m, struct kv_err *err);
/* Is this row of keys baked? Then kv_rows_get gives it turned at its position, else before RoPE. */
bool kv_rows_rotated(const struct kv_rows *r, uint32_t row);
bool kv_rows_plain(const struct kv_rows *r);		/* no segments: all rows are plain and of full width */
bool kv_rows_exact(const struct kv_rows *r);		/* no masks and no codes: all rows hold what was put there */
/* Row i of a loaded segment (counted from its first) as it is kept, f32[width]. */
void kv_segment_get(const struct kv_segment *s, uint32_t i, float *out);
/* Rebuilds, once, what masks with maps have dropped: working copies of full width, never written. Rows are loaded. */
enum kv_status kv_rows_rebuild(struct kv_rows *r, struct kv_err *err);
/* Are two segments kept in the same way? Rows of the one may then follow those of the other. */
bool kv_segment_alike(const struct kv_segment *a, const struct kv_segment *b);

/*
 * Narrows the rows from … to - 1, of n, to a mask (copied), exactly: columns of plain rows are gathered, those of codes go with their
 * scales; rows under a mask are narrowed further. KV_EFIT: a mask that keeps what is gone; codes in groups of channels; rows before RoPE
 * under a mask that breaks pairs, or baked ones under one that does not: kv_rows_put_narrow takes them once they are turned.
 */
enum kv_status kv_rows_narrow(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, const struct kv_mask *mask, struct kv_err *err);
/*
 * Puts x, f32[to - from][mask's n_kept], in the place of the rows from … to - 1, rounded to the type of the plain rows; rotated = they are
 * turned, which they must be iff the mask breaks pairs. mask NULL: rows of full width. KV_EFIT if a finite number would become infinite.
 */
enum kv_status kv_rows_put_narrow(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, const struct kv_mask *mask, bool rotated, const float *x,
	struct kv_err *err);

/*
 * Puts codes in the place of the rows from … to - 1 that are not in codes yet, whatever their width and basis: minimum and
 * (max - min) / (2^bits - 1) of each group, rounded to scale_dtype and used rounded; code = the nearest, ties to even, 0 where the scale
 * is 0. Groups of rows are counted from `from`, and anew in each segment; the last may be shorter. KV_EFIT: a number that is not finite (the
 * text says which row), a group that does not divide the width.
 */
enum kv_status kv_rows_code(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, const struct kv_coding *how, struct kv_err *err);
/* Plain rows in the place of codes, rounded to the type of the plain rows; masks and basis stay. */
enum kv_status kv_rows_uncode(struct kv_rows *r, uint32_t n, uint32_t from, uint32_t to, struct kv_err *err);
/* Rows that are not in codes, and those to come, in another element type. KV_EFIT if a finite number would become infinite. */
enum kv_status kv_rows_convert(struct kv_rows *r, uint32_t n, unsigned dtype, struct kv_err *err);

/* Groups of rows of which some would go and some stay if keep[0..n_keep), ascending, were kept. */
uint32_t kv_rows_groups_cut(const struct kv_rows *r, const uint32_t *keep, uint32_t n_keep);

/* What n rows take as they are kept, and what they would at full width in the plain rows' type. */
struct kv_rows_bytes {
	uint64_t rows, masks, scales, full;	/* masks: with maps, one that several segments share counted once */
};
struct kv_rows_bytes kv_rows_bytes(const struct kv_rows *r, uint32_t n);

#endif
