/* Small caches with content, and stages run on them as a command line would. */
#ifndef KV_TESTS_SMALL_CACHE_H
#define KV_TESTS_SMALL_CACHE_H

#include "cache/snapshot.h"
#include "stage/stage.h"

/* A model of this shape: f16 rows, RoPE on adjacent pairs over the full width, theta 10000. */
struct kvs_geom *small_geom(unsigned layers, unsigned heads, unsigned heads_kv, unsigned d);
/* An empty cache of it. Frees g. */
struct kv_cache *small_cache(struct kvs_geom *g);
/* Reads m more tokens as a forward pass would: rows, queries (the last 4), ids, surprisals, the hidden state, all of them arbitrary. */
void small_feed(struct kv_cache *c, uint32_t m);

/* The cache as bytes and back; aborts on failure. small_load takes any bytes and fails as kv_cache_read does. */
void small_save(const struct kv_cache *c, enum kvs_packing packing, struct kv_buf *out);
enum kv_status small_load(const struct kv_buf *in, struct kv_cache **out, struct kv_err *err);
/* Content digest of what would be written, as printed. Returns out. */
char *small_digest(const struct kv_cache *c, char out[33]);
/* A second cache with the same content. */
struct kv_cache *small_copy(const struct kv_cache *c);

/* Runs the stage with options split at blanks. text, if not NULL, gets what it prints, its remarks and its figures. */
enum kv_status small_run(const struct kv_stage *s, const char *line, struct kv_cache *c, unsigned threads, struct kv_buf *text, struct kv_err *err);
/* "0 3 4": source indices of a list. */
char *small_sources(const struct kv_cache *c, unsigned layer, unsigned head, char *out, size_t size);
char *small_positions(const struct kv_cache *c, unsigned layer, unsigned head, char *out, size_t size);

#endif
