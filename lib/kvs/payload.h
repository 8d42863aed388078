/*
 * Payloads of the other frames (formats/kvs.md, sections 8 to 11): parsed into views that point into the payload, and
 * put together from them. A get checks everything that can be seen in the payload and the geometry alone; what needs other
 * frames is kvs_check's business. Arrays in a view are little-endian bytes: read them with le32_get and friends.
 */
#ifndef KV_KVS_PAYLOAD_H
#define KV_KVS_PAYLOAD_H

#include "kvs/geom.h"

/* TOKS: ids of source indices first …, and before that of single ones */
struct kvs_toks {
	uint32_t first, n_dense, n_sparse;
	const uint8_t *src, *sparse, *dense;	/* u32 each */
};

enum { KVS_TOKS_DENSE = 262144 };	/* most ids in one TOKS frame */

enum kv_status kvs_toks_get(const uint8_t *p, size_t n, const struct kvs_geom *g, const struct kvs_state *s, struct kvs_toks *t, struct kv_err *err);
void kvs_toks_put(struct kv_buf *out, uint32_t first, const uint32_t *dense, uint32_t n_dense, const uint32_t *src, const uint32_t *sparse, uint32_t n_sparse);

/* HIDN: f32[n_embd] of token consumed - 1, after the final norm */
enum kv_status kvs_hidn_get(const uint8_t *p, size_t n, const struct kvs_geom *g, const struct kvs_state *s, const uint8_t **values, struct kv_err *err);
void kvs_hidn_put(struct kv_buf *out, const struct kvs_geom *g, const struct kvs_state *s, const float *values);

/* ENTS: source index and position of every entry, both ascending */
struct kvs_ents {
	uint32_t n;
	const uint8_t *src, *pos;		/* u32, i32 */
};

enum kv_status kvs_ents_get(const uint8_t *p, size_t n, const struct kvs_state *s, struct kvs_ents *e, struct kv_err *err);
void kvs_ents_put(struct kv_buf *out, const uint32_t *src, const int32_t *pos, uint32_t n);

/* KEYS, VALS: bytes 8 to 63 of the chunk header, the same for all chunks of a segment */
struct kvs_rows {
	uint32_t first_row, n_rows;
	uint32_t row_bytes;
	uint16_t width, mask;
	uint8_t dtype, scheme, bits, scale_dtype;
	uint32_t group;
	uint8_t rotated;
	uint32_t residual;
	const uint8_t *data;			/* [n_rows][row_bytes]; NULL in a descriptor */
};

enum { KVS_ROWS_HEADER = 64 };

/* The first 64 bytes of a payload of n bytes; data is left NULL. */
enum kv_status kvs_rows_head_get(const uint8_t *p, size_t n, const struct kvs_geom *g, bool values, struct kvs_rows *r, struct kv_err *err);
enum kv_status kvs_rows_get(const uint8_t *p, size_t n, const struct kvs_geom *g, bool values, struct kvs_rows *r, struct kv_err *err);
/* The 64 bytes of header; the rows follow. */
void kvs_rows_put(uint8_t out[KVS_ROWS_HEADER], const struct kvs_rows *r);
/* Most rows in one chunk: R of section 10.1. */
uint32_t kvs_rows_per_chunk(uint32_t row_bytes);

/* CMSK: the channels that the rows of a pruned chunk still have, in ascending order */
struct kvs_mask {
	uint32_t d, n_kept;
	bool pairs;				/* every rotary pair is kept or dropped as a whole; false for values */
	bool values;				/* a mask of values, not of keys */
	const uint8_t *bits;			/* [(d + 63) / 64 * 8] channel j = byte j / 8, bit j % 8 */
};

static inline bool
kvs_mask_has(const struct kvs_mask *m, uint32_t channel)
{
	return m->bits[channel / 8] >> channel % 8 & 1;
}

enum kv_status kvs_mask_get(const uint8_t *p, size_t n, const struct kvs_geom *g, unsigned layer, struct kvs_mask *m, struct kv_err *err);
/* bits as in struct kvs_mask; counts and pairs are worked out here. */
void kvs_mask_put(struct kv_buf *out, const struct kvs_geom *g, unsigned layer, bool values, const uint8_t *bits);
/* Is every rotary pair of the layer kept or dropped as a whole? bits of keys */
bool kvs_mask_pairs(const struct kvs_geom *g, unsigned layer, const uint8_t *bits);

/* CMAP: dropped channels of keys from the kept ones, x_i = b_i + A_i0 k_0 + A_i1 k_1 … */
struct kvs_map {
	uint32_t n_dropped, n_kept;
	uint8_t dtype;				/* KVS_F32, KVS_F16 */
	const uint8_t *map;			/* A [n_dropped][n_kept], b [n_dropped] of dtype */
};

enum kv_status kvs_map_get(const uint8_t *p, size_t n, const struct kvs_geom *g, struct kvs_map *m, struct kv_err *err);
void kvs_map_put(struct kv_buf *out, const struct kvs_map *m);

/* QUNT: x = f32(f32(code * scale) + min) */
struct kvs_quant {
	uint32_t n_groups, n_vec;
	const uint8_t *rows;			/* u32[n_groups] rows of each group; NULL with scheme 2 */
	const uint8_t *scales, *minima;		/* scale_dtype; scheme 1: [n_groups][n_vec]; scheme 2: [n_vec][n_groups] */
};

enum { KVS_PER_CHANNEL = 1, KVS_PER_ROW = 2 };	/* schemes: groups of rows share a scale a channel; groups of channels, one a row */

/* chunk = the header of the rows that it belongs to, checked. */
enum kv_status kvs_quant_get(const uint8_t *p, size_t n, const struct kvs_rows *chunk, struct kvs_quant *q, struct kv_err *err);
void kvs_quant_put(struct kv_buf *out, const struct kvs_rows *chunk, uint32_t n_groups, const uint32_t *rows, const uint8_t *scales, const uint8_t *minima);

/* oBSQ: the last W queries of a layer */
struct kvs_obsq {
	uint32_t w;
	const uint8_t *src, *pos;		/* u32[w], i32[w] */
	const uint8_t *q;			/* f32[n_heads][w][d_k], before RoPE */
};

enum kv_status kvs_obsq_get(const uint8_t *p, size_t n, const struct kvs_geom *g, const struct kvs_state *s, struct kvs_obsq *q, struct kv_err *err);
void kvs_obsq_put(struct kv_buf *out, const struct kvs_geom *g, uint32_t w, const uint32_t *src, const int32_t *pos, const float *q);

/* oBSn: negative log-likelihood by source index; -1 = none */
struct kvs_obsn {
	uint32_t first, n_dense, n_sparse, kind;
	uint64_t count_all;
	double sum_all;
	const uint8_t *src, *sparse, *dense;	/* u32, f32, f32 */
};

enum kv_status kvs_obsn_get(const uint8_t *p, size_t n, const struct kvs_state *s, struct kvs_obsn *o, struct kv_err *err);
void kvs_obsn_put(struct kv_buf *out, const struct kvs_obsn *head, const float *dense, const uint32_t *src, const float *sparse);

/* oBSA: attention that each entry of a list has gathered */
struct kvs_obsa {
	uint32_t n, reduction;			/* reduction over the query heads of a group: 0 mean, 1 sum, 2 max */
	uint32_t first, last;			/* source index of the first query counted, one past that of the last */
	uint64_t src_hash;			/* XXH3-64 of the list's src */
	const uint8_t *sum, *squares, *count;	/* f32[n], f32[n] or NULL, u32[n] */
};

enum kv_status kvs_obsa_get(const uint8_t *p, size_t n, const struct kvs_state *s, struct kvs_obsa *a, struct kv_err *err);
void kvs_obsa_put(struct kv_buf *out, const struct kvs_obsa *head, const float *sum, const float *squares, const uint32_t *count);

/* oBSP: attention sums of a chunk of text or of a probe */
struct kvs_obsp {
	uint32_t n_cols, n_rows, n_queries;	/* n_rows: 1, or one a query head of the group */
	uint8_t kind;				/* 0 chunk, 1 probe, as in the tag */
	uint8_t statistic;			/* over queries: 0 sum, 1 max */
	uint8_t reduction;			/* of heads, where n_rows is 1: 0 mean, 1 sum, 2 max */
	uint8_t scored;				/* 0 the entries before the chunk, 1 all */
	uint32_t at;				/* chunk: source index of its first query; probe: position of its first token */
	uint64_t src_hash, probe_hash;		/* of the first n_cols src; of the probe's ids, 0 for a chunk */
	const uint8_t *sums;			/* f32[n_rows][n_cols] */
};

enum kv_status kvs_obsp_get(const uint8_t *p, size_t n, const struct kvs_geom *g, struct kvs_obsp *o, struct kv_err *err);
void kvs_obsp_put(struct kv_buf *out, const struct kvs_obsp *head, const float *sums);

/* oBSR: the round in hand */
struct kvs_obsr {
	uint64_t round;
	uint32_t waiting, fill, probe, reserve;	/* tokens; waiting is capped at fill */
};

enum kv_status kvs_obsr_get(const uint8_t *p, size_t n, struct kvs_obsr *o, struct kv_err *err);
void kvs_obsr_put(struct kv_buf *out, const struct kvs_obsr *o);

#endif
