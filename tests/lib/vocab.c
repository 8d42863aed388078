/* Small vocabularies for tests. */
#include "vocab.h"

#include <stdio.h>
#include <string.h>

/* The published table of byte-level BPE: visible Latin-1 stands for itself, the rest is numbered from U+0100 on. */
static void
byte_name(int byte, char out[4])
{
	int c = byte, next = 256;

	for (int b = 0; b <= byte; b++) {
		bool visible = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);

		c = visible ? b : next++;
	}
	if (c < 0x80)
		snprintf(out, 4, "%c", c);
	else
		snprintf(out, 4, "%c%c", 0xc0 | c >> 6, 0x80 | (c & 0x3f));
}

static void
types(struct ggufbuild *b, size_t n_first, const int32_t *first, const struct vocab_token *extra, size_t n_extra)
{
	gb_array(b, "tokenizer.ggml.token_type", GB_I32, n_first + n_extra);
	for (size_t i = 0; i < n_first + n_extra; i++) {
		int32_t v = i < n_first ? first[i] : extra[i - n_first].type;

		gb_raw(b, (uint8_t[4]){ (uint8_t)v, 0, 0, 0 }, 4);
	}
}

void
vocab_bpe(struct ggufbuild *b, const char *pre, int without, const struct vocab_token *extra, size_t n_extra,
	const char *const *merges, size_t n_merges)
{
	int32_t first[256];
	char name[4];

	gb_str(b, "tokenizer.ggml.model", "gpt2");
	if (pre)
		gb_str(b, "tokenizer.ggml.pre", pre);
	gb_array(b, "tokenizer.ggml.tokens", GB_STR, 256 + n_extra);
	for (int i = 0; i < 256; i++) {
		first[i] = 1;
		byte_name(i, name);
		if (i == without)
			gb_elem_str(b, "(none)", 6);
		else
			gb_elem_str(b, name, strlen(name));
	}
	for (size_t i = 0; i < n_extra; i++)
		gb_elem_str(b, extra[i].text, strlen(extra[i].text));
	types(b, 256, first, extra, n_extra);
	gb_strs(b, "tokenizer.ggml.merges", merges, n_merges);
}

void
vocab_spm(struct ggufbuild *b, const struct vocab_token *extra, size_t n_extra)
{
	static const char *const names[] = { "<unk>", "<s>", "</s>" };
	int32_t first[259] = { 2, 3, 3 };
	float score = 0;
	char name[8];

	gb_str(b, "tokenizer.ggml.model", "llama");
	gb_array(b, "tokenizer.ggml.tokens", GB_STR, 259 + n_extra);
	for (int i = 0; i < 3; i++)
		gb_elem_str(b, names[i], strlen(names[i]));
	for (int i = 0; i < 256; i++) {
		first[3 + i] = 6;
		snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
		gb_elem_str(b, name, 6);
	}
	for (size_t i = 0; i < n_extra; i++)
		gb_elem_str(b, extra[i].text, strlen(extra[i].text));
	types(b, 259, first, extra, n_extra);
	gb_array(b, "tokenizer.ggml.scores", GB_F32, 259 + n_extra);
	for (size_t i = 0; i < 259 + n_extra; i++)
		gb_raw(b, i < 259 ? &score : &extra[i - 259].score, 4);
}

enum kv_status
vocab_open(struct ggufbuild *b, struct kv_buf *file, struct kv_gguf **g, struct kv_tokenizer **t, struct kv_err *err)
{
	enum kv_status rc;

	if (!gb_finish(b, file))
		return kv_fail_mem(err, "a test file");
	if ((rc = kv_gguf_mem(file->p, file->len, g, err)) != KV_OK)
		return rc;
	if ((rc = kv_tokenizer_new(*g, t, err)) != KV_OK)
		kv_gguf_close(*g);
	return rc;
}
