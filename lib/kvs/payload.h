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

enum kv_status kvs_rows_get(const uint8_t *p, size_t n, const struct kvs_geom *g, bool values, struct kvs_rows *r, struct kv_err *err);
/* The 64 bytes of header; the rows follow. */
void kvs_rows_put(uint8_t out[KVS_ROWS_HEADER], const struct kvs_rows *r);
/* Most rows in one chunk: R of section 10.1. */
uint32_t kvs_rows_per_chunk(uint32_t row_bytes);

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

#endif
