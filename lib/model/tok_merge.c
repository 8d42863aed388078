/*
 * One piece of text to ids: neighbours are merged, always the pair that comes first in the vocabulary's order and among equals
 * the leftmost, until none is left. A heap keeps this at n log n: a megabyte without a space is one piece.
 */
#include <stdlib.h>
#include <string.h>

#include "kvs/digest.h"
#include "model/tok_int.h"

/* The heap's entries are never updated: one whose pair has changed since is known by its rank and skipped. */
static bool
push(struct kv_tok_work *w, uint64_t key)
{
	size_t i;

	if (w->n_heap == w->cap_heap) {
		size_t cap = w->cap_heap ? 2 * w->cap_heap : 256;
		uint64_t *p = kv_array_resize(w->heap, cap, sizeof *p);

		if (!p)
			return false;
		w->heap = p;
		w->cap_heap = cap;
	}
	for (i = w->n_heap++; i && w->heap[(i - 1) / 4] > key; i = (i - 1) / 4)
		w->heap[i] = w->heap[(i - 1) / 4];
	w->heap[i] = key;
	return true;
}

static uint64_t
pop(struct kv_tok_work *w)
{
	uint64_t top = w->heap[0], key = w->heap[--w->n_heap];
	size_t i = 0, n = w->n_heap;

	for (;;) {
		size_t child = 4 * i + 1, least = child, end = child + 4 < n ? child + 4 : n;

		if (child >= n)
			break;
		while (++child < end)
			if (w->heap[child] < w->heap[least])
				least = child;
		if (w->heap[least] >= key)
			break;
		w->heap[i] = w->heap[least];
		i = least;
	}
	w->heap[i] = key;
	return top;
}

/* Rank of the symbol at i with the one behind it and what they become; false: they do not merge. */
static bool
pair_at(const struct kv_tokenizer *t, const struct kv_str *s, uint32_t i, uint32_t *rank, uint32_t *id)
{
	const struct kv_tok_sym *sym = t->work.sym;
	uint32_t j = sym[i].next;

	if (j == s->n)
		return false;
	if (!t->spm) {
		*rank = kv_tok_merge_find(t, sym[i].id, sym[j].id);
		if (*rank == KV_NO_TOKEN)
			return false;
		*id = t->merge[*rank].id;
		return true;
	}
	*id = kv_tok_lookup(t, s->p + i, sym[j].next - i);
	if (*id == KV_NO_TOKEN || !kv_tok_plain(t, *id))
		return false;
	*rank = t->order[*id];
	return true;
}

static bool
queue(struct kv_tokenizer *t, const struct kv_str *s, uint32_t i)
{
	uint32_t rank, id;

	return !pair_at(t, s, i, &rank, &id) || push(&t->work, (uint64_t)rank << 32 | i);
}

static bool
merge_all(struct kv_tokenizer *t, const struct kv_str *s)
{
	struct kv_tok_sym *sym = t->work.sym;

	t->work.n_heap = 0;
	for (uint32_t i = 0; i < s->n; i = sym[i].next)
		if (!queue(t, s, i))
			return false;
	while (t->work.n_heap) {
		uint64_t key = pop(&t->work);
		uint32_t i = (uint32_t)key, j = sym[i].next, rank, id;

		/* next = 0: swallowed by the symbol in front. */
		if (!j || !pair_at(t, s, i, &rank, &id) || rank != key >> 32)
			continue;
		sym[i].id = id;
		sym[i].next = sym[j].next;
		sym[j].next = 0;
		if (sym[i].next < s->n)
			sym[sym[i].next].prev = i;
		if ((i && !queue(t, s, sym[i].prev)) || !queue(t, s, i))
			return false;
	}
	return true;
}

/* Symbols to begin with: bytes, or for SPM characters as long as their first byte says. */
static bool
cut_up(struct kv_tokenizer *t, const struct kv_str *s)
{
	struct kv_tok_work *w = &t->work;

	if (s->n > w->cap) {
		size_t cap = s->n < 256 ? 256 : s->n;
		struct kv_tok_sym *p = kv_array_resize(w->sym, cap, sizeof *p);

		if (!p)
			return false;
		w->sym = p;
		w->cap = cap;
	}
	for (uint32_t i = 0, prev = 0; i < s->n;) {
		uint8_t c = (uint8_t)s->p[i];
		uint32_t len = !t->spm || c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

		if (len > s->n - i)
			len = (uint32_t)s->n - i;
		w->sym[i] = (struct kv_tok_sym){ t->spm ? kv_tok_lookup(t, s->p + i, len) : t->byte_id[c], prev, i + len };
		if (t->spm && w->sym[i].id != KV_NO_TOKEN && !kv_tok_plain(t, w->sym[i].id))
			w->sym[i].id = KV_NO_TOKEN;
		prev = i;
		i += len;
	}
	return true;
}

/* A symbol without a token: SPM has one for every byte, or else "unknown"; BPE drops the byte, as the original does. */
static enum kv_status
put_bytes(const struct kv_tokenizer *t, const char *p, size_t n, struct kv_ids *out, struct kv_encode_notes *notes, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	for (size_t k = 0; k < n && rc == KV_OK; k++) {
		uint32_t id = t->spm ? t->byte_id[(uint8_t)p[k]] : KV_NO_TOKEN;

		if (t->spm && id == KV_NO_TOKEN)
			id = t->unknown;
		if (id != KV_NO_TOKEN)
			rc = kv_ids_add(out, id, err);
		else if (notes)
			notes->dropped++;
	}
	return rc;
}

static enum kv_status
put_all(const struct kv_tokenizer *t, const struct kv_str *s, struct kv_ids *out, struct kv_encode_notes *notes, struct kv_err *err)
{
	const struct kv_tok_sym *sym = t->work.sym;
	enum kv_status rc = KV_OK;

	for (uint32_t i = 0; i < s->n && rc == KV_OK; i = sym[i].next)
		if (sym[i].id != KV_NO_TOKEN)
			rc = kv_ids_add(out, sym[i].id, err);
		else
			rc = put_bytes(t, s->p + i, sym[i].next - i, out, notes, err);
	return rc;
}

/* The token that is the whole piece. */
static uint32_t
whole(const struct kv_tokenizer *t, const struct kv_str *s)
{
	uint8_t mapped[2 * 256];
	size_t n = 0;
	uint32_t id;

	if (s->n > sizeof mapped / 2)
		return KV_NO_TOKEN;
	for (size_t k = 0; k < s->n; k++)
		n += kv_tok_byte_char((uint8_t)s->p[k], mapped + n);
	id = kv_tok_lookup(t, mapped, n);
	return id != KV_NO_TOKEN && kv_tok_plain(t, id) ? id : KV_NO_TOKEN;
}

static struct kv_tok_cached *
cached(struct kv_tokenizer *t, const struct kv_str *s)
{
	if (!t->work.cache || !s->n || s->n > KV_TOK_CACHED_LEN)
		return NULL;
	return &t->work.cache[kvs_hash64(s->p, s->n) % KV_TOK_CACHED];
}

enum kv_status
kv_tok_piece(struct kv_tokenizer *t, struct kv_str s, struct kv_ids *out, struct kv_encode_notes *notes, struct kv_err *err)
{
	struct kv_tok_cached *c = cached(t, &s);
	uint64_t dropped = notes ? notes->dropped : 0;
	size_t n = out->n;
	enum kv_status rc = KV_OK;
	uint32_t id;

	if (c && c->len == s.n && !memcmp(c->text, s.p, s.n)) {
		for (unsigned k = 0; k < c->n_ids && rc == KV_OK; k++)
			rc = kv_ids_add(out, c->id[k], err);
		return rc;
	}
	if (t->ignore_merges && (id = whole(t, &s)) != KV_NO_TOKEN)
		rc = kv_ids_add(out, id, err);
	else if (!cut_up(t, &s) || !merge_all(t, &s))
		rc = kv_fail_mem(err, "the tokens of a text");
	else
		rc = put_all(t, &s, out, notes, err);
	/* A piece that lost bytes is not kept, so that every loss is counted; without notes nobody could tell. */
	if (rc != KV_OK || !c || !notes || notes->dropped != dropped || out->n - n > KV_TOK_CACHED_IDS)
		return rc;
	c->n_ids = (uint8_t)(out->n - n);
	c->len = (uint8_t)s.n;
	memcpy(c->text, s.p, s.n);
	memcpy(c->id, out->id + n, (out->n - n) * sizeof *c->id);
	return KV_OK;
}
