/* Small vocabularies for tests of what reads text: written into a GGUF file being built, or opened at once. */
#ifndef KV_TESTS_VOCAB_H
#define KV_TESTS_VOCAB_H

#include "ggufbuild.h"
#include "model/tokenizer.h"

/* A token beside those of single bytes. type as in the file: 1 normal, 2 unknown, 3 control, 4 user-defined, 6 byte. */
struct vocab_token {
	const char *text;
	int type;
	float score;
};

/*
 * Byte-level BPE: token b stands for byte b, but for the byte without, which has none (its number is an odd name; -1: all have
 * one); then extra[n_extra] from 256 on. pre NULL: the key is left out.
 */
void vocab_bpe(struct ggufbuild *b, const char *pre, int without, const struct vocab_token *extra, size_t n_extra,
	const char *const *merges, size_t n_merges);

/* SPM: 0 <unk>, 1 <s>, 2 </s>, then 256 byte tokens from 3 on, then extra from 259 on. */
void vocab_spm(struct ggufbuild *b, const struct vocab_token *extra, size_t n_extra);

/* Finishes b into file and opens both; file must outlive them. Fills err on failure. */
enum kv_status vocab_open(struct ggufbuild *b, struct kv_buf *file, struct kv_gguf **g, struct kv_tokenizer **t, struct kv_err *err);

#endif
