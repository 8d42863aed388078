/* kv-prune as a stage: worked examples down to the attention behind them, what is narrowed and what it takes, one state after another. */
#include "tap.h"

#include <stdlib.h>

#include "cache/segments.h"
#include "kernel/rope.h"
#include "model/forward_parts.h"
#include "policy/channel_view.h"
#include "policy/channels.h"
#include "small_cache.h"

static struct kv_err err;

static enum kv_status
prune(struct kv_cache *c, const char *line)
{
	err.text[0] = 0;
	return small_run(&kv_stage_prune, line, c, 1, NULL, &err);
}

/* One KV head, two query heads: five keys of four channels, values of two, the queries of the last two tokens. */
static struct kv_cache *
example(unsigned kind, int32_t shift)
{
	static const float keys[5 * 4] = { 2, 0, 1, 1, 0, 1, -2, 1, 1, -1, 0, 3, -1, 2, 0, 0, 3, 1, 1, -1 };
	static const float values[5 * 2] = { 1, 0, 0, 1, 1, 1, 2, 0, 0, 2 };
	static const float queries[2 * 2 * 4] = { 1, 0, 2, 1, 0, 3, 1, 1, 2, 1, 0, 1, 1, 2, 0, 0 };	/* [token][head][channel] */
	struct kvs_geom *g = small_geom(1, 2, 1, 4);
	struct kv_cache *c;

	g->d_v = 2;
	g->attn_scale = 0.5f;
	g->layer[0].k_dtype = g->layer[0].v_dtype = KVS_F32;
	g->rope[0].kind = kind;
	g->rope[0].inv_freq[1] = 0.01f;
	if (!kind) {
		g->n_rope = 0;
		g->layer[0].rope = KVS_NO_ROPE;
	}
	c = small_cache(g);
	c->state.next_pos = shift;
	kv_cache_extend(c, 5, &err);
	kv_rows_put(&c->list[0].k, 0, 5, keys, 4, &err);
	kv_rows_put(&c->list[0].v, 0, 5, values, 2, &err);
	kv_queries_add(c, 0, 2, 2, 3, 3 + shift, queries, &err);
	return c;
}

/* "1 2": the channels of a list that its first row has. */
static char *
channels(const struct kv_rows *r, uint32_t n, uint32_t row, char *out)
{
	struct kv_segment s = kv_rows_segment_of(r, n, row);
	int at = 0;

	*out = 0;
	for (unsigned j = 0; j < r->width; j++)
		if (kv_mask_has(s.mask, j))
			at += sprintf(out + at, "%s%u", at ? " " : "", j);
	return out;
}

/* What two query heads [2][4], before RoPE, take from the cache at the next position. */
static void
attend(struct kv_cache *c, const float *q, float *out)
{
	const struct kvs_geom *g = &c->geom;
	const struct kvs_rope *rope = g->layer[0].rope == KVS_NO_ROPE ? NULL : &g->rope[0];
	struct kv_engine e = { .list = calloc(1, sizeof *e.list) };
	struct kv_angles *angles = rope ? kv_angles_new(4, rope->inv_freq, 1) : NULL;
	float cs[5 * 4], at[4], turned[8];
	uint32_t src = 5;
	int32_t pos = c->state.next_pos;
	struct kv_attn a = { .heads = 2, .kv_heads = 1, .d_k = 4, .d_v = 2, .scale = 0.5f, .n_rot = rope ? 4 : 0,
		.neox = rope && rope->kind == KVS_ROPE_NEOX, .list = e.list, .q_src = &src, .q_pos = &pos };

	memcpy(turned, q, sizeof turned);
	kv_lists_ready(&e, c, &err);
	kv_lists_offer(&e, c, 0, &err);
	if (rope) {
		kv_angles_get(angles, c->list[0].pos, 5, cs);
		kv_angles_get(angles, &pos, 1, at);
		kv_rotate(turned, 4, a.neox, at);
		kv_rotate(turned + 4, 4, a.neox, at);
		e.list[0].angles = cs;
	}
	ok(kv_ops_generic.attend(NULL, &a, turned, 1, out), "attention");
	kv_angles_free(angles);
	free(e.segment);
	free(e.list);
}

static const struct worked {
	unsigned kind;
	const char *line, *kept;
	bool rotated;
	float out[4], full[4];
} worked[] = {
	{ 0, "--think 0.5 --recent 1 --last 2", "0 1", false, { 0.4870f, 1.2098f, 0.6420f, 0.9302f }, { 0.6923f, 0.9247f, 0.9373f, 0.7971f } },
	{ KVS_ROPE_NEOX, "--think 0.5 --recent 1 --last 2", "1 2", true, { 0.8851f, 0.7087f, 0.7930f, 0.7191f },
		{ 0.6911f, 0.6540f, 0.7047f, 0.7422f } },
	{ KVS_ROPE_NEOX, "--think 0.5 --recent 1 --last 2 --pairs", "1 3", false, { 0.8832f, 0.7239f, 0.9230f, 0.8828f },
		{ 0.6911f, 0.6540f, 0.7047f, 0.7422f } },
	{ KVS_ROPE_NORM, "--think 0.5 --recent 1 --last 2", "1 3", true, { 0.9362f, 0.7382f, 0.9343f, 0.8342f },
		{ 1.0878f, 0.3786f, 1.0107f, 0.7114f } },
	{ KVS_ROPE_NORM, "--think 0.5 --recent 1 --last 2 --pairs", "0 1", false, { 1.1539f, 0.4187f, 1.0423f, 0.6957f },
		{ 1.0878f, 0.3786f, 1.0107f, 0.7114f } },
};

static void
test_worked(void)
{
	static const float q[8] = { 1, 1, 1, 1, 1, 0, 1, 2 };

	for (size_t i = 0; i < sizeof worked / sizeof *worked; i++) {
		const struct worked *w = &worked[i];
		struct kv_cache *c = example(w->kind, 0), *moved = example(w->kind, 100);
		float out[4], full[4], still[4];
		char s[32];

		attend(c, q, full);
		is_int(prune(c, w->line), KV_OK, "%s: %s", w->line, err.text);
		is_str(channels(&c->list[0].k, 5, 0, s), w->kept, "pairing %u: %s: kept", w->kind, w->line);
		is_str(channels(&c->list[0].k, 5, 4, s), "0 1 2 3", "the newest stays whole");
		is_int(kv_rows_rotated(&c->list[0].k, 0), w->rotated, "baked iff pairs are broken");
		ok(!kv_rows_rotated(&c->list[0].k, 4), "the newest is not");
		attend(c, q, out);
		for (unsigned j = 0; j < 4; j++) {
			is_near((double)full[j], (double)w->full[j], 6e-5, "output %u of the full cache", j);
			is_near((double)out[j], (double)w->out[j], 6e-5, "output %u", j);
		}
		/* Positions change nothing for pairs: pruned there and looked at from there. */
		is_int(prune(moved, w->line), KV_OK, "100 positions on");
		if (w->kind == KVS_ROPE_NEOX && w->rotated)
			is_str(channels(&moved->list[0].k, 5, 0, s), "0 3", "single channels score by where they stand");
		if (w->kind == KVS_ROPE_NORM && w->rotated) {
			is_str(channels(&moved->list[0].k, 5, 0, s), "0 1", "and pairs may come out whole by luck");
			ok(!kv_rows_rotated(&moved->list[0].k, 0), "which leaves nothing to bake");
		}
		if (!w->rotated) {
			is_str(channels(&moved->list[0].k, 5, 0, s), w->kept, "the same channels");
			attend(moved, q, still);
			for (unsigned j = 0; j < 4; j++)
				is_near((double)still[j], (double)out[j], 2e-5, "the same output %u", j);
		}
		kv_cache_free(c);
		kv_cache_free(moved);
	}
}

/* Value channels of the example without RoPE; the errors that --report prints. */
static void
test_values(void)
{
	struct kv_cache *c = example(0, 0);
	struct kv_group_queries o;
	struct kv_turns *turns;
	double e[2] = { 0 }, first[2] = { 0 };
	struct kv_buf text = { 0 };
	char s[32];

	kv_turns_new(c, &turns, &err);
	is_int(kv_group_outputs(c, turns, 0, 0, 2, 0, 5, &o, &err), KV_OK, "outputs of four queries");
	is_int((long long)o.n, 4, "four");
	kv_channel_energy(first, o.q, 2, 2, 2);
	is_near(sqrt(first[0]), 1.1337, 6e-5, "head 0");
	is_near(sqrt(first[1]), 1.2177, 6e-5, "head 0");
	kv_channel_energy(e, o.q, 4, 2, 2);
	is_near(sqrt(e[0]), 2.0776, 6e-5, "the group");
	is_near(sqrt(e[1]), 1.7290, 6e-5, "the group");
	kv_block_free(o.q);
	kv_turns_free(turns);
	is_int(prune(c, "--think 0.5 --what v --recent 1 --last 2"), KV_OK, "%s", err.text);
	is_str(channels(&c->list[0].v, 5, 0, s), "0", "the larger output stays");
	is_str(channels(&c->list[0].v, 5, 4, s), "0 1", "the newest stays whole");
	ok(kv_rows_plain(&c->list[0].k), "keys are as they were");
	kv_cache_free(c);

	c = example(0, 0);
	is_int(small_run(&kv_stage_prune, "--think 0.5 --recent 1 --last 2 --report", c, 1, &text, &err), KV_OK, "%s", err.text);
	ok(strstr((char *)text.p, "layer 0 head 0: 2 of 4 channels dropped in 4 of 5 entries, relative squared error 0.3291, 56 of 80 bytes"),
		"52 of 158: %s", text.p);
	ok(strstr((char *)text.p, "\"error\":[[0.32911]]"), "and in the provenance");
	kv_buf_free(&text);
	kv_cache_free(c);
}

static struct kv_cache *
cache_of(unsigned d, unsigned layers, unsigned heads, unsigned heads_kv, uint32_t n)
{
	struct kv_cache *c = small_cache(small_geom(layers, heads, heads_kv, d)), *read;

	small_feed(c, n);
	read = small_copy(c);
	kv_cache_free(c);
	return read;
}

static uint32_t
narrowed(const struct kv_list *l)
{
	uint32_t n = 0;

	for (uint32_t r = 0; r < l->n; r++)
		n += kv_rows_segment_of(&l->k, l->n, r).mask != NULL;
	return n;
}

static void
test_lengths(void)
{
	static const struct { uint32_t n; const char *line; uint32_t narrow; } row[] = {
		{ 0, "--think 0.5 --last 4", 0 }, { 7, "--think 0.5 --last 4 --recent 8", 0 }, { 8, "--think 0.5 --last 4 --recent 8", 0 },
		{ 9, "--think 0.5 --last 4 --recent 8", 1 }, { 9, "--think 0.5 --last 4 --recent 0", 9 },
		{ 9, "--think 0.5 --last 4 --recent 4 --sinks 4", 1 }, { 9, "--think 0.5 --last 4 --recent 4 --sinks 5", 0 },
		{ 9, "--think 0.5 --last 4 --recent 4 --sinks 50", 0 }, { 9, "--think 0.5 --last 4 --recent 50", 0 },
		{ 9, "--think 0 --last 4 --recent 0", 0 }, { 3, "--think 0.5 --last 4 --recent 0", 3 },
		{ 9, "--think 0.1 --pairs --last 4 --recent 0", 0 },
	};

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct kv_cache *c = cache_of(8, 1, 2, 1, row[i].n), *back;

		is_int(prune(c, row[i].line), KV_OK, "%u entries, %s: %s", row[i].n, row[i].line, err.text);
		is_int(narrowed(&c->list[0]), row[i].narrow, "narrowed");
		is_int(kv_cache_edited(c), row[i].narrow > 0, "edited if so");
		back = small_copy(c);
		is_int(narrowed(&back->list[0]), row[i].narrow, "and so it is read again");
		kv_cache_free(back);
		kv_cache_free(c);
	}
}

/* Lists of different lengths: each keeps its own newest; the sinks stand in front. */
static void
test_ragged(void)
{
	static const uint32_t keep[] = { 1, 4, 5, 6, 9, 11 };
	struct kv_cache *c = cache_of(8, 2, 4, 2, 12);

	kv_list_keep(kv_cache_list(c, 1, 0), keep, 6, &err);
	is_int(prune(c, "--think 0.5 --last 4 --recent 4 --sinks 1"), KV_OK, "%s", err.text);
	is_int(narrowed(kv_cache_list(c, 0, 1)), 7, "12 - 4 - 1");
	is_int(narrowed(kv_cache_list(c, 1, 0)), 1, "6 - 4 - 1");
	ok(!kv_rows_segment_of(&c->list[0].k, 12, 0).mask && kv_rows_segment_of(&c->list[0].k, 12, 1).mask, "the sink is whole");
	kv_cache_free(c);
}

static uint64_t
bytes_of(const struct kv_rows *r, uint32_t n)
{
	struct kv_rows_bytes b = kv_rows_bytes(r, n);

	return b.rows + b.scales;
}

/* Shares of K and V that stay, as hundredths of a percent. */
static void
test_bytes(void)
{
	static const struct { unsigned d; uint32_t n; const char *line; int kv; } row[] = {
		{ 128, 2048, "--think 0.3", 8539 }, { 128, 128, "--think 0.3", 8887 }, { 128, 2048, "--think 0.4", 8039 },
		{ 128, 128, "--think 0.4", 8506 }, { 128, 2048, "--think 0.4 --pairs", 8077 }, { 128, 128, "--think 0.4 --pairs", 8535 },
		{ 128, 2048, "--think 0.4 --rounding paper", 8000 }, { 128, 128, "--think 0.4 --rounding paper", 8477 },
		{ 128, 2048, "--think 0.5", 7539 }, { 128, 128, "--think 0.5", 8125 }, { 128, 2048, "--think 0.6", 7078 },
		{ 128, 128, "--think 0.6", 7773 }, { 64, 2048, "--think 0.4", 8077 }, { 64, 128, "--think 0.4", 8535 },
		{ 64, 2048, "--think 0.4 --pairs", 8154 }, { 64, 128, "--think 0.4 --pairs", 8594 },
	};

	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct kv_cache *c = cache_of(row[i].d, 1, 1, 1, row[i].n);
		uint64_t full = (uint64_t)row[i].n * row[i].d * 4, now;
		char line[80];

		snprintf(line, sizeof line, "%s --last 4", row[i].line);
		prune(c, line);
		now = bytes_of(&c->list[0].k, row[i].n) + bytes_of(&c->list[0].v, row[i].n);
		is_int((long long)((double)now * 10000 / (double)full + 0.5), row[i].kv, "%u entries of %u channels, %s", row[i].n, row[i].d,
			row[i].line);
		is_int((long long)kv_rows_bytes(&c->list[0].k, row[i].n).masks, row[i].d / 8, "and a bit a channel");
		kv_cache_free(c);
	}
}

/* KIVI behind ThinK: bits an original element, where everything is coded. */
static void
test_with_codes(void)
{
	struct kv_cache *c = cache_of(128, 1, 1, 1, 64);
	double k, v;

	prune(c, "--think 0.4 --last 4 --recent 0");
	is_int(small_run(&kv_stage_quant, "--kivi 2 --residual 0", c, 1, NULL, &err), KV_OK, "%s", err.text);
	k = (double)bytes_of(&c->list[0].k, 64) * 8 / (64 * 128);
	v = (double)bytes_of(&c->list[0].v, 64) * 8 / (64 * 128);
	/* Rows of 77 codes of 2 bits are 20 bytes: a quarter of a byte each is padding. */
	is_near(k, 77.0 / 128 * 3, 0.05, "keys: 1.80 bits");
	is_near(v, 3, 1e-9, "values: 3 bits");
	is_near((k + v) / 2, 2.40, 0.03, "2.40 bits in the mean");
	kv_cache_free(c);
}

/* Rebuilt keys come back close; the error says so; a map that does not pay is not made. */
static void
test_rebuild(void)
{
	struct kvs_geom *g = small_geom(1, 1, 1, 16);
	struct kv_cache *c = small_cache(g);
	struct kv_buf text = { 0 };
	double apart = 0, size = 0;
	float was[200][16], row[16];

	small_feed(c, 200);
	for (uint32_t r = 0; r < 200; r++) {
		/* Four directions, a constant, and little else. */
		kv_rows_get(&c->list[0].k, r, row);
		for (unsigned j = 0; j < 16; j++)
			was[r][j] = row[0] * (float)cos(j + 1.0) + row[1] * (float)sin(2.0 * j) + row[2] * (float)cos(3.0 * j) +
				row[3] * (float)sin(4.0 * j + 1) + 3 + 0.01f * row[j];
		kv_rows_put(&c->list[0].k, r, 1, was[r], 16, &err);
	}
	is_int(small_run(&kv_stage_prune, "--think 0.5 --rebuild --last 4 --sinks 4 --report", c, 1, &text, &err), KV_OK, "%s", err.text);
	ok(strstr((char *)text.p, "not rebuilt: ") && strstr((char *)text.p, "\"rebuilt_error\":[["), "%s", text.p);
	is_int(narrowed(&c->list[0]), 200 - 32 - 4, "the rows between");
	for (uint32_t r = 4; r < 168; r++) {
		kv_rows_get(&c->list[0].k, r, row);
		for (unsigned j = 0; j < 16; j++) {
			apart += pow((double)row[j] - (double)was[r][j], 2);
			size += pow((double)was[r][j], 2);
		}
	}
	ok(sqrt(apart / size) < 0.02, "rebuilt but for %.3g", sqrt(apart / size));
	kv_cache_free(c);
	kv_buf_free(&text);

	c = cache_of(16, 1, 1, 1, 20);
	is_int(small_run(&kv_stage_prune, "--think 0.5 --rebuild --last 4 --recent 11", c, 1, &text, &err), KV_OK, "%s", err.text);
	ok(strstr((char *)text.p, "the map would take more bytes than it saves") && !narrowed(&c->list[0]), "9 rows do not pay: %s", text.p);
	is_int(prune(c, "--think 0.5 --rebuild --last 4 --recent 10"), KV_OK, "%s", err.text);
	is_int(narrowed(&c->list[0]), 10, "10 rows do");
	kv_buf_free(&text);
	kv_cache_free(c);
}

/* Pruned again: single channels then pairs that are whole again, which unbakes the rows. */
static void
test_again(void)
{
	struct kv_cache *c = cache_of(8, 1, 2, 1, 40), *before = cache_of(8, 1, 2, 1, 40);
	struct kv_segment s;
	double apart = 0;
	float a[8], b[8];

	kv_cache_load(before, KV_LOAD_K, NULL, &err);
	is_int(prune(c, "--think 0.4 --last 4 --recent 8 --score random --random-seed 1"), KV_OK, "%s", err.text);
	s = kv_rows_segment_of(&c->list[0].k, 40, 0);
	ok(s.rotated && s.width == 5, "baked, 5 channels");
	is_int(prune(c, "--think 0.8 --last 4 --recent 8"), KV_EUSAGE, "0.8 needs force: %s", err.text);
	is_int(prune(c, "--think 0.5 --pairs --last 4 --recent 8 --score knorm --score-keys pruned"), KV_OK, "%s", err.text);
	s = kv_rows_segment_of(&c->list[0].k, 40, 0);
	ok(!s.rotated && s.width == 4 && s.mask->pairs, "whole pairs again, before RoPE again");
	for (uint32_t r = 0; r < 32; r++) {
		kv_rows_get(&c->list[0].k, r, a);
		kv_rows_get(&before->list[0].k, r, b);
		for (uint32_t i = 0; i < s.width; i++)
			apart = fmax(apart, fabs((double)a[s.mask->channel[i]] - (double)b[s.mask->channel[i]]));
	}
	ok(apart < 4e-3, "as they were, but for two roundings: %.2g", apart);
	kv_cache_free(c);
	kv_cache_free(before);
}

/* Threads and the scoring order change nothing; random lots differ by seed and by head. */
static void
test_same(void)
{
	static const char *const line[] = { "--think 0.4 --last 4", "--think 0.4 --last 4 --pairs", "--think 0.4 --last 4 --score error",
		"--think 0.4 --last 4 --rebuild", "--think 0.4 --last 4 --what v", "--think 0.4 --score random" };
	struct kv_cache *a, *b;
	char one[33], two[33];

	for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
		a = cache_of(16, 3, 4, 2, 90);
		b = small_copy(a);
		is_int(small_run(&kv_stage_prune, line[i], a, 1, NULL, &err), KV_OK, "%s: %s", line[i], err.text);
		is_int(small_run(&kv_stage_prune, line[i], b, 3, NULL, &err), KV_OK, "with three threads");
		is_str(small_digest(a, one), small_digest(b, two), "are the same");
		kv_cache_free(a);
		kv_cache_free(b);
	}
	a = cache_of(16, 1, 2, 2, 90);
	b = small_copy(a);
	prune(a, "--think 0.5 --score random");
	prune(b, "--think 0.5 --score random --random-seed 2");
	ok(strcmp(small_digest(a, one), small_digest(b, two)), "another lot");
	ok(memcmp(kv_rows_segment_of(&a->list[0].k, 90, 0).mask->bits, kv_rows_segment_of(&a->list[1].k, 90, 0).mask->bits, 2),
		"for another head, too");
	kv_cache_free(a);
	kv_cache_free(b);
}

/* Keys that are no numbers, a partial rotary width, a magnitude. */
static void
test_odd(void)
{
	struct kvs_geom *g = small_geom(1, 1, 1, 8);
	struct kv_cache *c;
	float row[8] = { 1, 2, INFINITY };

	g->rope[0].n_rot = 4;
	g->rope[0].magnitude = 1.25f;
	c = small_cache(g);
	small_feed(c, 40);
	is_int(prune(c, "--think 0.5 --last 4 --recent 8 --score knorm"), KV_OK, "%s", err.text);
	is_int(kv_rows_rotated(&c->list[0].k, 0), !kv_rows_segment_of(&c->list[0].k, 40, 0).mask->pairs, "channels 4 … 7 break nothing");
	kv_cache_free(c);
	c = cache_of(8, 2, 2, 2, 40);
	kv_cache_load(c, KV_LOAD_K, NULL, &err);
	kv_rows_put(&kv_cache_list(c, 1, 1)->k, 3, 1, row, 8, &err);
	is_int(prune(c, "--think 0.5 --last 4"), KV_EFIT, "%s", err.text);
	ok(strstr(err.text, "layer 1 head 1: numbers that are not finite") != NULL, "says where");
	ok(!kv_cache_edited(c), "nothing has changed");
	kv_cache_free(c);
}

int
main(void)
{
	test_worked();
	test_values();
	test_lengths();
	test_ragged();
	test_bytes();
	test_with_codes();
	test_rebuild();
	test_again();
	test_same();
	test_odd();
	return done_testing();
}
