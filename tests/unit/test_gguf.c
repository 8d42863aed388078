/* GGUF files made in memory: values of every type, and everything that can be wrong with a file. */
#include "tap.h"

#include <stdlib.h>
#include <unistd.h>

#include "ggufbuild.h"
#include "kernel/quant.h"
#include "model/gguf.h"
#include "util/le.h"

static struct kv_err err;

/* Opens a copy of exactly n bytes, so that a sanitizer sees every byte read behind it. */
static enum kv_status
open_bytes(const void *p, size_t n, struct kv_gguf **g, void **copy)
{
	*copy = malloc(n ? n : 1);
	if (n)
		memcpy(*copy, p, n);
	err.text[0] = 0;
	return kv_gguf_mem(*copy, n, g, &err);
}

/* Opens and closes what was built. */
static enum kv_status
try(struct ggufbuild *b)
{
	struct kv_buf file = { 0 };
	struct kv_gguf *g;
	void *copy;
	enum kv_status rc;

	gb_finish(b, &file);
	if ((rc = open_bytes(file.p, file.len, &g, &copy)) == KV_OK)
		kv_gguf_close(g);
	free(copy);
	kv_buf_free(&file);
	return rc;
}

#define refused(b, code, part, what) do { \
	is_int(try(b), code, "%s is refused", what); \
	ok(strstr(err.text, part), "%s: %s", what, err.text); \
} while (0)

static const float ones[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };

static void
fill(struct ggufbuild *b)
{
	static const uint8_t q8[34 * 2];

	gb_begin(b);
	gb_str(b, "general.architecture", "llama");
	gb_u8(b, "u8", 200);
	gb_i8(b, "i8", -5);
	gb_u16(b, "u16", 60000);
	gb_i16(b, "i16", 30000);
	gb_u32(b, "llama.block_count", 4000000000u);
	gb_i32(b, "i32", -7);
	gb_u64(b, "u64", UINT64_MAX);
	gb_i64(b, "i64", INT64_MIN);
	gb_f32(b, "f32", 1.5f);
	gb_f64(b, "f64", -0.25);
	gb_f32(b, "inf", INFINITY);
	gb_key(b, "bool", GB_BOOL);
	gb_raw(b, &(uint8_t){ 77 }, 1);
	gb_bytes(b, "bytes", "a\0\xff", 3);
	gb_u32s(b, "u32s", (uint32_t[]){ 1, 2, 3000000000u }, 3);
	gb_i32s(b, "i32s", (int32_t[]){ 4, -1 }, 2);
	gb_f32s(b, "f32s", (float[]){ 0.5f, NAN }, 2);
	gb_bools(b, "bools", (bool[]){ true, false, true }, 3);
	gb_strs(b, "tokenizer.strs", (const char *const[]){ "one", "", "three" }, 3);
	gb_array(b, "empty", GB_STR, 0);
	gb_str(b, "tokenizer.chat_template", "x");
	gb_tensor(b, "a.weight", KV_W_F32, 2, (uint64_t[]){ 8, 2 }, ones, 64);
	gb_tensor(b, "b.weight", KV_W_Q8_0, 1, (uint64_t[]){ 64 }, q8, sizeof q8);
	gb_tensor_info(b, "odd.weight", 29, 1, (uint64_t[]){ 77 }, 3);
	gb_tensor(b, "c", KV_W_F32, 1, (uint64_t[]){ 16 }, ones, 64);
}

static void
numbers(const struct kv_gguf *g)
{
	uint64_t v = 1;
	float f = 0;
	bool yes = false;

	ok(kv_gguf_u64(g, "u8", UINT64_MAX, &v, &err) == KV_OK && v == 200, "u8");
	ok(kv_gguf_u64(g, "u16", UINT64_MAX, &v, &err) == KV_OK && v == 60000, "u16");
	ok(kv_gguf_u64(g, "i16", UINT64_MAX, &v, &err) == KV_OK && v == 30000, "i16");
	ok(kv_gguf_u64(g, "llama.block_count", UINT64_MAX, &v, &err) == KV_OK && v == 4000000000u, "u32");
	ok(kv_gguf_u64(g, "u64", UINT64_MAX, &v, &err) == KV_OK && v == UINT64_MAX, "u64");
	v = 1;
	is_int(kv_gguf_u64(g, "i8", UINT64_MAX, &v, &err), KV_ECORRUPT, "a negative i8 is no count");
	is_int(kv_gguf_u64(g, "i32", UINT64_MAX, &v, &err), KV_ECORRUPT, "a negative i32");
	is_int(kv_gguf_u64(g, "i64", UINT64_MAX, &v, &err), KV_ECORRUPT, "a negative i64");
	is_int(kv_gguf_u64(g, "f32", UINT64_MAX, &v, &err), KV_ECORRUPT, "a float is no count");
	is_int(kv_gguf_u64(g, "bool", UINT64_MAX, &v, &err), KV_ECORRUPT, "nor is a bool");
	is_int(kv_gguf_u64(g, "bytes", UINT64_MAX, &v, &err), KV_ECORRUPT, "nor a string");
	is_int(kv_gguf_u64(g, "u16", 59999, &v, &err), KV_ECORRUPT, "a count over its limit");
	is_str(err.text, "model: key 'u16' is 60000, more than 59999", "and what is said");
	is_int(kv_gguf_u64(g, "nothing", 1, &v, &err), KV_END, "an absent key");
	is_int(v, 1, "failures leave the result alone");
	ok(kv_gguf_f32(g, "f32", &f, &err) == KV_OK && f == 1.5f, "f32");
	ok(kv_gguf_f32(g, "f64", &f, &err) == KV_OK && f == -0.25f, "f64");
	is_int(kv_gguf_f32(g, "u8", &f, &err), KV_ECORRUPT, "an integer is no float");
	is_int(kv_gguf_f32(g, "inf", &f, &err), KV_ECORRUPT, "infinity is refused");
	ok(kv_gguf_bool(g, "bool", &yes, &err) == KV_OK && yes, "a bool of 77 is true");
	is_int(kv_gguf_bool(g, "u8", &yes, &err), KV_ECORRUPT, "a number is no bool");
}

static void
arrays(const struct kv_gguf *g)
{
	struct kv_gguf_array a;
	struct kv_str s;
	const uint8_t *at;
	uint64_t v;
	float f;

	ok(kv_gguf_str(g, "bytes", &s, &err) == KV_OK && s.n == 3 && !memcmp(s.p, "a\0\xff", 3), "a string of any bytes");
	is_int(kv_gguf_str(g, "u8", &s, &err), KV_ECORRUPT, "a number is no string");
	ok(kv_gguf_array(g, "u32s", &a, &err) == KV_OK && a.n == 3, "an array of u32");
	ok(kv_gguf_elem_u64(&a, 2, UINT64_MAX, &v) == KV_OK && v == 3000000000u, "its last element");
	is_int(kv_gguf_elem_u64(&a, 2, 10, &v), KV_ECORRUPT, "over its limit");
	is_int(kv_gguf_elem_u64(&a, 3, UINT64_MAX, &v), KV_ECORRUPT, "one behind it");
	is_int(kv_gguf_elem_f32(&a, 0, &f), KV_ECORRUPT, "u32 are no floats");
	is_int(kv_gguf_next_str(&a, &(const uint8_t *){ a.p }, &s), KV_ECORRUPT, "nor strings");
	ok(kv_gguf_array(g, "i32s", &a, &err) == KV_OK && kv_gguf_elem_u64(&a, 0, 9, &v) == KV_OK && v == 4, "an array of i32");
	is_int(kv_gguf_elem_u64(&a, 1, UINT64_MAX, &v), KV_ECORRUPT, "a negative element");
	ok(kv_gguf_elem_f32(&a, 1, &f) == KV_OK && f == -1, "as a float");
	ok(kv_gguf_array(g, "f32s", &a, &err) == KV_OK && kv_gguf_elem_f32(&a, 0, &f) == KV_OK && f == 0.5f, "an array of f32");
	is_int(kv_gguf_elem_u64(&a, 0, 9, &v), KV_ECORRUPT, "floats are no counts");
	ok(kv_gguf_array(g, "bools", &a, &err) == KV_OK && kv_gguf_elem_u64(&a, 2, 1, &v) == KV_OK && v == 1, "an array of bools");
	ok(kv_gguf_is_array(g, "bools") && !kv_gguf_is_array(g, "bool") && !kv_gguf_is_array(g, "none"), "what is an array");
	is_int(kv_gguf_array(g, "u8", &a, &err), KV_ECORRUPT, "a number is no array");
	ok(kv_gguf_array(g, "tokenizer.strs", &a, &err) == KV_OK && a.n == 3, "an array of strings");
	at = a.p;
	ok(kv_gguf_next_str(&a, &at, &s) == KV_OK && s.n == 3 && !memcmp(s.p, "one", 3), "its first");
	ok(kv_gguf_next_str(&a, &at, &s) == KV_OK && s.n == 0, "an empty one");
	ok(kv_gguf_next_str(&a, &at, &s) == KV_OK && s.n == 5, "the last");
	is_int(kv_gguf_next_str(&a, &at, &s), KV_END, "and the end");
	is_int(kv_gguf_elem_u64(&a, 0, 9, &v), KV_ECORRUPT, "strings are no counts");
	at = (kv_gguf_array(g, "empty", &a, &err), a.p);
	is_int(kv_gguf_next_str(&a, &at, &s), KV_END, "an empty array");
}

static void
tensors(const struct kv_gguf *g)
{
	const struct kv_tensor *t = kv_gguf_tensor(g, "a.weight");

	is_int(kv_gguf_n_tensors(g), 4, "tensors");
	ok(t && t->type == KV_W_F32 && t->n_dims == 2 && t->dim[0] == 8 && t->dim[1] == 2 && t->dim[2] == 1 && t->bytes == 64
	   && lef32_get(t->data + 60) == 1, "a matrix of f32");
	t = kv_gguf_tensor(g, "b.weight");
	ok(t && t->bytes == 68, "two blocks of Q8_0");
	t = kv_gguf_tensor(g, "odd.weight");
	ok(t && t->type == 29 && !t->data && !t->bytes, "one of a type that is not read");
	ok(!kv_gguf_tensor(g, "d") && kv_gguf_tensor_at(g, 3)->name.n == 1 && !kv_gguf_tensor_at(g, 4), "by name and by number");
}

static void
whole_file(void)
{
	struct ggufbuild b;
	struct kv_buf file = { 0 };
	struct kv_gguf *g;
	void *copy;
	int bad = 0;

	fill(&b);
	ok(gb_finish(&b, &file), "a file is built");
	if (ok(open_bytes(file.p, file.len, &g, &copy) == KV_OK, "and opens %s", err.text)) {
		numbers(g);
		arrays(g);
		tensors(g);
		kv_gguf_close(g);
	}
	free(copy);
	for (size_t n = 0; n < file.len; n++) {
		enum kv_status rc = open_bytes(file.p, n, &g, &copy);

		if (rc == KV_OK)
			kv_gguf_close(g);
		bad += rc != KV_ECORRUPT || !err.text[0];
		free(copy);
	}
	is_int(bad, 0, "cut off anywhere in %zu bytes it is refused as damaged", file.len);
	kv_buf_free(&file);
}

static void
versions(void)
{
	static const struct {
		uint32_t version;
		enum kv_status rc;
		const char *part;
	} rows[] = {
		{ 0, KV_EUNSUP, "version 0" }, { 1, KV_EUNSUP, "version 1" }, { 2, KV_OK, "" }, { 3, KV_OK, "" },
		{ 4, KV_EUNSUP, "version 4" }, { 0x03000000, KV_EUNSUP, "big-endian" },
	};
	struct ggufbuild b;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		fill(&b);
		b.version = rows[i].version;
		is_int(try(&b), rows[i].rc, "version %x", rows[i].version);
		ok(strstr(err.text, rows[i].part), "says: %s", err.text);
	}
}

/* A file with one pair made of these bytes behind its key and type. */
static void
one_value(struct ggufbuild *b, uint32_t type, const uint64_t *words, size_t n)
{
	gb_begin(b);
	gb_key(b, "k", type);
	for (size_t i = 0; i < n; i++)
		gb_raw_u64(b, words[i]);
}

static void
bad_metadata(void)
{
	struct ggufbuild b;
	char *key = calloc(1, 65537);

	gb_begin(&b);
	is_int(try(&b), KV_OK, "no pair and no tensor is a file");
	gb_begin(&b);
	b.n_kv = (uint64_t)1 << 63;
	refused(&b, KV_ECORRUPT, "more than 65536", "2^63 pairs");
	gb_begin(&b);
	b.n_kv = 60000;
	refused(&b, KV_ECORRUPT, "the file can hold", "60000 pairs in 24 bytes");
	gb_begin(&b);
	b.n_tensors = UINT64_MAX;
	refused(&b, KV_ECORRUPT, "more than 65536", "-1 tensors");
	gb_begin(&b);
	b.n_tensors = 7;
	refused(&b, KV_ECORRUPT, "the file can hold", "7 tensors in no bytes");
	gb_begin(&b);
	gb_u8(&b, "", 1);
	gb_str(&b, "more", "text");
	refused(&b, KV_ECORRUPT, "a key is empty", "an empty key");
	memset(key, 'k', 65536);
	gb_begin(&b);
	gb_u8(&b, key, 1);
	refused(&b, KV_ECORRUPT, "65536 bytes", "a key of 65536 bytes");
	key[65535] = 0;
	gb_begin(&b);
	gb_u8(&b, key, 1);
	is_int(try(&b), KV_OK, "one of 65535 is taken");
	free(key);
	gb_begin(&b);
	gb_u8(&b, "twice\n", 1);
	gb_str(&b, "twice\n", "x");
	refused(&b, KV_ECORRUPT, "'twice\\x0a' stands there twice", "a key given twice");

	one_value(&b, GB_STR, (uint64_t[]){ UINT64_MAX, 0 }, 2);
	refused(&b, KV_ECORRUPT, "more than 67108864", "a string of 2^64 - 1 bytes");
	one_value(&b, GB_STR, (uint64_t[]){ 900, 0 }, 2);
	refused(&b, KV_ECORRUPT, "the file ends inside key 'k'", "a string longer than the file");
	one_value(&b, 13, (uint64_t[]){ 0 }, 1);
	refused(&b, KV_ECORRUPT, "type 13", "a value type that does not exist");
	one_value(&b, 0x80000009, (uint64_t[]){ 0 }, 1);
	refused(&b, KV_ECORRUPT, "type 2147483657", "a negative value type");
	one_value(&b, GB_ARRAY, (uint64_t[]){ (uint64_t)1 << 32 | GB_ARRAY, 0, 0, 0 }, 4);
	refused(&b, KV_ECORRUPT, "array of arrays", "a nested array");
	one_value(&b, GB_ARRAY, (uint64_t[]){ 99, 0, 0 }, 3);
	refused(&b, KV_ECORRUPT, "type 99", "an array of a type that does not exist");
	gb_begin(&b);
	gb_array(&b, "k", GB_STR, (uint64_t)1 << 63);
	gb_raw_u64(&b, 0);
	refused(&b, KV_ECORRUPT, "more than the file can hold", "an array of 2^63 strings");
	gb_begin(&b);
	gb_array(&b, "k", GB_F64, (uint64_t)1 << 61);
	gb_raw_u64(&b, 0);
	refused(&b, KV_ECORRUPT, "more than the file can hold", "an array whose bytes come to 2^64");
	gb_begin(&b);
	gb_array(&b, "k", GB_STR, 2);
	gb_raw_u64(&b, UINT64_MAX - 7);
	gb_raw_u64(&b, 0);
	refused(&b, KV_ECORRUPT, "more than 67108864", "a string in an array that leads back to its own beginning");
	fill(&b);
	gb_u16(&b, "split.count", 3);
	refused(&b, KV_EUNSUP, "split into 3 files", "a part of a split model");
	fill(&b);
	gb_u16(&b, "split.count", 1);
	is_int(try(&b), KV_OK, "a model in one part is taken");
}

static void
alignment(void)
{
	static const uint32_t bad[] = { 0, 1, 3, 4, 24, 0xffffffff };
	struct ggufbuild b;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		gb_begin(&b);
		gb_u32(&b, "general.alignment", bad[i]);
		is_int(try(&b), KV_ECORRUPT, "alignment %u is refused", bad[i]);
	}
	gb_begin(&b);
	gb_str(&b, "general.alignment", "32 bytes");
	refused(&b, KV_ECORRUPT, "general.alignment", "an alignment in words");
	gb_begin(&b);
	gb_u64(&b, "general.alignment", 32);
	refused(&b, KV_ECORRUPT, "type u32", "an alignment of type u64");
	gb_begin(&b);
	b.align = 64;
	gb_u32(&b, "general.alignment", 64);
	gb_tensor(&b, "a", KV_W_F32, 1, (uint64_t[]){ 2 }, ones, 8);
	gb_tensor(&b, "b", KV_W_F32, 1, (uint64_t[]){ 16 }, ones, 64);
	is_int(try(&b), KV_OK, "64 is taken %s", err.text);
	gb_begin(&b);
	gb_u32(&b, "general.alignment", 0x80000000);
	gb_tensor(&b, "a", KV_W_F32, 1, (uint64_t[]){ 2 }, ones, 8);
	refused(&b, KV_ECORRUPT, "the file ends before tensor 'a'", "2^31 with a tensor that should stand there");
}

static void
one_tensor(struct ggufbuild *b, uint32_t type, uint32_t n_dims, const uint64_t *dim, uint64_t offset)
{
	gb_begin(b);
	gb_tensor_info(b, "t", type, n_dims, dim, offset);
	kv_buf_add(&b->data, ones, sizeof ones);
}

static void
bad_tensors(void)
{
	static const uint64_t full[] = { 16 }, big = (uint64_t)1 << 32;
	struct ggufbuild b;
	char name[65];

	one_tensor(&b, KV_W_F32, 1, full, 0);
	is_int(try(&b), KV_OK, "a tensor that fills the file");
	one_tensor(&b, KV_W_F32, 0, full, 0);
	is_int(try(&b), KV_OK, "one of no dimensions is one number");
	one_tensor(&b, KV_W_F32, 1, (uint64_t[]){ 17 }, 0);
	refused(&b, KV_ECORRUPT, "the file ends before tensor 't'", "a tensor longer than the file");
	one_tensor(&b, KV_W_F32, 1, full, 32);
	refused(&b, KV_ECORRUPT, "the file ends before tensor 't'", "one that begins too late");
	one_tensor(&b, KV_W_F32, 1, full, UINT64_MAX - 31);
	refused(&b, KV_ECORRUPT, "the file ends before tensor 't'", "one whose end wraps around");
	one_tensor(&b, KV_W_F32, 1, (uint64_t[]){ 1 }, 16);
	refused(&b, KV_ECORRUPT, "no multiple of 32", "one that is not aligned");
	one_tensor(&b, KV_W_F32, 5, (uint64_t[]){ 1, 1, 1, 1, 1 }, 0);
	refused(&b, KV_ECORRUPT, "5 dimensions", "one of five dimensions");
	one_tensor(&b, KV_W_F32, 1, (uint64_t[]){ 0 }, 0);
	refused(&b, KV_ECORRUPT, "length 0", "one of no values");
	one_tensor(&b, KV_W_F32, 1, (uint64_t[]){ UINT64_MAX }, 0);
	refused(&b, KV_ECORRUPT, "length -1", "one of -1 values");
	one_tensor(&b, KV_W_F32, 2, (uint64_t[]){ big, big }, 0);
	refused(&b, KV_ECORRUPT, "more values than can be counted", "2^64 values");
	one_tensor(&b, KV_W_F32, 2, (uint64_t[]){ big, big / 4 }, 0);
	refused(&b, KV_ECORRUPT, "more bytes than can be counted", "2^62 values of 4 bytes");
	one_tensor(&b, KV_W_F32, 4, (uint64_t[]){ big, big, big, big }, 0);
	refused(&b, KV_ECORRUPT, "more values than can be counted", "2^128 values");
	one_tensor(&b, KV_W_Q8_0, 1, (uint64_t[]){ 33 }, 0);
	refused(&b, KV_ECORRUPT, "no multiple of 32 as Q8_0", "a row that is no whole number of blocks");
	one_tensor(&b, 99, 1, full, 1);
	is_int(try(&b), KV_OK, "a type that is not read is left to whoever needs it");

	gb_begin(&b);
	gb_tensor(&b, "same", KV_W_F32, 1, full, ones, 64);
	gb_tensor(&b, "same", KV_W_F32, 1, full, ones, 64);
	refused(&b, KV_ECORRUPT, "'same' stands there twice", "a name given twice");
	gb_begin(&b);
	gb_tensor_info(&b, "b", KV_W_F32, 1, full, 32);
	gb_tensor(&b, "a", KV_W_F32, 1, full, ones, 64);
	kv_buf_add(&b.data, ones, 64);
	refused(&b, KV_ECORRUPT, "tensors 'a' and 'b' share bytes", "two that overlap");
	gb_begin(&b);
	gb_tensor_info(&b, "late", KV_W_F32, 1, full, 128);
	gb_tensor(&b, "early", KV_W_F32, 1, full, ones, 64);
	for (int i = 0; i < 2; i++)
		kv_buf_add(&b.data, ones, 64);
	is_int(try(&b), KV_OK, "gaps and another order are taken %s", err.text);
	memset(name, 'n', 64);
	name[64] = 0;
	gb_begin(&b);
	gb_tensor(&b, name, KV_W_F32, 1, full, ones, 64);
	refused(&b, KV_ECORRUPT, "64 bytes, more than 63", "a name of 64 bytes");
	gb_begin(&b);
	gb_tensor(&b, name + 1, KV_W_F32, 1, full, ones, 64);
	is_int(try(&b), KV_OK, "one of 63 is taken");
	gb_begin(&b);
	gb_tensor(&b, "", KV_W_F32, 1, full, ones, 64);
	refused(&b, KV_ECORRUPT, "is empty", "a name of none");
}

static void
limits(void)
{
	static const size_t longest = (size_t)64 << 20;
	struct ggufbuild b;
	struct kv_gguf *g = NULL;
	char key[16];
	uint8_t *big;

	for (uint32_t n = 65536; n <= 65537; n++) {
		gb_begin(&b);
		for (uint32_t i = 0; i < n; i++) {
			snprintf(key, sizeof key, "k%u", i);
			gb_u8(&b, key, 1);
		}
		is_int(try(&b), n > 65536 ? KV_ECORRUPT : KV_OK, "%u pairs", n);
		gb_begin(&b);
		for (uint32_t i = 0; i < n; i++) {
			snprintf(key, sizeof key, "t%u", i);
			gb_tensor(&b, key, KV_W_F32, 1, (uint64_t[]){ 8 }, ones, 32);
		}
		is_int(try(&b), n > 65536 ? KV_ECORRUPT : KV_OK, "%u tensors", n);
	}
	/* One string of the longest kind, in pages that are never written: 24 bytes, key "k" of 9, type, length. */
	if (!ok((big = calloc(1, 24 + 9 + 4 + 8 + longest + 1)) != NULL, "64 MiB to try"))
		return;
	memcpy(big, "GGUF\3", 5);
	big[16] = big[24] = 1;
	big[32] = 'k';
	big[33] = GB_STR;
	le64_put(big + 37, longest);
	ok(kv_gguf_mem(big, 45 + longest, &g, &err) == KV_OK, "a string of 64 MiB is taken");
	kv_gguf_close(g);
	le64_put(big + 37, longest + 1);
	is_int(kv_gguf_mem(big, 46 + longest, &g, &err), KV_ECORRUPT, "one byte more is not");
	free(big);
}

static void
on_disk(void)
{
	char path[] = "/tmp/test_gguf.XXXXXX";
	int fd = mkstemp(path);
	struct kv_gguf *g = NULL;
	struct ggufbuild b;
	struct kv_buf file = { 0 };

	is_int(kv_gguf_open("/nonexistent/model.gguf", &g, &err), KV_EIO, "a missing file");
	is_str(err.text, "/nonexistent/model.gguf: No such file or directory", "says so");
	is_int(kv_gguf_open("/tmp", &g, &err), KV_EIO, "a folder");
	is_str(err.text, "/tmp: is a folder, not a file", "says so");
	is_int(kv_gguf_open("/dev/null", &g, &err), KV_EIO, "a device");
	if (!ok(fd >= 0, "a temporary file"))
		return;
	is_int(kv_gguf_open(path, &g, &err), KV_ECORRUPT, "an empty file");
	ok(strstr(err.text, "is empty"), "says so");
	ok(write(fd, "Hello,\nworld", 12) == 12, "a text");
	is_int(kv_gguf_open(path, &g, &err), KV_ECORRUPT, "a text file");
	ok(strstr(err.text, "not a GGUF file: it begins with 'Hell'"), "says: %s", err.text);
	fill(&b);
	gb_finish(&b, &file);
	ok(pwrite(fd, file.p, file.len, 0) == (ssize_t)file.len, "a model");
	if (ok(kv_gguf_open(path, &g, &err) == KV_OK, "is mapped %s", err.text)) {
		is_str(kv_gguf_name(g), path, "and has a name");
		tensors(g);
		kv_gguf_close(g);
	}
	kv_buf_free(&file);
	close(fd);
	unlink(path);
}

static uint32_t
next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	return *state ^= *state << 5;
}

/* Looks at all that a caller may look at. */
static unsigned
touch(const struct kv_gguf *g)
{
	static const char *const keys[] = { "u8", "i32", "f32", "bool", "bytes", "u32s", "bools", "tokenizer.strs", "general.architecture" };
	struct kv_gguf_array a;
	struct kv_str s;
	uint8_t m[16], t[16];
	unsigned sum = 0;
	uint64_t v;

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		if (kv_gguf_str(g, keys[i], &s, &err) == KV_OK && s.n)
			sum += (uint8_t)s.p[s.n - 1];
		if (kv_gguf_array(g, keys[i], &a, &err) != KV_OK)
			continue;
		for (const uint8_t *at = a.p; kv_gguf_next_str(&a, &at, &s) == KV_OK;)
			sum += s.n ? (uint8_t)s.p[s.n - 1] : 0;
		for (uint64_t k = 0; k <= a.n && k < 100; k++)
			sum += kv_gguf_elem_u64(&a, k, UINT64_MAX, &v) == KV_OK;
	}
	for (size_t i = 0; i < kv_gguf_n_tensors(g); i++) {
		const struct kv_tensor *w = kv_gguf_tensor_at(g, i);

		for (uint64_t k = 0; w->data && k < w->bytes; k++)
			sum += w->data[k];
	}
	return sum + (kv_gguf_fingerprint(g, m, t, &err) == KV_OK ? m[0] : 0);
}

static void
mutations(void)
{
	struct ggufbuild b;
	struct kv_buf file = { 0 };
	uint32_t state = 12345;
	int opened = 0, bad = 0;
	unsigned sum = 0;

	fill(&b);
	gb_finish(&b, &file);
	for (int round = 0; round < 30000; round++) {
		uint8_t *p = malloc(file.len);
		struct kv_gguf *g;
		enum kv_status rc;

		memcpy(p, file.p, file.len);
		for (uint32_t k = next_random(&state) % 4 + 1; k; k--) {
			uint32_t at = next_random(&state) % (uint32_t)(file.len - 8), r = next_random(&state);

			if (r & 1)
				p[at] = (uint8_t)(r >> 8);
			else if (r & 2)
				p[at] = (uint8_t)(p[at] + (r & 4 ? 1 : 255));
			else
				le64_put(p + at, r & 4 ? UINT64_MAX >> (r >> 8) % 64 : (uint64_t)1 << (r >> 8) % 64);
		}
		rc = kv_gguf_mem(p, file.len, &g, &err);
		if (rc == KV_OK) {
			opened++;
			sum += touch(g);
			kv_gguf_close(g);
		} else {
			bad += rc != KV_ECORRUPT && rc != KV_EUNSUP;
		}
		free(p);
	}
	is_int(bad, 0, "30000 random changes: %d still open (%u), the others are refused in order", opened, sum);
	ok(opened > 1000, "and many do");
	kv_buf_free(&file);
}

int
main(void)
{
	whole_file();
	versions();
	bad_metadata();
	alignment();
	bad_tensors();
	limits();
	on_disk();
	mutations();
	return done_testing();
}
