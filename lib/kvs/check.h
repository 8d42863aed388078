/*
 * The rules that span frames: order, coverage by ENTS, rows without hole or overlap, masks and scales where they are named,
 * tokens of living entries (formats/kvs.md, sections 6 to 11). Fed with every frame of a snapshot in order; whoever reads
 * after it need not check structure again.
 */
#ifndef KV_KVS_CHECK_H
#define KV_KVS_CHECK_H

#include "kvs/frame.h"
#include "kvs/geom.h"

struct kvs_check;

struct kvs_check *kvs_check_new(void);		/* NULL: no memory */
void kvs_check_free(struct kvs_check *c);

/*
 * raw = the decoded payload, or NULL for frames the caller did not decode: then only tag, order and length are checked, and the
 * caller must know that geometry, ENTS, CMSK, CMAP and QUNT are always decoded. KEYS and VALS: the first 64 bytes suffice (n_raw says how
 * many there are; head->raw_len is the full length).
 */
enum kv_status kvs_check_frame(struct kvs_check *c, const struct kvs_head *head, const uint8_t *raw, size_t n_raw, struct kv_err *err);
/* After the last frame: is everything there? */
enum kv_status kvs_check_end(struct kvs_check *c, struct kv_err *err);

/* What has been read so far. */
const struct kvs_geom *kvs_check_geom(const struct kvs_check *c);
const struct kvs_state *kvs_check_state(const struct kvs_check *c);
uint32_t kvs_check_entries(const struct kvs_check *c, unsigned layer, unsigned head);	/* after ENTS */

#endif
