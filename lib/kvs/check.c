/* Order and agreement of frames. Memory: the source indices of every ENTS, 16 bytes an ancillary frame, 8 bytes a list. */
#include "kvs/check.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvs/check_rows.h"
#include "kvs/digest.h"
#include "kvs/payload.h"
#include "kvs/prov.h"
#include "util/le.h"

/* Ranks of critical frames; they come in this order. */
enum rank { NOTHING, GEOM, ROPE, LAYR, TOKS, HIDN, ENTS, DATA, END };

/* An ENTS frame that has been read. */
struct set {
	uint32_t n;
	uint8_t *src;		/* block u32[n] */
};

/* An observation says: the first n entries of this list have sources with this hash. */
struct claim {
	uint64_t hash;
	uint32_t list, n;
	bool whole;		/* and there are no more */
};

struct seen {
	uint32_t type, where, chunk;
	bool used;
};

struct kvs_check {
	struct kvs_geom geom;
	struct kvs_state state;
	enum rank rank;
	uint32_t n_ropes, n_toks;
	uint64_t toks_end;			/* source index after the last id */
	bool toks_short, toks_unread;		/* the last TOKS was not full; some were not decoded */
	struct kv_buf sparse;			/* u32[]: source indices with an id below hist_first */
	size_t n_lists, covered;
	uint32_t *entries, *set_of;		/* [n_lists] */
	struct kv_buf sets, claims;		/* struct set, struct claim */
	struct kvs_check_rows rows;
	struct seen *seen;			/* hash table of [seen_cap] */
	size_t n_seen, seen_cap;
	uint64_t seed;				/* so that nobody can make a file whose tags collide */
};

struct kvs_check *
kvs_check_new(void)
{
	struct kvs_check *c = calloc(1, sizeof *c);
	struct timespec now = { 0 };

	if (c) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		c->seed = (uint64_t)(uintptr_t)c << 16 ^ (uint64_t)now.tv_nsec;
	}
	return c;
}

void
kvs_check_free(struct kvs_check *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->sets.len / sizeof(struct set); i++)
		kv_block_free(((struct set *)(void *)c->sets.p)[i].src);
	kv_buf_free(&c->sets);
	kv_buf_free(&c->claims);
	kv_buf_free(&c->sparse);
	kvs_check_rows_free(&c->rows);
	free(c->entries);
	free(c->set_of);
	free(c->seen);
	free(c);
}

const struct kvs_geom *
kvs_check_geom(const struct kvs_check *c)
{
	return &c->geom;
}

const struct kvs_state *
kvs_check_state(const struct kvs_check *c)
{
	return &c->state;
}

uint32_t
kvs_check_entries(const struct kvs_check *c, unsigned layer, unsigned head)
{
	return c->entries[(size_t)layer * c->geom.n_heads_kv + head];
}

static struct seen *
slot(struct seen *table, size_t cap, uint64_t seed, const struct seen *key)
{
	uint8_t bytes[20];
	size_t i;

	le64_put(bytes, seed);
	le32_put(bytes + 8, key->type);
	le32_put(bytes + 12, key->where);
	le32_put(bytes + 16, key->chunk);
	for (i = (size_t)kvs_hash64(bytes, sizeof bytes) & (cap - 1); table[i].used; i = (i + 1) & (cap - 1))
		if (table[i].type == key->type && table[i].where == key->where && table[i].chunk == key->chunk)
			break;
	return &table[i];
}

/* No (type, tag) twice. Critical frames need no table: their order does not allow it. */
static enum kv_status
note_tag(struct kvs_check *c, const struct kvs_head *h, struct kv_err *err)
{
	struct seen key = { h->type, (uint32_t)h->tag.layer << 16 | h->tag.head, h->tag.chunk, true }, *s;

	if (2 * c->n_seen >= c->seen_cap) {
		size_t cap = c->seen_cap ? 2 * c->seen_cap : 256;
		struct seen *table = calloc(cap, sizeof *table);

		if (!table)
			return kv_fail_mem(err, "the tags of a snapshot");
		for (size_t i = 0; i < c->seen_cap; i++)
			if (c->seen[i].used)
				*slot(table, cap, c->seed, &c->seen[i]) = c->seen[i];
		free(c->seen);
		c->seen = table;
		c->seen_cap = cap;
	}
	s = slot(c->seen, c->seen_cap, c->seed, &key);
	if (s->used)
		return kv_fail(err, KV_ECORRUPT, "a second frame of the same name");
	*s = key;
	c->n_seen++;
	return KV_OK;
}

/* May a critical frame of this rank come now, and is everything before it complete? */
static enum kv_status
enter(struct kvs_check *c, enum rank rank, struct kv_err *err)
{
	if (c->rank == NOTHING && rank != GEOM)
		return kv_fail(err, KV_ECORRUPT, "GEOM is not the first frame");
	if (rank < c->rank || (rank == c->rank && (rank == GEOM || rank == LAYR || rank == HIDN)))
		return kv_fail(err, KV_ECORRUPT, "is out of order");
	if (rank >= LAYR && c->n_ropes != c->geom.n_rope)
		return kv_fail(err, KV_ECORRUPT, "%" PRIu32 " RoPE sets of %" PRIu32, c->n_ropes, c->geom.n_rope);
	if (rank > LAYR && c->rank < LAYR)
		return kv_fail(err, KV_ECORRUPT, "LAYR is missing");
	if (rank > TOKS && c->state.ids && !c->toks_unread && c->toks_end != c->state.consumed)
		return kv_fail(err, KV_ECORRUPT, "ids of tokens up to %" PRIu64 ", %" PRIu64 " were read", c->toks_end, c->state.consumed);
	if (rank > ENTS && c->covered != c->n_lists)
		return kv_fail(err, KV_ECORRUPT, "no entries for layer %zu head %zu", c->covered / c->geom.n_heads_kv,
			c->covered % c->geom.n_heads_kv);
	c->rank = rank;
	return KV_OK;
}

static bool
is_unbound(const struct kvs_tag *t)
{
	return t->layer == KVS_ALL && t->head == KVS_ALL;
}

static enum kv_status
wrong_tag(struct kv_err *err)
{
	return kv_fail(err, KV_ECORRUPT, "its tag does not go with its type");
}

static enum kv_status
check_geom(struct kvs_check *c, const uint8_t *raw, size_t n, struct kv_err *err)
{
	enum kv_status rc = kvs_geom_get(raw, n, &c->geom, &c->state, err);

	if (rc != KV_OK)
		return rc;
	c->toks_end = c->state.hist_first;
	c->n_lists = (size_t)c->geom.n_layers * c->geom.n_heads_kv;	/* at most 2^20 */
	c->entries = kv_array_new(c->n_lists, sizeof *c->entries);
	c->set_of = kv_array_new(c->n_lists, sizeof *c->set_of);
	c->rows.geom = &c->geom;
	c->rows.entries = c->entries;
	return c->entries && c->set_of ? KV_OK : kv_fail_mem(err, "a snapshot");
}

static enum kv_status
check_rope(struct kvs_check *c, const struct kvs_tag *tag, const uint8_t *raw, size_t n, struct kv_err *err)
{
	enum kv_status rc;

	if (tag->chunk != c->n_ropes || tag->chunk >= c->geom.n_rope)
		return kv_fail(err, KV_ECORRUPT, "is out of order");
	if ((rc = kvs_rope_get(raw, n, &c->geom, &c->geom.rope[tag->chunk], err)) == KV_OK)
		c->n_ropes++;
	return rc;
}

static enum kv_status
check_toks(struct kvs_check *c, const struct kvs_tag *tag, const uint8_t *raw, size_t n, struct kv_err *err)
{
	struct kvs_toks t;
	enum kv_status rc;

	if (!c->state.ids)
		return kv_fail(err, KV_ECORRUPT, "token ids, although GEOM says that there are none");
	if (tag->chunk != c->n_toks++ || c->toks_short)
		return kv_fail(err, KV_ECORRUPT, "is out of order");
	if (!raw) {
		c->toks_unread = true;
		return KV_OK;
	}
	if ((rc = kvs_toks_get(raw, n, &c->geom, &c->state, &t, err)) != KV_OK)
		return rc;
	if (t.first != c->toks_end || (tag->chunk && (t.n_sparse || !t.n_dense)))
		return kv_fail(err, KV_ECORRUPT, "ids from token %" PRIu32 " on, expected from %" PRIu64, t.first, c->toks_end);
	c->toks_end += t.n_dense;
	c->toks_short = t.n_dense < KVS_TOKS_DENSE;
	kv_buf_add(&c->sparse, t.src, 4 * (size_t)t.n_sparse);
	return c->sparse.failed ? kv_fail_mem(err, "tokens") : KV_OK;
}

/* Sources below hist_first must each have an id of their own. */
static enum kv_status
check_alive(const struct kvs_check *c, const struct kvs_ents *e, struct kv_err *err)
{
	size_t from = 0, n = c->sparse.len / 4;

	if (!c->state.ids || c->toks_unread)
		return KV_OK;
	for (uint32_t i = 0; i < e->n; i++) {
		uint32_t src = le32_get(e->src + 4 * (size_t)i);
		size_t lo = from, hi = n;

		if (src >= c->state.hist_first)
			break;
		while (lo < hi) {
			size_t mid = lo + (hi - lo) / 2;

			if (le32_get(c->sparse.p + 4 * mid) < src)
				lo = mid + 1;
			else
				hi = mid;
		}
		if (lo == n || le32_get(c->sparse.p + 4 * lo) != src)
			return kv_fail(err, KV_ECORRUPT, "token %" PRIu32 " is alive and has no id", src);
		from = lo + 1;
	}
	return KV_OK;
}

/* The lists that a tag speaks for are [*first, *end). */
static bool
lists_of(const struct kvs_check *c, const struct kvs_tag *t, size_t *first, size_t *end)
{
	size_t heads = c->geom.n_heads_kv;

	if (t->layer == KVS_ALL) {
		*first = 0;
		*end = c->n_lists;
		return t->head == KVS_ALL;
	}
	*first = t->layer * heads + (t->head == KVS_ALL ? 0 : t->head);
	*end = *first + (t->head == KVS_ALL ? heads : 1);
	return t->layer < c->geom.n_layers && (t->head == KVS_ALL || t->head < heads);
}

static enum kv_status
check_ents(struct kvs_check *c, const struct kvs_tag *tag, const uint8_t *raw, size_t n, struct kv_err *err)
{
	uint32_t index = (uint32_t)(c->sets.len / sizeof(struct set));
	struct set set = { 0 };
	struct kvs_ents e;
	size_t first, end;
	enum kv_status rc;

	if (!lists_of(c, tag, &first, &end) || tag->chunk)
		return wrong_tag(err);
	if (first != c->covered)
		return kv_fail(err, KV_ECORRUPT, first < c->covered ? "a second list for the same head" : "no entries for the head before it");
	if ((rc = kvs_ents_get(raw, n, &c->state, &e, err)) != KV_OK || (rc = check_alive(c, &e, err)) != KV_OK)
		return rc;
	set.n = e.n;
	if (!(set.src = kv_block_new(4 * (size_t)e.n, 1)))
		return kv_fail_mem(err, "entries");
	memcpy(set.src, e.src, 4 * (size_t)e.n);
	kv_buf_add(&c->sets, &set, sizeof set);
	if (c->sets.failed) {
		kv_block_free(set.src);
		return kv_fail_mem(err, "entries");
	}
	for (c->covered = end; first < end; first++) {
		c->entries[first] = e.n;
		c->set_of[first] = index;
	}
	return KV_OK;
}

static enum kv_status
check_claim(const struct kvs_check *c, const struct claim *q, struct kv_err *err)
{
	const struct set *set = (const struct set *)(const void *)c->sets.p + c->set_of[q->list];

	if (q->n > set->n || (q->whole && q->n != set->n))
		return kv_fail(err, KV_ECORRUPT, "observations of %" PRIu32 " entries, the list has %" PRIu32, q->n, set->n);
	if (!kvs_hash_is(kvs_hash64(set->src, 4 * (size_t)q->n), q->hash))
		return kv_fail(err, KV_ECORRUPT, "observations of other entries than those in the list");
	return KV_OK;
}

/* At once where the entries are known; else when they are. */
static enum kv_status
claim(struct kvs_check *c, struct claim q, struct kv_err *err)
{
	if (c->n_lists && c->covered == c->n_lists)
		return check_claim(c, &q, err);
	kv_buf_add(&c->claims, &q, sizeof q);
	return c->claims.failed ? kv_fail_mem(err, "observations") : KV_OK;
}

static enum kv_status
check_per_list(struct kvs_check *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	size_t n = (size_t)h->raw_len;
	struct claim q = { .list = h->tag.layer * c->geom.n_heads_kv + h->tag.head };
	struct kvs_obsa a;
	struct kvs_obsp p;
	enum kv_status rc;

	if (h->tag.layer >= c->geom.n_layers || h->tag.head >= c->geom.n_heads_kv)
		return wrong_tag(err);
	if (!raw)
		return KV_OK;
	if (h->type == KVS_OBSA) {
		if ((rc = kvs_obsa_get(raw, n, &c->state, &a, err)) != KV_OK)
			return rc;
		q.n = a.n;
		q.hash = a.src_hash;
		q.whole = true;
	} else {
		if ((rc = kvs_obsp_get(raw, n, &c->geom, &p, err)) != KV_OK)
			return rc;
		if (p.kind != h->tag.chunk)
			return wrong_tag(err);
		q.n = p.n_cols;
		q.hash = p.src_hash;
	}
	return claim(c, q, err);
}

/* Ancillary frames of types that we know; raw may be NULL. */
static enum kv_status
check_known(struct kvs_check *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	size_t n = (size_t)h->raw_len;
	struct kvs_obsq q;
	struct kvs_obsn nll;
	struct kvs_obsr r;

	switch ((enum kvs_type)h->type) {
	case KVS_OBSQ:
		if (h->tag.layer >= c->geom.n_layers || h->tag.head != KVS_ALL || h->tag.chunk)
			return wrong_tag(err);
		return raw ? kvs_obsq_get(raw, n, &c->geom, &c->state, &q, err) : KV_OK;
	case KVS_OBSA:
		if (h->tag.chunk)
			return wrong_tag(err);
		return check_per_list(c, h, raw, err);
	case KVS_OBSP:
		return check_per_list(c, h, raw, err);
	case KVS_PADD:
	case KVS_PROV:
		if (!is_unbound(&h->tag) || (h->type == KVS_PROV && h->tag.chunk >= KVS_MAX_PROV))
			return wrong_tag(err);
		if (h->type == KVS_PROV)
			return raw ? kvs_json_check(raw, n, err) : KV_OK;
		return !raw || kvs_all_zero(raw, n) ? KV_OK : kv_fail(err, KV_ECORRUPT, "padding is not zero");
	default:
		break;
	}
	if (!is_unbound(&h->tag) || h->tag.chunk)
		return wrong_tag(err);
	if (!raw)
		return KV_OK;
	if (h->type == KVS_OBSN)
		return kvs_obsn_get(raw, n, &c->state, &nll, err);
	if (h->type == KVS_OBSR)
		return kvs_obsr_get(raw, n, &r, err);
	return h->type == KVS_INDX ? KV_OK : kvs_json_check(raw, n, err);	/* the reader has compared the index */
}

static enum kv_status
check_ancillary(struct kvs_check *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	enum kv_status rc;

	if (c->rank == NOTHING)
		return kv_fail(err, KV_ECORRUPT, "GEOM is not the first frame");
	if ((rc = note_tag(c, h, err)) != KV_OK)
		return rc;
	if (!kvs_is_known(h->type) || kvs_frame_readable(h, NULL) != KV_OK)
		return KV_OK;
	return check_known(c, h, raw, err);
}

static enum rank
rank_of(uint32_t type)
{
	switch ((enum kvs_type)type) {
	case KVS_GEOM:
		return GEOM;
	case KVS_ROPE:
		return ROPE;
	case KVS_LAYR:
		return LAYR;
	case KVS_TOKS:
		return TOKS;
	case KVS_HIDN:
		return HIDN;
	case KVS_ENTS:
		return ENTS;
	case KVS_CMSK:
	case KVS_CMAP:
	case KVS_QUNT:
	case KVS_KEYS:
	case KVS_VALS:
		return DATA;
	default:
		return NOTHING;
	}
}

static enum kv_status
check_critical(struct kvs_check *c, const struct kvs_head *h, const uint8_t *raw, struct kv_err *err)
{
	enum rank rank = rank_of(h->type);
	size_t n = (size_t)h->raw_len;
	const uint8_t *hidden;
	enum kv_status rc;

	if (rank == NOTHING)
		return kv_fail(err, KV_EUNSUP, "a critical frame of this type is not known to this version");
	if ((rc = enter(c, rank, err)) != KV_OK)
		return rc;
	if (rank < ENTS && (!is_unbound(&h->tag) || (h->tag.chunk && rank != ROPE && rank != TOKS)))
		return wrong_tag(err);
	switch (rank) {
	case GEOM:
		return check_geom(c, raw, n, err);
	case ROPE:
		return check_rope(c, &h->tag, raw, n, err);
	case LAYR:
		return kvs_layers_get(raw, n, &c->geom, err);
	case TOKS:
		return check_toks(c, &h->tag, raw, n, err);
	case HIDN:
		return raw ? kvs_hidn_get(raw, n, &c->geom, &c->state, &hidden, err) : KV_OK;
	case ENTS:
		return check_ents(c, &h->tag, raw, n, err);
	default:
		return kvs_check_rows_frame(&c->rows, h, raw, err);
	}
}

enum kv_status
kvs_check_frame(struct kvs_check *c, const struct kvs_head *h, const uint8_t *raw, size_t n_raw, struct kv_err *err)
{
	struct kv_err unheard;
	char name[64];
	enum kv_status rc;

	assert(!raw || n_raw == h->raw_len || (n_raw >= KVS_ROWS_HEADER && (h->type == KVS_KEYS || h->type == KVS_VALS)));
	assert(raw || !h->raw_len || kvs_is_ancillary(h->type) || h->type == KVS_TOKS || h->type == KVS_HIDN || !kvs_is_known(h->type));
	(void)n_raw;
	if (!err)
		err = &unheard;
	if (!h->raw_len)
		raw = (const uint8_t *)"";	/* an empty payload may come as NULL, and NULL means something else */
	rc = kvs_is_ancillary(h->type) ? check_ancillary(c, h, raw, err) : check_critical(c, h, raw, err);
	if (rc == KV_OK)
		return rc;
	return kv_err_in(err, "frame %" PRIu64 " (%s)", h->seq, kvs_frame_name(name, sizeof name, h));
}

enum kv_status
kvs_check_end(struct kvs_check *c, struct kv_err *err)
{
	const struct claim *q = (const struct claim *)(const void *)c->claims.p;
	enum kv_status rc;

	if ((rc = enter(c, END, err)) != KV_OK)
		return rc;
	for (size_t i = 0; i < c->claims.len / sizeof *q; i++)
		if ((rc = check_claim(c, &q[i], err)) != KV_OK)
			return rc;
	return kvs_check_rows_end(&c->rows, err);
}
