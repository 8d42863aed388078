/* The generation loop. */
#include "loop/generate.h"

#include <stdlib.h>
#include <string.h>

#include "util/mem.h"
#include "util/progress.h"

/* A token whose text may still turn out to be the beginning of a stop text. */
struct waiting {
	uint32_t id;
	double logprob;
	size_t start;			/* of its text in pending */
};

struct run {
	struct kv_session *s;
	struct kv_cache *c;
	const struct kv_generation *g;
	kv_sink *sink;
	void *arg;
	float *logits;			/* [n_vocab] */
	struct kv_candidate *scratch;	/* [n_vocab] */
	struct kv_rng rng;
	uint64_t fed;			/* tokens generated and fed */
	struct kv_detok detok;
	struct kv_buf pending;		/* text not handed out yet */
	struct waiting *wait;		/* [n_wait] */
	size_t n_wait, cap_wait;
	struct kv_alternative *top;		/* [cap_wait][n_top], beside wait */
};

static enum kv_status
start(struct run *r, struct kv_err *err)
{
	uint32_t n = r->c->geom.n_vocab;

	r->logits = kv_block_new(n, sizeof *r->logits);
	r->scratch = kv_block_new(n, sizeof *r->scratch);
	if (!r->logits || !r->scratch)
		return kv_fail_mem(err, "logits");
	kv_rng_seed(&r->rng, r->g->seed);
	r->detok.begins = r->c->state.consumed == 0;
	return KV_OK;
}

static void
finish(struct run *r)
{
	kv_block_free(r->logits);
	kv_block_free(r->scratch);
	kv_buf_free(&r->pending);
	free(r->wait);
	free(r->top);
}

static int
more_likely(const void *a, const void *b)
{
	const struct kv_candidate *x = a, *y = b;

	return x->p > y->p ? -1 : x->p < y->p ? 1 : x->id < y->id ? -1 : x->id > y->id;
}

static void
choose_top(struct run *r, struct kv_alternative *top)
{
	size_t n = r->c->geom.n_vocab;
	double sum = kv_log_sum_exp(r->logits, n);

	for (size_t i = 0; i < n; i++)
		r->scratch[i] = (struct kv_candidate){ (uint32_t)i, r->logits[i] };
	qsort(r->scratch, n, sizeof *r->scratch, more_likely);
	for (size_t i = 0; i < r->g->n_top; i++)
		top[i] = (struct kv_alternative){ r->scratch[i].id, (double)r->scratch[i].p - sum };
}

/* Queues a token with its text. The sampler is done with scratch by now. */
static enum kv_status
enqueue(struct run *r, uint32_t id, struct kv_err *err)
{
	unsigned n_top = r->g->n_top;

	if (r->n_wait == r->cap_wait) {
		size_t cap = r->cap_wait ? 2 * r->cap_wait : 16;
		struct waiting *w = kv_array_resize(r->wait, cap, sizeof *w);
		struct kv_alternative *t;

		if (w)
			r->wait = w;
		if (!w || !(t = kv_array_resize(r->top, cap, (n_top ? n_top : 1) * sizeof *t)))
			return kv_fail_mem(err, "generated tokens");
		r->top = t;
		r->cap_wait = cap;
	}
	r->wait[r->n_wait] = (struct waiting){ .id = id, .start = r->pending.len };
	if (r->g->logprobs)
		r->wait[r->n_wait].logprob = kv_logprob(r->logits, r->c->geom.n_vocab, id);
	if (n_top)
		choose_top(r, r->top + r->n_wait * n_top);
	r->n_wait++;
	kv_detok_add(r->s->tokenizer, &r->detok, id, r->g->special, &r->pending);
	return r->pending.failed ? kv_fail_mem(err, "text") : KV_OK;
}

/* Where a stop text begins in pending, or its length. */
static size_t
find_stop(const struct run *r)
{
	size_t best = r->pending.len;

	for (size_t i = 0; i < r->g->n_stop; i++) {
		size_t n = strlen(r->g->stop[i]);

		for (size_t at = 0; n && at + n <= r->pending.len && at < best; at++)
			if (!memcmp(r->pending.p + at, r->g->stop[i], n))
				best = at;
	}
	return best;
}

/* Bytes of pending that no stop text can reach back to. */
static size_t
safe_length(const struct run *r)
{
	size_t held = 0;

	for (size_t i = 0; i < r->g->n_stop; i++) {
		size_t n = strlen(r->g->stop[i]), most = n && n - 1 < r->pending.len ? n - 1 : r->pending.len;

		for (size_t k = n ? most : 0; k > held; k--)
			if (!memcmp(r->pending.p + r->pending.len - k, r->g->stop[i], k)) {
				held = k;
				break;
			}
	}
	return r->pending.len - held;
}

/* Hands out the tokens whose text ends at or before `end`; with cut also the one that end goes through, shortened. */
static enum kv_status
release(struct run *r, size_t end, bool cut, struct kv_err *err)
{
	size_t i = 0, done = 0;
	enum kv_status rc;

	for (; i < r->n_wait; i++) {
		const struct waiting *w = &r->wait[i];
		size_t stop = i + 1 < r->n_wait ? w[1].start : r->pending.len;
		struct kv_token_out t = { .id = w->id, .logprob = w->logprob, .top = r->top + i * r->g->n_top };

		if (stop > end && (!cut || w->start >= end))
			break;
		stop = stop < end ? stop : end;
		t.text = (const char *)r->pending.p + w->start;
		t.n = stop - w->start;
		if ((rc = r->sink(r->arg, &t, err)) != KV_OK)
			return rc;
		done = stop;
	}
	if (!i)
		return KV_OK;
	r->n_wait -= i;
	memmove(r->wait, r->wait + i, r->n_wait * sizeof *r->wait);
	memmove(r->top, r->top + i * r->g->n_top, r->n_wait * r->g->n_top * sizeof *r->top);
	for (size_t k = 0; k < r->n_wait; k++)
		r->wait[k].start -= done;
	r->pending.len -= done;
	if (r->pending.len)
		memmove(r->pending.p, r->pending.p + done, r->pending.len);
	return KV_OK;
}

static enum kv_status
next_token(struct run *r, uint32_t *id, struct kv_err *err)
{
	enum kv_status rc = kv_logits(r->s->engine, r->c->hidden, r->logits, err);

	if (rc == KV_OK)
		*id = kv_sample(r->logits, r->c->geom.n_vocab, &r->g->sampling, &r->rng, r->scratch);
	return rc;
}

static enum kv_status
feed(struct run *r, uint32_t id, struct kv_err *err)
{
	enum kv_status rc = kv_forward(r->s->engine, r->c, &id, 1, &r->g->observe, err);

	r->fed++;
	if (rc != KV_OK || !r->g->each || r->fed % r->g->every)
		return rc;
	return kv_each_run(r->g->each, r->c, r->fed / r->g->every - 1, r->g->pool, &r->g->say, err);
}

static enum kv_status
loop(struct run *r, struct kv_generated *out, struct kv_err *err)
{
	enum kv_status rc;
	uint32_t id;
	size_t at;

	while (out->n < r->g->max_tokens) {
		if ((rc = next_token(r, &id, err)) != KV_OK)
			return rc;
		if (out->first <= 0)
			out->first = kv_now();
		if (!r->g->ignore_eos && kv_token_stops(r->s->tokenizer, id)) {
			out->finish = KV_FINISH_EOS;
			return r->g->keep ? feed(r, id, err) : KV_OK;
		}
		out->n++;
		if ((rc = enqueue(r, id, err)) != KV_OK)
			return rc;
		at = find_stop(r);
		if (at < r->pending.len) {
			out->finish = KV_FINISH_STOP;
			rc = release(r, at, true, err);
			r->n_wait = r->pending.len = r->detok.n = 0;
			return rc == KV_OK && r->g->keep ? feed(r, id, err) : rc;
		}
		/* While a character is incomplete its tokens wait: the rest of it may be all that is left to hand out. */
		if (!r->detok.n && (rc = release(r, safe_length(r), false, err)) != KV_OK)
			return rc;
		if ((out->n < r->g->max_tokens || r->g->keep) && (rc = feed(r, id, err)) != KV_OK)
			return rc;
	}
	return KV_OK;
}

enum kv_status
kv_generate(struct kv_session *s, struct kv_cache *c, const struct kv_generation *g, kv_sink *sink, void *arg,
	struct kv_generated *out, struct kv_err *err)
{
	struct run r = { .s = s, .c = c, .g = g, .sink = sink, .arg = arg };
	struct kv_generated made = { .finish = KV_FINISH_LENGTH };
	double begin = kv_now();
	enum kv_status rc;

	if (!c->hidden)
		return kv_fail(err, KV_EFIT, c->state.consumed ? "no hidden state in the snapshot to go on from: give a prompt with -p"
			: "the snapshot is empty: give a prompt with -p");
	if ((rc = start(&r, err)) == KV_OK && (rc = loop(&r, &made, err)) == KV_OK) {
		kv_detok_end(&r.detok, &r.pending);
		rc = release(&r, r.pending.len, false, err);
	}
	finish(&r);
	if (rc == KV_OK) {
		made.seconds = kv_now() - begin;
		*out = made;
	}
	return rc;
}
