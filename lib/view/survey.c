/* One pass over the frames of a snapshot: everything decoded, everything checked, no row kept. */
#include "view/view.h"

#include <stdlib.h>
#include <string.h>

#include "kvs/check.h"
#include "kvs/codec.h"
#include "kvs/digest.h"
#include "kvs/payload.h"
#include "util/json.h"
#include "util/le.h"

enum { INDEX_ENTRY = 32, ENDS_BYTES = KVS_HEADER + 64, PER_THREAD = 2, MOST_BYTES = 1 << 24 };

/* A frame that waits to be looked at; all that wait are unpacked at once, on the pool. */
struct waiting {
	struct kvs_frame f;
	uint8_t *block;			/* the payload, unless it is part of the input */
	uint8_t *unpacked;		/* block [raw_len]; NULL: it came as it is */
	enum kv_status rc;
	struct kv_err err;
};

struct pass {
	struct kv_survey *s;
	struct kvs_check *check;
	struct kvs_digest *observed;
	struct kv_pool *pool;
	struct waiting *queue;		/* [cap] */
	size_t n, cap;
	uint64_t bytes;			/* of those that wait, unpacked */
	const uint8_t *raw;		/* the payload in hand, decoded */
	uint64_t offset;		/* of the frame in hand, from the prologue */
	uint64_t scales;		/* numbers of the QUNT frame that came last, whose type the rows behind it know */
	struct kv_buf index;		/* what an iNDX frame must say by now */
};

const char *
kv_seen_name(enum kv_seen what)
{
	static const char *const names[KV_N_SEEN] = { "last", "acc", "nll", "chunk", "probe" };

	return names[what];
}

static uint64_t
aligned(uint64_t n)
{
	return (n + KVS_ALIGN - 1) / KVS_ALIGN * KVS_ALIGN;
}

static void
unpack(void *arg, size_t item, unsigned thread)
{
	struct waiting *q = (struct waiting *)arg + item;
	const struct kvs_head *h = &q->f.head;

	(void)thread;
	q->rc = KV_OK;
	if (h->codec == KVS_CODEC_RAW || !kvs_is_known(h->type) || kvs_frame_readable(h, NULL) != KV_OK)
		return;
	if (!(q->unpacked = kv_block_new((size_t)h->raw_len, 1)))
		q->rc = kv_fail_mem(&q->err, "a frame");
	else
		q->rc = kvs_decode(&q->f, q->unpacked, &q->err);
}

/*
 * Has one of n 16-bit numbers all the bits of exp, its exponent? Four at a time: where all are set the lane becomes zero, and taking one
 * from it sets its top bit, which is else clear.
 */
static bool
any_full(const uint8_t *p, uint32_t n, uint16_t exp)
{
	const uint64_t ones = 0x0001000100010001, mask = exp * ones;
	uint64_t borrowed = 0;
	uint32_t j = 0;
	bool odd = false;

	for (; j + 4 <= n; j += 4)
		borrowed |= (~le64_get(p + 2 * (size_t)j) & mask) - ones;
	for (; j < n; j++)
		odd |= (le16_get(p + 2 * (size_t)j) & exp) == exp;
	return odd || borrowed & ones << 15;
}

/* Is there a NaN or an infinity? Codes cannot hold one: their scales are finite. */
static bool
row_is_odd(const uint8_t *row, const struct kvs_rows *r)
{
	bool odd = false;

	if (r->dtype == KVS_F16 || r->dtype == KVS_BF16)
		return any_full(row, r->width, r->dtype == KVS_F16 ? 0x7c00 : 0x7f80);
	for (uint32_t j = 0; j < r->width && r->dtype == KVS_F32; j++)
		odd |= (le32_get(row + 4 * (size_t)j) & 0x7f800000u) == 0x7f800000u;
	return odd;
}

static enum kv_status
see_rows(struct pass *p, const struct kvs_head *h, struct kv_err *err)
{
	bool values = h->type == KVS_VALS;
	struct kv_survey *s = p->s;
	struct kvs_rows r;
	enum kv_status rc;

	if ((rc = kvs_rows_get(p->raw, (size_t)h->raw_len, kvs_check_geom(p->check), values, &r, err)) != KV_OK)
		return rc;
	s->bytes[values ? KV_BYTES_VALUES : KV_BYTES_KEYS] += (uint64_t)r.n_rows * r.row_bytes;
	s->rows_pruned += r.mask ? r.n_rows : 0;
	s->rows_baked += r.rotated ? r.n_rows : 0;
	if (r.dtype == KVS_CODES) {
		s->bytes[KV_BYTES_SCALES] += 2 * p->scales * kvs_dtype_size(r.scale_dtype);
		*(values ? &s->bits_v : &s->bits_k) = r.bits;
		*(values ? &s->rows_v : &s->rows_k) += r.n_rows;
		s->group = r.group;
		s->residual = r.residual;
	}
	for (uint32_t i = 0; i < r.n_rows; i++)
		s->odd_rows += row_is_odd(r.data + (size_t)i * r.row_bytes, &r);
	return KV_OK;
}

static enum kv_status
see_entries(struct pass *p, const struct kvs_head *h, struct kv_err *err)
{
	struct kv_survey *s = p->s;
	struct kvs_ents e;
	enum kv_status rc;
	int32_t first, last;

	if ((rc = kvs_ents_get(p->raw, (size_t)h->raw_len, kvs_check_state(p->check), &e, err)) != KV_OK || !e.n)
		return rc;
	first = (int32_t)le32_get(e.pos);
	last = (int32_t)le32_get(e.pos + 4 * (size_t)(e.n - 1));
	s->first_pos = first < s->first_pos ? first : s->first_pos;
	s->last_pos = last > s->last_pos ? last : s->last_pos;
	return KV_OK;
}

static enum kv_status
see_mask(struct pass *p, const struct kvs_head *h, struct kv_err *err)
{
	struct kv_survey *s = p->s;
	struct kvs_mask m;
	enum kv_status rc;

	if ((rc = kvs_mask_get(p->raw, (size_t)h->raw_len, kvs_check_geom(p->check), h->tag.layer, &m, err)) != KV_OK)
		return rc;
	s->kept_min = !s->n_masks || m.n_kept < s->kept_min ? m.n_kept : s->kept_min;
	s->kept_max = m.n_kept > s->kept_max ? m.n_kept : s->kept_max;
	s->pairs = s->pairs && (m.values || m.pairs);
	s->n_masks++;
	s->bytes[KV_BYTES_MASKS] += (m.d + 63) / 64 * 8;
	return KV_OK;
}

static enum kv_status
see_map(struct pass *p, const struct kvs_head *h, struct kv_err *err)
{
	struct kvs_map m;
	enum kv_status rc;

	if ((rc = kvs_map_get(p->raw, (size_t)h->raw_len, kvs_check_geom(p->check), &m, err)) != KV_OK)
		return rc;
	p->s->bytes[KV_BYTES_MASKS] += (uint64_t)m.n_dropped * (m.n_kept + 1) * kvs_dtype_size(m.dtype);
	p->s->n_maps++;
	return KV_OK;
}

/* An observation of one layer or head: what is fresh must be so in all of them. */
static void
see(struct kv_survey *s, enum kv_seen what, uint64_t queries, bool fresh)
{
	s->seen[what].fresh = fresh && (s->seen[what].fresh || !s->seen[what].present);
	s->seen[what].present = true;
	s->seen[what].queries = queries > s->seen[what].queries ? queries : s->seen[what].queries;
}

static enum kv_status
see_surprisal(struct pass *p, size_t n, struct kv_err *err)
{
	const struct kvs_state *state = kvs_check_state(p->check);
	struct kvs_obsn o;
	enum kv_status rc;

	if ((rc = kvs_obsn_get(p->raw, n, state, &o, err)) != KV_OK)
		return rc;
	see(p->s, KV_SEEN_NLL, o.count_all, (uint64_t)o.first + o.n_dense == state->consumed);
	p->s->nll_sum = o.sum_all;
	p->s->nll_kind = o.kind;
	return KV_OK;
}

static enum kv_status
see_attention(struct pass *p, const struct kvs_head *h, struct kv_err *err)
{
	const struct kvs_geom *g = kvs_check_geom(p->check);
	const struct kvs_state *state = kvs_check_state(p->check);
	size_t n = (size_t)h->raw_len;
	struct kvs_obsq q;
	struct kvs_obsa a;
	struct kvs_obsp o;
	enum kv_status rc;

	if (h->type == KVS_OBSQ) {
		if ((rc = kvs_obsq_get(p->raw, n, g, state, &q, err)) == KV_OK)
			see(p->s, KV_SEEN_LAST, q.w, (uint64_t)le32_get(q.src + 4 * (size_t)(q.w - 1)) + 1 == state->consumed);
	} else if (h->type == KVS_OBSA) {
		if ((rc = kvs_obsa_get(p->raw, n, state, &a, err)) == KV_OK)
			see(p->s, KV_SEEN_ACC, a.last - a.first, a.last == state->consumed);
	} else {
		/* Sums of a chunk or a probe go when more text is read: those that are there are fresh. */
		if ((rc = kvs_obsp_get(p->raw, n, g, &o, err)) == KV_OK)
			see(p->s, o.kind ? KV_SEEN_PROBE : KV_SEEN_CHUNK, o.n_queries, true);
	}
	return rc;
}

static enum kv_status
see_info(struct kv_survey *s, const uint8_t *raw, size_t n, struct kv_err *err)
{
	bool no_memory;
	json_t *root = kv_json_parse(raw, n, NULL, &no_memory);
	const char *name = json_string_value(json_object_get(root, "model"));
	enum kv_status rc = KV_OK;

	if (!root)	/* it was found to be JSON before */
		rc = kv_fail_mem(err, "JSON");
	else if (name && !s->model && !(s->model = strdup(name)))
		rc = kv_fail_mem(err, "the model's name");
	json_decref(root);
	return rc;
}

static void
index_add(struct kv_buf *index, const struct kvs_head *h, uint64_t offset)
{
	uint8_t e[INDEX_ENTRY] = { 0 };

	le32_put(e, h->type);
	le16_put(e + 8, h->tag.layer);
	le16_put(e + 10, h->tag.head);
	le32_put(e + 12, h->tag.chunk);
	le64_put(e + 16, offset);
	le64_put(e + 24, h->raw_len);
	kv_buf_add(index, e, sizeof e);
}

static enum kv_status
see_payload(struct pass *p, const struct kvs_head *h, struct kv_err *err)
{
	size_t n = (size_t)h->raw_len;

	switch (h->type) {
	case KVS_KEYS:
	case KVS_VALS:
		return see_rows(p, h, err);
	case KVS_ENTS:
		return see_entries(p, h, err);
	case KVS_CMSK:
		return see_mask(p, h, err);
	case KVS_CMAP:
		return see_map(p, h, err);
	case KVS_QUNT:
		p->scales = n < 8 ? 0 : (uint64_t)le32_get(p->raw) * le32_get(p->raw + 4);	/* looked at with the rows */
		return KV_OK;
	case KVS_OBSQ:
	case KVS_OBSA:
	case KVS_OBSP:
		p->s->bytes[KV_BYTES_OBSERVATIONS] += n;
		return see_attention(p, h, err);
	case KVS_OBSN:
		p->s->bytes[KV_BYTES_OBSERVATIONS] += n;
		return see_surprisal(p, n, err);
	case KVS_OBSR:
		p->s->bytes[KV_BYTES_OBSERVATIONS] += n;
		return KV_OK;
	case KVS_INFO:
		return see_info(p->s, p->raw, n, err);
	case KVS_PROV:
		return kvs_prov_add_json(&p->s->prov, p->raw, n, err);
	case KVS_INDX:
		if (p->index.failed)
			return kv_fail_mem(err, "the index");
		if (n != p->index.len || memcmp(p->raw, p->index.p, n))
			return kv_fail(err, KV_ECORRUPT, "the index does not match the frames");
		return KV_OK;
	default:
		return KV_OK;
	}
}

static bool
is_observation(uint32_t type)
{
	return type == KVS_OBSQ || type == KVS_OBSA || type == KVS_OBSP || type == KVS_OBSN || type == KVS_OBSR;
}

static enum kv_status
see_frame(struct pass *p, const struct waiting *q, struct kv_err *err)
{
	const struct kvs_head *h = &q->f.head;
	char name[80];
	enum kv_status rc = kvs_frame_readable(h, err);

	if (q->rc != KV_OK) {
		if (err)
			*err = q->err;
		return q->rc;
	}
	p->raw = q->unpacked ? q->unpacked : q->f.payload;

	if (rc != KV_OK && !kvs_is_ancillary(h->type))
		return rc;
	if (rc != KV_OK || !kvs_is_known(h->type)) {
		/* Not for us to read; whether it may stand here the checker knows. */
		rc = kvs_check_frame(p->check, h, NULL, 0, err);
	} else if ((rc = kvs_check_frame(p->check, h, p->raw, (size_t)h->raw_len, err)) == KV_OK) {
		if ((rc = see_payload(p, h, err)) != KV_OK)
			kv_err_in(err, "%s", kvs_frame_name(name, sizeof name, h));
	}
	if (is_observation(h->type))
		kvs_digest_add_frame(p->observed, h);
	if (h->type != KVS_PADD)
		index_add(&p->index, h, p->offset);
	p->offset += KVS_HEADER + aligned(h->enc_len);
	p->s->total += KVS_HEADER + aligned(h->raw_len);
	return rc;
}

/* Everything that waits, in order. */
static enum kv_status
see_waiting(struct pass *p, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	kv_pool_run(p->pool, p->n, unpack, p->queue);
	for (size_t i = 0; i < p->n; i++) {
		struct waiting *q = &p->queue[i];

		if (rc == KV_OK)
			rc = see_frame(p, q, err);
		kv_block_free(q->block);
		kv_block_free(q->unpacked);
	}
	p->n = 0;
	p->bytes = 0;
	return rc;
}

static enum kv_status
take_frame(struct pass *p, const struct kvs_frame *f, struct kv_err *err)
{
	struct waiting *q = &p->queue[p->n++];

	*q = (struct waiting){ .f = *f };
	if (f->block) {
		q->block = *f->block;
		*f->block = NULL;
	}
	p->bytes += f->head.raw_len;
	return p->n == p->cap || p->bytes > MOST_BYTES ? see_waiting(p, err) : KV_OK;
}

static void
count_entries(struct kv_survey *s, const struct kvs_check *check)
{
	s->shortest = UINT32_MAX;
	for (unsigned l = 0; l < s->geom.n_layers; l++)
		for (unsigned h = 0; h < s->geom.n_heads_kv; h++) {
			uint32_t n = kvs_check_entries(check, l, h);

			s->n[(size_t)l * s->geom.n_heads_kv + h] = n;
			s->shortest = n < s->shortest ? n : s->shortest;
			s->longest = n > s->longest ? n : s->longest;
			s->rows += n;
		}
}

/* Bytes of all tokens read at full width, saturating: `consumed` may promise anything. */
static uint64_t
full_bytes(const struct kv_survey *s, bool values)
{
	const struct kvs_geom *g = &s->geom;
	size_t a_token = 0, all;

	for (unsigned l = 0; l < g->n_layers; l++)
		a_token += (size_t)g->n_heads_kv * (values ? g->d_v : g->d_k) *
			kvs_dtype_size(values ? g->layer[l].v_dtype : g->layer[l].k_dtype);
	return kv_mul(a_token, (size_t)s->state.consumed, &all) ? all : UINT64_MAX;
}

static enum kv_status
finish(struct pass *p, struct kvs_reader *r, struct kv_err *err)
{
	struct kv_survey *s = p->s;
	enum kv_status rc;

	if ((rc = kvs_check_end(p->check, err)) != KV_OK)
		return rc;
	if (p->index.failed)
		return kv_fail_mem(err, "the index");
	s->geom = *kvs_check_geom(p->check);
	s->state = *kvs_check_state(p->check);
	if (!(s->n = kv_array_new((size_t)s->geom.n_layers * s->geom.n_heads_kv, sizeof *s->n)))
		return kv_fail_mem(err, "counts of entries");
	count_entries(s, p->check);
	s->major = kvs_reader_prologue(r)->major;
	s->minor = kvs_reader_prologue(r)->minor;
	s->total += KVS_PROLOGUE + ENDS_BYTES;
	s->bytes[KV_BYTES_META] = s->total;
	for (int kind = 0; kind < KV_BYTES_META; kind++)
		s->bytes[KV_BYTES_META] -= s->bytes[kind];
	s->full_k = full_bytes(s, false);
	s->full_v = full_bytes(s, true);
	s->stored = kvs_reader_length(r);
	memcpy(s->digest, kvs_reader_digest(r), sizeof s->digest);
	kvs_digest_get(p->observed, s->observation_digest);
	return KV_OK;
}

enum kv_status
kv_survey_read(struct kvs_reader *r, struct kv_pool *pool, struct kv_survey **out, struct kv_err *err)
{
	struct pass p = { .s = calloc(1, sizeof *p.s), .check = kvs_check_new(), .observed = kvs_digest_new(), .pool = pool, .offset = KVS_PROLOGUE };
	struct kvs_frame f;
	struct kv_err late;
	enum kv_status rc, ended;

	p.cap = kv_pool_threads(pool) > 1 ? (size_t)PER_THREAD * kv_pool_threads(pool) : 1;
	p.queue = kv_array_new(p.cap, sizeof *p.queue);
	if (!p.s || !p.check || !p.observed || !p.queue) {
		rc = kv_fail_mem(err, "a survey");
		goto out;
	}
	p.s->pairs = true;
	p.s->first_pos = INT32_MAX;
	kvs_reader_give(r, true);
	while ((ended = kvs_reader_next(r, &f, &late)) == KV_OK)
		if ((rc = take_frame(&p, &f, err)) != KV_OK)
			goto out;
	/* What is wrong with a frame that waits comes before what is wrong behind it. */
	if ((rc = see_waiting(&p, err)) != KV_OK)
		goto out;
	if ((rc = ended) != KV_END && err)
		*err = late;
	if (rc == KV_END && (rc = finish(&p, r, err)) == KV_OK) {
		*out = p.s;
		p.s = NULL;
	}
out:
	kvs_reader_give(r, false);
	kv_survey_free(p.s);
	kvs_check_free(p.check);
	kvs_digest_free(p.observed);
	free(p.queue);
	kv_buf_free(&p.index);
	return rc;
}

void
kv_survey_free(struct kv_survey *s)
{
	if (!s)
		return;
	free(s->model);
	free(s->n);
	kvs_prov_free(&s->prov);
	free(s);
}
