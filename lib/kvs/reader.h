/*
 * Reading a sequence of snapshots, forward only. Memory is bounded by one frame. A snapshot is good only when
 * kvs_reader_next has said KV_END: ENDS was there and its tallies, digest and hashes were right.
 *
 *	while ((rc = kvs_reader_begin(rd, &err)) == KV_OK) {
 *		while ((rc = kvs_reader_next(rd, &f, &err)) == KV_OK)
 *			…
 *		if (rc != KV_END) fail
 *	}
 *	if (rc != KV_END) fail		// KV_END: the sequence is over
 */
#ifndef KV_KVS_READER_H
#define KV_KVS_READER_H

#include <stdbool.h>
#include <stdint.h>

#include "kvs/frame.h"
#include "util/in.h"

struct kvs_reader;

/* in stays the caller's and must outlive the reader. */
enum kv_status kvs_reader_new(struct kv_in *in, struct kvs_reader **out, struct kv_err *err);
void kvs_reader_free(struct kvs_reader *r);

/*
 * Opens the next snapshot: reads its prologue. KV_END at the end of the input, if at least one snapshot was read; an empty input
 * is KV_ECORRUPT. Reads not a byte beyond ENDS before it is called.
 */
enum kv_status kvs_reader_begin(struct kvs_reader *r, struct kv_err *err);

/*
 * The next frame with its header, length rule, sequence number, padding and stored hash checked; the payload is still encoded
 * and valid until the next call. KV_END after a right ENDS, which is not handed out. An error names the place:
 * "truncated after frame 91 (VALS layer 14 head 2)".
 */
enum kv_status kvs_reader_next(struct kvs_reader *r, struct kvs_frame *f, struct kv_err *err);

/* On: payloads may be had instead of copied (kvs_frame.block, kvs_frame.in). Off is the default. */
void kvs_reader_give(struct kvs_reader *r, bool on);

/*
 * From here on headers are enough: payloads are not looked at, but for the index and ENDS, which must agree with all headers, those with
 * each other, and lengths with the file. So damage within a payload is not found. False: the input is no mapped file, nothing has changed.
 */
bool kvs_reader_skim(struct kvs_reader *r);

const struct kvs_prologue *kvs_reader_prologue(const struct kvs_reader *r);
/* After KV_END: */
const uint8_t *kvs_reader_digest(const struct kvs_reader *r);		/* [16] content digest as stored */
uint64_t kvs_reader_length(const struct kvs_reader *r);			/* bytes of the snapshot in the stream */
uint64_t kvs_reader_n_frames(const struct kvs_reader *r);

#endif
