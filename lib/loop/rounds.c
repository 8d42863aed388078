/* Reading a text in rounds. */
#include "loop/rounds.h"

#include <stdio.h>

/* A job under way. */
struct reading {
	struct kv_session *s;
	struct kv_cache *c;
	const struct kv_rounds *r;
	struct kv_pool *pool;
	struct kv_feed feed;		/* what the pipeline needs is observed, too; its tick is … */
	uint64_t done, total;		/* … told as progress in the text */
	uint64_t round;
	bool warned;
};

static void
tick(void *arg, uint64_t done, uint64_t of)
{
	const struct reading *job = arg;

	(void)of;
	if (job->r->feed.tick)
		job->r->feed.tick(job->r->feed.arg, job->done + done, job->total);
}

/* A refill of a few tokens is paid for with a whole probe and a whole pipeline. */
static void
warn_of_small_room(struct reading *job, size_t room, size_t left)
{
	char text[160];

	if (job->warned || room >= left || room >= job->r->fill / 8)
		return;
	job->warned = true;
	snprintf(text, sizeof text, "--fill %u has room for %zu tokens in round %llu: a smaller -k reads faster", job->r->fill, room,
		(unsigned long long)job->round);
	kv_say(&job->r->say, 0, text);
}

/* Tokens of the round to come, of `left`. */
static enum kv_status
room(struct reading *job, size_t left, size_t *out, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;
	size_t most = left;

	if (r->fill) {
		uint32_t n = kv_cache_longest(job->c);
		uint64_t taken = n + (uint64_t)r->n_probe;

		if (taken >= r->fill)
			return kv_fail(err, KV_EFIT, "the cache holds %u entries; with a probe of %zu tokens --fill %u leaves no room to read on: make "
				"-k smaller", n, r->n_probe, r->fill);
		most = (size_t)(r->fill - taken);
		warn_of_small_room(job, most, left);
	} else if (r->chunk) {
		most = r->chunk;
	}
	*out = most < left ? most : left;
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
	enum kv_status rc = kv_probe(job->s->engine, job->c, r->probe, r->n_probe, r->probe_all, err);

	return rc == KV_OK ? rc : kv_err_in(err, "--probe");
}

/* What is known of the round, for policies. */
static void
note_round(struct reading *job, size_t waiting)
{
	const struct kv_rounds *r = job->r;

	job->c->has_round = true;
	job->c->round = (struct kvs_obsr){
		.round = job->round, .waiting = waiting < r->fill ? (uint32_t)waiting : r->fill, .fill = r->fill, .probe = (uint32_t)r->n_probe,
		.reserve = r->reserve,
	};
}

/* One round with m new tokens, `left` behind them. */
static enum kv_status
read_round(struct reading *job, const uint32_t *ids, size_t m, size_t left, struct kv_err *err)
{
	const struct kv_rounds *r = job->r;
	struct kv_cache *c = job->c;
	enum kv_status rc;
	bool turn;

	kv_cache_begin_round(c);
	if (r->n_probe && !r->probe_all && (rc = probe(job, err)) != KV_OK)
		return rc;
	if ((rc = kv_feed_ids(job->s, c, ids, m, &job->feed, err)) != KV_OK)
		return rc;
	kv_cache_end_round(c, (uint32_t)m);
	note_round(job, left);
	turn = has_turn(job, left > 0);
	if (turn && r->n_probe && r->probe_all && (rc = probe(job, err)) != KV_OK)
		return rc;
	if (turn && r->each && (rc = kv_each_run(r->each, c, job->round, job->pool, &r->say, err)) != KV_OK)
		return rc;
	return kv_cache_forget(c, r->history, err);
}

enum kv_status
kv_rounds_read(struct kv_session *s, struct kv_cache *c, const uint32_t *ids, size_t n, const struct kv_rounds *r, struct kv_pool *pool,
	struct kv_err *err)
{
	struct reading job = {
		.s = s, .c = c, .r = r, .pool = pool, .total = n, .feed = { r->chunk ? r->chunk : r->feed.batch, r->feed.observe, tick, &job },
		.round = c->has_round ? c->round.round + 1 : 0,
	};
	enum kv_status rc = KV_OK;
	size_t m = 0;

	if (r->fill && r->n_probe >= r->fill)
		return kv_fail(err, KV_EUSAGE, "the probe has %zu tokens, --fill %u leaves no room beside it", r->n_probe, r->fill);
	if (r->each)
		kv_each_observe(r->each, &job.feed.observe);
	if (!n && r->n_probe && c->state.consumed)
		rc = read_round(&job, ids, 0, 0, err);
	while (rc == KV_OK && job.done < n) {
		if ((rc = room(&job, n - job.done, &m, err)) == KV_OK)
			rc = read_round(&job, ids + job.done, m, n - job.done - m, err);
		job.done += m;
		job.round++;
	}
	if (rc == KV_OK && r->history == KV_HISTORY_NONE && c->has_nll)
		kv_cache_forget_nll(c);
	return rc;
}
