/* Reading a text in rounds. */
#include "loop/rounds.h"

#include <stdio.h>
#include <string.h>

#include "kvs/digest.h"
#include "loop/checkpoint.h"
#include "loop/job.h"
#include "loop/twin.h"
#include "util/le.h"
#include "util/progress.h"

enum { STRETCH = 1 << 16 };	/* tokens passed over at a time */

/* A job under way. */
struct reading {
	struct kv_session *s;
	struct kv_cache *c;
	struct kv_cache *twin;		/* NULL: none */
	const struct kv_rounds *r;
	struct kv_pool *pool;
	struct kv_source *src;
	struct kv_feed feed;		/* what the pipelines need is observed, too; its tick is told as progress in the text */
	uint64_t done;			/* tokens */
	uint64_t round;
	bool warned;

	/* With a checkpoint alone. */
	json_t *job;
	struct kvs_digest *read;	/* of the ids so far */
	double saved;			/* when it was saved last */
};

static void
tick(void *arg, uint64_t done, uint64_t of)
{
	const struct reading *job = arg;
	uint64_t total = kv_source_total(job->src);

	(void)of;
	if (total > job->r->most)
		total = job->r->most;
	if (job->r->feed.tick)
		job->r->feed.tick(job->r->feed.arg, job->done + done, total);
}

/* A refill of a few tokens is paid for with a whole probe and a whole pipeline. */
static void
warn_of_small_room(struct reading *job, size_t room)
{
	char text[160];

	if (job->warned || room >= job->r->fill / 8)
		return;
	job->warned = true;
	snprintf(text, sizeof text, "--fill %u has room for %zu tokens in round %llu: a smaller -k reads faster", job->r->fill, room,
		(unsigned long long)job->round);
	kv_say(&job->r->say, 0, text);
}

/* Most tokens of the round to come. */
static enum kv_status
room(const struct reading *job, size_t *out, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;
	uint32_t n = kv_cache_longest(job->c);
	uint64_t taken = n + (uint64_t)r->n_probe;

	if (r->fill && taken >= r->fill)
		return kv_fail(err, KV_EFIT, "the cache holds %u entries; with a probe of %zu tokens --fill %u leaves no room to read on: make "
			"-k smaller", n, r->n_probe, r->fill);
	*out = r->fill ? (size_t)(r->fill - taken) : r->chunk ? r->chunk : SIZE_MAX;
	return KV_OK;
}

/* The next `want` tokens, or as many as the text and --take have left; they are read when they are passed over. */
static enum kv_status
peek(struct reading *job, size_t want, const uint32_t **ids, size_t *n, struct kv_err *err)
{
	uint64_t left = job->r->most - job->done;

	return kv_source_peek(job->src, want < left ? want : (size_t)left, ids, n, err);
}

/* With fill the pipeline waits until the cache is full and there is more to come, or less room than was reserved. */
static bool
has_turn(const struct reading *job, bool more)
{
	const struct kv_rounds *r = job->r;

	return !r->fill || more || (uint64_t)kv_cache_longest(job->c) + r->reserve > r->fill;
}

static enum kv_status
probe(struct reading *job, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;
	enum kv_status rc = kv_probe(job->s->engine, job->twin ? job->twin : job->c, r->probe, r->n_probe, r->probe_all, err);

	return rc == KV_OK ? rc : kv_err_in(err, "--probe");
}

/* What is known of the round, for policies. */
static void
note_round(const struct reading *job, struct kv_cache *c, size_t waiting)
{
	const struct kv_rounds *r = job->r;

	c->has_round = true;
	c->round = (struct kvs_obsr){
		.round = job->round, .waiting = waiting < r->fill ? (uint32_t)waiting : r->fill, .fill = r->fill, .probe = (uint32_t)r->n_probe,
		.reserve = r->reserve,
	};
}

/* The new tokens, in both caches. */
static enum kv_status
read_text(struct reading *job, const uint32_t *ids, size_t m, struct kv_err *err)
{
	enum kv_status rc = kv_feed_ids(job->s, job->c, ids, m, &job->feed, err);

	return rc == KV_OK && job->twin ? kv_twin_follow(job->twin, job->c, (uint32_t)m, err) : rc;
}

static enum kv_status
run_pipeline(struct reading *job, struct kv_each *each, struct kv_cache *c, bool turn, struct kv_err *err)
{
	enum kv_status rc = turn && each ? kv_each_run(each, c, job->round, job->pool, &job->r->say, err) : KV_OK;

	return rc == KV_OK ? kv_cache_forget(c, job->r->history, err) : rc;
}

/* One round with m new tokens, `left` behind them. */
static enum kv_status
read_round(struct reading *job, const uint32_t *ids, size_t m, size_t left, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;
	struct kv_cache *both[] = { job->c, job->twin };
	unsigned n = job->twin ? 2 : 1;
	enum kv_status rc;
	bool turn;

	for (unsigned i = 0; i < n; i++)
		kv_cache_begin_round(both[i]);
	if (r->n_probe && !r->probe_all && (rc = probe(job, err)) != KV_OK)
		return rc;
	if ((rc = read_text(job, ids, m, err)) != KV_OK)
		return rc;
	for (unsigned i = 0; i < n; i++) {
		kv_cache_end_round(both[i], (uint32_t)m);
		note_round(job, both[i], left);
	}
	turn = has_turn(job, left > 0);
	if (turn && r->n_probe && r->probe_all && (rc = probe(job, err)) != KV_OK)
		return rc;
	if ((rc = run_pipeline(job, r->each, job->c, turn, err)) != KV_OK)
		return rc;
	return job->twin ? run_pipeline(job, r->twin_each, job->twin, turn, err) : KV_OK;
}

static void
add_ids(struct kvs_digest *d, const uint32_t *ids, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t word[4];

		le32_put(word, ids[i]);
		kvs_digest_add(d, word, sizeof word);
	}
}

/* Passes over the tokens that were read already; they must be the same. */
static enum kv_status
pass_over(struct reading *job, const struct kv_place *at, struct kv_err *err)
{
	uint8_t digest[16];
	const uint32_t *ids;
	enum kv_status rc;
	size_t n;

	for (; job->done < at->tokens; job->done += n) {
		if ((rc = peek(job, at->tokens - job->done < STRETCH ? (size_t)(at->tokens - job->done) : STRETCH, &ids, &n, err)) != KV_OK)
			return rc;
		if (!n)
			return kv_fail(err, KV_EFIT, "the text has become shorter: %llu tokens of it were read", (unsigned long long)at->tokens);
		add_ids(job->read, ids, n);
		kv_source_skip(job->src, n);
	}
	kvs_digest_get(job->read, digest);
	return memcmp(digest, at->digest, sizeof digest) ? kv_fail(err, KV_EFIT, "the text is another one than was read") : KV_OK;
}

/* The state that an earlier process of this job left behind, if there is any. */
static enum kv_status
resume(struct reading *job, struct kv_err *err)
{
	struct kv_cache *c, *twin;
	struct kv_place at;
	enum kv_status rc = kv_checkpoint_load(job->r->checkpoint, job->job, &c, &twin, &at, err);

	if (rc != KV_OK)
		return rc == KV_END ? KV_OK : rc;
	if ((rc = kv_session_fits(job->s, c, true, true, err)) == KV_OK && !twin != !job->twin)
		rc = kv_fail(err, KV_EFIT, "a checkpoint of another job");
	if (rc == KV_OK)
		rc = pass_over(job, &at, err);
	if (rc != KV_OK) {
		kv_cache_free(c);
		kv_cache_free(twin);
		return kv_err_in(err, "--checkpoint");
	}
	kv_cache_swap(job->c, c);
	memcpy(job->c->digest, c->digest, sizeof c->digest);
	if (twin)
		memcpy(twin->digest, c->digest, sizeof c->digest);
	kv_cache_free(c);
	kv_cache_free(job->twin);
	job->twin = twin;
	job->round = at.round;
	return KV_OK;
}

/* Between two rounds. */
static enum kv_status
save(struct reading *job, struct kv_err *err)
{
	struct kv_place at = { job->round, job->done, { 0 } };
	enum kv_status rc;

	if (kv_now() - job->saved < job->r->checkpoint_every)
		return KV_OK;
	kvs_digest_get(job->read, at.digest);
	rc = kv_checkpoint_save(job->r->checkpoint, job->c, job->twin, job->job, &at, err);
	job->saved = kv_now();
	return rc;
}

static enum kv_status
begin(struct reading *job, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;
	enum kv_status rc;

	if (r->fill && r->n_probe >= r->fill)
		return kv_fail(err, KV_EUSAGE, "the probe has %zu tokens, --fill %u leaves no room beside it", r->n_probe, r->fill);
	if (r->each)
		kv_each_observe(r->each, &job->feed.observe);
	if (r->twin_each) {
		kv_each_observe(r->twin_each, &job->feed.observe);
		if ((rc = kv_twin_new(job->c, &job->twin, err)) != KV_OK)
			return rc;
	}
	if (!r->checkpoint)
		return KV_OK;
	job->saved = kv_now();
	if (!(job->read = kvs_digest_new()) || !(job->job = kv_job_describe(r, &job->feed.observe, job->s, job->c)))
		return kv_fail_mem(err, "a checkpoint");
	return resume(job, err);
}

/* The next round, if the text goes on. */
static enum kv_status
next_round(struct reading *job, bool *more, struct kv_err *err)
{
	const uint32_t *ids;
	size_t most = 0, n, m, ahead = job->r->fill ? job->r->fill : 1;
	enum kv_status rc;

	/* Whether more waits is part of the round. */
	if ((rc = peek(job, 1, &ids, &n, err)) != KV_OK || !(*more = n) || (rc = room(job, &most, err)) != KV_OK ||
		(rc = peek(job, most < SIZE_MAX - ahead ? most + ahead : SIZE_MAX, &ids, &n, err)) != KV_OK)
		return rc;
	m = n < most ? n : most;
	if (n > m)
		warn_of_small_room(job, m);
	if ((rc = read_round(job, ids, m, n - m, err)) != KV_OK)
		return rc;
	kv_source_skip(job->src, m);
	job->done += m;
	job->round++;
	if (!job->job || n == m)
		return KV_OK;
	add_ids(job->read, ids, m);
	return save(job, err);
}

enum kv_status
kv_rounds_read(struct kv_session *s, struct kv_cache *c, struct kv_source *src, const struct kv_rounds *r, struct kv_pool *pool,
	struct kv_err *err)
{
	struct reading job = {
		.s = s, .c = c, .r = r, .pool = pool, .src = src, .feed = { r->chunk ? r->chunk : r->feed.batch, r->feed.observe, tick, &job },
		.round = c->has_round ? c->round.round + 1 : 0,
	};
	bool more = true;
	enum kv_status rc = begin(&job, err);

	while (rc == KV_OK && more)
		rc = next_round(&job, &more, err);
	if (rc == KV_OK && !job.done && r->n_probe && c->state.consumed)
		rc = read_round(&job, NULL, 0, 0, err);
	if (job.twin)
		kv_cache_swap(c, job.twin);
	if (rc == KV_OK && r->history == KV_HISTORY_NONE && c->has_nll)
		kv_cache_forget_nll(c);
	kv_cache_free(job.twin);
	kvs_digest_free(job.read);
	json_decref(job.job);
	return rc;
}
