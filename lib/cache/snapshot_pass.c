/*
 * A snapshot whose positions move, passed on while it is read. Positions stand before all rows (formats/kvs.md, section 6), so rows and what
 * was observed of them need not be held: what comes after the entries goes on in the order in which it came.
 */
#include <inttypes.h>
#include <string.h>

#include "cache/parts.h"
#include "cache/snapshot_parts.h"
#include "kvs/payload.h"
#include "util/le.h"

/* Lists share few ENTS frames and get copies of their own: where these would be large, the rows are read first, as a proof that they are meant. */
#define MOST_ENTRIES ((uint64_t)1 << 25)

struct passing {
	const struct kv_pass *pass;
	uint64_t max_raw;		/* of the snapshot that is read */
	struct kv_reading rd;
	struct kv_writing wr;
	bool begun, holds;		/* the head is written; there are too many entries for that */
	int32_t by;			/* the next position has moved */
};

/* Critical, and behind the entries. */
static bool
is_data(uint32_t type)
{
	switch ((enum kvs_type)type) {
	case KVS_GEOM:
	case KVS_ROPE:
	case KVS_LAYR:
	case KVS_TOKS:
	case KVS_HIDN:
	case KVS_ENTS:
		return false;
	default:
		return !kvs_is_ancillary(type);
	}
}

static enum kv_status
move(struct passing *p, struct kv_err *err)
{
	struct kv_cache *c = p->rd.cache;
	int32_t was = c->state.next_pos;
	enum kv_status rc;

	if ((rc = kv_reading_give_entries(&p->rd, err)) != KV_OK || (rc = p->pass->move(p->pass->arg, c, err)) != KV_OK)
		return rc;
	p->by = c->state.next_pos - was;
	p->wr.cache = c;
	return KV_OK;
}

/* At the first frame of data, of this layer. */
static enum kv_status
begin(struct passing *p, unsigned layer, struct kv_err *err)
{
	enum kv_status rc;

	p->holds = kv_cache_entries(p->rd.cache) > MOST_ENTRIES;
	if (p->holds)
		return KV_OK;
	if ((rc = move(p, err)) != KV_OK || (rc = kv_writing_head(&p->wr, p->max_raw, err)) != KV_OK)
		return rc;
	for (unsigned l = 0; l <= layer; l++)	/* those of later layers are still to come */
		if ((rc = kv_writing_observations(&p->wr, l, err)) != KV_OK)
			return rc;
	p->begun = true;
	return KV_OK;
}

static bool
has_moved(const struct kv_reading *rd, const struct kvs_tag *tag)
{
	const struct kv_list *l = kv_cache_list(rd->cache, tag->layer, tag->head);
	const uint8_t *pos = rd->ents[rd->ents_of[l - rd->cache->list]].bytes + 4 * (size_t)l->n;

	for (uint32_t i = 0; i < l->n; i++)
		if ((int32_t)le32_get(pos + 4 * (size_t)i) != l->pos[i])
			return true;
	return false;
}

static enum kv_status
pass_rows(struct passing *p, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	struct kvs_rows r;
	enum kv_status rc;

	if ((rc = kvs_rows_head_get(raw, (size_t)f->head.raw_len, &p->rd.cache->geom, f->head.type == KVS_VALS, &r, err)) != KV_OK)
		return rc;
	if (r.rotated && has_moved(&p->rd, &f->head.tag))
		return kv_fail_baked(&p->rd.cache->geom, f->head.tag.layer, f->head.tag.head, p->rd.mask[r.mask - 1], err);
	return kvs_writer_forward(p->wr.w, f, err);
}

/* They stand for the queries to come, at a fixed distance before the next token. */
static enum kv_status
pass_queries(struct passing *p, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	struct kv_queries *q = &p->rd.cache->queries[f->head.tag.layer];
	enum kv_status rc;

	if ((rc = kv_reading_take(&p->rd, f, raw, err)) != KV_OK)
		return rc;
	for (uint32_t i = 0; i < q->w; i++)
		if (__builtin_add_overflow(q->pos[i], p->by, &q->pos[i]))
			return kv_fail(err, KV_EFIT, "layer %u: recorded queries would stand before position -2147483648", (unsigned)f->head.tag.layer);
	rc = kv_writing_queries(&p->wr, f->head.tag.layer, err);
	kv_queries_free(q);
	return rc;
}

static enum kv_status
pass_frame(struct passing *p, const struct kvs_frame *f, const uint8_t *raw, struct kv_err *err)
{
	enum kv_status rc;

	if (is_data(f->head.type) && !p->begun && !p->holds && (rc = begin(p, f->head.tag.layer, err)) != KV_OK)
		return rc;
	if (!p->begun)
		return kv_reading_take(&p->rd, f, raw, err);
	switch ((enum kvs_type)f->head.type) {
	case KVS_KEYS:
	case KVS_VALS:
		return pass_rows(p, f, raw, err);
	case KVS_CMSK:
		if ((rc = kv_reading_take(&p->rd, f, raw, err)) != KV_OK)
			return rc;
		return kvs_writer_forward(p->wr.w, f, err);
	case KVS_OBSQ:
		return pass_queries(p, f, raw, err);
	case KVS_OBSA:
	case KVS_OBSP:
		return kvs_writer_forward(p->wr.w, f, err);
	default:
		return is_data(f->head.type) ? kvs_writer_forward(p->wr.w, f, err) : kv_reading_take(&p->rd, f, raw, err);
	}
}

static enum kv_status
finish(struct passing *p, const struct kvs_reader *r, struct kv_err *err)
{
	struct kv_cache *c = p->rd.cache;
	enum kv_status rc;

	if ((rc = kvs_check_end(p->rd.check, err)) != KV_OK)
		return rc;
	if (!p->begun && ((rc = kv_reading_settle_rows(&p->rd, err)) != KV_OK || (rc = move(p, err)) != KV_OK))
		return rc;
	memcpy(c->digest, kvs_reader_digest(r), sizeof c->digest);
	if ((rc = p->pass->done(p->pass->arg, c, err)) != KV_OK)
		return rc;
	return p->begun ? kv_writing_tail(&p->wr, err) : kv_cache_write(c, p->wr.w, err);
}

enum kv_status
kv_cache_pass(struct kvs_reader *r, const struct kv_pass *pass, struct kvs_writer *w, struct kv_err *err)
{
	struct passing p = { .pass = pass, .max_raw = kvs_reader_prologue(r)->max_raw, .wr = { .w = w } };
	struct kvs_frame f;
	struct kv_err unheard;
	const uint8_t *raw;
	enum kv_status rc;
	size_t n;

	if (!err)
		err = &unheard;
	if ((rc = kv_reading_new(&p.rd, err)) != KV_OK)
		return rc;
	while ((rc = kvs_reader_next(r, &f, err)) == KV_OK) {
		if ((rc = kv_reading_check(&p.rd, &f, &raw, &n, err)) == KV_OK)
			rc = pass_frame(&p, &f, raw, err);
		if (rc != KV_OK && rc != KV_END)
			goto out;
	}
	if (rc == KV_END)
		rc = finish(&p, r, err);
out:
	kv_writing_free(&p.wr);
	kv_reading_free(&p.rd);
	return rc;
}
