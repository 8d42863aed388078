/* The cache in memory: growing, cutting, recording. */
#include "tap.h"

#include <stdlib.h>

#include "small_cache.h"
#include "util/half.h"
#include "util/mem.h"

static void
test_extend(void)
{
	struct kv_cache *c = small_cache(small_geom(2, 4, 2, 8));
	struct kv_err err;
	char s[200];

	ok(kv_cache_extend(c, 3, &err) == KV_OK, "three tokens");
	c->state.next_pos = 100;
	ok(kv_cache_extend(c, 2, &err) == KV_OK, "two more, further on");
	is_str(small_sources(c, 1, 1, s, sizeof s), "0 1 2 3 4", "sources");
	is_str(small_positions(c, 1, 1, s, sizeof s), "0 1 2 100 101", "positions");
	is_int(c->state.next_pos, 102, "the next position");
	is_int(c->state.tail, 2, "the tail");
	is_int((long long)kv_cache_entries(c), 20, "rows in all lists");
	ok(c->state.hist_first == 5 && !c->state.ids, "no ids, no history");
	c->state.next_pos = INT32_MAX - 1;
	ok(kv_cache_extend(c, 1, &err) == KV_OK, "up to the last position");
	ok(kv_cache_extend(c, 1, &err) == KV_EFIT, "not beyond it: %s", err.text);
	is_int(kv_cache_longest(c), 6, "nothing has changed then");
	c->state.next_pos = 200;
	c->state.consumed = UINT32_MAX;
	ok(kv_cache_extend(c, 1, &err) == KV_EFIT, "nor beyond 2^32 tokens: %s", err.text);
	kv_cache_free(c);
}

static void
test_growth(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 1, 1, 8));
	const struct kv_list *l = kv_cache_list(c, 0, 0);
	struct kv_err err;
	unsigned moves = 0;
	const uint8_t *at;

	kv_cache_reserve(c, 300, &err);
	is_int(l->k.cap, 300, "room for exactly what was asked");
	at = l->k.data;
	for (int i = 0; i < 300; i++)
		kv_cache_extend(c, 1, &err);
	ok(l->k.data == at, "nothing moves while there is room");
	for (int i = 300; i < 3000; i++) {
		kv_cache_extend(c, 1, &err);
		moves += l->k.data != at;
		at = l->k.data;
	}
	ok(moves < 15 && l->k.cap < 3000 * 5 / 4 + 2, "%u moves, room for %u rows: a quarter at a time", moves, l->k.cap);
	kv_cache_free(c);
}

static void
test_rows(void)
{
	static const unsigned dtypes[] = { KVS_F32, KVS_F16, KVS_BF16 };
	static const float x[] = { 1, -2.5f, 65504, 0x1p-24f, 70000, 0, 3.140625f, -1 };
	float y[8];
	struct kv_err err;

	for (unsigned i = 0; i < 3; i++) {
		struct kvs_geom *g = small_geom(1, 1, 1, 4);
		struct kv_cache *c;
		struct kv_rows *r;

		g->layer[0].k_dtype = (uint8_t)dtypes[i];
		c = small_cache(g);
		r = &kv_cache_list(c, 0, 0)->k;
		kv_cache_extend(c, 2, &err);
		ok((kv_rows_put(r, 0, 2, x, 4, &err) == KV_OK) == (dtypes[i] != KVS_F16), "%s: 70000", kvs_dtype_name(dtypes[i]));
		ok(kv_rows_put(r, 1, 1, x, 4, &err) == KV_OK, "a row alone");
		kv_rows_get(r, 1, y);
		ok(y[0] == 1 && y[1] == -2.5f && (dtypes[i] == KVS_BF16 || y[2] == 65504) && y[3] == 0x1p-24f, "comes back");
		y[0] = INFINITY;
		ok(kv_rows_put(r, 0, 1, y, 4, &err) == KV_OK, "an infinity that was one is not refused");
		kv_cache_free(c);
	}
}

static void
test_keep(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 2, 2, 8));
	struct kv_list *l = kv_cache_list(c, 0, 1);
	static const uint32_t keep[] = { 0, 2, 3, 9 }, none[1];
	float before[8], after[8];
	struct kv_err err;
	char s[200];

	small_feed(c, 10);
	kv_rows_get(&l->v, 9, before);
	ok(kv_list_keep(l, keep, 4, &err) == KV_OK, "keep four of ten");
	is_str(small_sources(c, 0, 1, s, sizeof s), "0 2 3 9", "their sources");
	kv_rows_get(&l->v, 3, after);
	ok(!memcmp(before, after, sizeof after), "their rows");
	is_int(l->k.cap, 4, "memory shrinks with them");
	is_int(kv_cache_list(c, 0, 0)->n, 10, "the other list is untouched");
	ok(kv_list_keep(l, none, 0, &err) == KV_OK && !l->n, "keep none");
	small_feed(c, 2);
	is_str(small_sources(c, 0, 1, s, sizeof s), "10 11", "and it grows again");
	kv_cache_free(c);
}

/* One query head, d 2: query t is (t, -t). */
static void
add_queries(struct kv_cache *c, uint32_t w, uint32_t m, uint32_t src)
{
	float *q = calloc(2 * m, sizeof *q);
	struct kv_err err;

	for (uint32_t i = 0; i < m; i++) {
		q[2 * i] = (float)(src + i);
		q[2 * i + 1] = -q[2 * i];
	}
	kv_queries_add(c, 0, w, m, src, (int32_t)src + 100, q, &err);
	free(q);
}

static void
is_queries(const struct kv_cache *c, uint32_t first, uint32_t w, const char *what)
{
	const struct kv_queries *q = &c->queries[0];
	unsigned wrong = q->w != w;

	for (uint32_t i = 0; i < w && !wrong; i++)
		wrong += q->src[i] != first + i || q->pos[i] != (int32_t)(first + i + 100) || q->q[2 * i] != (float)(first + i) ||
			q->q[2 * i + 1] != -(float)(first + i);
	is_int(wrong, 0, "%s", what);
}

static void
test_queries(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 1, 1, 2));

	add_queries(c, 4, 2, 0);
	is_queries(c, 0, 2, "fewer than w");
	add_queries(c, 4, 1, 2);
	is_queries(c, 0, 3, "still growing");
	add_queries(c, 4, 3, 3);
	is_queries(c, 2, 4, "the last four");
	add_queries(c, 4, 1, 6);
	is_queries(c, 3, 4, "one moves in, one out");
	add_queries(c, 4, 9, 7);
	is_queries(c, 12, 4, "more than w at once");
	add_queries(c, 2, 1, 16);
	is_queries(c, 15, 2, "a shorter record from now on");
	add_queries(c, 8, 3, 17);
	is_queries(c, 15, 5, "a longer one");
	kv_cache_free(c);
}

static void
test_histories(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 1, 1, 2));
	static const uint32_t id[] = { 5, 6, 7 };
	static const float nll[] = { -1, 2, 0.5f };
	struct kv_err err;
	uint32_t v;
	float x;

	kv_cache_extend(c, 3, &err);
	kv_cache_add_tokens(c, id, 3, &err);
	ok(c->state.ids && c->state.hist_first == 0, "ids from the beginning");
	kv_cache_add_nll(c, nll, 3, &err);
	ok(kv_cache_token(c, 2, &v) && v == 7 && !kv_cache_token(c, 3, &v), "ids by source index");
	ok(!kv_cache_nll(c, 0, &x) && kv_cache_nll(c, 1, &x) && x == 2, "surprisals; the first has none");
	ok(c->nll_count == 2 && c->nll_sum == 2.5, "their count and sum");
	kv_cache_extend(c, 2, &err);
	kv_cache_add_tokens(c, id, 2, &err);
	kv_cache_extend(c, 1, &err);
	kv_cache_add_tokens(c, id, 1, &err);
	kv_cache_add_nll(c, nll + 2, 1, &err);
	ok(!kv_cache_nll(c, 4, &x) && kv_cache_nll(c, 5, &x) && x == 0.5f, "a hole in the record is none");
	kv_cache_extend(c, 2, &err);
	kv_cache_extend(c, 1, &err);
	kv_cache_add_tokens(c, id, 1, &err);
	ok(!c->state.ids && c->state.hist_first == 9 && !kv_cache_token(c, 0, &v), "a hole among the ids ends them");
	kv_cache_free(c);
}

static void
test_limits(void)
{
	struct kv_cache *c = small_cache(small_geom(2, 2, 2, 64));
	struct kv_err err;

	small_feed(c, 50);
	kv_mem_limit_set(1 << 16);
	ok(kv_cache_extend(c, 10000, &err) == KV_ENOMEM, "over the limit: %s", err.text);
	kv_mem_limit_set(0);
	is_int(kv_cache_longest(c), 50, "nothing has changed");
	is_int(c->state.next_pos, 50, "nor has the state");
	small_feed(c, 1);
	is_int(kv_cache_longest(c), 51, "and it goes on");
	kv_cache_free(c);
	kv_cache_free(NULL);
}

int
main(void)
{
	test_extend();
	test_growth();
	test_rows();
	test_keep();
	test_queries();
	test_histories();
	test_limits();
	return done_testing();
}
