/* What the files of the tokenizer share. */
#ifndef KV_MODEL_TOK_INT_H
#define KV_MODEL_TOK_INT_H

#include "model/tokenizer.h"
#include "util/mem.h"

enum kv_tok_type {	/* as in the file */
	KV_TOK_NORMAL = 1,
	KV_TOK_UNKNOWN,
	KV_TOK_CONTROL,
	KV_TOK_USER,		/* found in any text before anything else is */
	KV_TOK_UNUSED,
	KV_TOK_BYTE,		/* SPM: <0xNN> */
};

/* Token texts to ids: open addressing over a power of two; tag = upper half of the hash. id is KV_NO_TOKEN in an empty slot. */
struct kv_tok_slot {
	uint32_t tag, id;
};

/* merge[rank] puts left and right together; merge_slot holds rank + 1. */
struct kv_tok_merge {
	uint32_t left, right, id;
};

/* Ids of a short piece met before. */
enum { KV_TOK_CACHED = 8192, KV_TOK_CACHED_LEN = 14, KV_TOK_CACHED_IDS = 4 };

struct kv_tok_cached {
	uint32_t id[KV_TOK_CACHED_IDS];
	uint8_t n_ids, len;		/* len 0: empty */
	char text[KV_TOK_CACHED_LEN];
};

/* A symbol begins at every offset that is some symbol's next, and at 0; it reaches to its own next. */
struct kv_tok_sym {
	uint32_t id, prev, next;
};

/* Scratch of merging; grows to the longest piece. */
struct kv_tok_work {
	struct kv_tok_sym *sym;
	size_t cap;
	uint64_t *heap;			/* rank << 32 | offset, smallest first */
	size_t n_heap, cap_heap;
	struct kv_tok_cached *cache;	/* [KV_TOK_CACHED] */
};

struct kv_splitter;

struct kv_tokenizer {
	bool spm, add_bos, add_eos;
	bool ignore_merges;		/* BPE: a piece that is a token is that token */
	bool space_prefix;		/* SPM */
	bool words;			/* SPM: no token goes on past the end of a word */
	uint32_t n;			/* tokens */
	struct kv_str *text;		/* [n] */
	uint8_t *type;			/* [n] */
	uint32_t *order;		/* SPM [n]: falls as the score rises */
	struct kv_tok_slot *slot;
	size_t mask, longest;
	struct kv_tok_merge *merge;	/* BPE */
	uint32_t *merge_slot;
	size_t n_merges, merge_mask;
	uint32_t byte_id[256];		/* KV_NO_TOKEN: none */
	int16_t char_byte[0x180];	/* BPE: the byte that a character of a token's text stands for, -1 */
	uint32_t bos, eos, unknown;
	uint32_t stop[16];
	size_t n_stop;
	uint32_t *special;		/* [n_special] control, unknown and user-defined tokens, longest first */
	size_t n_special;
	struct kv_splitter *splitter;	/* BPE */
	struct kv_tok_work work;
	char note[480];
};

/* Reads the vocabulary into a zeroed t (tok_load.c). */
enum kv_status kv_tok_load(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err);

uint32_t kv_tok_add(struct kv_tokenizer *t, uint32_t id);	/* the token that has this text: id itself, or one before it */
void kv_tok_merge_add(struct kv_tokenizer *t, uint32_t rank);	/* of equal pairs the first stays */
uint32_t kv_tok_lookup(const struct kv_tokenizer *t, const void *text, size_t n);	/* KV_NO_TOKEN */
/* May plain text become this token? */
bool kv_tok_plain(const struct kv_tokenizer *t, uint32_t id);
/* Looked for before the text is cut up. A token without a text never is. */
bool kv_tok_is_special(const struct kv_tokenizer *t, uint32_t id);
/* Rank of a merge, or KV_NO_TOKEN. */
uint32_t kv_tok_merge_find(const struct kv_tokenizer *t, uint32_t left, uint32_t right);
/* The character that stands for a byte in the texts of a BPE vocabulary, as UTF-8; its length. */
size_t kv_tok_byte_char(unsigned byte, uint8_t out[2]);

/* A pre-tokeniser (tok_split.c). KV_EUNSUP: not known by that name; name.p NULL: the file has none. */
struct kv_tok_rule {
	const char *const *pattern;	/* NULL-terminated */
	bool ignore_merges, add_bos, guess;
};

enum kv_status kv_tok_rule(struct kv_str name, struct kv_tok_rule *out, struct kv_err *err);
enum kv_status kv_splitter_new(const struct kv_tok_rule *rule, struct kv_splitter **out, struct kv_err *err);
void kv_splitter_free(struct kv_splitter *s);
/* text must be UTF-8. Then each call gives one piece; KV_END behind the last. */
void kv_splitter_start(struct kv_splitter *s, const char *text, size_t n);
enum kv_status kv_splitter_next(struct kv_splitter *s, struct kv_str *piece, struct kv_err *err);

/* Appends the ids of one piece; of SPM text, spaces already replaced (tok_merge.c). */
enum kv_status kv_tok_piece(struct kv_tokenizer *t, struct kv_str piece, struct kv_ids *out, struct kv_encode_notes *notes,
	struct kv_err *err);

/* A special token in a text (tok_special.c). */
struct kv_tok_hit {
	size_t at;
	uint32_t id;
};

enum kv_status kv_tok_specials(const struct kv_tokenizer *t, const char *text, size_t n, const struct kv_encode *how,
	struct kv_tok_hit **hits, size_t *n_hits, struct kv_err *err);

#endif
