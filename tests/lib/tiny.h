/* The worked example of the format: a whole snapshot in 2368 bytes (formats/kvs.md, section 22). */
#ifndef KV_TESTS_TINY_H
#define KV_TESTS_TINY_H

#include "kvs/geom.h"
#include "kvs/writer.h"

void tiny_geom(struct kvs_geom *g, struct kvs_state *s);
enum kv_status tiny_write(struct kvs_writer *w, uint8_t digest[16], struct kv_err *err);

#endif
