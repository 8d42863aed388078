/*
 * Rows in segments: what the quantiser makes of worked examples (KIVI; formats/kvs.md, section 10.3), what narrowing, coding and cutting leave of
 * rows, and that snapshots bring back what was written, however it is packed.
 */
#include "cache/segments.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tap.h"
#include "cache/snapshot.h"
#include "kvs/digest.h"
#include "small_cache.h"
#include "util/half.h"
#include "util/le.h"

enum { D = 8 };

static const struct kv_coding kivi_k = { KVS_PER_CHANNEL, 2, KVS_F16, 4, 8 }, kivi_v = { KVS_PER_ROW, 4, KVS_F16, 4, 8 };

static struct kv_cache *
cache_of(uint32_t n, unsigned dtype)
{
	struct kvs_geom *g = small_geom(1, 2, 1, D);
	struct kv_cache *c;

	g->layer[0].k_dtype = g->layer[0].v_dtype = (uint8_t)dtype;
	c = small_cache(g);
	small_feed(c, n);
	return c;
}

static void
set_rows(struct kv_rows *r, uint32_t n, const float *x)
{
	struct kv_err err;

	if (kv_rows_put(r, 0, n, x, D, &err) != KV_OK)
		abort();
}

/* Four numbers as one group, of rows or of channels: their codes in one word, and what they stand for. */
static void
test_quantiser(void)
{
	static const struct { unsigned bits; float x[4], back[4]; unsigned packed; float min, scale; } want[] = {
		{ 2, { -1, 0.2f, 0.5f, 2 }, { -1, 0, 1, 2 }, 0xe4, -1, 1 },
		{ 2, { 0, 0.5f, 2.5f, 3 }, { 0, 0, 2, 3 }, 0xe0, 0, 1 },
		{ 2, { 2, 2, 2, 2 }, { 2, 2, 2, 2 }, 0x00, 2, 0 },
		{ 4, { -1.5f, -0.3f, 0.25f, 6 }, { -1.5f, -0.5f, 0.5f, 6 }, 0xf420, -1.5f, 0.5f },
		{ 8, { 0, 1, 128, 255 }, { 0, 1, 128, 255 }, 0xff800100, 0, 1 },
		{ 4, { 5.9604645e-8f, 0, 0, 0 }, { 0, 0, 0, 0 }, 0, 0, 0 },	/* a scale that f16 rounds to 0 */
		{ 2, { -65504, 65504, 0, 0 }, { -65504, 65536, -21824, -21824 }, 0x5c, -65504, 43680 },	/* 131008 / 3 is no f16 */
	};
	struct kv_err err;

	for (size_t i = 0; i < sizeof want / sizeof *want; i++)
		for (unsigned scheme = 1; scheme <= 2; scheme++) {
			struct kv_cache *c = cache_of(4, KVS_F32);
			struct kv_rows *r = &c->list[0].k;
			struct kv_coding how = { (uint8_t)scheme, (uint8_t)want[i].bits, KVS_F16, 4, 0 };
			float x[4 * D] = { 0 }, y[D];
			unsigned packed = 0;
			bool same = true;

			for (unsigned k = 0; k < 4; k++)
				x[scheme == 1 ? k * D : k] = want[i].x[k];
			set_rows(r, 4, x);
			is_int(kv_rows_code(r, 4, 0, 4, &how, &err), KV_OK, "%u bits, scheme %u, example %zu", want[i].bits, scheme, i + 1);
			for (unsigned k = 0; k < 4; k++) {
				unsigned row = scheme == 1 ? k : 0, bit = scheme == 1 ? 0 : k * want[i].bits;

				packed |= ((unsigned)r->seg[0].data[row * r->seg[0].row_bytes + bit / 8] >> bit % 8 & ((1u << want[i].bits) - 1)) << k * want[i].bits;
				kv_rows_get(r, row, y);
				same &= fabsf(y[scheme == 1 ? 0 : k] - want[i].back[k]) <= 0;
			}
			ok(packed == want[i].packed, "codes %x, want %x", packed, want[i].packed);
			ok(same, "and what they stand for");
			ok(f16_to_f32(le16_get(r->seg[0].scales)) == want[i].scale && f16_to_f32(le16_get(r->seg[0].minima)) == want[i].min,
				"scale and minimum");
			kv_cache_free(c);
		}
}

/* No row is off by more than half a step, and the step's own rounding. */
static void
test_error(void)
{
	struct kv_cache *c = cache_of(70, KVS_F16);
	struct kv_rows *r = &c->list[0].k;
	float was[70][D], is[D];
	bool close = true;

	for (uint32_t i = 0; i < 70; i++)
		kv_rows_get(r, i, was[i]);
	kv_rows_code(r, 70, 0, 64, &kivi_k, NULL);
	for (uint32_t i = 0; i < 70; i++) {
		const struct kv_segment *s = &r->seg[0];

		kv_rows_get(r, i, is);
		for (unsigned j = 0; j < D; j++) {
			float step = i < 64 ? f16_to_f32(le16_get(s->scales + 2 * (i / 4 * D + j))) : 0;

			close &= fabsf(is[j] - was[i][j]) <= step * 0.5f * (1 + 0x1p-8f) + step * 3 * 0x1p-11f;
		}
	}
	ok(close, "codes are the nearest ones");
	kv_cache_free(c);
}

static void
test_refusals(void)
{
	struct kv_cache *c = cache_of(12, KVS_F32);
	struct kv_rows *r = &c->list[0].k;
	struct kv_coding odd = { KVS_PER_ROW, 4, KVS_F16, 3, 0 };
	float row[D] = { 1, 2, NAN };
	struct kv_err err;

	is_int(kv_rows_code(r, 12, 0, 8, &odd, &err), KV_EFIT, "groups that do not divide a row");
	ok(kv_rows_plain(r), "leave everything as it was");
	kv_rows_put(r, 9, 1, row, D, &err);
	is_int(kv_rows_code(r, 12, 4, 12, &kivi_k, &err), KV_EFIT, "not a number");
	ok(strstr(err.text, "entry 9 "), "is named: %s", err.text);
	ok(kv_rows_plain(r), "and nothing is changed");
	row[2] = 1e30f;
	kv_rows_put(r, 9, 1, row, D, &err);
	is_int(kv_rows_code(r, 12, 8, 12, &kivi_k, &err), KV_EFIT, "a range beyond f16: %s", err.text);
	kv_cache_free(c);
}

/* Channels as a string of 0 and 1. */
static struct kv_mask *
mask_of(const struct kv_cache *c, bool values, const char *channels)
{
	uint8_t bits[D / 8] = { 0 };
	struct kv_mask *m;
	struct kv_err err;

	for (unsigned j = 0; j < D; j++)
		bits[j / 8] |= (uint8_t)((channels[j] - '0') << j % 8);
	if (kv_mask_new(&c->geom, 0, values, bits, &m, &err) != KV_OK)
		abort();
	return m;
}

/* Are the rows [from, to) those of before with only the mask's channels left? */
static bool
masked(const struct kv_rows *r, uint32_t from, uint32_t to, float (*was)[D], const char *channels)
{
	bool same = true;
	float x[D];

	for (uint32_t i = from; i < to; i++) {
		kv_rows_get(r, i, x);
		for (unsigned j = 0; j < D; j++)
			same &= x[j] == (channels[j] == '1' ? was[i][j] : 0);
	}
	return same;
}

static void
test_narrow(void)
{
	struct kv_cache *c = cache_of(30, KVS_F16);
	struct kv_rows *r = &c->list[0].k;
	struct kv_mask *wide = mask_of(c, false, "11110011"), *few = mask_of(c, false, "00110011"), *broken = mask_of(c, false, "01111111");
	struct kv_rows_bytes b;
	float was[30][D], x[30][7] = { { 0 } }, row[D];
	struct kv_err err;

	for (uint32_t i = 0; i < 30; i++)
		kv_rows_get(r, i, was[i]);
	ok(wide->pairs && !broken->pairs && wide->n_kept == 6, "masks");
	is_int(kv_rows_narrow(r, 30, 2, 20, broken, &err), KV_EFIT, "keys before RoPE keep whole pairs: %s", err.text);
	is_int(kv_rows_narrow(r, 30, 2, 20, wide, &err), KV_OK, "narrowed");
	ok(r->n_seg == 2 && r->front == 20 && kv_rows_segments(r, 30) == 3, "two plain rows, eighteen narrow ones, ten plain ones");
	ok(masked(r, 0, 2, was, "11111111") && masked(r, 2, 20, was, "11110011") && masked(r, 20, 30, was, "11111111"), "as they were");
	is_int(kv_rows_narrow(r, 30, 2, 20, few, &err), KV_OK, "further");
	is_int(kv_rows_narrow(r, 30, 2, 20, wide, &err), KV_EFIT, "what is gone is gone: %s", err.text);
	is_int(kv_rows_narrow(r, 30, 0, 30, few, &err), KV_OK, "all of it");
	ok(r->n_seg == 1 && r->front == 30 && masked(r, 0, 30, was, "00110011"), "is one segment");
	b = kv_rows_bytes(r, 30);
	ok(b.rows == 30 * 4 * 2 && b.full == 30 * D * 2 && b.masks == 8 && !b.scales, "its bytes");
	for (uint32_t i = 0; i < 30; i++)
		for (unsigned j = 0; j < 7; j++)
			x[i][j] = (float)i;
	is_int(kv_rows_put_narrow(r, 30, 4, 8, broken, true, x[0], &err), KV_OK, "turned rows are given");
	kv_rows_get(r, 6, row);
	ok(kv_rows_rotated(r, 6) && !kv_rows_rotated(r, 3) && !kv_rows_rotated(r, 8) && row[0] == 0 && row[1] == 2, "and stand there");
	is_int(kv_rows_put_narrow(r, 30, 4, 8, wide, true, x[0], &err), KV_EFIT, "not under whole pairs");
	kv_mask_free(wide);
	kv_mask_free(few);
	kv_mask_free(broken);
	kv_cache_free(c);
}

/* Dropping channels and quantising: in either order the same bytes. */
static void
test_commutes(void)
{
	struct kv_cache *c[2] = { cache_of(30, KVS_F16), cache_of(30, KVS_F16) };
	struct kv_mask *m = mask_of(c[0], false, "11001100");
	char one[33], two[33];

	kv_rows_narrow(&c[0]->list[0].k, 30, 0, 24, m, NULL);
	kv_rows_code(&c[0]->list[0].k, 30, 0, 24, &kivi_k, NULL);
	kv_rows_code(&c[1]->list[0].k, 30, 0, 24, &kivi_k, NULL);
	kv_rows_narrow(&c[1]->list[0].k, 30, 0, 24, m, NULL);
	is_str(small_digest(c[0], one), small_digest(c[1], two), "narrow and then in codes, or in codes and then narrow");
	ok(kv_rows_narrow(&c[1]->list[0].v, 30, 0, 24, m, NULL) == KV_EFIT || c[1]->list[0].v.n_seg, "values");
	kv_mask_free(m);
	kv_cache_free(c[0]);
	kv_cache_free(c[1]);
}

static void
test_map(void)
{
	struct kv_cache *c = cache_of(10, KVS_F32);
	struct kv_rows *r = &c->list[0].k;
	struct kv_mask *m = mask_of(c, false, "11111100");
	float map[2][7] = { { 1, 0, 0, 0, 0, 0, 0.5f }, { 0, 2, -1, 0, 0, 0, 0 } }, was[D], x[D];
	bool rebuilt = true;
	char one[33], two[33];
	struct kv_cache *copy;

	kv_mask_set_map(m, KVS_F16, map[0], NULL);
	kv_rows_get(r, 3, was);
	kv_rows_narrow(r, 10, 0, 8, m, NULL);
	kv_rows_get(r, 3, x);
	rebuilt = x[6] == 0.5f + was[0] && x[7] == 2 * was[1] - was[2];
	ok(rebuilt, "dropped channels are rebuilt");
	ok(kv_rows_rebuild(r, NULL) == KV_OK && r->seg[0].whole && !memcmp(r->seg[0].whole + 3 * sizeof x, x, sizeof x), "once for attention");
	c->edited = true;
	copy = small_copy(c);
	kv_rows_load(&copy->list[0].k, NULL);
	kv_rows_get(&copy->list[0].k, 3, was);
	ok(!memcmp(was, x, sizeof x), "a snapshot has the map");
	is_str(small_digest(c, one), small_digest(copy, two), "and the same digest");
	kv_mask_free(m);
	kv_cache_free(copy);
	kv_cache_free(c);
}

/* Sinks, codes, narrow codes, plain rows; values in codes. */
static struct kv_cache *
mixed(uint32_t n)
{
	struct kv_cache *c = cache_of(n, KVS_F16);
	struct kv_list *l = &c->list[0];
	struct kv_mask *m = mask_of(c, false, "11001111");

	if (kv_rows_code(&l->k, n, 4, n - 8, &kivi_k, NULL) != KV_OK || kv_rows_narrow(&l->k, n, 12, n - 16, m, NULL) != KV_OK ||
		kv_rows_code(&l->v, n, 0, n - 5, &kivi_v, NULL) != KV_OK)
		abort();
	kv_mask_free(m);
	c->edited = true;
	return c;
}

static bool
same_rows(struct kv_list *a, struct kv_list *b)
{
	bool same = a->n == b->n && kv_rows_load(&a->k, NULL) == KV_OK && kv_rows_load(&a->v, NULL) == KV_OK && kv_rows_load(&b->k, NULL) == KV_OK &&
		kv_rows_load(&b->v, NULL) == KV_OK;
	float x[D], y[D];

	for (uint32_t i = 0; same && i < a->n; i++)
		for (unsigned w = 0; w < 2; w++) {
			kv_rows_get(w ? &a->v : &a->k, i, x);
			kv_rows_get(w ? &b->v : &b->k, i, y);
			same &= !memcmp(x, y, sizeof x);
		}
	return same;
}

static void
test_snapshots(void)
{
	static const uint32_t lengths[] = { 40, 5000, 9000 };

	for (size_t i = 0; i < 3; i++)
		for (unsigned packing = KVS_PACK_RAW; packing <= KVS_PACK_ZLIB; packing++) {
			struct kv_cache *c = mixed(lengths[i]), *back;
			struct kv_buf bytes = { 0 }, again = { 0 };
			char one[33], two[33];
			struct kv_err err;

			small_save(c, (enum kvs_packing)packing, &bytes);
			is_int(small_load(&bytes, &back, &err), KV_OK, "%u entries, %s", lengths[i], packing == KVS_PACK_RAW ? "raw" : "packed");
			ok(!kv_cache_edited(back) && back->list[0].k.n_held && back->list[0].v.n_held, "read without unpacking");
			small_save(back, (enum kvs_packing)packing, &again);
			ok(bytes.len == again.len && !memcmp(bytes.p, again.p, bytes.len), "forwarded: the same bytes");
			ok(same_rows(&c->list[0], &back->list[0]), "the same rows");
			ok(back->list[0].k.n_seg == c->list[0].k.n_seg && back->list[0].k.seg[1].n_groups == c->list[0].k.seg[1].n_groups,
				"groups that a chunk's end has cut are whole again");
			is_str(small_digest(c, one), small_digest(back, two), "written anew: the same digest");
			kv_buf_free(&bytes);
			kv_buf_free(&again);
			kv_cache_free(c);
			kv_cache_free(back);
		}
}

/* Which of n rows stay: every row but those of some whole groups; or with holes in groups. */
static uint32_t
choose(uint32_t n, bool whole, uint32_t *keep)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < n; i++)
		if (whole ? i < 4 || i >= n - 8 || (i - 4) / 4 % 3 != 1 : i % 3 != 1)
			keep[k++] = i;
	return k;
}

static void
test_keep(void)
{
	uint32_t keep[200];

	for (unsigned held = 0; held < 2; held++)
		for (unsigned whole = 0; whole < 2; whole++) {
			struct kv_cache *c = mixed(120), *was = mixed(120), *p;
			uint32_t n = choose(120, whole, keep), cut;
			bool same = true, alive = true;
			float x[D], y[D];
			char one[33], two[33];

			if (held) {
				p = small_copy(c);
				kv_cache_free(c);
				c = p;
			}
			kv_rows_load(&c->list[0].k, NULL);
			cut = kv_rows_groups_cut(&c->list[0].k, keep, n);
			ok(whole ? !cut : cut == 27, "%u groups are cut", cut);
			kv_list_keep(&c->list[0], keep, n, NULL);
			for (uint32_t i = 0; i < n; i++)
				for (unsigned w = 0; w < 2; w++) {
					kv_rows_get(w ? &c->list[0].v : &c->list[0].k, i, x);
					kv_rows_get(w ? &was->list[0].v : &was->list[0].k, keep[i], y);
					same &= !memcmp(x, y, sizeof x);
					alive &= kv_rows_rotated(&c->list[0].k, i) == kv_rows_rotated(&was->list[0].k, keep[i]);
				}
			ok(same && alive, "rows that stay are what they were, %s", held ? "read from a snapshot" : "in memory");
			p = small_copy(c);
			is_str(small_digest(c, one), small_digest(p, two), "and survive a snapshot");
			kv_cache_free(p);
			kv_cache_free(c);
			kv_cache_free(was);
		}
}

static void
test_back_to_plain(void)
{
	struct kv_cache *c = mixed(60), *was = mixed(60);
	struct kv_list *l = &c->list[0];
	struct kv_err err;

	is_int(kv_rows_uncode(&l->v, 60, 0, 60, &err), KV_OK, "values out of codes");
	ok(kv_rows_plain(&l->v) && l->v.data && kv_rows_plain(&l->v), "are plain");
	is_int(kv_rows_uncode(&l->k, 60, 0, 60, &err), KV_OK, "keys out of codes");
	ok(l->k.n_seg == 2 && l->k.seg[1].mask && l->k.seg[1].dtype == KVS_F16 && !kv_rows_exact(&l->k), "keep their mask");
	is_int(kv_rows_convert(&l->k, 60, KVS_F32, &err), KV_OK, "another element type");
	ok(l->k.dtype == KVS_F32 && l->k.seg[0].dtype == KVS_F32 && l->k.seg[1].dtype == KVS_F32, "for all");
	kv_rows_load(&was->list[0].k, NULL);
	kv_cache_free(c);
	kv_cache_free(was);
}

static void
test_append(void)
{
	struct kv_cache *c = mixed(60), *copy = small_copy(c);
	float x[D], y[D];
	bool same = true;

	small_feed(c, 30);
	small_feed(copy, 30);
	ok(c->list[0].k.front == 52 && c->list[0].n == 90 && copy->list[0].k.front == 52, "new rows are plain");
	for (uint32_t i = 0; i < 90; i++) {
		kv_rows_get(&c->list[0].k, i, x);
		kv_rows_get(&copy->list[0].k, i, y);
		same &= i >= 60 || !memcmp(x, y, sizeof x);
	}
	ok(same, "and the others what they were, in memory and from a snapshot");
	kv_cache_free(c);
	kv_cache_free(copy);
}

int
main(void)
{
	test_quantiser();
	test_error();
	test_refusals();
	test_narrow();
	test_commutes();
	test_map();
	test_snapshots();
	test_keep();
	test_back_to_plain();
	test_append();
	return done_testing();
}
