/* kv-quant: fewer bits for keys and values, by the axes of KIVI (Liu et al. 2402.02750): keys a channel, values a token at a time. */
#include <stdlib.h>
#include <string.h>

#include "cache/jobs.h"
#include "stage/quantise.h"
#include "util/text.h"

enum { KEY_KIVI = 256, KEY_RESTORE, KEY_DTYPE, KEY_WHAT, KEY_GROUP, KEY_RESIDUAL, KEY_SINKS, KEY_REPORT };

static const struct kv_opt modes[] = {
	{ "kivi", KEY_KIVI, "2|4|8", "codes of so many bits, with a scale and a minimum for each group" },
	{ "restore", KEY_RESTORE, NULL, "codes back to plain numbers; what they lost stays lost" },
	{ "dtype", KEY_DTYPE, "TYPE", "plain rows as f16, bf16 or f32" },
	{ 0 },
};

static const struct kv_opt options[] = {
	{ "what", KEY_WHAT, "kv|k|v", "keys, values, or both (kv)" },
	{ "group", KEY_GROUP, "G", "entries of a key channel, or channels of a value, that share a scale (32)" },
	{ "residual", KEY_RESIDUAL, "R", "keys are coded in blocks of R entries, values but for the newest R (128)" },
	{ "sinks", KEY_SINKS, "N", "the first N entries stay as they are (0)" },
	{ "report", KEY_REPORT, NULL, "print the error of every layer on standard error" },
	{ 0 },
};

static enum kv_status
start(void **cfg, struct kv_err *err)
{
	struct quantise *q = kv_array_new(1, sizeof *q);

	if (!q)
		return kv_fail_mem(err, "options");
	*q = (struct quantise){ .what = KV_LOAD_K | KV_LOAD_V, .group = 32, .residual = 128 };
	*cfg = q;
	return KV_OK;
}

static enum kv_status
set_mode(struct quantise *q, enum quantise_mode mode, struct kv_err *err)
{
	if (q->mode && q->mode != mode)
		return kv_fail(err, KV_EUSAGE, "--kivi, --restore and --dtype: one at a time");
	q->mode = mode;
	return KV_OK;
}

static enum kv_status
set_bits(struct quantise *q, const char *arg, struct kv_err *err)
{
	int64_t bits = 0;
	enum kv_status rc = kv_parse_int("--kivi", arg, 2, 8, &bits, err);

	if (rc == KV_OK && bits != 2 && bits != 4 && bits != 8)
		rc = kv_fail(err, KV_EUSAGE, "--kivi: codes have 2, 4 or 8 bits");
	q->bits = (unsigned)bits;
	return rc == KV_OK ? set_mode(q, QUANTISE_KIVI, err) : rc;
}

static enum kv_status
set_dtype(struct quantise *q, const char *arg, struct kv_err *err)
{
	static const enum kvs_dtype all[] = { KVS_F32, KVS_F16, KVS_BF16 };
	char text[60];

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(arg, kvs_dtype_name(all[i]))) {
			q->dtype = all[i];
			return set_mode(q, QUANTISE_DTYPE, err);
		}
	return kv_fail(err, KV_EUSAGE, "--dtype: '%s' is none of f16, bf16, f32", kv_quote(text, sizeof text, arg, strlen(arg)));
}

static enum kv_status
set_what(struct quantise *q, const char *arg, struct kv_err *err)
{
	char text[60];

	q->what = !strcmp(arg, "k") ? KV_LOAD_K : !strcmp(arg, "v") ? KV_LOAD_V : !strcmp(arg, "kv") ? KV_LOAD_K | KV_LOAD_V : 0;
	if (!q->what)
		return kv_fail(err, KV_EUSAGE, "--what: '%s' is none of kv, k, v", kv_quote(text, sizeof text, arg, strlen(arg)));
	return KV_OK;
}

static enum kv_status
option(void *cfg, int key, const char *arg, struct kv_err *err)
{
	struct quantise *q = cfg;

	q->kivi_only |= key == KEY_GROUP || key == KEY_RESIDUAL || key == KEY_SINKS;
	switch (key) {
	case KEY_KIVI:
		return set_bits(q, arg, err);
	case KEY_RESTORE:
		return set_mode(q, QUANTISE_RESTORE, err);
	case KEY_DTYPE:
		return set_dtype(q, arg, err);
	case KEY_WHAT:
		return set_what(q, arg, err);
	case KEY_GROUP:
		return kv_parse_int("--group", arg, 1, 1 << 20, &q->group, err);
	case KEY_RESIDUAL:
		return kv_parse_int("--residual", arg, 0, 1 << 30, &q->residual, err);
	case KEY_SINKS:
		return kv_parse_int("--sinks", arg, 0, UINT32_MAX, &q->sinks, err);
	case KEY_REPORT:
		q->report = true;
		return KV_OK;
	}
	return kv_fail(err, KV_EUSAGE, "an option that kv-quant does not know");
}

static enum kv_status
ready(void *cfg, struct kv_err *err)
{
	const struct quantise *q = cfg;

	if (!q->mode)
		return kv_fail(err, KV_EUSAGE, "nothing to do: give --kivi BITS, --restore or --dtype TYPE");
	if (q->mode != QUANTISE_KIVI && q->kivi_only)
		return kv_fail(err, KV_EUSAGE, "--group, --residual and --sinks go with --kivi alone");
	if (q->mode == QUANTISE_RESTORE && q->report)
		return kv_fail(err, KV_EUSAGE, "--report has nothing to compare with after --restore");
	if (q->residual % q->group)
		return kv_fail(err, KV_EUSAGE, "--group %lld does not divide --residual %lld", (long long)q->group, (long long)q->residual);
	return KV_OK;
}

static size_t
n_items(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv * 2;
}

static enum kv_status
choose(void *arg, size_t item, struct kv_err *err)
{
	struct quantise_scene *s = arg;

	return quantise_takes(s, item) ? kv_quantise_choose(s, item, err) : KV_OK;
}

static enum kv_status
apply(void *arg, size_t item, struct kv_err *err)
{
	struct quantise_scene *s = arg;

	return quantise_takes(s, item) ? kv_quantise_apply(s, item, err) : KV_OK;
}

/*
 * Everything in codes already, and nothing left for them? Not if text was read since, too little of it to fill a block: of a cache that is
 * coded again and again while it grows some turns have nothing to do.
 */
static enum kv_status
check_left(const struct quantise_scene *s, struct kv_err *err)
{
	size_t first = n_items(s->cache);
	bool came = s->cache->state.tail > 0;

	for (size_t i = n_items(s->cache); i-- > 0;) {
		if (s->plan[i].to > s->plan[i].from)
			return KV_OK;
		if (s->plan[i].coded)
			first = i;
		came = came && !s->plan[i].of_round;
	}
	return first < n_items(s->cache) && !came && s->how->mode == QUANTISE_KIVI ? kv_quantise_refuse(s, first, err) : KV_OK;
}

static void
set_layers(struct kv_cache *c, const struct quantise *q)
{
	for (unsigned l = 0; l < c->geom.n_layers && q->mode == QUANTISE_DTYPE; l++) {
		if (q->what & KV_LOAD_K)
			c->geom.layer[l].k_dtype = (uint8_t)q->dtype;
		if (q->what & KV_LOAD_V)
			c->geom.layer[l].v_dtype = (uint8_t)q->dtype;
	}
}

static enum kv_status
work(struct quantise_scene *s, struct kv_pool *pool, struct kv_err *err)
{
	struct kv_cache *c = s->cache;
	struct kv_turns *turns = NULL;
	enum kv_status rc;

	if ((rc = kv_cache_load(c, s->how->what, pool, err)) != KV_OK)
		return rc;
	if (s->how->report && s->how->what & KV_LOAD_K && (rc = kv_turns_new(c, &turns, err)) != KV_OK)
		return rc;
	s->turns = turns;
	if ((rc = kv_jobs_run(pool, n_items(c), choose, s, err)) == KV_OK && (rc = check_left(s, err)) == KV_OK &&
	    (rc = kv_jobs_run(pool, n_items(c), apply, s, err)) == KV_OK)
		set_layers(c, s->how);
	kv_turns_free(turns);
	return rc;
}

static enum kv_status
run(const void *cfg, struct kv_cache *c, struct kv_pool *pool, struct kv_notes *notes, struct kv_err *err)
{
	struct quantise_scene s = { .how = cfg, .cache = c, .plan = kv_array_new(n_items(c), sizeof *s.plan) };
	enum kv_status rc;

	if (!s.plan)
		return kv_fail_mem(err, "codes");
	if ((rc = work(&s, pool, err)) == KV_OK) {
		for (size_t i = 0; i < n_items(c); i++)
			c->edited |= s.plan[i].to > s.plan[i].from;
		kv_quantise_tell(&s, notes);
	}
	free(s.plan);
	return rc;
}

const struct kv_stage kv_stage_quant = {
	.usage = {
		.tool = "kv-quant",
		.synopsis = "--kivi BITS | --restore | --dtype TYPE [options] [SNAP]",
		.summary = "Stores the keys and values of a KV cache in fewer bits (KIVI), or in another type.",
		.tables = { modes, options },
		.titles = { "Modes", "Options" },
		.footer = "  kv-prefill book.txt | kv-evict --snapkv -k 1024 | kv-quant --kivi 4 -o book.kvs\n"
			"  kv-quant --kivi 2 --sinks 4 --report s.kvs | kv-decode -p \"Why?\"\n",
	},
	.start = start,
	.option = option,
	.ready = ready,
	.run = run,
	.free = free,
};
