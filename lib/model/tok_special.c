/*
 * Special tokens in a text: the longest first, by number among equals; each where it stands first, then left and right of it.
 * What the model is run on is what lies between them.
 */
#include <stdlib.h>
#include <string.h>

#include "model/tok_int.h"

enum { LONG = 63 };	/* lengths from here on share a bit */

/* One search. starts[c]: bit k set when a token that may be found begins with byte c and has k bytes. */
struct search {
	const struct kv_tokenizer *t;
	const struct kv_encode *how;
	const char *text;
	size_t n;
	uint64_t starts[256];
	size_t longest;
	uint8_t *seen;			/* [vocabulary] is somewhere in the text */
	uint8_t *taken;			/* [n] belongs to a token already found */
	struct kv_tok_hit *hit;
	size_t n_hits, cap;
};

static bool
wanted(const struct search *s, uint32_t id)
{
	return s->t->type[id] == KV_TOK_USER || s->how->special || s->how->owned;
}

/* A control token counts only where every byte of it belongs to the template: text from elsewhere cannot make one. */
static bool
allowed(const struct search *s, size_t at, uint32_t id)
{
	return s->t->type[id] == KV_TOK_USER || !s->how->owned || !memchr(s->how->owned + at, 0, s->t->text[id].n);
}

static bool
prepare(struct search *s)
{
	bool any = false;

	for (size_t k = 0; k < s->t->n_special; k++) {
		uint32_t id = s->t->special[k];
		struct kv_str text = s->t->text[id];

		if (!wanted(s, id) || text.n > s->n)
			continue;
		s->starts[(uint8_t)text.p[0]] |= (uint64_t)1 << (text.n < LONG ? text.n : LONG);
		if (text.n > s->longest)
			s->longest = text.n;
		any = true;
	}
	return any;
}

/* One walk through the text says which tokens are worth a search: of thousands it is a few. */
static bool
look(struct search *s)
{
	bool any = false;

	for (size_t i = 0; i < s->n; i++) {
		uint64_t lens = s->starts[(uint8_t)s->text[i]];

		if (!lens)
			continue;
		for (size_t len = 1; len <= s->longest && len <= s->n - i; len++) {
			uint32_t id;

			if (!(lens >> (len < LONG ? len : LONG) & 1))
				continue;
			id = kv_tok_lookup(s->t, s->text + i, len);
			if (id == KV_NO_TOKEN || !kv_tok_is_special(s->t, id) || !wanted(s, id) || !allowed(s, i, id))
				continue;
			s->seen[id] = 1;
			any = true;
		}
	}
	return any;
}

static bool
add(struct search *s, size_t at, uint32_t id)
{
	if (s->n_hits == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 16;
		struct kv_tok_hit *p = kv_array_resize(s->hit, cap, sizeof *p);

		if (!p)
			return false;
		s->hit = p;
		s->cap = cap;
	}
	s->hit[s->n_hits++] = (struct kv_tok_hit){ at, id };
	memset(s->taken + at, 1, s->t->text[id].n);
	return true;
}

static bool
find_all(struct search *s, uint32_t id)
{
	struct kv_str w = s->t->text[id];
	const char *p = s->text, *end = s->text + s->n - w.n + 1;

	while (p < end && (p = memchr(p, w.p[0], (size_t)(end - p)))) {
		size_t at = (size_t)(p - s->text);

		if (memcmp(p, w.p, w.n) || memchr(s->taken + at, 1, w.n) || !allowed(s, at, id)) {
			p++;
			continue;
		}
		if (!add(s, at, id))
			return false;
		p += w.n;
	}
	return true;
}

static int
by_place(const void *a, const void *b)
{
	const struct kv_tok_hit *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

enum kv_status
kv_tok_specials(const struct kv_tokenizer *t, const char *text, size_t n, const struct kv_encode *how, struct kv_tok_hit **hits,
	size_t *n_hits, struct kv_err *err)
{
	struct search s = { .t = t, .how = how, .text = text, .n = n };
	bool good = true;

	*hits = NULL;
	*n_hits = 0;
	if (!prepare(&s))
		return KV_OK;
	if (!(s.seen = kv_array_new(t->n, 1)))
		good = false;
	else if (look(&s)) {
		good = (s.taken = kv_array_new(n, 1)) != NULL;
		for (size_t k = 0; good && k < t->n_special; k++)
			if (s.seen[t->special[k]])
				good = find_all(&s, t->special[k]);
	}
	free(s.seen);
	free(s.taken);
	if (!good) {
		free(s.hit);
		return kv_fail_mem(err, "the special tokens of a text");
	}
	if (s.n_hits)
		qsort(s.hit, s.n_hits, sizeof *s.hit, by_place);
	*hits = s.hit;
	*n_hits = s.n_hits;
	return KV_OK;
}
