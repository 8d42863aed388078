/* Makes GGUF files in memory, for tests. */
#include "ggufbuild.h"

#include <string.h>

#include "util/le.h"

static void
put32(struct kv_buf *b, uint32_t v)
{
	uint8_t *p = kv_buf_grow(b, 4);

	if (p)
		le32_put(p, v);
}

static void
put64(struct kv_buf *b, uint64_t v)
{
	uint8_t *p = kv_buf_grow(b, 8);

	if (p)
		le64_put(p, v);
}

static void
put_str(struct kv_buf *b, const void *s, size_t n)
{
	put64(b, n);
	kv_buf_add(b, s, n);
}

static void
pad(struct kv_buf *b, size_t from, uint32_t align)
{
	static const uint8_t zero[1];

	while (align && (b->len - from) % align)
		kv_buf_add(b, zero, 1);
}

void
gb_begin(struct ggufbuild *b)
{
	*b = (struct ggufbuild){ .version = 3, .align = 32 };
}

void
gb_raw(struct ggufbuild *b, const void *p, size_t n)
{
	kv_buf_add(&b->kv, p, n);
}

void
gb_raw_u64(struct ggufbuild *b, uint64_t v)
{
	put64(&b->kv, v);
}

void
gb_key(struct ggufbuild *b, const char *key, uint32_t type)
{
	put_str(&b->kv, key, strlen(key));
	put32(&b->kv, type);
	b->n_kv++;
}

/* The low n bytes of v. */
static void
scalar(struct ggufbuild *b, const char *key, enum gb_type type, uint64_t v, size_t n)
{
	uint8_t le[8];

	le64_put(le, v);
	gb_key(b, key, type);
	gb_raw(b, le, n);
}

void
gb_u8(struct ggufbuild *b, const char *key, uint8_t v)
{
	scalar(b, key, GB_U8, v, 1);
}

void
gb_i8(struct ggufbuild *b, const char *key, int8_t v)
{
	scalar(b, key, GB_I8, (uint64_t)v, 1);
}

void
gb_u16(struct ggufbuild *b, const char *key, uint16_t v)
{
	scalar(b, key, GB_U16, v, 2);
}

void
gb_i16(struct ggufbuild *b, const char *key, int16_t v)
{
	scalar(b, key, GB_I16, (uint64_t)v, 2);
}

void
gb_u32(struct ggufbuild *b, const char *key, uint32_t v)
{
	scalar(b, key, GB_U32, v, 4);
}

void
gb_i32(struct ggufbuild *b, const char *key, int32_t v)
{
	scalar(b, key, GB_I32, (uint64_t)v, 4);
}

void
gb_u64(struct ggufbuild *b, const char *key, uint64_t v)
{
	scalar(b, key, GB_U64, v, 8);
}

void
gb_i64(struct ggufbuild *b, const char *key, int64_t v)
{
	scalar(b, key, GB_I64, (uint64_t)v, 8);
}

void
gb_f32(struct ggufbuild *b, const char *key, float v)
{
	uint8_t le[4];

	lef32_put(le, v);
	gb_key(b, key, GB_F32);
	gb_raw(b, le, sizeof le);
}

void
gb_f64(struct ggufbuild *b, const char *key, double v)
{
	uint8_t le[8];

	lef64_put(le, v);
	gb_key(b, key, GB_F64);
	gb_raw(b, le, sizeof le);
}

void
gb_bool(struct ggufbuild *b, const char *key, bool v)
{
	scalar(b, key, GB_BOOL, v, 1);
}

void
gb_bytes(struct ggufbuild *b, const char *key, const void *v, size_t n)
{
	gb_key(b, key, GB_STR);
	put_str(&b->kv, v, n);
}

void
gb_str(struct ggufbuild *b, const char *key, const char *v)
{
	gb_bytes(b, key, v, strlen(v));
}

void
gb_array(struct ggufbuild *b, const char *key, uint32_t type, uint64_t n)
{
	gb_key(b, key, GB_ARRAY);
	put32(&b->kv, type);
	put64(&b->kv, n);
}

void
gb_elem_str(struct ggufbuild *b, const void *v, size_t n)
{
	put_str(&b->kv, v, n);
}

void
gb_u32s(struct ggufbuild *b, const char *key, const uint32_t *v, size_t n)
{
	gb_array(b, key, GB_U32, n);
	for (size_t i = 0; i < n; i++)
		put32(&b->kv, v[i]);
}

void
gb_i32s(struct ggufbuild *b, const char *key, const int32_t *v, size_t n)
{
	gb_array(b, key, GB_I32, n);
	for (size_t i = 0; i < n; i++)
		put32(&b->kv, (uint32_t)v[i]);
}

void
gb_f32s(struct ggufbuild *b, const char *key, const float *v, size_t n)
{
	gb_array(b, key, GB_F32, n);
	for (size_t i = 0; i < n; i++) {
		uint8_t *p = kv_buf_grow(&b->kv, 4);

		if (p)
			lef32_put(p, v[i]);
	}
}

void
gb_bools(struct ggufbuild *b, const char *key, const bool *v, size_t n)
{
	gb_array(b, key, GB_BOOL, n);
	for (size_t i = 0; i < n; i++)
		gb_raw(b, &(uint8_t){ v[i] }, 1);
}

void
gb_strs(struct ggufbuild *b, const char *key, const char *const *v, size_t n)
{
	gb_array(b, key, GB_STR, n);
	for (size_t i = 0; i < n; i++)
		gb_elem_str(b, v[i], strlen(v[i]));
}

void
gb_tensor_info(struct ggufbuild *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim, uint64_t offset)
{
	put_str(&b->info, name, strlen(name));
	put32(&b->info, n_dims);
	for (uint32_t i = 0; i < n_dims; i++)
		put64(&b->info, dim[i]);
	put32(&b->info, type);
	put64(&b->info, offset);
	b->n_tensors++;
}

void
gb_tensor(struct ggufbuild *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dim, const void *data, size_t bytes)
{
	gb_tensor_info(b, name, type, n_dims, dim, b->data.len);
	kv_buf_add(&b->data, data, bytes);
	pad(&b->data, 0, b->align);
}

bool
gb_finish(struct ggufbuild *b, struct kv_buf *out)
{
	bool good = !b->kv.failed && !b->info.failed && !b->data.failed;
	size_t from = out->len;

	kv_buf_add(out, "GGUF", 4);
	put32(out, b->version);
	put64(out, b->n_tensors);
	put64(out, b->n_kv);
	kv_buf_add(out, b->kv.p, b->kv.len);
	kv_buf_add(out, b->info.p, b->info.len);
	pad(out, from, b->align);
	kv_buf_add(out, b->data.p, b->data.len);
	kv_buf_free(&b->kv);
	kv_buf_free(&b->info);
	kv_buf_free(&b->data);
	return good && !out->failed;
}
