/* Fingerprints of models and tokenizers: what they depend on, and that they are made as formats/kvs.md says. */
#include "tap.h"

#include <stdlib.h>

#include "ggufbuild.h"
#include "kernel/quant.h"
#include "kvs/digest.h"
#include "model/gguf.h"
#include "util/le.h"

static struct kv_err err;

static const float ones[2] = { 1, 1 };

/* The fingerprints of a file with a matrix of n floats, the change-th of them another, in one order or the other. */
static void
prints(size_t n, size_t change, bool turned, const char *template, uint8_t model[16], uint8_t tokenizer[16])
{
	float *f = calloc(n, sizeof *f);
	struct ggufbuild b;
	struct kv_buf file = { 0 };
	struct kv_gguf *g;

	if (change < n)
		f[change] = 1;
	gb_begin(&b);
	gb_str(&b, "general.architecture", "llama");
	gb_str(&b, "general.name", template);
	for (int i = 0; i < 2; i++)
		if (i == turned)
			gb_u32(&b, "llama.block_count", 3);
		else
			gb_u32(&b, "llama.attention.head_count", 2);
	gb_str(&b, "tokenizer.ggml.model", "gpt2");
	gb_str(&b, "tokenizer.chat_template", template);
	for (int i = 0; i < 2; i++)
		if (i == turned)
			gb_tensor(&b, "x", KV_W_F32, 1, (uint64_t[]){ n }, f, n * 4);
		else
			gb_tensor(&b, "norm", KV_W_F32, 1, (uint64_t[]){ 2 }, ones, 8);
	gb_finish(&b, &file);
	ok(kv_gguf_mem(file.p, file.len, &g, &err) == KV_OK && kv_gguf_fingerprint(g, model, tokenizer, &err) == KV_OK, "fingerprints");
	kv_gguf_close(g);
	kv_buf_free(&file);
	free(f);
}

static void
add_words(struct kvs_digest *d, const char *name, const uint64_t *v, const unsigned *bytes, size_t n)
{
	uint8_t le[8];

	le64_put(le, strlen(name));
	kvs_digest_add(d, le, 8);
	kvs_digest_add(d, name, strlen(name));
	for (size_t i = 0; i < n; i++) {
		le64_put(le, v[i]);
		kvs_digest_add(d, le, bytes[i]);
	}
}

static void
fingerprints(void)
{
	enum { N = 65536 / 4 + 1024 };	/* more bytes than are hashed whole */
	uint8_t a[16], ta[16], b[16], tb[16];
	struct kvs_digest *d = kvs_digest_new();
	static const float zero[1024];

	prints(N, N, false, "one", a, ta);
	prints(N, N, true, "two", b, tb);
	ok(!memcmp(a, b, 16), "order, name and chat template do not matter to the model");
	ok(!memcmp(ta, tb, 16), "nor to the tokenizer");
	prints(N, 0, false, "one", b, tb);
	ok(memcmp(a, b, 16) && !memcmp(ta, tb, 16), "the first weight does");
	prints(N, N - 1, false, "one", b, tb);
	ok(memcmp(a, b, 16), "the last weight does");
	prints(16384, 9000, false, "one", a, ta);
	prints(16384, 9001, false, "one", b, tb);
	ok(memcmp(a, b, 16), "up to 64 KiB every weight does");

	prints(N, N, false, "one", a, ta);
	add_words(d, "llama.attention.head_count", (uint64_t[]){ GB_U32, 2 }, (unsigned[]){ 4, 4 }, 2);
	add_words(d, "llama.block_count", (uint64_t[]){ GB_U32, 3 }, (unsigned[]){ 4, 4 }, 2);
	add_words(d, "norm", (uint64_t[]){ KV_W_F32, 1, 2, 8 }, (unsigned[]){ 4, 4, 8, 8 }, 4);
	kvs_digest_add(d, ones, 8);
	add_words(d, "x", (uint64_t[]){ KV_W_F32, 1, N, N * 4 }, (unsigned[]){ 4, 4, 8, 8 }, 4);
	for (int i = 0; i < 16; i++)
		kvs_digest_add(d, zero, 4096);
	kvs_digest_get(d, b);
	ok(!memcmp(a, b, 16), "the model's is made as the format says");
	kvs_digest_reset(d);
	add_words(d, "tokenizer.ggml.model", (uint64_t[]){ GB_STR, 4 }, (unsigned[]){ 4, 8 }, 2);
	kvs_digest_add(d, "gpt2", 4);
	kvs_digest_get(d, b);
	ok(!memcmp(ta, b, 16), "so is the tokenizer's");
	kvs_digest_free(d);
}

int
main(void)
{
	fingerprints();
	return done_testing();
}
