/* lib/kvs: the rules across frames that need more frames than a golden file should have. */
#include "tap.h"

#include <stdlib.h>

#include "kvs/check.h"
#include "kvs/digest.h"
#include "kvs/payload.h"
#include "tiny.h"
#include "util/le.h"

static const struct kvs_tag all = { KVS_ALL, KVS_ALL, 0 };

static struct kv_err err;
static struct kvs_geom g;
static struct kvs_state s;

static enum kv_status
feed(struct kvs_check *c, uint32_t type, struct kvs_tag tag, struct kv_buf *b)
{
	struct kvs_head h = { .type = type, .tag = tag, .enc_len = b->len, .raw_len = b->len };
	enum kv_status rc = kvs_check_frame(c, &h, b->p, b->len, &err);

	b->len = 0;
	return rc;
}

/* A check that has seen g and s. */
static struct kvs_check *
begin(void)
{
	struct kvs_check *c = kvs_check_new();
	struct kv_buf b = { 0 };
	bool good;

	kvs_geom_put(&b, &g, &s);
	good = feed(c, KVS_GEOM, all, &b) == KV_OK;
	kvs_rope_put(&b, &g.rope[0]);
	good = good && feed(c, KVS_ROPE, all, &b) == KV_OK;
	kvs_layers_put(&b, &g);
	good = good && feed(c, KVS_LAYR, all, &b) == KV_OK;
	if (!good)
		printf("# %s\n", err.text);
	kv_buf_free(&b);
	return c;
}

static enum kv_status
end(struct kvs_check *c)
{
	enum kv_status rc = kvs_check_end(c, &err);

	kvs_check_free(c);
	return rc;
}

static enum kv_status
toks(struct kvs_check *c, uint32_t number, uint32_t first, uint32_t n)
{
	uint32_t *ids = calloc(n + 1, sizeof *ids);
	struct kv_buf b = { 0 };
	enum kv_status rc;

	kvs_toks_put(&b, first, ids, n, NULL, NULL, 0);
	rc = feed(c, KVS_TOKS, (struct kvs_tag){ KVS_ALL, KVS_ALL, number }, &b);
	kv_buf_free(&b);
	free(ids);
	return rc;
}

static void
test_tokens(void)
{
	struct kv_buf none = { 0 };
	struct kvs_check *c;

	tiny_geom(&g, &s);
	s.consumed = KVS_TOKS_DENSE + 5;
	c = begin();
	ok(toks(c, 0, 0, KVS_TOKS_DENSE) == KV_OK && toks(c, 1, KVS_TOKS_DENSE, 5) == KV_OK, "ids in two frames");
	ok(feed(c, KVS_ENTS, all, &none) == KV_OK, "no entries");
	ok(end(c) == KV_OK, "a good snapshot");
	c = begin();
	ok(toks(c, 0, 0, KVS_TOKS_DENSE) == KV_OK && feed(c, KVS_ENTS, all, &none) == KV_ECORRUPT, "the second frame is missing");
	kvs_check_free(c);
	c = begin();
	ok(toks(c, 0, 0, 7) == KV_OK && toks(c, 1, 7, 5) == KV_ECORRUPT, "the first is not full");
	kvs_check_free(c);
	c = begin();
	ok(toks(c, 0, 0, KVS_TOKS_DENSE) == KV_OK && toks(c, 2, KVS_TOKS_DENSE, 5) == KV_ECORRUPT, "a number is left out");
	kvs_check_free(c);
	c = begin();
	ok(toks(c, 0, 0, KVS_TOKS_DENSE) == KV_OK && toks(c, 1, KVS_TOKS_DENSE + 1, 4) == KV_ECORRUPT, "a gap");
	kvs_check_free(c);
}

static enum kv_status
ents(struct kvs_check *c, uint16_t layer, uint16_t head, uint32_t n)
{
	static const uint32_t src[5] = { 0, 1, 2, 3, 4 };
	static const int32_t pos[5] = { 0, 1, 2, 3, 4 };
	struct kv_buf b = { 0 };
	enum kv_status rc;

	kvs_ents_put(&b, src, pos, n);
	rc = feed(c, KVS_ENTS, (struct kvs_tag){ layer, head, 0 }, &b);
	kv_buf_free(&b);
	return rc;
}

static enum kv_status
rows(struct kvs_check *c, uint32_t type, uint16_t layer, uint16_t head, uint32_t n)
{
	struct kvs_rows r = { .n_rows = n, .row_bytes = 8, .width = 4, .dtype = KVS_F16 };
	struct kvs_head h = { .type = type, .tag = { layer, head, 0 }, .raw_len = KVS_ROWS_HEADER + 8 * (uint64_t)n };
	uint8_t p[KVS_ROWS_HEADER];

	kvs_rows_put(p, &r);
	return kvs_check_frame(c, &h, p, sizeof p, &err);	/* the header is enough */
}

static void
test_lists(void)
{
	struct kvs_check *c;

	tiny_geom(&g, &s);
	g.n_layers = 3;
	g.n_heads = 4;
	g.n_heads_kv = 2;
	g.layer[1] = g.layer[2] = g.layer[0];
	s.ids = false;
	s.hist_first = s.consumed;
	c = begin();
	ok(ents(c, 0, KVS_ALL, 2) == KV_OK && ents(c, 1, 0, 0) == KV_OK && ents(c, 1, 1, 5) == KV_OK && ents(c, 2, KVS_ALL, 0) == KV_OK,
		"lists by layer and by head");
	is_int(kvs_check_entries(c, 0, 1), 2, "entries by layer");
	is_int(kvs_check_entries(c, 1, 1), 5, "entries by head");
	ok(rows(c, KVS_KEYS, 0, 0, 2) == KV_OK && rows(c, KVS_VALS, 0, 0, 2) == KV_OK && rows(c, KVS_KEYS, 0, 1, 2) == KV_OK &&
		   rows(c, KVS_VALS, 0, 1, 2) == KV_OK && rows(c, KVS_KEYS, 1, 1, 5) == KV_OK && rows(c, KVS_VALS, 1, 1, 5) == KV_OK,
		"rows; empty lists are passed over: %s", err.text);
	ok(rows(c, KVS_KEYS, 2, 0, 1) == KV_ECORRUPT, "a row in an empty list");
	ok(end(c) == KV_OK, "all lists are full");
	c = begin();
	ok(ents(c, 0, KVS_ALL, 2) == KV_OK && ents(c, 1, 1, 2) == KV_ECORRUPT, "a head left out");
	ok(ents(c, 0, 1, 2) == KV_ECORRUPT, "a head twice");
	ok(ents(c, KVS_ALL, KVS_ALL, 2) == KV_ECORRUPT, "all heads after some");
	ok(rows(c, KVS_KEYS, 0, 0, 2) == KV_ECORRUPT, "rows before all lists are known");
	kvs_check_free(c);
	c = begin();
	ok(ents(c, KVS_ALL, KVS_ALL, 2) == KV_OK && rows(c, KVS_KEYS, 0, 0, 2) == KV_OK && rows(c, KVS_VALS, 0, 0, 2) == KV_OK &&
		   rows(c, KVS_KEYS, 1, 0, 2) == KV_ECORRUPT, "a list without rows in between");
	is_str(err.text, "frame 0 (KEYS layer 1 head 0): layer 0 head 1 has 0 rows of keys and 0 of values for 2 entries", "and its message");
	kvs_check_free(c);
	c = begin();
	ok(ents(c, KVS_ALL, KVS_ALL, 2) == KV_OK && rows(c, KVS_KEYS, 0, 0, 2) == KV_OK, "a cut list");
	ok(end(c) == KV_ECORRUPT, "is noticed at the end");
}

/* Many ancillary frames: names are told apart, and none may come twice. */
static void
test_names(void)
{
	enum { N = 5000 };
	struct kvs_check *c;
	struct kv_buf b = { 0 };
	int bad = 0;

	tiny_geom(&g, &s);
	c = begin();
	for (uint32_t i = 0; i < N; i++)
		bad += feed(c, KVS_TYPE('a', 'B', 'C', 'd'), (struct kvs_tag){ (uint16_t)(i % 7), (uint16_t)(i % 11), i }, &b) != KV_OK;
	is_int(bad, 0, "%d unknown frames", N);
	ok(feed(c, KVS_TYPE('a', 'B', 'C', 'd'), (struct kvs_tag){ 1234 % 7, 1234 % 11, 1234 }, &b) == KV_ECORRUPT, "one of them again");
	ok(feed(c, KVS_TYPE('a', 'B', 'C', 'D'), (struct kvs_tag){ 1234 % 7, 1234 % 11, 1234 }, &b) == KV_OK, "the same tag of another type");
	kvs_check_free(c);
}

int
main(void)
{
	test_tokens();
	test_lists();
	test_names();
	return done_testing();
}
