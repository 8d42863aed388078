/* A part of check.h's work: the data frames of all lists, one list after the other (formats/kvs.md, section 10). */
#ifndef KV_KVS_CHECK_ROWS_H
#define KV_KVS_CHECK_ROWS_H

#include "kvs/frame.h"
#include "kvs/payload.h"

/* Keys or values of the list in hand. */
struct kvs_check_side {
	uint32_t rows, chunks;			/* so far */
	bool open;				/* the last chunk was not full */
	uint8_t last[KVS_ROWS_HEADER];		/* its header */
};

struct kvs_check_rows {
	const struct kvs_geom *geom;
	const uint32_t *entries;		/* [n_layers * n_heads_kv] rows that each list must have */
	size_t list;				/* in hand */
	struct kvs_check_side k, v;
	struct kv_buf masks;			/* of this list: n_kept and flags, by id */
	struct kv_buf quant;			/* payload of a QUNT whose chunk is still to come */
	bool quant_waits, quant_values;
};

/* CMSK, CMAP, QUNT, KEYS, VALS: raw has at least the first 64 bytes of the two last, all of the others. */
enum kv_status kvs_check_rows_frame(struct kvs_check_rows *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err);
/* Is every list full? */
enum kv_status kvs_check_rows_end(struct kvs_check_rows *c, struct kv_err *err);
void kvs_check_rows_free(struct kvs_check_rows *c);

#endif
