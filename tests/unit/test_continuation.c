/*
 * Reading on behind keys and values that were pruned, put into codes, or both: a text at once, in batches, and token by token, at every level of
 * the processor, against a plain cache in f32 that holds what those rows stand for, read on at the generic level. Surprisals must agree to 1e-4
 * nats, the last hidden state to 1e-5 of its size; where products are made in bf16, to 0.4 nats and 4 %.
 */
#include "model/forward.h"

#include <math.h>
#include <stdlib.h>

#include "tap.h"
#include "cache/segments.h"
#include "kernel/quant.h"
#include "levels.h"
#include "loop/feed.h"
#include "model/sample.h"
#include "policy/rows.h"
#include "small_cache.h"
#include "synth.h"

enum { READ = 90, MORE = 40, ALL = READ + MORE };

static struct kv_err err;

static void
must(enum kv_status rc)
{
	if (rc != KV_OK) {
		printf("Bail out! %s\n", err.text);
		exit(1);
	}
}

struct rig {
	struct kv_buf file;
	struct kv_session s;
	uint32_t ids[ALL];
};

static void
rig_open(struct rig *r, const char *arch, const struct kv_ops *ops)
{
	struct kv_gguf *g;
	struct kv_rng rng;
	struct synth s;

	*r = (struct rig){ .s.ops = ops };
	synth_defaults(&s, arch, KV_W_F32, 21);
	if (!synth_make(&s, &r->file))
		abort();
	must(kv_gguf_mem(r->file.p, r->file.len, &g, &err));
	must(kv_model_from(g, KVS_F32, &r->s.model, &err));
	must(kv_engine_new(r->s.model, ops, NULL, &r->s.engine, &err));
	kv_rng_seed(&rng, 3);
	for (size_t i = 0; i < ALL; i++)
		r->ids[i] = (uint32_t)(kv_rng_next(&rng) * r->s.model->geom.n_vocab);
}

static void
rig_close(struct rig *r)
{
	kv_session_close(&r->s);
	kv_buf_free(&r->file);
}

/* Rows of full width in the place of those in segments; what was turned is turned back. */
static void
flatten_rows(struct kv_cache *c, const struct kv_turns *turns, unsigned layer, struct kv_list *l, struct kv_rows *rows)
{
	float *x = calloc((size_t)l->n * rows->width, sizeof *x);

	for (uint32_t i = 0; i < l->n; i++) {
		float *row = x + (size_t)i * rows->width;

		kv_rows_get(rows, i, row);
		if (rows == &l->k && kv_rows_rotated(rows, i))
			kv_turn_back(c, turns, layer, l->pos[i], row);
	}
	must(kv_rows_put_narrow(rows, l->n, 0, l->n, NULL, false, x, &err));
	free(x);
}

/* The same cache in plain f32. */
static struct kv_cache *
dense(const struct kv_cache *mixed)
{
	struct kv_cache *c = small_copy(mixed);
	struct kv_turns *turns;

	must(kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, &err));
	must(kv_turns_new(c, &turns, &err));
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		for (unsigned h = 0; h < c->geom.n_heads_kv; h++) {
			struct kv_list *list = kv_cache_list(c, l, h);

			flatten_rows(c, turns, l, list, &list->k);
			flatten_rows(c, turns, l, list, &list->v);
			if (!kv_rows_plain(&list->k) || !kv_rows_plain(&list->v))
				abort();
		}
	kv_turns_free(turns);
	return c;
}

struct outcome {
	float nll[MORE];
	float hidden[256];
	size_t n;			/* of hidden */
};

/* The text behind a copy of the cache, `batch` tokens at a time; a copy of its own does not change what others read. */
static struct outcome
read_on(struct rig *r, const struct kv_cache *from, size_t batch)
{
	struct kv_feed feed = { .batch = batch, .observe = { .last = 8, .nll = true } };
	struct kv_cache *c = small_copy(from);
	struct outcome out = { .n = c->geom.n_embd };

	must(kv_feed_ids(&r->s, c, r->ids + READ, MORE, &feed, &err));
	for (uint32_t i = 0; i < MORE; i++)
		if (!kv_cache_nll(c, READ + i, &out.nll[i]))
			out.nll[i] = NAN;
	memcpy(out.hidden, c->hidden, out.n * sizeof *out.hidden);
	kv_cache_free(c);
	return out;
}

static double
nll_apart(const struct outcome *a, const struct outcome *b)
{
	double worst = 0;

	for (size_t i = 0; i < MORE; i++) {
		double d = fabs((double)a->nll[i] - (double)b->nll[i]);

		worst = d <= worst ? worst : d;		/* NaN stays */
	}
	return worst;
}

static double
hidden_apart(const struct outcome *a, const struct outcome *b)
{
	double off = 0, size = 0;

	for (size_t i = 0; i < a->n; i++) {
		off += pow((double)a->hidden[i] - (double)b->hidden[i], 2);
		size += pow((double)b->hidden[i], 2);
	}
	return sqrt(off / size);
}

/* What is done to a cache of READ tokens. */
struct state {
	const char *evict, *prune, *quant;
	bool baked;			/* some keys become so */
};

static const struct state states[] = {
	{ .prune = "--think 0.4 --recent 9", .baked = true },
	{ .prune = "--think 0.4 --recent 9 --pairs" },
	{ .prune = "--think 0.5 --recent 0 --rebuild --sinks 4" },
	{ .prune = "--think 0.4 --recent 9 --what v" },
	{ .quant = "--kivi 4 --group 8 --residual 32" },
	{ .quant = "--kivi 2 --group 8 --residual 16 --sinks 3" },
	{ .prune = "--think 0.4 --recent 9", .quant = "--kivi 4 --group 8 --residual 16", .baked = true },
	{ .prune = "--think 0.6 --recent 20 --pairs", .quant = "--kivi 2 --group 8 --residual 8 --what k" },
	{ .evict = "--adakv -k 50 --last 8", .prune = "--think 0.4 --recent 5", .quant = "--kivi 8 --group 4 --residual 4 --what k", .baked = true },
};

static struct kv_cache *
in_state(struct rig *r, const struct state *s)
{
	struct kv_feed feed = { .observe.last = 32 };
	struct kv_cache *c;

	must(kv_cache_new(&r->s.model->geom, &c, &err));
	must(kv_feed_ids(&r->s, c, r->ids, READ, &feed, &err));
	if (s->evict)
		must(small_run(&kv_stage_evict, s->evict, c, 1, NULL, &err));
	if (s->prune)
		must(small_run(&kv_stage_prune, s->prune, c, 1, NULL, &err));
	if (s->quant)
		must(small_run(&kv_stage_quant, s->quant, c, 1, NULL, &err));
	return c;
}

static bool
any_baked(const struct kv_cache *c)
{
	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv; i++)
		for (uint32_t r = 0; r < c->list[i].n; r++)
			if (kv_rows_rotated(&c->list[i].k, r))
				return true;
	return false;
}

static void
test_state(const char *arch, const struct state *s)
{
	static const size_t batches[] = { MORE, 7, 1 };
	const struct kv_ops *ops[KV_N_LEVELS];
	size_t levels = levels_here(ops);
	struct kv_cache *mixed, *plain;
	struct outcome want, full;
	struct rig r;

	rig_open(&r, arch, &kv_ops_generic);
	mixed = in_state(&r, s);
	plain = dense(mixed);
	is_int(any_baked(mixed), s->baked, "%s: %s %s %s", arch, s->evict ? s->evict : "", s->prune ? s->prune : "", s->quant ? s->quant : "");
	want = read_on(&r, plain, MORE);
	kv_cache_free(plain);
	plain = in_state(&r, &(struct state){ 0 });
	full = read_on(&r, plain, MORE);
	kv_cache_free(plain);
	ok(nll_apart(&want, &full) > 0.01, "what was lost shows: %.3f nats", nll_apart(&want, &full));
	rig_close(&r);
	for (size_t i = 0; i < levels; i++) {
		bool narrow = !strcmp(ops[i]->level, "amx");	/* multiplies in bf16 */
		bool integers = !strcmp(ops[i]->level, "avx512");	/* has scores of a batch from integers of sixteen bits */

		rig_open(&r, arch, ops[i]);
		for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
			struct outcome got = read_on(&r, mixed, batches[b]);
			double nll = nll_apart(&got, &want), hidden = hidden_apart(&got, &want);
			double most = narrow ? 0.04 : integers && batches[b] > 1 ? 4e-4 : 1e-5;

			ok(nll < 10 * most && hidden < most, "%s: %zu at a time: surprisal %.1e, hidden state %.1e",
				ops[i]->level, batches[b], nll, hidden);
		}
		rig_close(&r);
	}
	kv_cache_free(mixed);
}

int
main(void)
{
	for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
		test_state("llama", &states[i]);
		test_state("qwen3", &states[i]);
	}
	return done_testing();
}
