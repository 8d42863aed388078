/*
 * Frames in the order of the calls. What has to be packed or unpacked waits in a queue of at most two frames a thread, is worked
 * on by all threads at once, and then goes out in order; so neither order nor bytes depend on their number.
 */
#include "kvs/writer.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "kvs/codec.h"
#include "kvs/digest.h"
#include "kvs/geom.h"
#include "util/le.h"
#include "util/mem.h"

enum { PER_THREAD = 2, INDEX_ENTRY = 32, ENDS_BYTES = 64, NEVER = 0xff };

enum task { AS_IS, PACK, UNPACK };

/* A frame in the queue. */
struct job {
	struct kvs_head head;
	enum task task;
	struct kv_buf in, out;		/* the bytes as given; as they go out, unless AS_IS */
	enum kv_status rc;
	struct kv_err err;
};

struct kvs_writer {
	struct kv_out *out;
	enum kvs_packing packing;
	struct kv_pool *pool;
	bool with_index, inside;
	uint64_t n_snapshots;
	uint64_t max_raw, seq, at, sum_raw;
	struct kvs_digest *content, *heads;
	struct kv_buf index;
	struct job *jobs;		/* [n_jobs] */
	size_t n_jobs, n_queued;
};

static const struct kvs_tag no_tag = { KVS_ALL, KVS_ALL, 0 };

enum kv_status
kvs_writer_new(struct kv_out *out, enum kvs_packing packing, struct kv_pool *pool, struct kvs_writer **res, struct kv_err *err)
{
	struct kvs_writer *w = calloc(1, sizeof *w);

	if (!w)
		return kv_fail_mem(err, "writing a snapshot");
	w->n_jobs = (size_t)PER_THREAD * kv_pool_threads(pool);
	if (!(w->jobs = kv_array_new(w->n_jobs, sizeof *w->jobs)) || !(w->content = kvs_digest_new()) || !(w->heads = kvs_digest_new())) {
		kvs_writer_free(w);
		return kv_fail_mem(err, "writing a snapshot");
	}
	w->out = out;
	w->packing = packing;
	w->pool = pool;
	w->with_index = true;
	*res = w;
	return KV_OK;
}

void
kvs_writer_free(struct kvs_writer *w)
{
	if (!w)
		return;
	for (size_t i = 0; w->jobs && i < w->n_jobs; i++) {
		kv_buf_free(&w->jobs[i].in);
		kv_buf_free(&w->jobs[i].out);
	}
	free(w->jobs);
	kv_buf_free(&w->index);
	kvs_digest_free(w->content);
	kvs_digest_free(w->heads);
	free(w);
}

void
kvs_writer_index(struct kvs_writer *w, bool on)
{
	w->with_index = on;
}

enum kv_status
kvs_writer_begin(struct kvs_writer *w, uint64_t max_raw, struct kv_err *err)
{
	uint8_t p[KVS_PROLOGUE];
	enum kv_status rc;

	assert(max_raw >= KVS_GEOM_BYTES && max_raw <= KVS_MAX_RAW_HARD);
	kvs_prologue_put(p, &(struct kvs_prologue){ .major = 1, .minor = 0, .max_raw = max_raw });
	kvs_digest_reset(w->content);
	kvs_digest_reset(w->heads);
	kvs_digest_add(w->heads, p, sizeof p);
	w->max_raw = max_raw;
	w->seq = w->sum_raw = 0;
	w->at = sizeof p;
	w->index.len = 0;
	w->n_queued = 0;
	w->inside = true;
	if ((rc = kv_out_write(w->out, p, sizeof p, err)) != KV_OK)
		return rc;
	return KV_OK;
}

/* How a payload of this type is split into planes; NEVER: not packed. */
static uint8_t
filter_of(uint32_t type, const uint8_t *raw, size_t n)
{
	switch ((enum kvs_type)type) {
	case KVS_KEYS:
	case KVS_VALS:
		if (n < 64 || raw[16] == KVS_CODES)
			return NEVER;	/* codes gain little */
		return raw[16] == KVS_F32 ? 2 : 1;
	case KVS_CMAP:
	case KVS_QUNT:
		return 1;	/* f16 is the rule */
	case KVS_CMSK:
	case KVS_CKPT:
	case KVS_INFO:
	case KVS_PROV:
	case KVS_PADD:
		return 0;
	case KVS_ENDS:
		return NEVER;
	default:
		return kvs_is_known(type) ? 2 : NEVER;
	}
}

static enum kv_status
note_frame(struct kvs_writer *w, const struct kvs_head *h, const uint8_t raw[KVS_HEADER], struct kv_err *err)
{
	uint8_t entry[INDEX_ENTRY] = { 0 };

	if (!kvs_is_ancillary(h->type) && h->type != KVS_ENDS)
		kvs_digest_add_frame(w->content, h);
	kvs_digest_add(w->heads, raw, KVS_HEADER);
	if (h->type != KVS_PADD) {
		memcpy(entry, raw, 4);
		memcpy(entry + 8, raw + 48, 8);
		le64_put(entry + 16, w->at);
		le64_put(entry + 24, h->raw_len);
		kv_buf_add(&w->index, entry, sizeof entry);
	}
	w->sum_raw += h->raw_len;
	w->seq++;
	w->at += KVS_HEADER + h->enc_len + -h->enc_len % KVS_ALIGN;
	return w->index.failed ? kv_fail_mem(err, "an index") : KV_OK;
}

/* Header, payload, padding. */
static enum kv_status
emit(struct kvs_writer *w, struct kvs_head h, const uint8_t *payload, struct kv_err *err)
{
	static const uint8_t zeros[KVS_ALIGN];
	uint8_t raw[KVS_HEADER];
	enum kv_status rc;

	h.seq = w->seq;
	kvs_head_put(raw, &h);
	if ((rc = kv_out_write(w->out, raw, sizeof raw, err)) != KV_OK ||
	    (rc = kv_out_write(w->out, payload, (size_t)h.enc_len, err)) != KV_OK ||
	    (rc = kv_out_write(w->out, zeros, (size_t)(-h.enc_len % KVS_ALIGN), err)) != KV_OK)
		return rc;
	return note_frame(w, &h, raw, err);
}

static void
do_job(void *arg, size_t item, unsigned thread)
{
	struct job *j = (struct job *)arg + item;
	struct kvs_head *h = &j->head;
	struct kvs_frame f = { .head = *h, .payload = j->in.p };
	uint8_t *dst;

	(void)thread;
	j->out.len = 0;
	j->rc = KV_OK;
	switch (j->task) {
	case AS_IS:
		return;
	case PACK:
		h->raw_hash = kvs_hash64(j->in.p, j->in.len);
		j->rc = kvs_encode(j->in.p, j->in.len, h->filter, &j->out, &h->codec, &j->err);
		break;
	case UNPACK:
		h->codec = KVS_CODEC_RAW;
		if ((dst = kv_buf_grow(&j->out, (size_t)h->raw_len)))
			j->rc = kvs_decode(&f, dst, &j->err);
		else
			j->rc = kv_fail_mem(&j->err, "a frame");
		break;
	}
	if (h->codec == KVS_CODEC_RAW)
		h->filter = 0;
	h->enc_len = j->out.len;
	h->enc_hash = h->codec == KVS_CODEC_RAW ? h->raw_hash : kvs_hash64(j->out.p, j->out.len);
}

static enum kv_status
drain(struct kvs_writer *w, struct kv_err *err)
{
	enum kv_status rc = KV_OK;
	size_t n = w->n_queued;

	w->n_queued = 0;
	kv_pool_run(w->pool, n, do_job, w->jobs);
	for (size_t i = 0; i < n && rc == KV_OK; i++) {
		struct job *j = &w->jobs[i];

		if ((rc = j->rc) != KV_OK) {
			if (err)
				*err = j->err;
		} else {
			rc = emit(w, j->head, j->task == AS_IS ? j->in.p : j->out.p, err);
		}
	}
	return rc;
}

static enum kv_status
queue(struct kvs_writer *w, const struct kvs_head *h, const void *bytes, size_t n, enum task task, struct kv_err *err)
{
	struct job *j = &w->jobs[w->n_queued];

	j->head = *h;
	j->task = task;
	j->in.len = 0;
	kv_buf_add(&j->in, bytes, n);
	if (j->in.failed)
		return kv_fail_mem(err, "a frame");
	return ++w->n_queued == w->n_jobs ? drain(w, err) : KV_OK;
}

static enum kv_status
check_length(const struct kvs_writer *w, const struct kvs_head *h, struct kv_err *err)
{
	char name[64];

	if (h->raw_len > w->max_raw)
		return kv_fail(err, KV_EFIT, "%s: %" PRIu64 " bytes, the prologue promised at most %" PRIu64,
			kvs_frame_name(name, sizeof name, h), h->raw_len, w->max_raw);
	if (w->seq + w->n_queued >= KVS_MAX_FRAMES - 2)	/* the index and ENDS still come */
		return kv_fail(err, KV_EFIT, "more than %" PRIu64 " frames", KVS_MAX_FRAMES);
	return KV_OK;
}

static bool
packs(const struct kvs_writer *w)
{
	return w->packing == KVS_PACK_ZLIB || (w->packing == KVS_PACK_AUTO && !kv_out_is_pipe(w->out));
}

enum kv_status
kvs_writer_put(struct kvs_writer *w, uint32_t type, struct kvs_tag tag, const void *raw, size_t n, struct kv_err *err)
{
	uint8_t filter = packs(w) ? filter_of(type, raw, n) : NEVER;
	struct kvs_head h = { .type = type, .tag = tag, .enc_len = n, .raw_len = n };
	enum kv_status rc;

	assert(w->inside);
	if ((rc = check_length(w, &h, err)) != KV_OK)
		return rc;
	if (filter != NEVER) {
		h.filter = filter;
		return queue(w, &h, raw, n, PACK, err);
	}
	h.enc_hash = h.raw_hash = kvs_hash64(raw, n);
	if (w->n_queued)
		return queue(w, &h, raw, n, AS_IS, err);
	return emit(w, h, raw, err);
}

enum kv_status
kvs_writer_forward(struct kvs_writer *w, const struct kvs_frame *f, struct kv_err *err)
{
	struct kvs_head h = f->head;
	bool readable = kvs_is_known(h.type) && kvs_frame_readable(&h, NULL) == KV_OK;
	uint8_t filter = h.codec == KVS_CODEC_RAW && packs(w) ? filter_of(h.type, f->payload, (size_t)h.enc_len) : NEVER;
	enum task task = AS_IS;
	enum kv_status rc;

	assert(w->inside);
	if ((rc = check_length(w, &h, err)) != KV_OK)
		return rc;
	if (readable && filter != NEVER) {
		h.filter = filter;
		task = PACK;
	} else if (readable && h.codec == KVS_CODEC_ZLIB && w->packing == KVS_PACK_RAW) {
		task = UNPACK;
	}
	if (task != AS_IS || w->n_queued)
		return queue(w, &h, f->payload, (size_t)h.enc_len, task, err);
	return emit(w, h, f->payload, err);
}

static enum kv_status
put_ends(struct kvs_writer *w, uint64_t index_at, uint8_t digest[16], struct kv_err *err)
{
	uint8_t p[ENDS_BYTES];
	struct kvs_head h = { .type = KVS_ENDS, .tag = no_tag, .enc_len = sizeof p, .raw_len = sizeof p };

	kvs_digest_get(w->content, digest);
	le64_put(p, w->seq + 1);
	le64_put(p + 8, w->sum_raw);
	le64_put(p + 16, w->at + KVS_HEADER + sizeof p);
	le64_put(p + 24, index_at ? w->at - index_at : 0);
	memcpy(p + 32, digest, 16);
	le64_put(p + 48, kvs_digest_get64(w->heads));
	for (int i = 0; i < 8; i++)
		p[56 + i] = kvs_magic[7 - i];
	h.enc_hash = h.raw_hash = kvs_hash64(p, sizeof p);
	return emit(w, h, p, err);
}

enum kv_status
kvs_writer_end(struct kvs_writer *w, uint8_t digest[16], struct kv_err *err)
{
	struct kv_buf index = { 0 };
	uint64_t index_at = 0;
	uint8_t d[16];
	enum kv_status rc;

	assert(w->inside);
	if ((rc = drain(w, err)) != KV_OK)
		return rc;
	if (w->with_index && w->index.len <= w->max_raw) {
		index_at = w->at;
		index = w->index;	/* put lists itself in w->index, after its bytes were taken */
		w->index = (struct kv_buf){ 0 };
		rc = kvs_writer_put(w, KVS_INDX, no_tag, index.p, index.len, err);
		kv_buf_free(&index);
		if (rc != KV_OK || (rc = drain(w, err)) != KV_OK)
			return rc;
	}
	if ((rc = put_ends(w, index_at, d, err)) != KV_OK || (rc = kv_out_flush(w->out, err)) != KV_OK)
		return rc;
	w->inside = false;
	w->n_snapshots++;
	if (digest)
		memcpy(digest, d, 16);
	return KV_OK;
}

void
kvs_writer_tear(struct kvs_writer *w)
{
	if (w->inside || !w->n_snapshots)
		return;
	if (kv_out_write(w->out, kvs_magic, sizeof kvs_magic, NULL) == KV_OK)
		kv_out_flush(w->out, NULL);
}
