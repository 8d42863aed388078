/* Codec 1: byte planes, each its own raw deflate stream or a plain copy (formats/kvs.md, section 5). */
#ifndef KV_KVS_CODEC_H
#define KV_KVS_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "kvs/frame.h"
#include "util/err.h"
#include "util/mem.h"

/* Appends the encoded payload to out and sets *codec; raw is appended as it is when packing does not make it smaller. */
enum kv_status kvs_encode(const uint8_t *raw, size_t n, uint8_t filter, struct kv_buf *out, uint8_t *codec, struct kv_err *err);

/*
 * Fills dst[0 .. f->head.raw_len). Checks the raw hash of what it unpacks; a raw payload was hashed when it was read, and kvs_head_get
 * has compared the two hashes. Errors name the frame.
 */
enum kv_status kvs_decode(const struct kvs_frame *f, uint8_t *dst, struct kv_err *err);
/*
 * The first n bytes alone, n a multiple of 4 and at most raw_len: what a frame says of itself, without unpacking it. The raw hash stays
 * unchecked; kvs_decode checks it when the rest is wanted.
 */
enum kv_status kvs_decode_head(const struct kvs_frame *f, uint8_t *dst, size_t n, struct kv_err *err);

#endif
