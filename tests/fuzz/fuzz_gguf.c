/* A model file: metadata, tensors, vocabulary, and the numbers of a model. */
#include <string.h>

#include "fuzz.h"
#include "model/gguf.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "util/mem.h"

static void
use_vocabulary(const struct kv_gguf *g)
{
	static const char text[] = "Caches, 12 of them: it's  \n\xc3\xa9\xff <|im_end|>";
	struct kv_tokenizer *t;
	struct kv_ids ids = { 0 };
	struct kv_detok d = { .begins = true };
	struct kv_buf out = { 0 };
	struct kv_err err;

	if (kv_tokenizer_new(g, &t, &err) != KV_OK)
		return;
	if (kv_encode(t, text, sizeof text - 1, &(struct kv_encode){ .special = true, .begins = true }, &ids, NULL, &err) == KV_OK)
		for (size_t i = 0; i < ids.n; i++) {
			MUST(ids.id[i] < kv_vocab_size(t));
			kv_detok_add(t, &d, ids.id[i], true, &out);
		}
	kv_detok_end(&d, &out);
	kv_buf_free(&out);
	kv_ids_free(&ids);
	kv_tokenizer_free(t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	void *copy = malloc(n + 1);
	uint8_t model[16], tokenizer[16];
	struct kv_gguf *g;
	struct kv_model *m;
	struct kv_err err;

	MUST(copy);
	if (n)
		memcpy(copy, data, n);
	kv_mem_limit_set((uint64_t)256 << 20);
	if (kv_gguf_mem(copy, n, &g, &err) == KV_OK) {
		kv_gguf_fingerprint(g, model, tokenizer, &err);
		use_vocabulary(g);
		if (kv_model_from(g, KVS_F16, &m, &err) == KV_OK)
			kv_model_free(m);
	}
	free(copy);
	return 0;
}
