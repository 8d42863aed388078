/*
 * Writing a snapshot, forward only, the same for files and pipes. Frames go out in the order of the calls; sequence numbers,
 * hashes, padding, the index and ENDS are the writer's business. Bytes do not depend on the number of threads.
 */
#ifndef KV_KVS_WRITER_H
#define KV_KVS_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "kvs/frame.h"
#include "util/out.h"
#include "util/pool.h"

enum kvs_packing {
	KVS_PACK_AUTO,	/* raw into a pipe, packed into a file; a frame that came packed stays so */
	KVS_PACK_RAW,
	KVS_PACK_ZLIB,
};

struct kvs_writer;

/* out and pool (NULL = none) stay the caller's. One writer may write several snapshots, one after the other. */
enum kv_status kvs_writer_new(struct kv_out *out, enum kvs_packing packing, struct kv_pool *pool, struct kvs_writer **w, struct kv_err *err);
void kvs_writer_free(struct kvs_writer *w);

/* Off: snapshots without iNDX. On is the default; the digest is the same. */
void kvs_writer_index(struct kvs_writer *w, bool on);

/* max_raw: no payload of this snapshot is longer once decoded. */
enum kv_status kvs_writer_begin(struct kvs_writer *w, uint64_t max_raw, struct kv_err *err);
/* A payload made here; the filter of its type and the packing decide how it is stored. The bytes may be reused on return. */
enum kv_status kvs_writer_put(struct kvs_writer *w, uint32_t type, struct kvs_tag tag, const void *raw, size_t n, struct kv_err *err);
/* A frame as it was read: forwarded encoded where the packing allows, else recoded; of an unknown type always as it was stored. */
enum kv_status kvs_writer_forward(struct kvs_writer *w, const struct kvs_frame *f, struct kv_err *err);
/* iNDX, ENDS, flush. digest [16] may be NULL. */
enum kv_status kvs_writer_end(struct kvs_writer *w, uint8_t digest[16], struct kv_err *err);

/*
 * After a failure between two snapshots the output would look whole. Writes the beginning of a prologue and no more, so that
 * the next reader fails as well. Does nothing inside a snapshot or before the first.
 */
void kvs_writer_tear(struct kvs_writer *w);

#endif
