/* A vocabulary in memory: texts to ids, pairs to merges, and what it says about its special tokens. */
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "kvs/digest.h"
#include "model/tok_int.h"

/* Where a text with this hash is, or the empty slot where it would go. */
static struct kv_tok_slot *
slot_of(const struct kv_tokenizer *t, uint64_t h, const void *text, size_t n)
{
	size_t k = (size_t)h & t->mask;

	for (; t->slot[k].id != KV_NO_TOKEN; k = (k + 1) & t->mask) {
		struct kv_str s = t->text[t->slot[k].id];

		if (t->slot[k].tag == h >> 32 && s.n == n && !memcmp(s.p, text, n))
			return &t->slot[k];
	}
	return &t->slot[k];
}

uint32_t
kv_tok_add(struct kv_tokenizer *t, uint32_t id)
{
	struct kv_str s = t->text[id];
	uint64_t h = kvs_hash64(s.p, s.n);
	struct kv_tok_slot *slot = slot_of(t, h, s.p, s.n);

	if (slot->id == KV_NO_TOKEN)
		*slot = (struct kv_tok_slot){ (uint32_t)(h >> 32), id };
	return slot->id;
}

uint32_t
kv_tok_lookup(const struct kv_tokenizer *t, const void *text, size_t n)
{
	return n && n <= t->longest ? slot_of(t, kvs_hash64(text, n), text, n)->id : KV_NO_TOKEN;
}

bool
kv_tok_plain(const struct kv_tokenizer *t, uint32_t id)
{
	uint8_t type = t->type[id];

	return type != KV_TOK_CONTROL && type != KV_TOK_UNKNOWN && !(t->spm && type == KV_TOK_BYTE);
}

bool
kv_tok_is_special(const struct kv_tokenizer *t, uint32_t id)
{
	uint8_t type = t->type[id];

	return t->text[id].n && (type == KV_TOK_USER || type == KV_TOK_CONTROL || type == KV_TOK_UNKNOWN);
}

static size_t
merge_slot(const struct kv_tokenizer *t, uint32_t left, uint32_t right)
{
	uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;

	return (size_t)(h >> 32) & t->merge_mask;
}

uint32_t
kv_tok_merge_find(const struct kv_tokenizer *t, uint32_t left, uint32_t right)
{
	for (size_t k = merge_slot(t, left, right); t->merge_slot[k]; k = (k + 1) & t->merge_mask) {
		const struct kv_tok_merge *m = &t->merge[t->merge_slot[k] - 1];

		if (m->left == left && m->right == right)
			return t->merge_slot[k] - 1;
	}
	return KV_NO_TOKEN;
}

void
kv_tok_merge_add(struct kv_tokenizer *t, uint32_t rank)
{
	const struct kv_tok_merge *m = &t->merge[rank];
	size_t k = merge_slot(t, m->left, m->right);

	if (kv_tok_merge_find(t, m->left, m->right) != KV_NO_TOKEN)
		return;
	while (t->merge_slot[k])
		k = (k + 1) & t->merge_mask;
	t->merge_slot[k] = rank + 1;
}

size_t
kv_tok_byte_char(unsigned byte, uint8_t out[2])
{
	unsigned c = byte;

	/* The 68 bytes that are no visible character of Latin-1 are numbered from U+0100 on. */
	if (byte <= 32)
		c = 256 + byte;
	else if (byte >= 127 && byte <= 160)
		c = 256 + 33 + byte - 127;
	else if (byte == 173)
		c = 256 + 67;
	if (c < 0x80) {
		out[0] = (uint8_t)c;
		return 1;
	}
	out[0] = (uint8_t)(0xc0 | c >> 6);
	out[1] = (uint8_t)(0x80 | (c & 0x3f));
	return 2;
}

enum kv_status
kv_tokenizer_new(const struct kv_gguf *g, struct kv_tokenizer **out, struct kv_err *err)
{
	struct kv_tokenizer *t = kv_array_new(1, sizeof *t);
	enum kv_status rc;

	if (!t)
		return kv_fail_mem(err, "a tokenizer");
	if ((rc = kv_tok_load(t, g, err)) != KV_OK)
		kv_tokenizer_free(t);
	else
		*out = t;
	return rc;
}

void
kv_tokenizer_free(struct kv_tokenizer *t)
{
	if (!t)
		return;
	kv_splitter_free(t->splitter);
	free(t->text);
	free(t->type);
	free(t->order);
	free(t->slot);
	free(t->merge);
	free(t->merge_slot);
	free(t->special);
	free(t->work.sym);
	free(t->work.heap);
	free(t->work.cache);
	free(t);
}

const char *
kv_tokenizer_note(const struct kv_tokenizer *t)
{
	return t->note[0] ? t->note : NULL;
}

uint32_t
kv_token_bos(const struct kv_tokenizer *t)
{
	return t->bos;
}

uint32_t
kv_token_eos(const struct kv_tokenizer *t)
{
	return t->eos;
}

bool
kv_token_wants_bos(const struct kv_tokenizer *t)
{
	return t->add_bos && t->bos != KV_NO_TOKEN;
}

bool
kv_token_wants_eos(const struct kv_tokenizer *t)
{
	return t->add_eos && t->eos != KV_NO_TOKEN;
}

size_t
kv_vocab_size(const struct kv_tokenizer *t)
{
	return t->n;
}

bool
kv_token_stops(const struct kv_tokenizer *t, uint32_t id)
{
	for (size_t k = 0; k < t->n_stop; k++)
		if (t->stop[k] == id)
			return true;
	return false;
}

bool
kv_token_find(const struct kv_tokenizer *t, const char *text, uint32_t *id)
{
	uint32_t found = kv_tok_lookup(t, text, strlen(text));

	if (found == KV_NO_TOKEN)
		return false;
	*id = found;
	return true;
}
