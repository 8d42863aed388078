/* Tokenizers over small vocabularies made in memory. */
#include "tap.h"

#include <stdlib.h>

#include "model/tok_int.h"
#include "util/text.h"
#include "vocab.h"

static struct kv_err err;

struct model {
	struct kv_buf file;
	struct kv_gguf *g;
	struct kv_tokenizer *t;
};

static bool
open_model(struct ggufbuild *b, struct model *m)
{
	*m = (struct model){ .t = NULL };
	err.text[0] = 0;
	return ok(vocab_open(b, &m->file, &m->g, &m->t, &err) == KV_OK, "a vocabulary opens %s", err.text);
}

static void
close_model(struct model *m)
{
	kv_tokenizer_free(m->t);
	kv_gguf_close(m->g);
	kv_buf_free(&m->file);
}

/* Ids of text[0..n) as "1 2 3"; returns buf. */
static char *
ids_of(struct model *m, const char *text, size_t n, const struct kv_encode *how, struct kv_encode_notes *notes, char *buf, size_t size)
{
	struct kv_ids ids = { 0 };
	size_t o = 0;

	buf[0] = 0;
	if (kv_encode(m->t, text, n, how, &ids, notes, &err) != KV_OK)
		snprintf(buf, size, "%s", err.text);
	for (size_t i = 0; i < ids.n && o + 12 < size; i++)
		o += (size_t)snprintf(buf + o, size - o, "%s%u", i ? " " : "", ids.id[i]);
	kv_ids_free(&ids);
	return buf;
}

static const struct kv_encode plain = { .begins = true }, special = { .special = true, .begins = true };

#define encodes(m, text, how, want) do { \
	char buf_[500], q_[100]; \
	is_str(ids_of(m, text, strlen(text), how, NULL, buf_, sizeof buf_), want, "'%s'", kv_quote(q_, sizeof q_, text, strlen(text))); \
} while (0)

/* Pieces of a text with bars between them. */
static void
splits(const char *pre, const char *text, const char *want)
{
	struct kv_tok_rule rule;
	struct kv_splitter *s;
	struct kv_str piece;
	struct kv_buf got = { 0 };
	enum kv_status rc;

	if (kv_tok_rule((struct kv_str){ pre, strlen(pre) }, &rule, &err) != KV_OK || kv_splitter_new(&rule, &s, &err) != KV_OK) {
		ok(false, "%s: %s", pre, err.text);
		return;
	}
	kv_splitter_start(s, text, strlen(text));
	while ((rc = kv_splitter_next(s, &piece, &err)) == KV_OK)
		kv_buf_printf(&got, "%s%.*s", got.len ? "|" : "", (int)piece.n, piece.p);
	is_int(rc, KV_END, "%s comes to an end", pre);
	is_str((const char *)got.p, want, "%s splits", pre);
	kv_buf_free(&got);
	kv_splitter_free(s);
}

static void
pre_tokenisers(void)
{
	struct kv_tok_rule rule;

	splits("gpt-2", "It's  two\n\n x1234 y", "It|'s| | two|\n\n| x|1234| y");
	splits("gpt-2", "IT'S a-b, ok?!  ", "IT|'|S| a|-|b|,| ok|?!|  ");
	splits("gpt-2", "a\u180eb\u3000c\u00a0 d", "a|\u180e|b|\u3000|c|\u00a0| d");
	splits("smollm", "x 12 3y \u0661\u00bd", "x| |1|2| |3|y| |\u0661|\u00bd");
	splits("llama-bpe", "IT'S 12345 a\n\n b!!\r\nc", "IT|'S| |123|45| a|\n\n| b|!!\r\n|c");
	splits("llama-bpe", "x'\u017fa we'LL", "x|'\u017fa| we|'LL");
	splits("llama-bpe", "a  \n  b\t\tc", "a|  \n| | b|\t|\tc");
	splits("qwen2", "n 123 \u4e1c\u4eac!", "n| |1|2|3| \u4e1c\u4eac|!");
	splits("default", "a,b 1234 $+x", "a|,|b| |123|4| |$+|x");
	is_int(kv_tok_rule((struct kv_str){ "tekken", 6 }, &rule, &err), KV_EUNSUP, "an unknown one is refused");
	is_str(err.text, "pre-tokeniser 'tekken' is not known to this version", "by name");
	is_int(kv_tok_rule((struct kv_str){ "llama-bpe llama3", 16 }, &rule, &err), KV_EUNSUP, "two names are none");
	is_int(kv_tok_rule((struct kv_str){ "", 0 }, &rule, &err), KV_EUNSUP, "nor is an empty one");
	ok(kv_tok_rule((struct kv_str){ NULL, 0 }, &rule, &err) == KV_OK && rule.guess, "a missing one is a guess");
}

/* Past the limit at which PCRE2 gives up unless told otherwise. */
static void
long_run(void)
{
	enum { N = 12 << 20 };
	char *text = malloc(N);
	struct kv_tok_rule rule;
	struct kv_splitter *s;
	struct kv_str piece;
	size_t n = 0;
	enum kv_status rc;

	memset(text, ' ', N);
	if (kv_tok_rule((struct kv_str){ "qwen2", 5 }, &rule, &err) == KV_OK && kv_splitter_new(&rule, &s, &err) == KV_OK) {
		kv_splitter_start(s, text, N);
		while ((rc = kv_splitter_next(s, &piece, &err)) == KV_OK)
			n += piece.n;
		is_int(rc, KV_END, "12 million spaces are split");
		is_int(n, N, "and all are there");
		kv_splitter_free(s);
	}
	free(text);
}

static const struct vocab_token bpe_extra[] = {
	{ "he", 1, 0 }, { "ll", 1, 0 }, { "hell", 1, 0 }, { "hello", 1, 0 },			/* 256 … */
	{ "\u0120w", 1, 0 }, { "\u0120\u0120", 1, 0 }, { "lo", 1, 0 },				/* 260 … */
	{ "<|end|>", 3, 0 }, { "<|endless|>", 3, 0 }, { "<s>", 3, 0 },				/* 263 … */
	{ "   ", 4, 0 }, { "[ab]", 4, 0 }, { "b]c", 4, 0 }, { "<user>", 4, 0 }, { "", 4, 0 },	/* 266 … */
	{ "ell", 1, 0 }, { "<|im_end|>", 3, 0 },
};
static const char *const bpe_merges[] = { "h e", "l l", "he ll", "hell o", "\u0120 w", "\u0120 \u0120", "l o", "h e", "e ll" };

static bool
open_bpe(struct model *m, const char *pre)
{
	struct ggufbuild b;

	gb_begin(&b);
	vocab_bpe(&b, pre, 4, bpe_extra, sizeof bpe_extra / sizeof *bpe_extra, bpe_merges, sizeof bpe_merges / sizeof *bpe_merges);
	return open_model(&b, m);
}

static void
bpe(void)
{
	struct kv_encode_notes notes = { 0 };
	struct model m;
	char buf[200];
	uint32_t id = 0;

	if (!open_bpe(&m, "gpt-2"))
		return;
	encodes(&m, "", &plain, "");
	encodes(&m, "hello", &plain, "259");
	encodes(&m, "helo", &plain, "256 262");
	encodes(&m, "helllo", &plain, "258 262");		/* ll at the left goes first */
	encodes(&m, "ell", &plain, "271");
	encodes(&m, "hello world", &plain, "259 260 111 114 108 100");
	encodes(&m, "a  w", &plain, "97 32 260");		/* the last space belongs to the word */
	encodes(&m, "\u00e9", &plain, "195 169");
	is_str(ids_of(&m, "a\4b\4\4c", 6, &plain, &notes, buf, sizeof buf), "97 98 99", "a byte without a token is dropped");
	is_int(notes.dropped, 3, "and counted");
	is_str(ids_of(&m, "a\4b\4\4c", 6, &plain, &notes, buf, sizeof buf), "97 98 99", "again");
	is_int(notes.dropped, 6, "counted again");
	is_int(notes.bad_utf8, 0, "nothing else is odd");
	ok(kv_token_find(m.t, "hello", &id) && id == 259 && !kv_token_find(m.t, "", &id) && !kv_token_find(m.t, "nope", &id), "by spelling");
	ok(kv_token_bos(m.t) == KV_NO_TOKEN && kv_token_eos(m.t) == KV_NO_TOKEN && !kv_token_wants_bos(m.t), "no BOS, no EOS");
	ok(kv_token_stops(m.t, 263) && kv_token_stops(m.t, 272) && !kv_token_stops(m.t, 264), "tokens that stop are known by their text");
	ok(!kv_tokenizer_note(m.t), "nothing to note");
	close_model(&m);

	if (open_bpe(&m, NULL)) {
		ok(kv_tokenizer_note(m.t), "without a pre-tokeniser: %s", kv_tokenizer_note(m.t));
		close_model(&m);
	}
	if (open_bpe(&m, "llama-bpe")) {
		encodes(&m, "ell", &plain, "271");
		encodes(&m, "<|end|>", &plain, "60 124 101 110 100 124 62");
		ok(m.t->ignore_merges && m.t->add_bos && !kv_token_wants_bos(m.t), "its rules are its own; without a BOS none is added");
		close_model(&m);
	}
}

/* Bytes that are no UTF-8 are as many U+FFFD. */
static void
bad_bytes(void)
{
	static const struct {
		const char *text;
		unsigned bad, first;
		const char *want;
	} rows[] = {
		{ "a\xff" "b", 1, 1, "a?b" }, { "\xe6\x9d", 2, 0, "??" }, { "\xf0\x9f\x98", 3, 0, "???" }, { "x\xc0\x80", 2, 1, "x??" },
		{ "\xed\xa0\x80", 3, 0, "???" }, { "\xf4\x90\x80\x80.", 4, 0, "????." }, { "\xe2\x82\xac\x82", 1, 3, "\u20ac?" },
	};
	struct kv_encode_notes notes = { 0 };
	struct model m;
	char got[200], want[200];

	if (!open_bpe(&m, "gpt-2"))
		return;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kv_buf fixed = { 0 };

		notes = (struct kv_encode_notes){ 0 };
		for (const char *p = rows[i].want; *p; p++)
			kv_buf_printf(&fixed, *p == '?' ? "\ufffd" : "%c", *p);
		ids_of(&m, rows[i].text, strlen(rows[i].text), &plain, &notes, got, sizeof got);
		is_str(got, ids_of(&m, (const char *)fixed.p, fixed.len, &plain, NULL, want, sizeof want), "bad bytes, row %zu", i);
		ok(notes.bad_utf8 == rows[i].bad && notes.first_bad == rows[i].first, "counted");
		kv_buf_free(&fixed);
	}
	/* The mask grows with the text. */
	ids_of(&m, "\xff<s>\xff<s>", 8, &(struct kv_encode){ .owned = (const uint8_t *)"\0\0\0\0\1\1\1\1" }, &notes, got, sizeof got);
	is_str(got, "239 191 189 60 115 62 239 191 189 265", "a mask over bad bytes");
	close_model(&m);
}

static void
special_tokens(void)
{
	static const uint8_t mask[] = { 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1 };
	struct model m;
	char buf[200];

	if (!open_bpe(&m, "gpt-2"))
		return;
	encodes(&m, "<|end|>", &plain, "60 124 101 110 100 124 62");
	encodes(&m, "<|end|>", &special, "263");
	encodes(&m, "a<|end|>b<s><s>", &special, "97 263 98 265 265");
	encodes(&m, "<|endless|>", &special, "264");
	encodes(&m, "<|end|", &special, "60 124 101 110 100 124");
	encodes(&m, "<user>", &plain, "269");
	encodes(&m, "a     w", &plain, "97 266 32 260");	/* three spaces first, then the rest as text */
	encodes(&m, "[ab]c", &plain, "267 99");			/* the longer one, though both begin inside the other */
	encodes(&m, "xb]c", &plain, "120 268");
	encodes(&m, "[ab]c[ab]b]c", &plain, "267 99 267 268");
	is_str(ids_of(&m, "<|end|>a<s>b<", 13, &(struct kv_encode){ .owned = mask }, NULL, buf, sizeof buf), "263 97 60 115 62 98 60",
		"control tokens only where every byte is the template's");
	is_str(ids_of(&m, "<|end|>", 7, &(struct kv_encode){ .owned = (const uint8_t *)"\1\1\1\1\1\1\0" }, NULL, buf, sizeof buf),
		"60 124 101 110 100 124 62", "the last byte counts too");
	is_str(ids_of(&m, "<user>", 6, &(struct kv_encode){ .owned = (const uint8_t *)"\0\0\0\0\0\0" }, NULL, buf, sizeof buf), "269",
		"user-defined ones anywhere");
	close_model(&m);
}

static const struct vocab_token spm_extra[] = {
	{ "\u2581", 1, -1 }, { "H", 1, -2 }, { "e", 1, -3 }, { "l", 1, -4 }, { "o", 1, -5 },			/* 259 … */
	{ "ll", 1, -10 }, { "lo", 1, -9 }, { "He", 1, -11 }, { "\u2581He", 1, -8 }, { "llo", 1, -12 },		/* 264 … */
	{ "\u2581Hello", 1, -13 }, { "<", 1, -20 }, { "/", 1, -21 }, { "s", 1, -22 }, { ">", 1, -23 },		/* 269 … */
	{ "</", 1, -24 }, { "</s", 1, -25 }, { "\u2581\u2581", 1, -7 }, { "<tag>", 4, 0 }, { "\u2581o", 1, -26 },	/* 274 … */
};

static bool
open_spm(struct model *m, bool prefix)
{
	struct ggufbuild b;

	gb_begin(&b);
	vocab_spm(&b, spm_extra, sizeof spm_extra / sizeof *spm_extra);
	if (!prefix)
		gb_bool(&b, "tokenizer.ggml.add_space_prefix", false);
	return open_model(&b, m);
}

static void
spm(void)
{
	struct kv_encode_notes notes = { 0 };
	struct model m;
	char buf[200];

	if (!open_spm(&m, true))
		return;
	ok(m.t->words, "no token goes on past a word");
	encodes(&m, "", &plain, "");
	encodes(&m, "Hello", &plain, "269");
	encodes(&m, "Hell", &plain, "267 264");
	encodes(&m, "ello", &plain, "259 261 268");		/* lo before ll, the better score; then l and lo */
	encodes(&m, "o", &plain, "278");
	encodes(&m, "  o", &plain, "276 278");			/* two marks and a word; the prefix makes three spaces */
	encodes(&m, "oo o", &plain, "278 263 278");
	encodes(&m, "\n\u00e9", &plain, "259 13 198 172");
	encodes(&m, "</s>", &plain, "259 275 273");		/* never the control token */
	encodes(&m, "</s>", &special, "2");
	encodes(&m, "o</s>o", &special, "278 2 278");		/* a prefix again behind a special token */
	encodes(&m, "o<tag>o", &plain, "278 277 278");
	encodes(&m, "o", &(struct kv_encode){ .begins = false }, "263");
	is_str(ids_of(&m, "\xff\xe2", 2, &plain, &notes, buf, sizeof buf), "259 258 229", "bytes that are no UTF-8 are kept");
	ok(!notes.bad_utf8 && !notes.dropped, "nothing is lost");
	ok(kv_token_bos(m.t) == 1 && kv_token_eos(m.t) == 2 && kv_token_wants_bos(m.t) && !kv_token_wants_eos(m.t), "defaults");
	ok(kv_token_stops(m.t, 2), "EOS stops");
	close_model(&m);
	if (open_spm(&m, false)) {
		encodes(&m, "Hello", &plain, "266 268");
		encodes(&m, "o o", &plain, "263 278");
		close_model(&m);
	}
}

static uint32_t
next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	return *state ^= *state << 5;
}

/* Merging as it is defined: the best pair, looked for from the start every time. parts: NUL-terminated. */
struct slow {
	char part[64][40];
	int n;
};

static int
token_index(const struct vocab_token *v, int n, const char *a, const char *b)
{
	char both[80];

	snprintf(both, sizeof both, "%s%s", a, b);
	for (int i = 0; i < n; i++)
		if (!strcmp(v[i].text, both))
			return i;
	return -1;
}

static void
slow_merge(struct slow *s, const struct vocab_token *v, int n, const char (*pair)[2][40], int n_pairs)
{
	for (;;) {
		int at = -1, rank = n_pairs;
		float best = 0;

		for (int i = 0; i + 1 < s->n; i++) {
			if (pair) {
				for (int r = 0; r < rank; r++)
					if (!strcmp(pair[r][0], s->part[i]) && !strcmp(pair[r][1], s->part[i + 1])) {
						rank = r;
						at = i;
					}
			} else {
				int k = token_index(v, n, s->part[i], s->part[i + 1]);

				if (k >= 0 && (at < 0 || v[k].score > best)) {
					best = v[k].score;
					at = i;
				}
			}
		}
		if (at < 0)
			return;
		memmove(s->part[at] + strlen(s->part[at]), s->part[at + 1], strlen(s->part[at + 1]) + 1);
		memmove(s->part[at + 1], s->part[at + 2], (size_t)(s->n - at - 2) * sizeof *s->part);
		s->n--;
	}
}

/* Random vocabularies over three letters, random words: the heap against the definition. */
static void
against_definition(bool is_spm)
{
	enum { EXTRA = 40 };
	static char text[EXTRA][40], line[EXTRA][80], pair[EXTRA][2][40];
	uint32_t state = 99;
	int bad = 0;

	for (int round = 0; round < 60; round++) {
		struct vocab_token v[EXTRA] = { { "a", 1, -1 }, { "b", 1, -1 }, { "c", 1, -1 } };
		const char *merges[EXTRA];
		struct ggufbuild b;
		struct model m = { .t = NULL };
		int n = 3, n_merges = 0;

		while (n < EXTRA) {
			int x = (int)(next_random(&state) % (unsigned)n), y = (int)(next_random(&state) % (unsigned)n);

			if (strlen(v[x].text) + strlen(v[y].text) > 7)
				continue;
			snprintf(pair[n_merges][0], 40, "%s", v[x].text);
			snprintf(pair[n_merges][1], 40, "%s", v[y].text);
			snprintf(line[n_merges], 80, "%s %s", v[x].text, v[y].text);
			if (token_index(v, n, v[x].text, v[y].text) >= 0) {
				if (next_random(&state) % 8)	/* sometimes two ways to one token */
					continue;
			} else {
				snprintf(text[n], 40, "%s%s", v[x].text, v[y].text);
				v[n] = (struct vocab_token){ text[n], 1, (float)(next_random(&state) % 6) };
				n++;
			}
			merges[n_merges] = line[n_merges];
			if (++n_merges == EXTRA)
				break;
		}
		/* Ranks in any order, as no trainer would give them. */
		for (int i = n_merges - 1; i > 0; i--) {
			int k = (int)(next_random(&state) % (unsigned)(i + 1));
			char swap[2][40];
			const char *p = merges[i];

			merges[i] = merges[k];
			merges[k] = p;
			memcpy(swap, pair[i], sizeof swap);
			memcpy(pair[i], pair[k], sizeof swap);
			memcpy(pair[k], swap, sizeof swap);
		}
		gb_begin(&b);
		if (is_spm) {
			vocab_spm(&b, v, (size_t)n);
			gb_bool(&b, "tokenizer.ggml.add_space_prefix", false);
		} else {
			vocab_bpe(&b, "gpt-2", -1, v + 3, (size_t)n - 3, merges, (size_t)n_merges);
		}
		if (vocab_open(&b, &m.file, &m.g, &m.t, &err) != KV_OK) {
			ok(false, "round %d: %s", round, err.text);
			return;
		}
		for (int w = 0; w < 60; w++) {
			struct slow s = { .n = (int)(next_random(&state) % 40) + 1 };
			struct kv_ids ids = { 0 };
			char word[64] = "";

			for (int i = 0; i < s.n; i++) {
				s.part[i][0] = word[i] = (char)('a' + next_random(&state) % 3);
				s.part[i][1] = word[i + 1] = 0;
			}
			slow_merge(&s, v, n, is_spm ? NULL : (const char (*)[2][40])pair, n_merges);
			if (kv_encode(m.t, word, strlen(word), &plain, &ids, NULL, &err) != KV_OK || (int)ids.n != s.n)
				bad++;
			for (int i = 0; i < s.n && (int)ids.n == s.n; i++) {
				struct kv_str got = m.t->text[ids.id[i]];

				bad += got.n != strlen(s.part[i]) || memcmp(got.p, s.part[i], got.n);
			}
			kv_ids_free(&ids);
		}
		close_model(&m);
	}
	is_int(bad, 0, "%s: 3600 random words merge as the definition says", is_spm ? "SPM" : "BPE");
}

static void
detokenising(void)
{
	static const char text[] = "h\u00e9llo \u6771 \U0001f600 <|end|>";
	struct kv_detok d = { .begins = true };
	struct kv_buf out = { 0 };
	struct kv_ids ids = { 0 };
	struct model m;
	int halves = 0;

	if (open_bpe(&m, "gpt-2")) {
		kv_encode(m.t, text, sizeof text - 1, &special, &ids, NULL, &err);
		for (size_t i = 0; i < ids.n; i++) {
			kv_detok_add(m.t, &d, ids.id[i], true, &out);
			halves += out.len && (out.p[out.len - 1] & 0xc0) == 0xc0;
			halves += out.len > 1 && (out.p[out.len - 2] & 0xf0) == 0xf0;
		}
		kv_detok_end(&d, &out);
		ok(out.len == sizeof text - 1 && !memcmp(out.p, text, out.len), "there and back");
		is_int(halves, 0, "never half a character");
		out.len = 0;
		kv_token_bytes(m.t, 263, false, &out);
		kv_token_bytes(m.t, 100000, true, &out);
		is_int(out.len, 0, "a control token is not printed unless asked for, nor one that does not exist");
		kv_token_bytes(m.t, 269, false, &out);
		ok(out.len == 6 && !memcmp(out.p, "<user>", 6), "a user-defined one is");
		d = (struct kv_detok){ 0 };
		out.len = 0;
		kv_detok_add(m.t, &d, 0xf0, true, &out);
		kv_detok_add(m.t, &d, 0x9f, true, &out);
		is_int(out.len, 0, "a beginning is held back");
		kv_detok_add(m.t, &d, 'x', true, &out);
		ok(out.len == 3 && !memcmp(out.p, "\xf0\x9fx", 3), "until it is known to be none");
		kv_detok_add(m.t, &d, 0xe6, true, &out);
		kv_detok_end(&d, &out);
		ok(out.len == 4 && out.p[3] == 0xe6, "the end gives what is left");
		close_model(&m);
	}
	kv_ids_free(&ids);
	if (open_spm(&m, true)) {
		for (int begins = 0; begins < 2; begins++) {
			d = (struct kv_detok){ .begins = begins };
			out.len = 0;
			kv_encode(m.t, " Hello \u00e9", 9, &plain, &ids, NULL, &err);
			for (size_t i = 0; i < ids.n; i++)
				kv_detok_add(m.t, &d, ids.id[i], false, &out);
			kv_detok_end(&d, &out);
			ok(out.len == 9 + !begins && !memcmp(out.p, &"  Hello \u00e9"[begins], out.len), "SPM there and back, %d", begins);
			kv_ids_free(&ids);
		}
		close_model(&m);
	}
	kv_buf_free(&out);
}

/* A million bytes without a break are one piece. */
static void
one_long_piece(void)
{
	enum { N = 1 << 20 };
	char *text = malloc(N);
	struct kv_ids ids = { 0 };
	struct model m;

	if (open_bpe(&m, "gpt-2")) {
		memset(text, 'l', N);
		ok(kv_encode(m.t, text, N, &plain, &ids, NULL, &err) == KV_OK && ids.n == N / 2 && ids.id[N / 2 - 1] == 257, "a million letters");
		ids.n = 0;
		memset(text, '\n', N);
		ok(kv_encode(m.t, text, N, &plain, &ids, NULL, &err) == KV_OK && ids.n == N, "a million newlines");
		close_model(&m);
	}
	kv_ids_free(&ids);
	free(text);
}

int
main(void)
{
	pre_tokenisers();
	long_run();
	bpe();
	bad_bytes();
	special_tokens();
	spm();
	against_definition(false);
	against_definition(true);
	detokenising();
	one_long_piece();
	return done_testing();
}
