/* A text as token ids: read by the stretch, cut, tokenised, handed out. */
#include "loop/source.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { STRETCH = 1 << 14 };	/* bytes read at a time: some thousand tokens, so that a slow pipe is not waited for long */

struct kv_source {
	struct kv_session *session;
	struct kv_prompt_opts opts;
	bool fresh;			/* stands at the beginning of a document */
	struct kv_source_part *part;	/* [n_parts] */
	size_t n_parts, at;		/* part in hand */
	struct kv_in *in;		/* NULL: not opened yet */
	struct kv_buf text;		/* read, not tokenised */
	size_t need;			/* bytes of it before it is looked at again */
	uint64_t offset;		/* of text in the whole */
	struct kv_ids ids;
	size_t next;			/* ids[next..n) wait */
	uint64_t done;
	uint32_t first[2];		/* the first ids of all */
	unsigned n_first;
	struct kv_encode_notes odd;
};

enum kv_status
kv_source_open(struct kv_session *s, const struct kv_prompt_opts *o, const struct kv_cache *c, const struct kv_source_part *part, size_t n,
	struct kv_source **out, struct kv_err *err)
{
	struct kv_source *src = kv_array_new(1, sizeof *src);
	enum kv_status rc = KV_OK;

	assert(!o->chat && !o->show);
	if (!src || !(src->part = kv_array_new(n, sizeof *src->part))) {
		free(src);
		return kv_fail_mem(err, "a text");
	}
	for (size_t i = 0; i < n; i++)
		src->part[i] = part[i];
	src->session = s;
	src->opts = *o;
	src->fresh = !c || !c->state.consumed;
	src->n_parts = n;
	src->need = STRETCH;
	if (!o->tokens)
		rc = kv_session_tokenizer(s, err);
	if (rc != KV_OK) {
		kv_source_close(src);
		return rc;
	}
	*out = src;
	return KV_OK;
}

enum kv_status
kv_source_of(struct kv_ids *ids, struct kv_source **out, struct kv_err *err)
{
	struct kv_source *src = kv_array_new(1, sizeof *src);

	if (!src)
		return kv_fail_mem(err, "a text");
	src->ids = *ids;
	*ids = (struct kv_ids){ 0 };
	*out = src;
	return KV_OK;
}

void
kv_source_close(struct kv_source *src)
{
	if (!src)
		return;
	kv_in_close(src->in);
	free(src->part);
	kv_buf_free(&src->text);
	kv_ids_free(&src->ids);
	free(src);
}

static bool
ended(const struct kv_source *src)
{
	return src->at == src->n_parts;
}

static enum kv_status
open_part(struct kv_source *src, struct kv_err *err)
{
	const struct kv_source_part *p = &src->part[src->at];

	if (src->in)
		return KV_OK;
	return p->bytes ? kv_in_mem("text", p->bytes->p, p->bytes->len, &src->in, err) : kv_in_open(p->path, &src->in, err);
}

/* Until text has what is needed, or all has been read. */
static enum kv_status
read_on(struct kv_source *src, struct kv_err *err)
{
	while (src->text.len < src->need && !ended(src)) {
		size_t want = src->need - src->text.len, got;
		enum kv_status rc;
		uint8_t *p;

		if ((rc = open_part(src, err)) != KV_OK)
			return rc;
		if (!(p = kv_buf_grow(&src->text, want)))
			return kv_fail_mem(err, "a text");
		if ((rc = kv_in_read(src->in, p, want, &got, err)) != KV_OK)
			return rc;
		src->text.len -= want - got;
		if (got < want) {
			kv_in_close(src->in);
			src->in = NULL;
			src->at++;
		}
	}
	return KV_OK;
}

/* How much of the text can be tokenised; 0: the place is not in it yet. */
static size_t
cut(const struct kv_source *src)
{
	size_t n = src->text.len;

	if (ended(src))
		return n;
	if (!src->opts.tokens)
		return kv_encode_cut(src->session->tokenizer, (const char *)src->text.p, n, src->opts.special);
	while (n && !strchr(" \t\n\v\f\r", src->text.p[n - 1]))
		n--;
	return n;
}

static enum kv_status
tokenise(struct kv_source *src, size_t n, struct kv_err *err)
{
	const struct kv_encode how = { .special = src->opts.special, .begins = src->fresh };
	uint64_t bad = src->odd.bad_utf8;
	enum kv_status rc;

	if (src->opts.tokens)
		return kv_prompt_parse_ids(src->text.p, n, src->session->model->geom.n_vocab, &src->ids, err);
	if (n && src->fresh && (rc = kv_prompt_add_bos(src->session, &src->opts, &src->ids, err)) != KV_OK)
		return rc;
	if ((rc = kv_encode(src->session->tokenizer, (const char *)src->text.p, n, &how, &src->ids, &src->odd, err)) != KV_OK)
		return rc;
	src->fresh &= !n;
	if (!bad && src->odd.bad_utf8)
		src->odd.first_bad += src->offset;
	return KV_OK;
}

/* Some more ids, or some more text where there is no place to cut it. */
static enum kv_status
go_on(struct kv_source *src, struct kv_err *err)
{
	size_t n, had = src->ids.n;
	enum kv_status rc;

	if ((rc = read_on(src, err)) != KV_OK)
		return rc;
	if (!(n = cut(src)) && !ended(src)) {
		src->need = 2 * src->text.len;		/* so that all looking is not more than twice the text */
		return KV_OK;
	}
	if ((rc = tokenise(src, n, err)) != KV_OK)
		return rc;
	while (src->n_first < 2 && had < src->ids.n)
		src->first[src->n_first++] = src->ids.id[had++];
	if (n)
		memmove(src->text.p, src->text.p + n, src->text.len - n);
	src->text.len -= n;
	src->offset += n;
	src->need = src->text.len + STRETCH;
	return KV_OK;
}

enum kv_status
kv_source_peek(struct kv_source *src, size_t want, const uint32_t **ids, size_t *n, struct kv_err *err)
{
	enum kv_status rc;

	if (src->next && src->ids.n - src->next < want) {
		memmove(src->ids.id, src->ids.id + src->next, (src->ids.n - src->next) * sizeof *src->ids.id);
		src->ids.n -= src->next;
		src->next = 0;
	}
	while (src->ids.n - src->next < want && (!ended(src) || src->text.len))
		if ((rc = go_on(src, err)) != KV_OK)
			return rc;
	*n = src->ids.n - src->next < want ? src->ids.n - src->next : want;
	*ids = src->ids.id ? src->ids.id + src->next : NULL;
	return KV_OK;
}

void
kv_source_skip(struct kv_source *src, size_t n)
{
	assert(n <= src->ids.n - src->next);
	src->next += n;
	src->done += n;
}

uint64_t
kv_source_done(const struct kv_source *src)
{
	return src->done;
}

uint64_t
kv_source_total(const struct kv_source *src)
{
	return ended(src) && !src->text.len ? src->done + (src->ids.n - src->next) : 0;
}

uint64_t
kv_source_guess(const struct kv_source *src, uint64_t bytes)
{
	uint64_t total = kv_source_total(src), seen = src->done + (src->ids.n - src->next);

	if (total || !src->offset || bytes < src->offset)
		return total;
	return (uint64_t)((double)seen * ((double)bytes / (double)src->offset));
}

void
kv_source_notes(const struct kv_source *src, struct kv_buf *notes)
{
	if (!src->session || src->opts.tokens)
		return;
	kv_prompt_note(src->session, &src->odd, src->first, src->n_first, notes);
}
