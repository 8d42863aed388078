/* Snapshots: what is written is what was there, what is read is what was written. */
#include "tap.h"

#include <stdlib.h>

#include "kvs/digest.h"
#include "kvs/payload.h"
#include "policy_cache.h"
#include "util/mem.h"

static bool
same_rows(struct kv_rows *a, struct kv_rows *b, uint32_t n)
{
	struct kv_err err;

	if (kv_rows_load(a, &err) != KV_OK || kv_rows_load(b, &err) != KV_OK || a->dtype != b->dtype)
		return false;
	return !n || !memcmp(a->data, b->data, n * (size_t)a->width * kvs_dtype_size(a->dtype));
}

static bool
same_track(const struct kv_track *a, const struct kv_track *b)
{
	return a->first == b->first && a->n == b->n && (!a->n || !memcmp(a->v, b->v, a->n * sizeof *a->v)) && a->n_sparse == b->n_sparse &&
		(!a->n_sparse || (!memcmp(a->src, b->src, a->n_sparse * sizeof *a->src) && !memcmp(a->sparse, b->sparse, a->n_sparse * sizeof *a->sparse)));
}

static bool
same_received(const struct kv_list *a, const struct kv_list *b)
{
	const struct kv_received *p = a->received, *q = b->received;

	if (!p || !q)
		return p == q;
	return p->from == q->from && p->to == q->to && (!a->n || (!memcmp(p->sum, q->sum, a->n * sizeof *p->sum) &&
		!memcmp(p->square, q->square, a->n * sizeof *p->square) && !memcmp(p->count, q->count, a->n * sizeof *p->count)));
}

static bool
same_sums(const struct kv_cache *a, const struct kv_cache *b)
{
	bool same = true;

	for (unsigned which = 0; which < KV_SUMS_KINDS; which++) {
		const struct kv_sums *p = &a->sums[which], *q = &b->sums[which];

		if (p->there != q->there || !p->there) {
			same &= p->there == q->there;
			continue;
		}
		same &= p->all == q->all && p->queries == q->queries && p->at == q->at && p->probe_hash == q->probe_hash && p->rows == q->rows &&
			p->reduction == q->reduction;
		for (size_t i = 0; i < (size_t)a->geom.n_layers * a->geom.n_heads_kv && same; i++)
			same = p->list[i].missing == q->list[i].missing && p->list[i].cols == q->list[i].cols && (!p->list[i].cols ||
				!memcmp(p->list[i].sum, q->list[i].sum, (size_t)p->rows * p->list[i].cols * sizeof(float)));
	}
	return same;
}

/* "" or the part that differs. */
static const char *
difference(struct kv_cache *a, struct kv_cache *b)
{
	size_t n = (size_t)a->geom.n_layers * a->geom.n_heads_kv;

	if (a->state.consumed != b->state.consumed || a->state.next_pos != b->state.next_pos || a->state.tail != b->state.tail ||
	    a->state.ids != b->state.ids || a->state.hist_first != b->state.hist_first)
		return "state";
	for (size_t i = 0; i < n; i++) {
		if (!kv_list_same(&a->list[i], &b->list[i]))
			return "entries";
		if (!same_rows(&a->list[i].k, &b->list[i].k, a->list[i].n) || !same_rows(&a->list[i].v, &b->list[i].v, a->list[i].n))
			return "rows";
		if (!same_received(&a->list[i], &b->list[i]))
			return "received attention";
	}
	for (unsigned l = 0; l < a->geom.n_layers; l++) {
		const struct kv_queries *p = &a->queries[l], *q = &b->queries[l];

		if (p->w != q->w)
			return "queries";
		if (p->w && (memcmp(p->pos, q->pos, p->w * sizeof *p->pos) || memcmp(p->src, q->src, p->w * sizeof *p->src) ||
		    memcmp(p->q, q->q, (size_t)p->w * a->geom.n_heads * a->geom.d_k * sizeof *p->q)))
			return "queries";
	}
	if (!a->hidden != !b->hidden || (a->hidden && memcmp(a->hidden, b->hidden, a->geom.n_embd * sizeof *a->hidden)))
		return "hidden state";
	if (!same_track(&a->tokens, &b->tokens))
		return "ids";
	if (a->has_nll != b->has_nll || a->nll_count != b->nll_count || a->nll_sum != b->nll_sum || !same_track(&a->nll, &b->nll))
		return "surprisals";
	if (!same_sums(a, b))
		return "sums of the round";
	if (a->has_round != b->has_round || (a->has_round && memcmp(&a->round, &b->round, sizeof a->round)))
		return "round";
	return "";
}

static void
round_trip(struct kv_cache *c, enum kvs_packing packing, const char *what)
{
	struct kv_buf first = { 0 }, second = { 0 };
	struct kv_cache *read = NULL;
	struct kv_err err = { KV_OK, "" };
	char a[33], b[33];

	small_save(c, packing, &first);
	if (!ok(small_load(&first, &read, &err) == KV_OK, "%s: is read: %s", what, err.text))
		return;
	ok(!kv_cache_edited(read), "%s: counts as unchanged", what);
	small_save(read, packing, &second);
	ok(first.len == second.len && !memcmp(first.p, second.p, first.len), "%s: written again, byte for byte", what);
	is_str(kvs_hex128(read->digest, a), small_digest(c, b), "%s: one digest, packed or not", what);
	is_str(difference(c, read), "", "%s: nothing differs", what);
	small_save(read, packing, &second);
	second.p += first.len;
	ok(!memcmp(first.p, second.p, first.len), "%s: byte for byte from loaded rows too", what);
	second.p -= first.len;
	kv_cache_free(read);
	kv_buf_free(&first);
	kv_buf_free(&second);
}

/* As if the newest m tokens had been watched in every list but the first. */
static void
watch(struct kv_cache *c, uint32_t m)
{
	struct kv_err err;

	for (unsigned i = 1; i < c->geom.n_layers * c->geom.n_heads_kv; i++) {
		struct kv_list *l = &c->list[i];
		double *sum = calloc(2 * (size_t)l->n, sizeof *sum);

		for (uint32_t j = 0; j < 2 * l->n; j++)
			sum[j] = (i * 7 + j * 13) % 100 / 64.0;
		ok(kv_received_add(l, m, 0, sum, sum + l->n, &err) == KV_OK, "list %u is watched", i);
		free(sum);
	}
}

static void
test_round_trips(void)
{
	struct kv_cache *c = small_cache(small_geom(2, 4, 2, 64));
	static const uint32_t keep[] = { 1, 7 };
	struct kv_err err;

	round_trip(c, KVS_PACK_RAW, "an empty cache");
	small_feed(c, 1);
	round_trip(c, KVS_PACK_RAW, "one entry");
	watch(c, 1);
	small_feed(c, 4999);
	round_trip(c, KVS_PACK_RAW, "two chunks a list");
	watch(c, 4999);
	round_trip(c, KVS_PACK_ZLIB, "the same packed");
	kv_list_keep(kv_cache_list(c, 1, 0), keep, 2, &err);
	round_trip(c, KVS_PACK_ZLIB, "ragged lists");
	kv_list_keep(kv_cache_list(c, 1, 1), keep, 0, &err);
	round_trip(c, KVS_PACK_RAW, "a list without entries");
	kv_cache_free(c);
}

static unsigned
count_frames(const struct kv_cache *c, uint32_t type)
{
	struct kv_buf b = { 0 };
	struct kv_in *in;
	struct kvs_reader *r;
	struct kvs_frame f;
	struct kv_err err;
	unsigned n = 0;

	small_save(c, KVS_PACK_RAW, &b);
	kv_in_mem("bytes", b.p, b.len, &in, &err);
	kvs_reader_new(in, &r, &err);
	kvs_reader_begin(r, &err);
	while (kvs_reader_next(r, &f, &err) == KV_OK)
		n += f.head.type == type;
	kvs_reader_free(r);
	kv_in_close(in);
	kv_buf_free(&b);
	return n;
}

static void
test_entries_form(void)
{
	struct kv_cache *c = small_cache(small_geom(3, 4, 2, 8)), *copy;
	static const uint32_t keep[] = { 0, 1, 3 };
	struct kv_err err;

	small_feed(c, 4);
	is_int(count_frames(c, KVS_ENTS), 1, "one list for all");
	kv_list_keep(kv_cache_list(c, 1, 0), keep, 3, &err);
	kv_list_keep(kv_cache_list(c, 1, 1), keep, 3, &err);
	is_int(count_frames(c, KVS_ENTS), 3, "one a layer where layers differ");
	kv_list_keep(kv_cache_list(c, 2, 0), keep, 3, &err);
	is_int(count_frames(c, KVS_ENTS), 4, "one a head where heads differ");
	copy = small_copy(c);
	is_str(difference(c, copy), "", "all are read back");
	kv_cache_free(copy);
	kv_cache_free(c);
}

/* What kv-prefill --history alive leaves behind: ids and surprisals of single tokens before hist_first. */
static void
test_dead_tokens(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 2, 2, 8)), *read;
	static const uint32_t keep[] = { 0, 2, 5 };
	struct kv_err err;
	uint32_t id;
	float nll;

	small_feed(c, 6);
	for (unsigned t = 0; t < 2; t++) {
		struct kv_track *track = t ? &c->nll : &c->tokens;

		track->src = malloc(4 * sizeof *track->src);
		track->sparse = malloc(4 * sizeof *track->sparse);
		for (uint32_t i = 0; i < 4; i++) {
			track->src[i] = i;
			track->sparse[i] = track->v[i];
		}
		memmove(track->v, track->v + 4, 2 * sizeof *track->v);
		track->n_sparse = track->first = 4;
		track->n = 2;
	}
	c->state.hist_first = 4;
	kv_list_keep(kv_cache_list(c, 0, 0), keep, 3, &err);
	kv_list_keep(kv_cache_list(c, 0, 1), keep + 1, 2, &err);
	read = small_copy(c);
	is_int(read->tokens.n_sparse, 2, "ids of the dead are forgotten");
	ok(kv_cache_token(read, 2, &id) && id == 14 && !kv_cache_token(read, 3, &id) && kv_cache_token(read, 4, &id), "those of the living stay");
	is_int(read->nll.n_sparse, 2, "and so with surprisals");
	ok(kv_cache_nll(read, 2, &nll) && !kv_cache_nll(read, 1, &nll) && read->nll_count == 5, "their count is of all");
	kv_cache_free(read);
	kv_cache_free(c);
}

static void
test_editing(void)
{
	struct kv_cache *full = small_cache(small_geom(3, 4, 2, 16)), *a, *b;
	struct kv_err err;
	char d[33], e[33];

	small_feed(full, 40);
	a = small_copy(full);
	b = small_copy(full);
	small_run(&kv_stage_evict, "--window -k 20 --sinks 2", a, 1, NULL, &err);
	small_run(&kv_stage_evict, "--window -k 9 --sinks 2", a, 1, NULL, &err);
	small_run(&kv_stage_evict, "--window -k 9 --sinks 2", b, 1, NULL, &err);
	ok(kv_cache_list(a, 0, 0)->k.n_held && kv_cache_list(a, 0, 0)->k.n_left == 9, "rows are not copied before they are needed");
	is_str(small_digest(a, d), small_digest(b, e), "evict twice = evict once, for a policy that composes");
	ok(kv_cache_load(b, KV_LOAD_K | KV_LOAD_V, NULL, &err) == KV_OK && !kv_cache_list(b, 0, 0)->k.n_held, "loaded");
	is_str(small_digest(a, d), small_digest(b, e), "…they are the same");
	kv_cache_expect(a, 30);
	ok(kv_cache_reserve(a, 7, &err) == KV_OK && kv_cache_list(a, 0, 0)->k.n_held, "room for what is to come is noted while rows are held");
	ok(kv_rows_load(&kv_cache_list(a, 0, 0)->k, &err) == KV_OK && kv_cache_list(a, 0, 0)->k.cap == 39, "they get it when they are loaded");
	is_str(small_digest(a, d), small_digest(b, e), "…and are the same");
	small_run(&kv_stage_reposition, "--compact", a, 1, NULL, &err);
	small_digest(a, d);
	small_run(&kv_stage_reposition, "--compact", a, 1, NULL, &err);
	is_str(small_digest(a, e), d, "reposition twice = once");
	small_run(&kv_stage_reposition, "--original", a, 1, NULL, &err);
	is_str(small_digest(a, d), small_digest(b, e), "and back again");
	kv_cache_free(a);
	a = small_copy(full);
	small_run(&kv_stage_evict, "--knorm -k 40", a, 1, NULL, &err);
	ok(!kv_cache_edited(a) && kv_cache_list(a, 0, 0)->k.n_held, "a budget that suffices: unchanged, not even unpacked");
	small_run(&kv_stage_reposition, "--shift 5", a, 1, NULL, &err);
	ok(kv_cache_edited(a) && kv_cache_list(a, 0, 0)->k.n_held && kv_cache_list(a, 2, 1)->v.n_held, "reposition unpacks nothing");
	small_feed(a, 3);
	small_feed(full, 3);
	small_run(&kv_stage_reposition, "--original", a, 1, NULL, &err);
	is_str(small_digest(a, d), small_digest(full, e), "appended behind held rows = appended in memory");
	kv_cache_free(a);
	kv_cache_free(b);
	kv_cache_free(full);
}

/* A frame of a type from elsewhere. */
static void
add_other(struct kv_cache *c, uint32_t type, struct kvs_tag tag, const void *payload, size_t n)
{
	struct kv_held *h;

	c->other = realloc(c->other, 8 * sizeof *c->other);
	h = &c->other[c->n_other++];
	*h = (struct kv_held){ .head = { .type = type, .enc_len = n, .raw_len = n, .tag = tag }, .block = kv_block_new(n, 1) };
	memcpy(h->block, payload, n);
	h->payload = h->block;
	h->head.enc_hash = h->head.raw_hash = kvs_hash64(payload, n);
}

static unsigned
count_other(const struct kv_cache *c, uint32_t type)
{
	unsigned n = 0;

	for (size_t i = 0; i < c->n_other; i++)
		n += c->other[i].head.type == type;
	return n;
}

static void
test_unknown_frames(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 2, 1, 8)), *read, *again;
	const uint32_t safe = KVS_TYPE('m', 'A', 'B', 'c'), unsafe = KVS_TYPE('m', 'A', 'B', 'C');
	const struct kvs_tag all = { KVS_ALL, KVS_ALL, 0 }, head = { 0, 0, 7 };
	static const uint8_t bytes[10] = "whatever";
	struct kv_err err;
	char d[33], e[33];

	small_feed(c, 6);
	read = small_copy(c);
	kv_cache_free(c);
	c = read;
	small_digest(c, d);
	add_other(c, KVS_INFO, all, "{\"title\":\"x\"}", 13);
	add_other(c, unsafe, all, bytes, sizeof bytes);
	add_other(c, safe, head, bytes, sizeof bytes);
	read = small_copy(c);
	ok(count_other(read, safe) == 1 && count_other(read, unsafe) == 1 && count_other(read, KVS_INFO) == 1, "are kept by who changes nothing");
	is_int(read->other[read->n_other - 1].head.type, KVS_INFO, "the title stands last");
	is_str(small_digest(read, e), d, "and are not part of the digest");
	small_run(&kv_stage_evict, "--window -k 3", read, 1, NULL, &err);
	again = small_copy(read);
	ok(count_other(again, safe) == 1 && !count_other(again, unsafe) && count_other(again, KVS_INFO) == 1, "the unsafe one goes with the entries");
	kv_cache_free(again);
	kv_cache_free(read);
	read = small_copy(c);
	small_run(&kv_stage_reposition, "--shift 1", read, 1, NULL, &err);
	again = small_copy(read);
	ok(count_other(again, safe) == 1 && !count_other(again, unsafe), "and with positions");
	kv_cache_free(again);
	kv_cache_free(read);
	kv_cache_free(c);
}

/* A frame about one list as another writer may have put it: by maximum, say. */
static void
add_sums(struct kv_cache *c, struct kvs_tag tag, struct kvs_obsp o, const float *sums)
{
	struct kv_list *l = kv_cache_list(c, tag.layer, tag.head);
	struct kv_buf b = { 0 };

	o.src_hash = kvs_hash64(l->src, 4 * (size_t)o.n_cols);
	kvs_obsp_put(&b, &o, sums);
	add_other(c, KVS_OBSP, tag, b.p, b.len);
	kv_buf_free(&b);
}

/* "" or what differs in what is written of the two. */
static const char *
byte_for_byte(const struct kv_cache *a, const struct kv_cache *b)
{
	struct kv_buf p = { 0 }, q = { 0 };
	bool same;

	small_save(a, KVS_PACK_RAW, &p);
	small_save(b, KVS_PACK_RAW, &q);
	same = p.len == q.len && !memcmp(p.p, q.p, p.len);
	kv_buf_free(&p);
	kv_buf_free(&q);
	return same ? "" : "bytes";
}

static void
test_round(void)
{
	struct kv_cache *c = small_cache(small_geom(2, 6, 2, 8)), *read;
	struct kv_err err;

	small_feed(c, 9);
	policy_probe(c);
	c->sums[KV_SUMS_PROBE].probe_hash = 0x1234567890abcdef;
	c->sums[KV_SUMS_PROBE].at = 9;
	c->sums[KV_SUMS_CHUNK].all = false;
	for (size_t i = 0; i < 4; i++)
		c->sums[KV_SUMS_CHUNK].list[i].cols = 5;
	c->has_round = true;
	c->round = (struct kvs_obsr){ 7, 6, 5, 4, 3 };
	round_trip(c, KVS_PACK_RAW, "a round");
	round_trip(c, KVS_PACK_ZLIB, "a round, packed");
	is_int(count_frames(c, KVS_OBSP), 8, "a frame a list and kind");
	for (size_t i = 0; i < 4; i++)
		c->sums[KV_SUMS_CHUNK].list[i].cols = 0;
	round_trip(c, KVS_PACK_RAW, "nothing was old");
	read = small_copy(c);
	ok(read->sums[KV_SUMS_CHUNK].there && !read->sums[KV_SUMS_CHUNK].list[3].missing, "which is no missing record");
	small_run(&kv_stage_reposition, "--shift 3", read, 1, NULL, &err);
	ok(read->sums[KV_SUMS_PROBE].at == 9 && read->has_round && count_frames(read, KVS_OBSP) == 8, "positions move, the record stays");
	small_run(&kv_stage_evict, "--knorm -k 9", read, 1, NULL, &err);
	is_int(count_frames(read, KVS_OBSP), 8, "as it does where nothing is evicted");
	small_run(&kv_stage_evict, "--knorm -k 8", read, 1, NULL, &err);
	ok(!count_frames(read, KVS_OBSP) && count_frames(read, KVS_OBSR) == 1, "one entry less: it goes, the round goes on");
	kv_cache_free(read);
	small_feed(c, 1);
	ok(!count_frames(c, KVS_OBSP) && !count_frames(c, KVS_OBSR), "more text: both go");
	kv_cache_free(c);
}

/* By maximum, by one head of four alone, of another probe: what this library does not work with it hands on. */
static void
test_foreign_round(void)
{
	static const float sums[6] = { 1, 2, 3, 4, 5, 6 };
	struct kv_cache *c = small_cache(small_geom(2, 4, 2, 8)), *read;
	struct kvs_obsp o = { .n_cols = 3, .n_rows = 2, .n_queries = 2, .kind = 1, .at = 6 };
	struct kv_err err;

	small_feed(c, 6);
	read = small_copy(c);
	kv_cache_free(c);
	c = read;
	add_sums(c, (struct kvs_tag){ 0, 0, 1 }, o, sums);
	add_sums(c, (struct kvs_tag){ 0, 1, 1 }, (struct kvs_obsp){ .n_cols = 6, .n_rows = 1, .n_queries = 2, .kind = 1, .at = 6 }, sums);
	o.statistic = 1;
	add_sums(c, (struct kvs_tag){ 1, 0, 1 }, o, sums);
	o.kind = 0;
	add_sums(c, (struct kvs_tag){ 0, 0, 0 }, o, sums);
	read = small_copy(c);
	is_str(byte_for_byte(c, read), "", "written again, byte for byte");
	ok(read->sums[KV_SUMS_PROBE].there && !read->sums[KV_SUMS_PROBE].list[0].missing && read->sums[KV_SUMS_PROBE].list[1].missing &&
		read->sums[KV_SUMS_PROBE].list[2].missing && !read->sums[KV_SUMS_CHUNK].there, "one list is understood");
	is_int(count_other(read, KVS_OBSP), 3, "the others are carried along");
	is_int(small_run(&kv_stage_evict, "--citrus -k 3", read, 1, NULL, &err), KV_EFIT, "not enough to go by: %s", err.text);
	small_run(&kv_stage_evict, "--knorm -k 5", read, 1, NULL, &err);
	is_int(count_frames(read, KVS_OBSP), 0, "and go with the entries");
	kv_cache_free(read);
	kv_cache_free(c);
}

static void
test_damage(void)
{
	struct kv_cache *c = small_cache(small_geom(1, 2, 1, 8)), *read = NULL;
	struct kv_buf b = { 0 };
	struct kv_err err;
	unsigned wrong = 0;

	small_feed(c, 5);
	small_save(c, KVS_PACK_RAW, &b);
	for (size_t n = 0; n < b.len; n += 8) {
		struct kv_buf cut = { b.p, n, n, false };

		wrong += small_load(&cut, &read, &err) != KV_ECORRUPT || read;
	}
	is_int(wrong, 0, "cut anywhere: corrupt, nothing handed out");
	wrong = 0;
	for (size_t i = 0; i < b.len; i += 3) {
		b.p[i] ^= 0x10;
		wrong += small_load(&b, &read, &err) == KV_OK || read;
		b.p[i] ^= 0x10;
	}
	is_int(wrong, 0, "a flipped bit anywhere is refused");
	kv_buf_free(&b);
	kv_cache_free(c);
}

int
main(void)
{
	test_round_trips();
	test_entries_form();
	test_dead_tokens();
	test_editing();
	test_unknown_frames();
	test_round();
	test_foreign_round();
	test_damage();
	return done_testing();
}
