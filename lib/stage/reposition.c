/* kv-reposition: moves entries in position space. Keys are kept before RoPE, so positions are all that changes. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cache/segments.h"
#include "stage/stage.h"
#include "stage/tsv.h"
#include "util/text.h"

enum { KEY_COMPACT = 256, KEY_ALIGN, KEY_SHIFT, KEY_ORIGINAL, KEY_GAPS, KEY_MAP, KEY_NEXT };

static const struct kv_opt options[] = {
	{ "compact", KEY_COMPACT, NULL, "0, 1, 2 … in order; the next token behind the longest list" },
	{ "align", KEY_ALIGN, "start|end", "where shorter lists stand after --compact (start)" },
	{ "shift", KEY_SHIFT, "D", "all entries and the next token by D" },
	{ "original", KEY_ORIGINAL, NULL, "back to where they were read; the next token behind all that was read" },
	{ "gaps", KEY_GAPS, NULL, "original positions with long gaps made short (log-log, as in TOVA)" },
	{ "map", KEY_MAP, "FILE", "TSV layer head slot position; entries not named stay" },
	{ "next", KEY_NEXT, "P", "where the next token stands; after --gaps and --map else behind the largest position" },
	{ 0 },
};

struct reposition {
	int mode;			/* one of the keys; 0 = none yet */
	bool align_given, align_end;
	int64_t shift, next;		/* next < 0: as the mode has it */
	char *map_path;
	struct kv_tsv *map;
};

/* New positions, to be checked before anything is changed. */
struct moves {
	int64_t **pos;			/* [list] an array [n] */
	int64_t next;
};

static enum kv_status
start(void **cfg, struct kv_err *err)
{
	struct reposition *r = kv_array_new(1, sizeof *r);

	if (!r)
		return kv_fail_mem(err, "options");
	r->next = -1;
	*cfg = r;
	return KV_OK;
}

static void
reposition_free(void *cfg)
{
	struct reposition *r = cfg;

	if (!r)
		return;
	free(r->map_path);
	kv_tsv_free(r->map);
	free(r);
}

static const char *
mode_name(int key)
{
	const struct kv_opt *o = options;

	while (o->key && o->key != key)
		o++;
	return o->name;
}

static enum kv_status
set_mode(struct reposition *r, int key, struct kv_err *err)
{
	if (r->mode && r->mode != key)
		return kv_fail(err, KV_EUSAGE, "--%s and --%s: one mode at a time", mode_name(r->mode), mode_name(key));
	r->mode = key;
	return KV_OK;
}

static enum kv_status
set_align(struct reposition *r, const char *arg, struct kv_err *err)
{
	char q[60];

	r->align_end = !strcmp(arg, "end");
	r->align_given = true;
	if (!r->align_end && strcmp(arg, "start"))
		return kv_fail(err, KV_EUSAGE, "--align: '%s' is neither start nor end", kv_quote(q, sizeof q, arg, strlen(arg)));
	return KV_OK;
}

static enum kv_status
option(void *cfg, int key, const char *arg, struct kv_err *err)
{
	struct reposition *r = cfg;
	enum kv_status rc;

	if (key == KEY_ALIGN)
		return set_align(r, arg, err);
	if (key == KEY_NEXT)
		return kv_parse_int("--next", arg, 0, INT32_MAX, &r->next, err);
	if ((rc = set_mode(r, key, err)) != KV_OK)
		return rc;
	if (key == KEY_SHIFT)
		return kv_parse_int("--shift", arg, -INT64_C(2147483647), INT32_MAX, &r->shift, err);
	if (key != KEY_MAP)
		return KV_OK;
	free(r->map_path);
	return (r->map_path = strdup(arg)) ? KV_OK : kv_fail_mem(err, "options");
}

static enum kv_status
ready(void *cfg, struct kv_err *err)
{
	struct reposition *r = cfg;

	if (!r->mode)
		return kv_fail(err, KV_EUSAGE, "no mode: give --compact, --shift D, --original, --gaps or --map FILE");
	if (r->align_given && r->mode != KEY_COMPACT)
		return kv_fail(err, KV_EUSAGE, "--align goes with --compact alone");
	return r->mode == KEY_MAP ? kv_tsv_read(r->map_path, "position", KV_TSV_INT, &r->map, err) : KV_OK;
}

static size_t
n_lists(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv;
}

static void
moves_free(struct moves *m, const struct kv_cache *c)
{
	for (size_t i = 0; m->pos && i < n_lists(c); i++)
		free(m->pos[i]);
	free(m->pos);
}

/*
 * Oren et al. 2401.06104, position compression as the authors' code has it: gaps above 10 grow with the log of the log. (The paper's
 * formula, without + e, is neither monotone nor whole.) Gaps of the original positions, so that doing it twice is doing it once.
 */
static int64_t
squeeze(int64_t gap)
{
	return gap <= 10 ? gap : (int64_t)ceil(10 + log(log((double)(gap - 10) + exp(1))));
}

static void
move_list(const struct reposition *r, const struct kv_list *l, uint32_t longest, int64_t *pos)
{
	int64_t at = 0, before = 0;

	for (uint32_t i = 0; i < l->n; i++)
		switch (r->mode) {
		case KEY_COMPACT:
			pos[i] = (r->align_end ? longest - l->n : 0) + (int64_t)i;
			break;
		case KEY_SHIFT:
			pos[i] = l->pos[i] + r->shift;
			break;
		case KEY_ORIGINAL:
			pos[i] = l->src[i];
			break;
		case KEY_GAPS:
			at += squeeze(l->src[i] - before);
			before = l->src[i];
			pos[i] = at;
			break;
		default:
			pos[i] = l->pos[i];
		}
}

static void
take_position(void *arg, size_t list, uint32_t slot, double value)
{
	struct moves *m = arg;

	/* Far outside of what is legal is as illegal as a little. */
	m->pos[list][slot] = (int64_t)fmax(-1e15, fmin(1e15, value));
}

static int64_t
next_position(const struct reposition *r, const struct kv_cache *c, const struct moves *m)
{
	int64_t largest = -1;

	if (r->next >= 0)
		return r->next;
	if (r->mode == KEY_COMPACT)
		return kv_cache_longest(c);
	if (r->mode == KEY_SHIFT)
		return c->state.next_pos + r->shift;
	if (r->mode == KEY_ORIGINAL)
		return (int64_t)c->state.consumed;
	for (size_t i = 0; i < n_lists(c); i++)
		for (uint32_t e = 0; e < c->list[i].n; e++)
			if (m->pos[i][e] > largest)
				largest = m->pos[i][e];
	return largest + 1;
}

static enum kv_status
plan_moves(const struct reposition *r, const struct kv_cache *c, struct moves *m, struct kv_err *err)
{
	uint32_t longest = kv_cache_longest(c);
	enum kv_status rc;

	if (!(m->pos = kv_array_new(n_lists(c), sizeof *m->pos)))
		return kv_fail_mem(err, "positions");
	for (size_t i = 0; i < n_lists(c); i++) {
		if (!(m->pos[i] = kv_array_new(c->list[i].n, sizeof **m->pos)))
			return kv_fail_mem(err, "positions");
		move_list(r, &c->list[i], longest, m->pos[i]);
	}
	if (r->map && (rc = kv_tsv_visit(r->map, c, take_position, m, err)) != KV_OK)
		return rc;
	m->next = next_position(r, c, m);
	return KV_OK;
}

static enum kv_status
check_list(const struct kv_cache *c, const struct moves *m, size_t list, struct kv_err *err)
{
	size_t layer = list / c->geom.n_heads_kv, head = list % c->geom.n_heads_kv;
	const int64_t *pos = m->pos[list];

	for (uint32_t i = 0; i < c->list[list].n; i++) {
		if (pos[i] < 0)
			return kv_fail(err, KV_EFIT, "layer %zu head %zu: entry %u would stand at %" PRId64 ", before position 0",
				layer, head, i, pos[i]);
		if (i && pos[i] <= pos[i - 1])
			return kv_fail(err, KV_EFIT, "layer %zu head %zu: entry %u would stand at %" PRId64 ", not behind the one before it at %" PRId64,
				layer, head, i, pos[i], pos[i - 1]);
		if (pos[i] >= m->next)
			return kv_fail(err, KV_EFIT, "layer %zu head %zu: entry %u would stand at %" PRId64 ", not before the next token at %" PRId64,
				layer, head, i, pos[i], m->next);
	}
	return KV_OK;
}

/* Keys that were turned stand where they stand. */
static enum kv_status
check_baked(const struct kv_cache *c, const struct moves *m, size_t list, struct kv_err *err)
{
	const struct kv_list *l = &c->list[list];
	unsigned layer = (unsigned)(list / c->geom.n_heads_kv), head = (unsigned)(list % c->geom.n_heads_kv);

	for (size_t k = 0; k < l->k.n_seg; k++) {
		const struct kv_segment *s = &l->k.seg[k];

		for (uint32_t i = s->first; s->rotated && i < s->first + s->n; i++)
			if (m->pos[list][i] != l->pos[i])
				return kv_fail_baked(&c->geom, layer, head, s->mask, err);
	}
	return KV_OK;
}

static enum kv_status
check_moves(const struct kv_cache *c, const struct moves *m, struct kv_err *err)
{
	int64_t by = m->next - c->state.next_pos;
	enum kv_status rc;

	if (m->next < 0 || m->next > INT32_MAX)
		return kv_fail(err, KV_EFIT, "the next token would stand at %" PRId64 ", outside of 0 to 2147483647", m->next);
	for (size_t i = 0; i < n_lists(c); i++)
		if ((rc = check_list(c, m, i, err)) != KV_OK || (rc = check_baked(c, m, i, err)) != KV_OK)
			return rc;
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		if (c->queries[l].w && c->queries[l].pos[0] + by < INT32_MIN)
			return kv_fail(err, KV_EFIT, "layer %u: recorded queries would stand before position -2147483648", l);
	return KV_OK;
}

static uint64_t
apply(struct kv_cache *c, const struct moves *m)
{
	int32_t by = (int32_t)(m->next - c->state.next_pos);
	uint64_t moved = 0;

	for (size_t i = 0; i < n_lists(c); i++)
		for (uint32_t e = 0; e < c->list[i].n; e++) {
			moved += c->list[i].pos[e] != m->pos[i][e];
			c->list[i].pos[e] = (int32_t)m->pos[i][e];
		}
	/* They stand for the queries to come, at a fixed distance before the next token. */
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		for (uint32_t w = 0; w < c->queries[l].w; w++)
			c->queries[l].pos[w] += by;
	c->state.next_pos += by;
	if (moved || by)
		c->edited = true;
	return moved;
}

static enum kv_status
run(const void *cfg, struct kv_cache *c, struct kv_pool *pool, struct kv_notes *notes, struct kv_err *err)
{
	struct moves m = { 0 };
	int32_t was = c->state.next_pos;
	uint64_t moved;
	enum kv_status rc;

	(void)pool;
	if ((rc = plan_moves(cfg, c, &m, err)) != KV_OK)
		goto out;
	if ((rc = check_moves(c, &m, err)) != KV_OK)
		goto out;
	moved = apply(c, &m);
	kv_buf_printf(&notes->report, "moved %" PRIu64 " of %" PRIu64 " entries; the next token stands at %d, was %d\n",
		moved, kv_cache_entries(c), c->state.next_pos, was);
out:
	moves_free(&m, c);
	return rc;
}

const struct kv_stage kv_stage_reposition = {
	.usage = {
		.tool = "kv-reposition",
		.synopsis = "MODE [options] [SNAP]",
		.summary = "Moves the entries of a KV cache to other positions; keys and values are not touched.",
		.tables = { options },
		.titles = { "Modes" },
		.footer = "  kv-evict --streaming -k 2004 s.kvs | kv-reposition --compact > short.kvs\n",
	},
	.moves_only = true,
	.start = start,
	.option = option,
	.ready = ready,
	.run = run,
	.free = reposition_free,
};
