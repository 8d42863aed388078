/* Vocabularies with something wrong in them. */
#include "tap.h"

#include <stdlib.h>

#include "model/tokenizer.h"
#include "vocab.h"

static struct kv_err err;

static const struct kv_encode plain = { .begins = true }, special = { .special = true, .begins = true };

static const struct vocab_token spm_extra[] = {
	{ "\u2581", 1, -1 }, { "H", 1, -2 }, { "e", 1, -3 }, { "He", 1, -11 }, { "\u2581He", 1, -8 }, { "<tag>", 4, 0 },
};
static const struct vocab_token bpe_extra[] = {
	{ "he", 1, 0 }, { "ll", 1, 0 }, { "hell", 1, 0 }, { "\u0120w", 1, 0 }, { "<|end|>", 3, 0 }, { "   ", 4, 0 }, { "[ab]", 4, 0 },
};
static const char *const bpe_merges[] = { "h e", "l l", "he ll", "\u0120 w" };

static uint32_t
next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	return *state ^= *state << 5;
}

/* The vocabulary must not load, and why. */
static void
refuses(struct ggufbuild *b, enum kv_status want, const char *part)
{
	struct kv_buf file = { 0 };
	struct kv_gguf *g;
	struct kv_tokenizer *t;
	enum kv_status rc;

	err.text[0] = 0;
	rc = vocab_open(b, &file, &g, &t, &err);
	is_int(rc, want, "refused: %s", part);
	ok(strstr(err.text, part), "says: %s", err.text);
	if (rc == KV_OK) {
		kv_tokenizer_free(t);
		kv_gguf_close(g);
	}
	kv_buf_free(&file);
}

static void
bad_bpe(void)
{
	static const struct vocab_token ab = { "ab", 1, 0 };
	static const char *const wrong[] = { "ab", "", " ", "a  b", "a x", "ab a", "a b c" };
	struct ggufbuild b;

	gb_begin(&b);
	refuses(&b, KV_ECORRUPT, "key 'tokenizer.ggml.model' is missing");
	gb_begin(&b);
	gb_str(&b, "tokenizer.ggml.model", "bert");
	refuses(&b, KV_EUNSUP, "tokenizer 'bert'");
	gb_begin(&b);
	gb_str(&b, "tokenizer.ggml.model", "gpt2");
	refuses(&b, KV_ECORRUPT, "key 'tokenizer.ggml.tokens' is missing");
	gb_begin(&b);
	vocab_bpe(&b, "tekken", -1, &ab, 1, NULL, 0);
	refuses(&b, KV_EUNSUP, "pre-tokeniser 'tekken'");
	gb_begin(&b);
	vocab_bpe(&b, "gpt-2", -1, (struct vocab_token[]){ ab, ab }, 2, NULL, 0);
	refuses(&b, KV_ECORRUPT, "tokens 256 and 257 are both 'ab'");
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		gb_begin(&b);
		vocab_bpe(&b, "gpt-2", -1, &ab, 1, &wrong[i], 1);
		refuses(&b, KV_ECORRUPT, "merge 0");
	}
	gb_begin(&b);
	gb_str(&b, "tokenizer.ggml.model", "gpt2");
	gb_u32s(&b, "tokenizer.ggml.tokens", (uint32_t[]){ 1, 2 }, 2);
	refuses(&b, KV_ECORRUPT, "holds no texts");
	gb_begin(&b);
	gb_str(&b, "tokenizer.ggml.model", "gpt2");
	gb_array(&b, "tokenizer.ggml.tokens", GB_STR, 0);
	refuses(&b, KV_ECORRUPT, "a vocabulary of 0 tokens");
	gb_begin(&b);
	gb_str(&b, "tokenizer.ggml.model", "gpt2");
	gb_strs(&b, "tokenizer.ggml.tokens", (const char *const[]){ "a", "b" }, 2);
	refuses(&b, KV_ECORRUPT, "key 'tokenizer.ggml.merges' is missing");
}

static void
bad_types(void)
{
	struct ggufbuild b;

	for (int round = 0; round < 6; round++) {
		static const char *const part[] = {
			"1 token types for 3 tokens", "type of token 0", "type of token 1", "should be a byte", "2 scores for 3", "score of token 2",
		};

		gb_begin(&b);
		gb_str(&b, "tokenizer.ggml.model", "llama");
		gb_strs(&b, "tokenizer.ggml.tokens", (const char *const[]){ "a", "b", round == 3 ? "<0x-1>" : "<0x1F>" }, 3);
		if (round == 1)
			gb_f32s(&b, "tokenizer.ggml.token_type", (float[]){ 1, 1, 1 }, 3);
		else
			gb_i32s(&b, "tokenizer.ggml.token_type", (int32_t[]){ 1, round == 2 ? -1 : 1, 6 }, round == 0 ? 1 : 3);
		gb_f32s(&b, "tokenizer.ggml.scores", (float[]){ 0, 0, round == 5 ? NAN : 0 }, round == 4 ? 2 : 3);
		refuses(&b, KV_ECORRUPT, part[round]);
	}
	gb_begin(&b);
	gb_str(&b, "tokenizer.ggml.model", "llama");
	gb_strs(&b, "tokenizer.ggml.tokens", (const char *const[]){ "a" }, 1);
	refuses(&b, KV_ECORRUPT, "key 'tokenizer.ggml.scores' is missing");
	gb_begin(&b);
	gb_str(&b, "tokenizer.ggml.model", "llama");
	gb_strs(&b, "tokenizer.ggml.tokens", (const char *const[]){ "a", "b" }, 2);
	gb_f32s(&b, "tokenizer.ggml.scores", (float[]){ 0, 0 }, 2);
	gb_u32(&b, "tokenizer.ggml.add_bos_token", 1);
	refuses(&b, KV_ECORRUPT, "add_bos_token");
}

static void
odd_ids(void)
{
	struct ggufbuild b;
	struct kv_buf file = { 0 };
	struct kv_gguf *g;
	struct kv_tokenizer *t;

	gb_begin(&b);
	vocab_spm(&b, spm_extra, 2);
	gb_u32(&b, "tokenizer.ggml.bos_token_id", 261);
	gb_i32(&b, "tokenizer.ggml.eot_token_id", -1);
	gb_u32(&b, "tokenizer.ggml.eos_token_id", 260);
	gb_bool(&b, "tokenizer.ggml.add_bos_token", false);
	if (!ok(vocab_open(&b, &file, &g, &t, &err) == KV_OK, "a vocabulary opens %s", err.text))
		return;
	ok(kv_token_bos(t) == KV_NO_TOKEN && kv_token_eos(t) == 260 && kv_token_stops(t, 260),
	   "ids outside the vocabulary are ignored");
	ok(kv_tokenizer_note(t) && strstr(kv_tokenizer_note(t), "bos_token_id") && strstr(kv_tokenizer_note(t), "eot_token_id"),
	   "and noted: %s", kv_tokenizer_note(t));
	kv_tokenizer_free(t);
	kv_gguf_close(g);
	kv_buf_free(&file);
}

/* Vocabularies with random bytes changed either fail in order or work. */
static void
mutations(bool is_spm)
{
	static const char text[] = "Hello world  </s> \xff <|end|>\n[ab]c h\u00e9llo 1234";
	struct kv_buf file = { 0 }, out = { 0 };
	struct ggufbuild b;
	uint32_t state = is_spm ? 7 : 8;
	int loaded = 0;

	gb_begin(&b);
	if (is_spm)
		vocab_spm(&b, spm_extra, sizeof spm_extra / sizeof *spm_extra);
	else
		vocab_bpe(&b, "smollm", 4, bpe_extra, sizeof bpe_extra / sizeof *bpe_extra, bpe_merges, 4);
	gb_finish(&b, &file);
	for (int round = 0; round < 3000; round++) {
		uint8_t *p = malloc(file.len);
		struct kv_gguf *g = NULL;
		struct kv_tokenizer *t = NULL;
		struct kv_ids ids = { 0 };

		memcpy(p, file.p, file.len);
		for (uint32_t k = next_random(&state) % 2 + 1; k; k--)
			p[next_random(&state) % file.len] = (uint8_t)(next_random(&state) >> 8);
		if (kv_gguf_mem(p, file.len, &g, &err) == KV_OK && kv_tokenizer_new(g, &t, &err) == KV_OK) {
			loaded++;
			kv_encode(t, text, sizeof text - 1, round & 1 ? &special : &plain, &ids, NULL, &err);
			out.len = 0;
			for (size_t i = 0; i < ids.n; i++)
				kv_token_bytes(t, ids.id[i], true, &out);
			kv_ids_free(&ids);
		}
		kv_tokenizer_free(t);
		kv_gguf_close(g);
		free(p);
	}
	ok(loaded > 100, "%s: of 3000 changed vocabularies %d still load", is_spm ? "SPM" : "BPE", loaded);
	kv_buf_free(&file);
	kv_buf_free(&out);
}

int
main(void)
{
	bad_bpe();
	bad_types();
	odd_ids();
	mutations(false);
	mutations(true);
	return done_testing();
}
