/* The vocabulary of a GGUF file: read, checked and hashed. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tok_int.h"
#include "util/half.h"
#include "util/text.h"

#define KEY "tokenizer.ggml."

enum { MAX_VOCAB = 1 << 24 };

static void __attribute__((format(printf, 2, 3)))
add_note(struct kv_tokenizer *t, const char *fmt, ...)
{
	size_t n = strlen(t->note);
	va_list ap;

	if (n && n + 3 < sizeof t->note)
		n += (size_t)snprintf(t->note + n, sizeof t->note - n, "; ");
	va_start(ap, fmt);
	vsnprintf(t->note + n, sizeof t->note - n, fmt, ap);
	va_end(ap);
}

static enum kv_status
missing(const struct kv_gguf *g, const char *key, struct kv_err *err)
{
	return kv_fail(err, KV_ECORRUPT, "%s: key '%s' is missing", kv_gguf_name(g), key);
}

static enum kv_status
need_array(const struct kv_gguf *g, const char *key, struct kv_gguf_array *a, struct kv_err *err)
{
	enum kv_status rc = kv_gguf_array(g, key, a, err);

	return rc == KV_END ? missing(g, key, err) : rc;
}

static enum kv_status
load_texts(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err)
{
	struct kv_gguf_array a;
	enum kv_status rc = need_array(g, KEY "tokens", &a, err);
	const uint8_t *at = a.p;
	size_t cap = 16;
	char q[80];

	if (rc != KV_OK)
		return rc;
	if (!a.n || a.n > MAX_VOCAB)
		return kv_fail(err, KV_ECORRUPT, "%s: a vocabulary of %" PRIu64 " tokens", kv_gguf_name(g), a.n);
	while (cap < 2 * a.n)
		cap *= 2;
	t->mask = cap - 1;
	t->text = kv_array_new((size_t)a.n, sizeof *t->text);
	t->type = kv_array_new((size_t)a.n, sizeof *t->type);
	t->slot = kv_array_new(cap, sizeof *t->slot);
	if (!t->text || !t->type || !t->slot)
		return kv_fail_mem(err, "a vocabulary");
	memset(t->slot, 0xff, cap * sizeof *t->slot);
	for (t->n = 0; t->n < a.n; t->n++) {
		struct kv_str *s = &t->text[t->n];
		uint32_t had;

		if (kv_gguf_next_str(&a, &at, s) != KV_OK)
			return kv_fail(err, KV_ECORRUPT, "%s: key '" KEY "tokens' holds no texts", kv_gguf_name(g));
		if (!s->n)
			continue;	/* keeps its number, is never found */
		had = kv_tok_add(t, t->n);
		if (had != t->n)
			return kv_fail(err, KV_ECORRUPT, "%s: tokens %" PRIu32 " and %" PRIu32 " are both '%s'", kv_gguf_name(g),
				       had, t->n, kv_quote(q, sizeof q, s->p, s->n));
		if (s->n > t->longest)
			t->longest = s->n;
	}
	return KV_OK;
}

static int
hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "<0xNN>" and nothing else; -1: no such token. */
static int
byte_token(struct kv_str s)
{
	if (s.n != 6 || memcmp(s.p, "<0x", 3) || s.p[5] != '>' || hex(s.p[3]) < 0 || hex(s.p[4]) < 0)
		return -1;
	return hex(s.p[3]) << 4 | hex(s.p[4]);
}

static enum kv_status
load_types(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err)
{
	struct kv_gguf_array a;
	enum kv_status rc = kv_gguf_array(g, KEY "token_type", &a, err);
	uint64_t v;
	int byte;

	memset(t->type, KV_TOK_NORMAL, t->n);
	if (rc != KV_OK)
		return rc == KV_END ? KV_OK : rc;
	if (a.n != t->n)
		return kv_fail(err, KV_ECORRUPT, "%s: %" PRIu64 " token types for %" PRIu32 " tokens", kv_gguf_name(g), a.n, t->n);
	for (uint32_t id = 0; id < t->n; id++) {
		if (kv_gguf_elem_u64(&a, id, UINT8_MAX, &v) != KV_OK)
			return kv_fail(err, KV_ECORRUPT, "%s: the type of token %" PRIu32 " is no small number", kv_gguf_name(g), id);
		t->type[id] = (uint8_t)v;
		if (!t->spm || v != KV_TOK_BYTE)
			continue;
		if ((byte = byte_token(t->text[id])) < 0)
			return kv_fail(err, KV_ECORRUPT, "%s: token %" PRIu32 " should be a byte as '<0xNN>'", kv_gguf_name(g), id);
		t->byte_id[byte] = id;
	}
	return KV_OK;
}

static int
ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Longest first, then by number. */
static enum kv_status
collect_special(struct kv_tokenizer *t, struct kv_err *err)
{
	uint64_t *key;
	size_t n = 0;

	for (uint32_t id = 0; id < t->n; id++)
		n += kv_tok_is_special(t, id);
	key = kv_array_new(n, sizeof *key);
	t->special = kv_array_new(n, sizeof *t->special);
	if (!key || !t->special) {
		free(key);
		return kv_fail_mem(err, "the special tokens");
	}
	for (uint32_t id = 0; id < t->n; id++)
		if (kv_tok_is_special(t, id))
			key[t->n_special++] = (uint64_t)(UINT32_MAX - (uint32_t)t->text[id].n) << 32 | id;
	qsort(key, n, sizeof *key, ascending);
	for (size_t k = 0; k < n; k++)
		t->special[k] = (uint32_t)key[k];
	free(key);
	return KV_OK;
}

/* "left right": a token may itself begin with a space. room has the bytes of the longest token. */
static bool
parse_merge(const struct kv_tokenizer *t, struct kv_str s, uint32_t guess, char *room, struct kv_tok_merge *m)
{
	const char *space = s.n > 1 ? memchr(s.p + 1, ' ', s.n - 1) : NULL;
	size_t n;

	if (!space || s.n - 1 > t->longest)
		return false;
	n = (size_t)(space - s.p);
	memcpy(room, s.p, n);
	memcpy(room + n, space + 1, s.n - n - 1);
	m->left = kv_tok_lookup(t, s.p, n);
	m->right = kv_tok_lookup(t, space + 1, s.n - n - 1);
	/* Vocabularies mostly list the tokens as the merges made them. */
	if (guess < t->n && t->text[guess].n == s.n - 1 && !memcmp(t->text[guess].p, room, s.n - 1))
		m->id = guess;
	else
		m->id = kv_tok_lookup(t, room, s.n - 1);
	return m->left != KV_NO_TOKEN && m->right != KV_NO_TOKEN && m->id != KV_NO_TOKEN;
}

static enum kv_status
load_merges(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err)
{
	struct kv_gguf_array a;
	enum kv_status rc = need_array(g, KEY "merges", &a, err);
	const uint8_t *at = a.p;
	size_t cap = 16;
	char *room, q[80];

	if (rc != KV_OK)
		return rc;
	if (a.n > MAX_VOCAB)
		return kv_fail(err, KV_ECORRUPT, "%s: %" PRIu64 " merges", kv_gguf_name(g), a.n);
	while (cap < 2 * a.n)
		cap *= 2;
	t->merge_mask = cap - 1;
	t->merge = kv_array_new((size_t)a.n, sizeof *t->merge);
	t->merge_slot = kv_array_new(cap, sizeof *t->merge_slot);
	if (!(room = kv_array_new(t->longest, 1)) || !t->merge || !t->merge_slot)
		rc = kv_fail_mem(err, "the merges of a vocabulary");
	for (uint32_t rank = 0; rc == KV_OK && rank < a.n; rank++) {
		struct kv_tok_merge *m = &t->merge[rank];
		struct kv_str s = { "", 0 };

		if (kv_gguf_next_str(&a, &at, &s) != KV_OK || !parse_merge(t, s, rank ? m[-1].id + 1 : 0, room, m)) {
			rc = kv_fail(err, KV_ECORRUPT, "%s: merge %" PRIu32 ", '%s', is not made of two tokens that give a third",
				     kv_gguf_name(g), rank, kv_quote(q, sizeof q, s.p, s.n));
			break;
		}
		t->n_merges++;
		kv_tok_merge_add(t, rank);
	}
	free(room);
	return rc;
}

static enum kv_status
load_bpe(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err)
{
	struct kv_tok_rule rule;
	struct kv_str pre = { NULL, 0 };
	enum kv_status rc;

	memset(t->char_byte, 0xff, sizeof t->char_byte);
	for (unsigned b = 0; b < 256; b++) {
		uint8_t c[2];
		size_t n = kv_tok_byte_char(b, c);

		t->byte_id[b] = kv_tok_lookup(t, c, n);
		t->char_byte[n == 1 ? c[0] : (c[0] & 0x1f) << 6 | (c[1] & 0x3f)] = (int16_t)b;
	}
	if ((rc = kv_gguf_str(g, KEY "pre", &pre, err)) != KV_OK && rc != KV_END)
		return rc;
	if ((rc = kv_tok_rule(pre, &rule, err)) != KV_OK)
		return err ? kv_err_in(err, "%s", kv_gguf_name(g)) : rc;
	if (rule.guess)
		add_note(t, "the model does not say how its tokenizer splits text; a general rule is used, which may not be "
			"the one that it was trained with");
	t->ignore_merges = rule.ignore_merges;
	t->add_bos = rule.add_bos;
	if ((rc = load_merges(t, g, err)) != KV_OK)
		return rc;
	return kv_splitter_new(&rule, &t->splitter, err);
}

/* Does U+2581 stand anywhere but at the beginning or behind another one? */
static bool
crosses_words(struct kv_str s)
{
	static const char mark[] = "\xe2\x96\x81";

	for (size_t i = 1; i + 3 <= s.n; i++)
		if (!memcmp(s.p + i, mark, 3) && (i < 3 || memcmp(s.p + i - 3, mark, 3)))
			return true;
	return false;
}

static enum kv_status
load_spm(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err)
{
	struct kv_gguf_array a;
	enum kv_status rc = need_array(g, KEY "scores", &a, err);

	if (rc != KV_OK)
		return rc;
	if (a.n != t->n)
		return kv_fail(err, KV_ECORRUPT, "%s: %" PRIu64 " scores for %" PRIu32 " tokens", kv_gguf_name(g), a.n, t->n);
	if (!(t->order = kv_array_new(t->n, sizeof *t->order)))
		return kv_fail_mem(err, "the scores of a vocabulary");
	t->words = true;
	for (uint32_t id = 0; id < t->n; id++) {
		float f;
		uint32_t u;

		if (kv_gguf_elem_f32(&a, id, &f) != KV_OK || f != f)
			return kv_fail(err, KV_ECORRUPT, "%s: the score of token %" PRIu32 " is no number", kv_gguf_name(g), id);
		/* Bits of a float, turned so that they ascend with it as integers; + 0 makes -0 the 0 that it equals. */
		u = f32_bits(f + 0.0f);
		t->order[id] = u >> 31 ? u : ~(u | 0x80000000u);
		if (kv_tok_plain(t, id) && crosses_words(t->text[id]))
			t->words = false;
	}
	t->bos = 1;
	t->eos = 2;
	t->unknown = 0;
	t->add_bos = t->space_prefix = true;
	return KV_OK;
}

/* A number that is none of the vocabulary's stands for no token; some files say so with -1. */
static void
special_id(struct kv_tokenizer *t, const struct kv_gguf *g, const char *key, uint32_t *id)
{
	uint64_t v = UINT64_MAX;
	enum kv_status rc = kv_gguf_u64(g, key, UINT64_MAX, &v, NULL);

	if (rc == KV_OK && v < t->n) {
		*id = (uint32_t)v;
	} else if (rc != KV_END) {
		add_note(t, "key '%s' names no token and is ignored", key);
		*id = KV_NO_TOKEN;
	} else if (*id != KV_NO_TOKEN && *id >= t->n) {
		*id = KV_NO_TOKEN;
	}
}

static void
add_stop(struct kv_tokenizer *t, uint32_t id)
{
	if (id != KV_NO_TOKEN && !kv_token_stops(t, id) && t->n_stop < sizeof t->stop / sizeof *t->stop)
		t->stop[t->n_stop++] = id;
}

static enum kv_status
load_special(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err)
{
	static const char *const ends[] = {
		"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", "<EOT>", "</s>",
		"<|end_of_text|>",
	};
	uint32_t eot = KV_NO_TOKEN, eom = KV_NO_TOKEN;
	enum kv_status rc;

	special_id(t, g, KEY "bos_token_id", &t->bos);
	special_id(t, g, KEY "eos_token_id", &t->eos);
	special_id(t, g, KEY "eot_token_id", &eot);
	special_id(t, g, KEY "eom_token_id", &eom);
	special_id(t, g, KEY "unknown_token_id", &t->unknown);
	if (((rc = kv_gguf_bool(g, KEY "add_bos_token", &t->add_bos, err)) != KV_OK && rc != KV_END)
	    || ((rc = kv_gguf_bool(g, KEY "add_eos_token", &t->add_eos, err)) != KV_OK && rc != KV_END))
		return rc;
	if (t->spm && (rc = kv_gguf_bool(g, KEY "add_space_prefix", &t->space_prefix, err)) != KV_OK && rc != KV_END)
		return rc;
	add_stop(t, t->eos);
	add_stop(t, eot);
	add_stop(t, eom);
	for (size_t k = 0; k < sizeof ends / sizeof *ends; k++)
		add_stop(t, kv_tok_lookup(t, ends[k], strlen(ends[k])));
	return collect_special(t, err);
}

enum kv_status
kv_tok_load(struct kv_tokenizer *t, const struct kv_gguf *g, struct kv_err *err)
{
	struct kv_str model;
	enum kv_status rc = kv_gguf_str(g, KEY "model", &model, err);
	char q[80];

	if (rc != KV_OK)
		return rc == KV_END ? missing(g, KEY "model", err) : rc;
	t->spm = model.n == 5 && !memcmp(model.p, "llama", 5);
	if (!t->spm && (model.n != 4 || memcmp(model.p, "gpt2", 4)))
		return kv_fail(err, KV_EUNSUP, "%s: tokenizer '%s'; gpt2 and llama are known", kv_gguf_name(g),
			       kv_quote(q, sizeof q, model.p, model.n));
	t->bos = t->eos = t->unknown = KV_NO_TOKEN;
	memset(t->byte_id, 0xff, sizeof t->byte_id);
	if ((rc = load_texts(t, g, err)) != KV_OK || (rc = load_types(t, g, err)) != KV_OK)
		return rc;
	if ((rc = t->spm ? load_spm(t, g, err) : load_bpe(t, g, err)) != KV_OK)
		return rc;
	t->work.cache = kv_array_new(KV_TOK_CACHED, sizeof *t->work.cache);	/* works without */
	return load_special(t, g, err);
}
