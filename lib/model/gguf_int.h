/* What gguf.c, which reads a file, shares with the files that answer questions about it. */
#ifndef KV_MODEL_GGUF_INT_H
#define KV_MODEL_GGUF_INT_H

#include "model/gguf.h"

/* Value types of the format. */
enum kv_gguf_type {
	KV_GGUF_U8, KV_GGUF_I8, KV_GGUF_U16, KV_GGUF_I16, KV_GGUF_U32, KV_GGUF_I32, KV_GGUF_F32, KV_GGUF_BOOL, KV_GGUF_STR,
	KV_GGUF_ARRAY, KV_GGUF_U64, KV_GGUF_I64, KV_GGUF_F64,
	KV_GGUF_TYPES
};

/* A metadata pair, its value as it lies in the file: walked once, so that its length is known to be true. */
struct kv_gguf_pair {
	struct kv_str key;
	uint32_t type;
	const uint8_t *value;
	size_t n;
};

/* Names to indices: open addressing over a power of two; an empty slot has a NULL name. */
struct kv_gguf_slot {
	struct kv_str name;
	size_t index;
};

struct kv_gguf_names {
	struct kv_gguf_slot *slot;
	size_t mask;
};

bool kv_gguf_names_new(struct kv_gguf_names *s, size_t n);	/* room for n; false: no memory */
bool kv_gguf_names_add(struct kv_gguf_names *s, struct kv_str name, size_t index);	/* false: it is there already */

struct kv_gguf {
	char name[160];			/* quoted */
	const uint8_t *base;
	size_t size;
	void *map, *copy;		/* what base is: a mapping, or a copy of a file that cannot be mapped; or the caller's */
	struct kv_gguf_pair *pair;	/* [n_pairs] */
	struct kv_tensor *tensor;	/* [n_tensors] */
	size_t n_pairs, n_tensors;
	struct kv_gguf_names keys, names;
};

/* Fills pair, tensor, keys and names from base[0..size). */
enum kv_status kv_gguf_parse(struct kv_gguf *g, struct kv_err *err);

/* NULL: absent. */
const struct kv_gguf_pair *kv_gguf_pair(const struct kv_gguf *g, const char *key);

#endif
