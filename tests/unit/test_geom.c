/* lib/kvs: geometry, the question of one model, chunk sizes, scales; rules of single payloads that no golden file shows. */
#include "tap.h"

#include "kvs/geom.h"
#include "kvs/payload.h"
#include "tiny.h"
#include "util/le.h"

static struct kv_err err;
static struct kvs_geom a, b;
static struct kvs_state s;

static void
fresh(void)
{
	tiny_geom(&a, &s);
	a.fp_kind = 1;
	for (uint8_t i = 0; i < 16; i++)
		a.fp_model[i] = a.fp_tokenizer[i] = i;
	b = a;
}

static void
test_round_trip(void)
{
	struct kv_buf buf = { 0 };
	struct kvs_state t;

	fresh();
	memset(&b, 0, sizeof b);
	kvs_geom_put(&buf, &a, &s);
	ok(kvs_geom_get(buf.p, buf.len, &b, &t, &err) == KV_OK, "GEOM: %s", err.text);
	buf.len = 0;
	kvs_rope_put(&buf, &a.rope[0]);
	ok(kvs_rope_get(buf.p, buf.len, &b, &b.rope[0], &err) == KV_OK, "ROPE");
	buf.len = 0;
	kvs_layers_put(&buf, &a);
	ok(kvs_layers_get(buf.p, buf.len, &b, &err) == KV_OK, "LAYR");
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_OK, "what comes back is the same model");
	ok(t.consumed == 5 && t.hist_first == 0 && t.next_pos == 5 && t.tail == 1 && t.ids, "and the same state");
	is_str(b.arch, "llama", "architecture");
	kv_buf_free(&buf);
}

static void
test_same(void)
{
	fresh();
	b.fp_model[15] = 0xab;
	ok(kvs_geom_same_model(&a, &b, true, &err) == KV_EFIT, "another model, force or not");
	is_str(err.text, "snapshot was made with another model: weights differ in fingerprint (snapshot ab0e0d0c0b0a…, model 0f0e0d0c0b0a…)", "both sides are named");
	fresh();
	b.n_layers = 2;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT, "another size");
	is_str(err.text, "layers: the model has 1, the snapshot has 2", "which one");
	fresh();
	strcpy(b.arch, "qwen2");
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT, "another architecture");
	is_str(err.text, "architecture: the model has llama, the snapshot has qwen2", "which one");
	fresh();
	b.rope[0].inv_freq[1] *= 1 + 9e-7f;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_OK, "frequencies within 1e-6");
	b.rope[0].inv_freq[1] = a.rope[0].inv_freq[1] * (1 + 2e-6f);
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT, "and beyond");
	fresh();
	b.rope[0].kind = KVS_ROPE_NEOX;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT, "another pairing");
	fresh();
	b.rope[0].theta = 5;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_OK, "where the table comes from does not matter");
	fresh();
	b.n_ctx_train = 0;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_OK, "the training context is for warnings alone");
	fresh();
	b.layer[0].window = 512;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT, "another window");
	fresh();
	b.layer[0].k_dtype = KVS_BF16;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_OK, "another element type is state");
	fresh();
	b.attn_scale = 0.25f;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT, "another scale");
	fresh();
	b.fp_adapters[0] = 1;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT, "an adapter");
	fresh();
	b.fp_tokenizer[0] = 1;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_OK, "the tokenizer is another question");
	ok(kvs_geom_same_tokenizer(&a, &b, false, &err) == KV_EFIT, "with this answer");
	fresh();
	b.fp_kind = 0;
	ok(kvs_geom_same_model(&a, &b, false, &err) == KV_EFIT && strstr(err.text, "--force"), "unknown fingerprints: %s", err.text);
	ok(kvs_geom_same_model(&a, &b, true, &err) == KV_OK, "will do with force");
	ok(kvs_geom_same_tokenizer(&a, &b, true, &err) == KV_OK, "for the tokenizer too");
}

static void
test_chunks(void)
{
	static const uint32_t want[][2] = { { 128, 4096 }, { 256, 4096 }, { 512, 2048 }, { 320, 2048 }, { 78, 4096 }, { 308, 2048 }, { 16, 4096 },
		{ 64, 4096 }, { 257, 2048 }, { 1 << 20, 1 }, { 1 << 21, 1 }, { 1, 4096 } };

	for (size_t i = 0; i < sizeof want / sizeof *want; i++)
		is_int(kvs_rows_per_chunk(want[i][0]), want[i][1], "rows of %u bytes", want[i][0]);
}

/* The example of formats/kvs.md, section 10.3: 40 bytes. */
static void
test_quant(void)
{
	static const uint8_t scales[4] = { 0, 0x3c, 0, 0x3c }, minima[4] = { 0, 0, 0, 0xbc };
	static const uint32_t rows[1] = { 4 };
	struct kvs_rows r = { .n_rows = 4, .row_bytes = 1, .width = 2, .dtype = KVS_CODES, .scheme = KVS_PER_CHANNEL, .bits = 2,
		.scale_dtype = KVS_F16, .group = 4 };
	struct kv_buf buf = { 0 };
	struct kvs_quant q;

	kvs_quant_put(&buf, &r, 1, rows, scales, minima);
	is_int(buf.len, 40, "a QUNT of one group");
	ok(kvs_quant_get(buf.p, buf.len, &r, &q, &err) == KV_OK, "is read back");
	ok(q.n_groups == 1 && q.n_vec == 2 && le32_get(q.rows) == 4 && !memcmp(q.scales, scales, 4) && !memcmp(q.minima, minima, 4), "as it was");
	r = (struct kvs_rows){ .n_rows = 3, .row_bytes = 4, .width = 4, .dtype = KVS_CODES, .scheme = KVS_PER_ROW, .bits = 8,
		.scale_dtype = KVS_F16, .group = 2 };
	buf.len = 0;
	kvs_quant_put(&buf, &r, 2, NULL, (const uint8_t[12]){ 0 }, (const uint8_t[12]){ 0 });
	ok(buf.len == 40 && kvs_quant_get(buf.p, buf.len, &r, &q, &err) == KV_OK && !q.rows, "groups of channels have no row counts");
	ok(kvs_quant_get(buf.p, buf.len - 2, &r, &q, &err) == KV_ECORRUPT, "cut");
	kv_buf_free(&buf);
}

static void
test_masks(void)
{
	static const uint8_t keep02[8] = { 0x5 }, keep01[8] = { 0x3 };
	struct kv_buf buf = { 0 };
	struct kvs_mask m;

	fresh();
	kvs_mask_put(&buf, &a, 0, false, keep01);
	ok(kvs_mask_get(buf.p, buf.len, &a, 0, &m, &err) == KV_OK && m.pairs && m.n_kept == 2, "NORM: channels 0 and 1 are a pair");
	ok(kvs_mask_has(&m, 1) && !kvs_mask_has(&m, 2), "its bits");
	a.rope[0].kind = KVS_ROPE_NEOX;
	ok(kvs_mask_get(buf.p, buf.len, &a, 0, &m, &err) == KV_ECORRUPT, "NEOX: they are not");
	buf.len = 0;
	kvs_mask_put(&buf, &a, 0, false, keep02);
	ok(kvs_mask_get(buf.p, buf.len, &a, 0, &m, &err) == KV_OK && m.pairs, "0 and 2 are");
	buf.len = 0;
	a.layer[0].rope = KVS_NO_ROPE;
	kvs_mask_put(&buf, &a, 0, false, keep01);
	ok(kvs_mask_get(buf.p, buf.len, &a, 0, &m, &err) == KV_OK && m.pairs, "without RoPE every mask is whole");
	buf.len = 0;
	kvs_mask_put(&buf, &a, 0, true, keep01);
	ok(kvs_mask_get(buf.p, buf.len, &a, 0, &m, &err) == KV_OK && !m.pairs && m.values, "a mask of values");
	kv_buf_free(&buf);
}

static void
test_obsp(void)
{
	static const float sums[4] = { 1, 2, 3, 4 };
	struct kvs_obsp o = { .n_cols = 2, .n_rows = 2, .n_queries = 5, .at = 3 }, got;
	struct kv_buf buf = { 0 };

	fresh();
	kvs_obsp_put(&buf, &o, sums);
	ok(kvs_obsp_get(buf.p, buf.len, &a, &got, &err) == KV_OK && got.n_queries == 5 && got.at == 3 && lef32_get(got.sums + 12) == 4, "oBSP");
	buf.p[14] = 1;
	ok(kvs_obsp_get(buf.p, buf.len, &a, &got, &err) == KV_ECORRUPT, "a reduction of rows that were not reduced");
	buf.p[14] = 0;
	buf.p[32] = 1;
	ok(kvs_obsp_get(buf.p, buf.len, &a, &got, &err) == KV_ECORRUPT, "a probe's hash in a chunk's sums");
	buf.p[32] = 0;
	buf.p[12] = 2;
	ok(kvs_obsp_get(buf.p, buf.len, &a, &got, &err) == KV_EUNSUP, "kind 2");
	buf.len = 0;
	o.n_cols = 0;
	kvs_obsp_put(&buf, &o, sums);
	ok(buf.len == 64 && kvs_obsp_get(buf.p, buf.len, &a, &got, &err) == KV_OK, "nothing was old: 64 bytes");
	kv_buf_free(&buf);
}

static void
test_sparse(void)
{
	static const uint32_t src[2] = { 0, 1 }, ids[2] = { 1, 7 }, dense[3] = { 3, 9, 4 };
	static const float old[2] = { -1, 2.5f }, nll[3] = { 0.75f, 3.125f, 0.5f };
	struct kvs_toks t;
	struct kvs_obsn o = { .first = 2, .n_dense = 3, .n_sparse = 2, .count_all = 4, .sum_all = 6.875 }, got;
	struct kvs_obsr r = { 7, 6, 5, 4, 3 }, back;
	struct kv_buf buf = { 0 };

	fresh();
	s.hist_first = 2;
	kvs_toks_put(&buf, 2, dense, 3, src, ids, 2);
	ok(kvs_toks_get(buf.p, buf.len, &a, &s, &t, &err) == KV_OK && le32_get(t.sparse + 4) == 7 && le32_get(t.dense + 8) == 4, "TOKS with old ids");
	s.hist_first = 1;
	ok(kvs_toks_get(buf.p, buf.len, &a, &s, &t, &err) == KV_ECORRUPT, "old ones that are not old");
	buf.len = 0;
	kvs_obsn_put(&buf, &o, nll, src, old);
	ok(kvs_obsn_get(buf.p, buf.len, &s, &got, &err) == KV_OK && lef32_get(got.sparse + 4) == 2.5f && lef32_get(got.dense) == 0.75f &&
		   got.sum_all == 6.875, "oBSn with old values");
	buf.len = 0;
	kvs_obsr_put(&buf, &r);
	ok(buf.len == 64 && kvs_obsr_get(buf.p, 64, &back, &err) == KV_OK && back.round == 7 && back.reserve == 3, "oBSR");
	kv_buf_free(&buf);
}

int
main(void)
{
	test_round_trip();
	test_same();
	test_chunks();
	test_quant();
	test_masks();
	test_obsp();
	test_sparse();
	return done_testing();
}
