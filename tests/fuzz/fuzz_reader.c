/* A whole sequence of snapshots, read in every way there is. */
#include "cache/snapshot.h"
#include "fuzz.h"
#include "util/in.h"
#include "view/view.h"

static enum kv_status
as_cache(struct kvs_reader *r, struct kv_err *err)
{
	struct kv_cache *c;
	enum kv_status rc = kv_cache_read(r, &c, err);

	if (rc == KV_OK) {
		if (kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, err) == KV_OK)
			for (unsigned i = 0; i < c->geom.n_layers * c->geom.n_heads_kv; i++)
				MUST(!c->list[i].n || (c->list[i].k.data && c->list[i].v.data));
		kv_cache_free(c);
	}
	return rc;
}

static enum kv_status
move(void *arg, struct kv_cache *c, struct kv_err *err)
{
	if (c->state.next_pos == INT32_MAX)
		return kv_fail(err, KV_EFIT, "no room");
	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv; i++)
		for (uint32_t e = 0; e < c->list[i].n; e++)
			c->list[i].pos[e]++;
	c->state.next_pos++;
	c->edited = true;
	return arg ? KV_OK : KV_EIO;
}

static enum kv_status
done(void *arg, struct kv_cache *c, struct kv_err *err)
{
	return arg ? KV_OK : kv_fail(err, c->edited ? KV_EIO : KV_EFIT, "never");
}

/* Moved by one and written anew, where nobody reads it. */
static enum kv_status
as_passed(struct kvs_reader *r, struct kv_err *err)
{
	struct kv_out *out;
	struct kvs_writer *w;
	enum kv_status rc;

	MUST(kv_out_open("/dev/null", true, true, &out, err) == KV_OK && kvs_writer_new(out, KVS_PACK_RAW, NULL, &w, err) == KV_OK);
	rc = kv_cache_pass(r, &(struct kv_pass){ move, done, r }, w, err);
	kvs_writer_free(w);
	kv_out_abort(out);
	return rc;
}

static enum kv_status
as_survey(struct kvs_reader *r, struct kv_err *err)
{
	struct kv_survey *s;
	struct kv_print p = { 0 };
	enum kv_status rc = kv_survey_read(r, NULL, &s, err);

	if (rc == KV_OK) {
		MUST(kv_survey_json(s, &p, err) == KV_OK);
		MUST(kv_survey_page(s, "it", &p, err) == KV_OK);
		kv_buf_free(&p.buf);
		kv_survey_free(s);
	}
	return rc;
}

static enum kv_status
as_frames(struct kvs_reader *r, struct kv_err *err)
{
	struct kv_print p = { 0 };
	enum kv_status rc = kv_frame_table(r, KV_TABLE_FRAMES, true, &p, err);

	kv_buf_free(&p.buf);
	return rc;
}

static enum kv_status
as_provenance(struct kvs_reader *r, struct kv_err *err)
{
	struct kv_print p = { 0 };
	enum kv_status rc = kv_frame_table(r, KV_TABLE_PROV, true, &p, err);

	kv_buf_free(&p.buf);
	return rc;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static enum kv_status (*const ways[])(struct kvs_reader *, struct kv_err *) = { as_cache, as_survey, as_frames, as_passed, as_provenance };
	struct kvs_reader *r;
	struct kv_in *in;
	struct kv_err err;

	kv_mem_limit_set((uint64_t)256 << 20);
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
		MUST(kv_in_mem("it", data, n, &in, &err) == KV_OK && kvs_reader_new(in, &r, &err) == KV_OK);
		while (kvs_reader_begin(r, &err) == KV_OK && ways[i](r, &err) == KV_OK)
			;
		kvs_reader_free(r);
		kv_in_close(in);
	}
	return 0;
}
