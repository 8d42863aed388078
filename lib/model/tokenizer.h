/* Text to token ids and back: byte-level BPE and SPM, from the vocabulary in a GGUF file. */
#ifndef KV_MODEL_TOKENIZER_H
#define KV_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/gguf.h"

struct kv_tokenizer;

/* Keeps pointers into g's mapping. KV_EUNSUP: a tokenizer or pre-tokeniser that we do not know, by name. */
enum kv_status kv_tokenizer_new(const struct kv_gguf *g, struct kv_tokenizer **out, struct kv_err *err);
void kv_tokenizer_free(struct kv_tokenizer *t);
/* What was odd about the vocabulary, one sentence for a warning; NULL: nothing. */
const char *kv_tokenizer_note(const struct kv_tokenizer *t);

struct kv_ids {
	uint32_t *id;
	size_t n, cap;
};

enum kv_status kv_ids_add(struct kv_ids *ids, uint32_t id, struct kv_err *err);
void kv_ids_free(struct kv_ids *ids);

/*
 * Which of the text may become control tokens. User-defined tokens are always found. owned [n] has a byte per byte of text, 1 where it
 * belongs to a chat template (kv_chat_render makes it); NULL: none of it, or with special all of it.
 */
struct kv_encode {
	bool special;
	const uint8_t *owned;
	bool begins;		/* the text stands at the beginning of the document: SPM's space prefix */
};

/* What was odd about the text, for one warning. Added up over calls. */
struct kv_encode_notes {
	uint64_t bad_utf8, first_bad;	/* bytes replaced by U+FFFD; offset of the first */
	uint64_t dropped;		/* bytes for which the vocabulary has no token */
};

/* Appends the ids of text[0..n). Adds neither BOS nor EOS. notes may be NULL. */
enum kv_status kv_encode(struct kv_tokenizer *t, const char *text, size_t n, const struct kv_encode *how,
	struct kv_ids *out, struct kv_encode_notes *notes, struct kv_err *err);

/*
 * The last place of text[0..n) where it may be cut: the ids of what stands before it, followed by those of what stands behind it and of
 * whatever comes after text[n - 1], begins being false there, are those of the whole. 0: no such place is known. owned must be NULL.
 */
size_t kv_encode_cut(const struct kv_tokenizer *t, const char *text, size_t n, bool special);

#define KV_NO_TOKEN UINT32_MAX
uint32_t kv_token_bos(const struct kv_tokenizer *t);	/* KV_NO_TOKEN: none */
uint32_t kv_token_eos(const struct kv_tokenizer *t);
bool kv_token_wants_bos(const struct kv_tokenizer *t);
bool kv_token_wants_eos(const struct kv_tokenizer *t);
size_t kv_vocab_size(const struct kv_tokenizer *t);
bool kv_token_stops(const struct kv_tokenizer *t, uint32_t id);		/* in the stop set of kv-decode */
bool kv_token_find(const struct kv_tokenizer *t, const char *text, uint32_t *id);	/* by the vocabulary's own spelling */

/* Appends the bytes of one token; control and unknown tokens give nothing unless special. */
struct kv_buf;
void kv_token_bytes(const struct kv_tokenizer *t, uint32_t id, bool special, struct kv_buf *out);

/* Turning a stream of ids into text that never ends in half a character. Zero it to start; begins as in kv_encode. */
struct kv_detok {
	bool begins, started;
	unsigned n;
	uint8_t held[4];
};

void kv_detok_add(const struct kv_tokenizer *t, struct kv_detok *d, uint32_t id, bool special, struct kv_buf *out);
void kv_detok_end(struct kv_detok *d, struct kv_buf *out);	/* what was held back, raw */

#endif
