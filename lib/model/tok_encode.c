/* Text to ids: bad bytes replaced, special tokens found, and every stretch between them cut into pieces. */
#include <stdlib.h>
#include <string.h>

#include "model/tok_int.h"
#include "util/utf8.h"

enum kv_status
kv_ids_add(struct kv_ids *ids, uint32_t id, struct kv_err *err)
{
	if (ids->n == ids->cap) {
		size_t cap = ids->cap ? 2 * ids->cap : 64;
		uint32_t *p = kv_array_resize(ids->id, cap, sizeof *p);

		if (!p)
			return kv_fail_mem(err, "the tokens of a text");
		ids->id = p;
		ids->cap = cap;
	}
	ids->id[ids->n++] = id;
	return KV_OK;
}

void
kv_ids_free(struct kv_ids *ids)
{
	free(ids->id);
	*ids = (struct kv_ids){ 0 };
}

/* End of the well-formed text that begins at p[i]. */
static size_t
good_until(const uint8_t *p, size_t i, size_t n)
{
	for (size_t len; i < n; i += len)
		if (!(len = p[i] < 0x80 ? 1 : kv_utf8_len(p + i, n - i)))
			break;
	return i;
}

/* A copy with U+FFFD for each byte that belongs to no character; owned goes along with it. */
static void
repair(const uint8_t *p, size_t n, size_t bad, const uint8_t *mask, struct kv_buf *text, struct kv_buf *owned,
	struct kv_encode_notes *notes)
{
	if (notes && !notes->bad_utf8)
		notes->first_bad = bad;
	for (size_t i = 0; i < n;) {
		size_t end = good_until(p, i, n);

		kv_buf_add(text, p + i, end - i);
		if (mask)
			kv_buf_add(owned, mask + i, end - i);
		if (end == n)
			break;
		kv_buf_add(text, "\xef\xbf\xbd", 3);
		if (mask)
			kv_buf_add(owned, (uint8_t[3]){ mask[end], mask[end], mask[end] }, 3);
		if (notes)
			notes->bad_utf8++;
		i = end + 1;
	}
}

static enum kv_status
encode_bpe(struct kv_tokenizer *t, struct kv_str s, struct kv_ids *out, struct kv_encode_notes *notes, struct kv_err *err)
{
	struct kv_str piece;
	enum kv_status rc;

	kv_splitter_start(t->splitter, s.p, s.n);
	while ((rc = kv_splitter_next(t->splitter, &piece, err)) == KV_OK)
		if ((rc = kv_tok_piece(t, piece, out, notes, err)) != KV_OK)
			return rc;
	return rc == KV_END ? KV_OK : rc;
}

static size_t
lead_len(uint8_t c)
{
	return c < 0xc0 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}

/* Spaces become U+2581. Where no token goes on past a word, words are pieces of their own: the same ids, and far less to sort. */
static enum kv_status
encode_spm(struct kv_tokenizer *t, struct kv_str s, bool prefix, struct kv_ids *out, struct kv_encode_notes *notes, struct kv_err *err)
{
	static const char mark[] = "\xe2\x96\x81";
	struct kv_buf text = { 0 };
	enum kv_status rc = KV_OK;
	bool after_mark = true;
	size_t from = 0;

	if (prefix)
		kv_buf_add(&text, mark, 3);
	for (size_t i = 0, k; i < s.n; i = k) {
		for (k = i; k < s.n && s.p[k] != ' '; k++)
			;
		kv_buf_add(&text, s.p + i, k - i);
		if (k < s.n) {
			kv_buf_add(&text, mark, 3);
			k++;
		}
	}
	if (text.failed || text.len >= UINT32_MAX)
		rc = kv_fail_mem(err, "a text");
	for (size_t i = 0; i < text.len && rc == KV_OK; i += lead_len(text.p[i])) {
		bool is_mark = text.len - i >= 3 && !memcmp(text.p + i, mark, 3);

		if (t->words && is_mark && !after_mark) {
			rc = kv_tok_piece(t, (struct kv_str){ (char *)text.p + from, i - from }, out, notes, err);
			from = i;
		}
		after_mark = is_mark;
	}
	if (rc == KV_OK && from < text.len)
		rc = kv_tok_piece(t, (struct kv_str){ (char *)text.p + from, text.len - from }, out, notes, err);
	kv_buf_free(&text);
	return rc;
}

static enum kv_status
encode_valid(struct kv_tokenizer *t, const char *text, size_t n, const struct kv_encode *how, struct kv_ids *out,
	struct kv_encode_notes *notes, struct kv_err *err)
{
	struct kv_tok_hit *hits;
	size_t n_hits, at = 0;
	enum kv_status rc = kv_tok_specials(t, text, n, how, &hits, &n_hits, err);

	for (size_t k = 0; rc == KV_OK && k <= n_hits; k++) {
		struct kv_str s = { text + at, (k < n_hits ? hits[k].at : n) - at };

		if (s.n && t->spm)
			rc = encode_spm(t, s, t->space_prefix && (at || how->begins), out, notes, err);
		else if (s.n)
			rc = encode_bpe(t, s, out, notes, err);
		if (rc != KV_OK || k == n_hits)
			break;
		rc = kv_ids_add(out, hits[k].id, err);
		at = hits[k].at + t->text[hits[k].id].n;
	}
	free(hits);
	return rc;
}

enum kv_status
kv_encode(struct kv_tokenizer *t, const char *text, size_t n, const struct kv_encode *how, struct kv_ids *out,
	struct kv_encode_notes *notes, struct kv_err *err)
{
	struct kv_encode_notes unused = { 0 };
	struct kv_encode fixed = *how;
	struct kv_buf copy = { 0 }, owned = { 0 };
	size_t had = out->n, good;
	enum kv_status rc;

	if (n >= UINT32_MAX / 3)
		return kv_fail(err, KV_EUNSUP, "a text of %zu bytes is longer than this version takes at once", n);
	/* SPM has a token for every byte and does not mind. */
	good = t->spm ? n : good_until((const uint8_t *)text, 0, n);
	if (good < n) {
		repair((const uint8_t *)text, n, good, how->owned, &copy, &owned, notes);
		text = (const char *)copy.p;
		n = copy.len;
		fixed.owned = how->owned ? owned.p : NULL;
	}
	if (copy.failed || owned.failed)
		rc = kv_fail_mem(err, "a text");
	else
		rc = encode_valid(t, text, n, &fixed, out, notes ? notes : &unused, err);
	kv_buf_free(&copy);
	kv_buf_free(&owned);
	if (rc != KV_OK)
		out->n = had;
	return rc;
}
