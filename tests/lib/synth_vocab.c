/* Vocabularies of the synthetic models. */
#include "synth_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, BYTE = 6 };	/* token types of the format */

/* Of byte-level BPE, "left right", best first. The space in a word is written as the byte-level alphabet has it. */
static const char *const merges[] = {
	"Ġ t", "h e", "i n", "r e", "o n", "Ġ a", "e r", "n d", "o u", "Ġt he", "a t", "e n", "i s", "o r", "Ġ s", "Ġ w", "Ġ c", "Ġ o",
	"Ġ b", "Ġ p", "Ġ f", "in g", "e d", "i t", "l l", "Ġa nd", "Ġ in", "Ġo f", "Ġt o", "Ġ is", "e s", "a r", "a n", "Ġ h", "Ġ m",
	"Ġ d", "o m", "t h", "v er", "Ġt h", "Ġth at", "o w", "a l", "Ġ re", "i c", "o t", "Ġ l", "Ġ n", "e l", "Ġ y", "Ġy ou", "Ċ Ċ",
	"Ġ Ġ", "u s", "us er", "a s", "s t", "as s", "Ġ g", "Ġf or", "c h", "i on", "l e", "r o", "Ġ e", "Ġw as", "Ġw h", "Ġw it", "Ġwit h",
};

/* Of SPM: whatever is longer counts more, so that words grow from their letters. */
static const char *const pieces[] = {
	"▁", "▁t", "▁a", "th", "he", "in", "re", "on", "er", "nd", "ou", "▁th", "▁the", "at", "en", "is", "or", "▁s", "▁w", "▁c", "▁o",
	"▁b", "▁p", "▁f", "ng", "ing", "ed", "it", "ll", "an", "and", "▁an", "▁and", "▁i", "▁in", "▁of", "▁to", "▁is", "es", "ar", "▁h",
	"▁m", "▁d", "om", "ver", "ve", "▁l", "▁n", "el", "▁y", "▁yo", "▁you", "as", "st", "▁g", "▁fo", "▁for", "ch", "io", "ion", "le",
};

static const char *const special[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" };
static const char *const spm_special[] = { "<unk>", "<s>", "</s>" };

#define COUNT(a) ((uint32_t)(sizeof(a) / sizeof *(a)))

/* Printable ASCII, the ordinary characters of the SPM vocabulary. */
enum { FIRST_CHAR = 33, N_CHARS = 94 };

uint32_t
synth_vocab_size(bool spm)
{
	return spm ? COUNT(spm_special) + 256 + N_CHARS + COUNT(pieces) : COUNT(special) + 256 + COUNT(merges);
}

/* The character that stands for a byte in byte-level BPE, as UTF-8. */
static void
byte_char(unsigned byte, char out[4])
{
	unsigned code = byte, others = 0;

	for (unsigned i = 0; i <= byte; i++) {
		bool itself = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;

		others += !itself;
		if (i == byte && !itself)
			code = 256 + others - 1;
	}
	if (code < 128)
		snprintf(out, 4, "%c", (int)code);
	else
		snprintf(out, 4, "%c%c", (int)(0xc0 | code >> 6), (int)(0x80 | (code & 63)));
}

static void
put_types(struct ggufbuild *b, uint32_t n, bool spm)
{
	int32_t *type = calloc(n, sizeof *type);

	for (uint32_t i = 0; type && i < n; i++)
		type[i] = i < 3 ? spm && !i ? UNKNOWN : CONTROL : spm && i < 3 + 256 ? BYTE : NORMAL;
	if (type)
		gb_i32s(b, "tokenizer.ggml.token_type", type, n);
	else
		b->kv.failed = true;
	free(type);
}

static void
put_bpe(struct ggufbuild *b)
{
	gb_str(b, "tokenizer.ggml.model", "gpt2");
	gb_str(b, "tokenizer.ggml.pre", "smollm");
	gb_array(b, "tokenizer.ggml.tokens", GB_STR, synth_vocab_size(false));
	for (uint32_t i = 0; i < COUNT(special); i++)
		gb_elem_str(b, special[i], strlen(special[i]));
	for (unsigned i = 0; i < 256; i++) {
		char c[4];

		byte_char(i, c);
		gb_elem_str(b, c, strlen(c));
	}
	for (uint32_t i = 0; i < COUNT(merges); i++) {
		const char *gap = strchr(merges[i], ' ');
		char whole[32];

		snprintf(whole, sizeof whole, "%.*s%s", (int)(gap - merges[i]), merges[i], gap + 1);
		gb_elem_str(b, whole, strlen(whole));
	}
	put_types(b, synth_vocab_size(false), false);
	gb_strs(b, "tokenizer.ggml.merges", merges, COUNT(merges));
	gb_u32(b, "tokenizer.ggml.unknown_token_id", 0);
	gb_str(b, "tokenizer.chat_template", "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
		" + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}");
}

static void
put_spm(struct ggufbuild *b)
{
	uint32_t n = synth_vocab_size(true), at = COUNT(spm_special) + 256;
	float *score = calloc(n, sizeof *score);

	gb_str(b, "tokenizer.ggml.model", "llama");
	gb_str(b, "tokenizer.ggml.pre", "default");
	gb_array(b, "tokenizer.ggml.tokens", GB_STR, n);
	for (uint32_t i = 0; i < COUNT(spm_special); i++)
		gb_elem_str(b, spm_special[i], strlen(spm_special[i]));
	for (unsigned i = 0; i < 256; i++) {
		char c[8];

		snprintf(c, sizeof c, "<0x%02X>", i);
		gb_elem_str(b, c, 6);
	}
	for (int i = 0; i < N_CHARS; i++) {
		char c = (char)(FIRST_CHAR + i);

		gb_elem_str(b, &c, 1);
	}
	for (uint32_t i = 0; i < COUNT(pieces); i++)
		gb_elem_str(b, pieces[i], strlen(pieces[i]));
	for (uint32_t i = at; score && i < n; i++)
		score[i] = i < at + N_CHARS ? -1000.0f - (float)i : (float)strlen(pieces[i - at - N_CHARS]) - 100 - (float)i / 1000;
	put_types(b, n, true);
	if (score)
		gb_f32s(b, "tokenizer.ggml.scores", score, n);
	else
		b->kv.failed = true;
	gb_bool(b, "tokenizer.ggml.add_space_prefix", true);
	free(score);
}

void
synth_put_vocab(struct ggufbuild *b, bool spm)
{
	if (spm)
		put_spm(b);
	else
		put_bpe(b);
	gb_u32(b, "tokenizer.ggml.bos_token_id", 1);
	gb_u32(b, "tokenizer.ggml.eos_token_id", 2);
	gb_bool(b, "tokenizer.ggml.add_bos_token", spm);
}
