/*
 * A GGUF file, mapped read-only: metadata and tensors. Everything is checked against the file before it is believed; the
 * strings and arrays handed out point into the mapping.
 */
#ifndef KV_MODEL_GGUF_H
#define KV_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

struct kv_gguf;

struct kv_str {			/* not NUL-terminated, not necessarily UTF-8 */
	const char *p;
	size_t n;
};

struct kv_tensor {
	struct kv_str name;
	uint32_t type;		/* as in the file; maybe one that we do not read */
	uint32_t n_dims;
	uint64_t dim[4];	/* dim[0] = length of a row; missing ones are 1 */
	const uint8_t *data;
	uint64_t bytes;		/* of a type that we do not read: 0, data NULL */
};

enum kv_status kv_gguf_open(const char *path, struct kv_gguf **out, struct kv_err *err);
/* The same over memory, aligned to 8 bytes, that outlives it (tests, fuzzing). */
enum kv_status kv_gguf_mem(const void *data, size_t n, struct kv_gguf **out, struct kv_err *err);
void kv_gguf_close(struct kv_gguf *g);
const char *kv_gguf_name(const struct kv_gguf *g);	/* the file, for messages */

const struct kv_tensor *kv_gguf_tensor(const struct kv_gguf *g, const char *name);	/* NULL: absent */
size_t kv_gguf_n_tensors(const struct kv_gguf *g);
const struct kv_tensor *kv_gguf_tensor_at(const struct kv_gguf *g, size_t i);

/*
 * Typed access by value. Each returns KV_OK and sets *out; KV_END when the key is absent (out untouched); KV_ECORRUPT, naming the
 * key, when its type or range is wrong. Integers are taken from any integer type, floats (always finite) from f32 and f64.
 */
enum kv_status kv_gguf_u64(const struct kv_gguf *g, const char *key, uint64_t max, uint64_t *out, struct kv_err *err);
enum kv_status kv_gguf_f32(const struct kv_gguf *g, const char *key, float *out, struct kv_err *err);
enum kv_status kv_gguf_bool(const struct kv_gguf *g, const char *key, bool *out, struct kv_err *err);
enum kv_status kv_gguf_str(const struct kv_gguf *g, const char *key, struct kv_str *out, struct kv_err *err);

/* Arrays: integers (or bools) as u64, f32 (i32 converted), strings. */
struct kv_gguf_array {
	uint32_t type;		/* element type of the file */
	uint64_t n;
	const uint8_t *p;
	size_t bytes;
};

enum kv_status kv_gguf_array(const struct kv_gguf *g, const char *key, struct kv_gguf_array *out, struct kv_err *err);
bool kv_gguf_is_array(const struct kv_gguf *g, const char *key);
/* Element i of a numeric array: KV_ECORRUPT when it is not there, of another type or out of range. No message. */
enum kv_status kv_gguf_elem_u64(const struct kv_gguf_array *a, uint64_t i, uint64_t max, uint64_t *out);
enum kv_status kv_gguf_elem_f32(const struct kv_gguf_array *a, uint64_t i, float *out);
/* Walks an array of strings: *at starts as a->p. KV_END behind the last. */
enum kv_status kv_gguf_next_str(const struct kv_gguf_array *a, const uint8_t **at, struct kv_str *out);

/* XXH3-128 over sampled weights and metadata, and over the tokenizer's keys (formats/kvs.md 7.4). */
enum kv_status kv_gguf_fingerprint(const struct kv_gguf *g, uint8_t model[16], uint8_t tokenizer[16], struct kv_err *err);

#endif
