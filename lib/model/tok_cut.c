/*
 * Where a text may be cut so that its parts, each tokenised by itself, give the ids of the whole. For every pre-tokeniser in tok_split.c one of
 * these places is the end of a piece, and no piece before it would have been another one had it known what follows:
 *
 *	x| y	before a space, behind a character that is no white space: pieces begin with a space, none goes on with it
 *	x|-	behind a letter, before what is none: letters end with letters, and no pattern looks back
 *	x\n|y	behind a single line feed between characters that are no white space: it ends a piece, and it is too short to be divided
 *
 * In SPM text, where tokens stay within words, a word ends before the first of its spaces. A special token must not reach across, nor end there:
 * the text behind it would be a beginning.
 */
#include <string.h>

#include "model/tok_int.h"
#include "util/utf8.h"

enum { AHEAD = 4, LONGEST = 256 };

struct place {
	const struct kv_tokenizer *t;
	const uint8_t *text;		/* [n] */
	size_t n;
	bool special;			/* control tokens are looked for */
	size_t longest;			/* of those that are looked for */
	bool begins[256];		/* the first bytes of these */
};

static bool
wanted(const struct place *c, uint32_t id)
{
	return c->special || c->t->type[id] == KV_TOK_USER;
}

static void
prepare(struct place *c)
{
	for (size_t k = 0; k < c->t->n_special; k++) {
		struct kv_str s = c->t->text[c->t->special[k]];

		if (!wanted(c, c->t->special[k]))
			continue;
		c->begins[(uint8_t)s.p[0]] = true;
		if (s.n > c->longest)
			c->longest = s.n;
	}
}

/* Does a token that is looked for stand before p and reach it? */
static bool
is_reached(const struct place *c, size_t p)
{
	for (size_t back = 1; back <= c->longest && back <= p; back++) {
		if (!c->begins[c->text[p - back]])
			continue;
		for (size_t len = back; len <= c->longest; len++) {
			uint32_t id = kv_tok_lookup(c->t, c->text + p - back, len);

			if (id != KV_NO_TOKEN && kv_tok_is_special(c->t, id) && wanted(c, id))
				return true;
		}
	}
	return false;
}

/* The character at p, *len its bytes; 0: none that is well formed (U+0000 passes for that as well). */
static uint32_t
at(const struct place *c, size_t p, size_t *len)
{
	static const uint8_t first[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	uint32_t ch;

	if (!(*len = kv_utf8_len(c->text + p, c->n - p)))
		return 0;
	ch = c->text[p] & first[*len];
	for (size_t i = 1; i < *len; i++)
		ch = ch << 6 | (c->text[p + i] & 0x3f);
	return ch;
}

/* The one that ends before p. */
static uint32_t
before(const struct place *c, size_t p, size_t *len)
{
	for (size_t back = 1; back <= 4 && back <= p; back++) {
		uint32_t ch = at(c, p - back, len);

		if (*len)
			return *len == back ? ch : 0;
	}
	*len = 0;
	return 0;
}

static bool
is_white(uint32_t c)
{
	return (c >= '\t' && c <= '\r') || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
		c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* A few of those for which it is beyond doubt, so that neither side depends on a version of Unicode. */
static bool
is_letter(uint32_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= 0x4e00 && c <= 0x9fa5) || (c >= 0x3041 && c <= 0x3094) ||
		(c >= 0x30a1 && c <= 0x30fa) || (c >= 0xac00 && c <= 0xd7a3);
}

static bool
is_no_letter(uint32_t c)
{
	return (c && c < 0x80 && !is_letter(c)) || c == 0x3001 || c == 0x3002 || c == 0xff0c;
}

static bool
ends_piece(const struct place *c, size_t p)
{
	size_t n_x, n_y, n_w;
	uint32_t x = before(c, p, &n_x), y = at(c, p, &n_y), w;

	if (!x || !y)
		return false;
	if (y == ' ' && !is_white(x))
		return true;
	if (is_letter(x) && is_no_letter(y))
		return true;
	w = x == '\n' && !is_white(y) ? before(c, p - 1, &n_w) : 0;
	return w && !is_white(w);
}

/*
 * SPM takes a character for as long as its first byte says, so that what is broken may swallow up to three bytes that follow: three bytes of
 * whole characters before p, and all are in step again.
 */
static bool
ends_word(const struct place *c, size_t p)
{
	size_t len, from = p;
	uint32_t x = before(c, p, &len);

	if (c->text[p] != ' ' || !x || x == ' ' || x == 0x2581)
		return false;
	while (from && p - from < 3) {
		if (!before(c, from, &len))
			return false;
		from -= len;
	}
	return true;
}

size_t
kv_encode_cut(const struct kv_tokenizer *t, const char *text, size_t n, bool special)
{
	struct place c = { .t = t, .text = (const uint8_t *)text, .n = n, .special = special };
	size_t ahead;

	prepare(&c);
	ahead = c.longest > AHEAD ? c.longest : AHEAD;
	if (n <= ahead || c.longest > LONGEST || (t->spm && !t->words))
		return 0;
	for (size_t p = n - ahead; p; p--)
		if ((t->spm ? ends_word(&c, p) : ends_piece(&c, p)) && !is_reached(&c, p))
			return p;
	return 0;
}
