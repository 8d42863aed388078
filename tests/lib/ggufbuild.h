/*
 * Makes GGUF files in memory, for tests: metadata and tensors in the order of the calls. What it writes is well formed unless a
 * caller sets the header's fields or appends raw bytes.
 *
 *	struct ggufbuild b;
 *	gb_begin(&b);
 *	gb_str(&b, "general.architecture", "llama");
 *	gb_tensor(&b, "token_embd.weight", KV_W_F32, 2, (uint64_t[]){ 64, 300 }, data, sizeof data);
 *	gb_finish(&b, &file);		(struct kv_buf; b is free again)
 */
#ifndef KV_TESTS_GGUFBUILD_H
#define KV_TESTS_GGUFBUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/mem.h"

/* Value types of the format. */
enum gb_type {
	GB_U8, GB_I8, GB_U16, GB_I16, GB_U32, GB_I32, GB_F32, GB_BOOL, GB_STR, GB_ARRAY, GB_U64, GB_I64, GB_F64,
};

struct ggufbuild {
	uint32_t version;		/* 3 */
	uint32_t align;			/* 32; another one wants the key general.alignment as well */
	uint64_t n_kv, n_tensors;	/* counted; may be set to lie */
	struct kv_buf kv, info, data;
};

void gb_begin(struct ggufbuild *b);

void gb_u8(struct ggufbuild *b, const char *key, uint8_t v);
void gb_i8(struct ggufbuild *b, const char *key, int8_t v);
void gb_u16(struct ggufbuild *b, const char *key, uint16_t v);
void gb_i16(struct ggufbuild *b, const char *key, int16_t v);
void gb_u32(struct ggufbuild *b, const char *key, uint32_t v);
void gb_i32(struct ggufbuild *b, const char *key, int32_t v);
void gb_u64(struct ggufbuild *b, const char *key, uint64_t v);
void gb_i64(struct ggufbuild *b, const char *key, int64_t v);
void gb_f32(struct ggufbuild *b, const char *key, float v);
void gb_f64(struct ggufbuild *b, const char *key, double v);
void gb_bool(struct ggufbuild *b, const char *key, bool v);
void gb_str(struct ggufbuild *b, const char *key, const char *v);
void gb_bytes(struct ggufbuild *b, const char *key, const void *v, size_t n);	/* a string with any bytes in it */

void gb_u32s(struct ggufbuild *b, const char *key, const uint32_t *v, size_t n);
void gb_i32s(struct ggufbuild *b, const char *key, const int32_t *v, size_t n);
void gb_f32s(struct ggufbuild *b, const char *key, const float *v, size_t n);
void gb_bools(struct ggufbuild *b, const char *key, const bool *v, size_t n);
void gb_strs(struct ggufbuild *b, const char *key, const char *const *v, size_t n);

/* An array of strings one by one: gb_array(key, GB_STR, n), then n times gb_elem_str. Other types: append with gb_raw. */
void gb_array(struct ggufbuild *b, const char *key, uint32_t type, uint64_t n);
void gb_elem_str(struct ggufbuild *b, const void *v, size_t n);

/* Key and type of a value that follows with gb_raw. Counts one pair. */
void gb_key(struct ggufbuild *b, const char *key, uint32_t type);
void gb_raw(struct ggufbuild *b, const void *p, size_t n);
void gb_raw_u64(struct ggufbuild *b, uint64_t v);

/* The data is padded to the alignment; the offset is made. */
void gb_tensor(struct ggufbuild *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim,
	const void *data, size_t bytes);
/* Only the entry, with any offset: for wrong ones. */
void gb_tensor_info(struct ggufbuild *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim, uint64_t offset);

/* Appends the file to out and frees b. False: no memory. */
bool gb_finish(struct ggufbuild *b, struct kv_buf *out);

#endif
