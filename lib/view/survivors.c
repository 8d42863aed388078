/* The text that was read, with what the cache no longer holds dimmed or elided. */
#include "view/view.h"

#include <stdlib.h>
#include <string.h>

#include "util/utf8.h"

/* How many of the lists asked for hold a token: none, less than half, at least half of them. */
enum fate { DROPPED, FEW, MANY, N_FATES };

struct survivors {
	const struct kv_cache *c;
	uint32_t *held;			/* [known] lists that hold the token */
	size_t known;			/* tokens with an id, single ones first */
	uint32_t lists;
	uint64_t total[N_FATES];
};

/* Text under way: a character may come in pieces, from several tokens. */
struct reel {
	struct kv_print *p;
	struct kv_buf part;
	uint64_t elided;		/* tokens left out since the last character */
	bool shades;			/* tokens differ in how many lists hold them */
	enum fate now;			/* what the terminal is set to */
	uint8_t last;			/* byte printed */
};

static uint32_t
source_of(const struct kv_track *t, size_t i)
{
	return i < t->n_sparse ? t->src[i] : (uint32_t)(t->first + (i - t->n_sparse));
}

/* Rank of a source index among the tokens with an id, or `known`. */
static size_t
find(const struct survivors *s, uint32_t src)
{
	const struct kv_track *t = &s->c->tokens;
	size_t lo = 0, hi = t->n_sparse;

	if (src >= t->first)
		return src - t->first < t->n ? (size_t)t->n_sparse + (src - t->first) : s->known;
	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (t->src[mid] < src)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < t->n_sparse && t->src[lo] == src ? lo : s->known;
}

static void
count_list(struct survivors *s, const struct kv_list *list)
{
	s->lists++;
	for (uint32_t i = 0; i < list->n; i++) {
		size_t at = find(s, list->src[i]);

		if (at < s->known)
			s->held[at]++;
	}
}

static enum fate
fate_of(const struct survivors *s, size_t i)
{
	return !s->held[i] ? DROPPED : (uint64_t)s->held[i] * 2 < s->lists ? FEW : MANY;
}

static enum kv_status
count(struct survivors *s, const struct kv_which *which, struct kv_err *err)
{
	const struct kvs_geom *g = &s->c->geom;

	if (which->layer >= (int64_t)g->n_layers || which->head >= (int64_t)g->n_heads_kv)
		return kv_fail(err, KV_EFIT, "there are %u layers and %u KV heads, counted from 0", g->n_layers, g->n_heads_kv);
	if (!s->c->state.ids && s->c->state.consumed)
		return kv_fail(err, KV_EFIT, "no token ids in the snapshot");
	s->known = (size_t)s->c->tokens.n_sparse + s->c->tokens.n;
	if (!(s->held = kv_array_new(s->known, sizeof *s->held)))
		return kv_fail_mem(err, "counts of tokens");
	for (unsigned l = 0; l < g->n_layers; l++)
		for (unsigned h = 0; h < g->n_heads_kv; h++)
			if ((which->layer < 0 || which->layer == l) && (which->head < 0 || which->head == h))
				count_list(s, kv_cache_list(s->c, l, h));
	for (size_t i = 0; i < s->known; i++)
		s->total[fate_of(s, i)]++;
	return KV_OK;
}

static void
set_fate(struct reel *r, enum fate fate)
{
	if (fate == MANY && !r->shades)
		fate = FEW;
	if (!r->p->colour || fate == r->now)
		return;
	kv_buf_printf(&r->p->buf, "\033[0m%s", fate == DROPPED ? "\033[2m" : fate == MANY ? "\033[1m" : "");
	r->now = fate;
}

/* One character, or a byte that is none. Lines and tabs stay what they are. */
static void
put(struct reel *r, const uint8_t *c, size_t len)
{
	r->last = *c;
	if (*c == '\n' || *c == '\t' || *c == '\\')
		kv_buf_add(&r->p->buf, c, 1);
	else
		kv_print_field(r->p, c, len);
}

/* Prints the characters that are whole; with all, also what is left of one. */
static void
roll(struct reel *r, bool all)
{
	size_t i = 0, stop = r->part.len - (all ? 0 : kv_utf8_partial(r->part.p, r->part.len));

	while (i < stop) {
		size_t len = kv_utf8_len(r->part.p + i, stop - i);

		put(r, r->part.p + i, len ? len : 1);
		i += len ? len : 1;
	}
	if (i)
		memmove(r->part.p, r->part.p + i, r->part.len - i);
	r->part.len -= i;
}

static void
elide(struct reel *r, uint64_t n)
{
	roll(r, true);
	r->elided += n;
}

static void
mark_gap(struct reel *r)
{
	if (!r->elided)
		return;
	set_fate(r, DROPPED);
	kv_buf_printf(&r->p->buf, "[…%llu…]", (unsigned long long)r->elided);
	r->last = ']';
	r->elided = 0;
}

static enum kv_status
print_text(const struct survivors *s, const struct kv_tokenizer *tok, struct reel *r, struct kv_err *err)
{
	const struct kv_track *t = &s->c->tokens;
	uint32_t due = 0;	/* the source index that would come next, had nothing been forgotten */
	enum kv_status rc = KV_OK;

	for (size_t i = 0; i < s->known && rc == KV_OK; i++) {
		uint32_t src = source_of(t, i), id = i < t->n_sparse ? t->sparse[i] : t->v[i - t->n_sparse];
		enum fate fate = fate_of(s, i);

		if (src > due)
			elide(r, src - due);
		due = src + 1;
		if (fate == DROPPED && !r->p->colour) {
			elide(r, 1);
			continue;
		}
		mark_gap(r);
		set_fate(r, fate);
		if (src == 0 && id == kv_token_bos(tok))
			continue;	/* no part of the text */
		kv_token_bytes(tok, id, true, &r->part);
		if (r->part.failed)
			return kv_fail_mem(err, "text");
		roll(r, false);
		rc = kv_print_flush(r->p, false, err);
	}
	roll(r, true);
	mark_gap(r);
	set_fate(r, FEW);
	if (r->last && r->last != '\n')
		kv_buf_add(&r->p->buf, "\n", 1);
	return rc;
}

enum kv_status
kv_survivors(const struct kv_cache *c, const struct kv_tokenizer *tok, const struct kv_which *which, struct kv_print *p,
	struct kv_survival *out, struct kv_err *err)
{
	struct survivors s = { .c = c };
	struct reel r = { .p = p, .now = FEW };
	enum kv_status rc;

	if ((rc = count(&s, which, err)) == KV_OK) {
		r.shades = s.total[FEW] > 0;
		rc = print_text(&s, tok, &r, err);
	}
	if (rc == KV_OK && (rc = kv_print_flush(p, false, err)) == KV_OK)
		*out = (struct kv_survival){ s.lists, s.known, s.total[DROPPED], s.total[FEW], s.total[MANY] };
	free(s.held);
	kv_buf_free(&r.part);
	return rc;
}
