/* The worked example of the format, put together by the library. */
#include "tiny.h"

#include <string.h>

#include "kvs/digest.h"
#include "kvs/payload.h"
#include "kvs/prov.h"
#include "util/half.h"
#include "util/le.h"

static const uint32_t src[3] = { 0, 3, 4 };
static const int32_t pos[3] = { 0, 3, 4 };
static const struct kvs_tag all = { KVS_ALL, KVS_ALL, 0 }, layer = { 0, KVS_ALL, 0 }, head = { 0, 0, 0 };

void
tiny_geom(struct kvs_geom *g, struct kvs_state *s)
{
	memset(g, 0, sizeof *g);
	g->n_layers = 1;
	g->n_heads = 2;
	g->n_heads_kv = 1;
	g->d_k = g->d_v = 4;
	g->n_embd = 8;
	g->n_vocab = 16;
	g->n_ctx_train = 64;
	g->n_rope = 1;
	g->attn_scale = 0.5f;
	strcpy(g->arch, "llama");
	g->rope[0] = (struct kvs_rope){ .kind = KVS_ROPE_NORM, .n_rot = 4, .theta = 10000, .factor = 1, .magnitude = 1, .inv_freq = { 1, 0.01f } };
	g->layer[0] = (struct kvs_layer){ .rope = 0, .k_dtype = KVS_F16, .v_dtype = KVS_F16 };
	*s = (struct kvs_state){ .consumed = 5, .next_pos = 5, .tail = 1, .ids = true };
}

static void
put_obsa(struct kv_buf *b)
{
	static const float sum[3] = { 2.6f, 0.33f, 0.25f }, squares[3] = { 1.74f, 0.0549f, 0.0625f };
	static const uint32_t count[3] = { 5, 2, 1 };
	uint8_t bytes[12];

	for (size_t i = 0; i < 3; i++)
		le32_put(bytes + 4 * i, src[i]);
	kvs_obsa_put(b, &(struct kvs_obsa){ .n = 3, .last = 5, .src_hash = kvs_hash64(bytes, sizeof bytes) }, sum, squares, count);
}

static void
put_rows(struct kv_buf *b, const float *x)
{
	struct kvs_rows r = { .n_rows = 3, .row_bytes = 8, .width = 4, .dtype = KVS_F16 };
	uint8_t *p = kv_buf_grow(b, KVS_ROWS_HEADER + 24);

	if (!p)
		return;
	kvs_rows_put(p, &r);
	for (size_t i = 0; i < 12; i++)
		le16_put(p + KVS_ROWS_HEADER + 2 * i, f32_to_f16(x[i]));
}

static void
put_prov(struct kv_buf *b)
{
	char h2o[] = "--h2o", k[] = "-k", three[] = "3", *argv[] = { h2o, k, three };
	struct kvs_prov p = { 0 };

	if (kvs_prov_add_run(&p, &(struct kvs_run){ .tool = "kv-evict", .version = "1.0.0", .argc = 3, .argv = argv, .kept = 3, .of = 5 },
		    NULL) == KV_OK)
		kv_buf_add(b, p.record[0], strlen(p.record[0]));
	kvs_prov_free(&p);
}

enum kv_status
tiny_write(struct kvs_writer *w, uint8_t digest[16], struct kv_err *err)
{
	static const uint32_t ids[5] = { 1, 7, 3, 9, 4 }, query_src[1] = { 4 };
	static const int32_t query_pos[1] = { 4 };
	static const float hidden[8] = { 0.125f, 0.25f, 0.375f, 0.5f, 0.625f, 0.75f, 0.875f, 1 };
	static const float query[8] = { 1, 0, 0.5f, -1, 0, 2, 1, 1 }, nll[5] = { -1, 2.5f, 0.75f, 3.125f, 0.5f };
	static const float keys[12] = { 1, 2, 3, 4, 0.5f, -0.5f, 0.25f, -0.25f, -1, 0, 1, -2 };
	static const float values[12] = { 0.1f, 0.2f, 0.3f, 0.4f, 1, 1, 1, 1, 0, -1, 0, 1 };
	struct { uint32_t type; struct kvs_tag tag; struct kv_buf b; } f[] = {
		{ KVS_GEOM, all, { 0 } }, { KVS_ROPE, all, { 0 } }, { KVS_LAYR, all, { 0 } }, { KVS_TOKS, all, { 0 } },
		{ KVS_HIDN, all, { 0 } }, { KVS_ENTS, all, { 0 } }, { KVS_OBSQ, layer, { 0 } }, { KVS_OBSA, head, { 0 } },
		{ KVS_KEYS, head, { 0 } }, { KVS_VALS, head, { 0 } }, { KVS_OBSN, all, { 0 } }, { KVS_PROV, all, { 0 } },
	};
	struct kvs_geom g;
	struct kvs_state s;
	enum kv_status rc;

	tiny_geom(&g, &s);
	kvs_geom_put(&f[0].b, &g, &s);
	kvs_rope_put(&f[1].b, &g.rope[0]);
	kvs_layers_put(&f[2].b, &g);
	kvs_toks_put(&f[3].b, 0, ids, 5, NULL, NULL, 0);
	kvs_hidn_put(&f[4].b, &g, &s, hidden);
	kvs_ents_put(&f[5].b, src, pos, 3);
	kvs_obsq_put(&f[6].b, &g, 1, query_src, query_pos, query);
	put_obsa(&f[7].b);
	put_rows(&f[8].b, keys);
	put_rows(&f[9].b, values);
	kvs_obsn_put(&f[10].b, &(struct kvs_obsn){ .n_dense = 5, .count_all = 4, .sum_all = 6.875 }, nll, NULL, NULL);
	put_prov(&f[11].b);

	rc = kvs_writer_begin(w, KVS_CHUNK_BYTES + KVS_ROWS_HEADER, err);
	for (size_t i = 0; i < sizeof f / sizeof f[0]; i++) {
		if (rc == KV_OK)
			rc = kvs_writer_put(w, f[i].type, f[i].tag, f[i].b.p, f[i].b.len, err);
		kv_buf_free(&f[i].b);
	}
	return rc == KV_OK ? kvs_writer_end(w, digest, err) : rc;
}
