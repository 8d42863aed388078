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

/* A job under way. */
struct reading {
	struct kv_session *s;
	struct kv_cache *c;
	struct kv_cache *twin;		/* NULL: none */
	const struct kv_rounds *r;
	struct kv_pool *pool;
	struct kv_feed feed;		/* what the pipelines need is observed, too; its tick is … */
	struct kv_source *text;
	uint64_t done, most;		/* … told as progress in the text, of which so much may be read */
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
	uint64_t total = kv_source_total(job->text);

	(void)of;
	if (total)
		total -= kv_source_done(job->text) - job->done;		/* what was passed over before */
	if (job->r->feed.tick)
		job->r->feed.tick(job->r->feed.arg, job->done + done, total < job->most ? total : job->most);
}

/* A refill of a few tokens, while more wait, is paid for with a whole probe and a whole pipeline. */
static void
warn_of_small_room(struct reading *job, size_t room, size_t left)
{
	char text[160];

	if (job->warned || !left || room >= job->r->fill / 8)
		return;
	job->warned = true;
	snprintf(text, sizeof text, "--fill %u has room for %zu tokens in round %llu: a smaller -k reads faster", job->r->fill, room,
		(unsigned long long)job->round);
	kv_say(&job->r->say, 0, text);
}

/* How many tokens the round to come may have. */
static enum kv_status
room(const struct reading *job, uint64_t *out, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;

	*out = job->most - job->done;
	if (r->fill) {
		uint32_t n = kv_cache_longest(job->c);
		uint64_t taken = n + (uint64_t)r->n_probe;

		if (taken >= r->fill)
			return kv_fail(err, KV_EFIT, "the cache holds %u entries; with a probe of %zu tokens --fill %u leaves no room to read on: make "
				"-k smaller", n, r->n_probe, r->fill);
		if (*out > r->fill - taken)
			*out = r->fill - taken;
	} else if (r->chunk && *out > r->chunk) {
		*out = r->chunk;
	}
	return KV_OK;
}

/*
 * The tokens of the round to come, m of them, 0 at the end, and how many wait behind them, as far as anybody asks: that there are any, and with
 * fill whether a whole pot of them.
 */
static enum kv_status
look_ahead(struct reading *job, const uint32_t **ids, size_t *m, size_t *left, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;
	uint64_t may, ahead = r->fill ? r->fill : 1;
	size_t n = 0;
	enum kv_status rc;

	*m = *left = 0;
	if (job->done == job->most || (rc = kv_source_peek(job->text, 1, ids, &n, err)) != KV_OK || !n)
		return job->done == job->most ? KV_OK : rc;
	if ((rc = room(job, &may, err)) != KV_OK)
		return rc;
	if (ahead > job->most - job->done - may)
		ahead = job->most - job->done - may;
	if ((rc = kv_source_peek(job->text, may < SIZE_MAX - ahead ? (size_t)(may + ahead) : SIZE_MAX, ids, &n, err)) != KV_OK)
		return rc;
	*m = n < may ? n : (size_t)may;
	*left = n - *m;
	if (r->fill)
		warn_of_small_room(job, *m, *left);
	return KV_OK;
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

/* Passes over what an earlier process has read; the digest becomes that of its ids. */
static enum kv_status
pass_over(struct reading *job, uint64_t tokens, struct kv_err *err)
{
	enum { AT_ONCE = 1 << 14 };
	const uint32_t *ids;
	enum kv_status rc;
	size_t n = 1;

	for (uint64_t left = tokens; left && n; left -= n) {
		if ((rc = kv_source_peek(job->text, left < AT_ONCE ? (size_t)left : AT_ONCE, &ids, &n, err)) != KV_OK)
			return rc;
		add_ids(job->read, ids, n);
		kv_source_skip(job->text, n);
	}
	if (n && (rc = kv_source_peek(job->text, 1, &ids, &n, err)) != KV_OK)
		return rc;
	if (!n || tokens >= job->most)
		return kv_fail(err, KV_EFIT, "the text has become shorter: %llu tokens of it were read", (unsigned long long)tokens);
	return KV_OK;
}

/* The state that an earlier process of this job left behind, if there is any. */
static enum kv_status
resume(struct reading *job, struct kv_err *err)
{
	struct kv_cache *c, *twin;
	struct kv_place at;
	uint8_t digest[16];
	enum kv_status rc = kv_checkpoint_load(job->r->checkpoint, job->job, &c, &twin, &at, err);

	if (rc != KV_OK)
		return rc == KV_END ? KV_OK : rc;
	if ((rc = kv_session_fits(job->s, c, true, true, err)) == KV_OK && (rc = pass_over(job, at.tokens, err)) == KV_OK) {
		kvs_digest_get(job->read, digest);
		if (memcmp(digest, at.digest, sizeof digest) || !twin != !job->twin)
			rc = kv_fail(err, KV_EFIT, "the text is another one than was read");
	}
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
	job->done = at.tokens;
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

static enum kv_status
read_all(struct reading *job, struct kv_err *err)
{
	const uint32_t *ids;
	size_t m, left;
	enum kv_status rc;

	while ((rc = look_ahead(job, &ids, &m, &left, err)) == KV_OK && m) {
		if ((rc = read_round(job, ids, m, left, err)) != KV_OK)
			return rc;
		kv_source_skip(job->text, m);
		job->done += m;
		job->round++;
		if (!job->job || !left)
			continue;
		add_ids(job->read, ids, m);
		if ((rc = save(job, err)) != KV_OK)
			return rc;
	}
	if (rc == KV_OK && !job->done && job->r->n_probe && job->c->state.consumed)
		rc = read_round(job, NULL, 0, 0, err);
	return rc;
}

enum kv_status
kv_rounds_read(struct kv_session *s, struct kv_cache *c, struct kv_source *text, uint64_t most, const struct kv_rounds *r,
	struct kv_pool *pool, struct kv_err *err)
{
	struct reading job = {
		.s = s, .c = c, .r = r, .pool = pool, .text = text, .most = most, .feed = { r->chunk ? r->chunk : r->feed.batch, r->feed.observe, tick, &job },
		.round = c->has_round ? c->round.round + 1 : 0,
	};
	enum kv_status rc;

	if ((rc = begin(&job, err)) == KV_OK)
		rc = read_all(&job, err);
	if (job.twin)
		kv_cache_swap(c, job.twin);
	if (rc == KV_OK && r->history == KV_HISTORY_NONE && c->has_nll)
		kv_cache_forget_nll(c);
	kv_cache_free(job.twin);
	kvs_digest_free(job.read);
	json_decref(job.job);
	return rc;
}
