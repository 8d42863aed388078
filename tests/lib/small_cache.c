/* Small caches with content, and stages run on them as a command line would. */
#include "small_cache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvs/digest.h"
#include "util/mem.h"

static void
must(enum kv_status rc, const struct kv_err *err)
{
	if (rc == KV_OK)
		return;
	fprintf(stderr, "tests: %s\n", err->text);
	abort();
}

struct kvs_geom *
small_geom(unsigned layers, unsigned heads, unsigned heads_kv, unsigned d)
{
	struct kvs_geom *g = calloc(1, sizeof *g);

	*g = (struct kvs_geom){ .n_layers = layers, .n_heads = heads, .n_heads_kv = heads_kv, .d_k = d, .d_v = d, .n_embd = 8, .n_vocab = 1000,
		.n_ctx_train = 64, .n_rope = 1, .attn_scale = (float)(1 / sqrt(d)), .arch = "llama" };
	g->rope[0] = (struct kvs_rope){ .kind = KVS_ROPE_NORM, .n_rot = d, .theta = 10000, .factor = 1, .magnitude = 1 };
	for (unsigned i = 0; i < d / 2; i++)
		g->rope[0].inv_freq[i] = (float)pow(10000, -2.0 * i / d);
	for (unsigned l = 0; l < layers; l++)
		g->layer[l] = (struct kvs_layer){ .k_dtype = KVS_F16, .v_dtype = KVS_F16 };
	return g;
}

struct kv_cache *
small_cache(struct kvs_geom *g)
{
	struct kv_cache *c;
	struct kv_err err;

	must(kv_cache_new(g, &c, &err), &err);
	free(g);
	return c;
}

/* A number in [-2, 2) that depends on where it stands alone. */
static float
arbitrary(uint32_t a, uint32_t b, uint32_t i)
{
	uint32_t key[3] = { a, b, i };

	return (float)(kvs_hash64(key, sizeof key) >> 40) * 0x1p-22f - 2;
}

static void
feed_layer(struct kv_cache *c, unsigned layer, uint32_t first, int32_t pos, uint32_t m)
{
	const struct kvs_geom *g = &c->geom;
	size_t width = (size_t)g->n_heads * g->d_k;
	float *x = calloc(m * width + 1, sizeof *x);
	struct kv_err err;

	for (unsigned h = 0; h < g->n_heads_kv; h++) {
		struct kv_list *l = kv_cache_list(c, layer, h);

		for (unsigned what = 0; what < 2; what++) {
			for (size_t i = 0; i < (size_t)m * g->d_k; i++)
				x[i] = arbitrary(layer * 64 + h * 2 + what, first, (uint32_t)i);
			must(kv_rows_put(what ? &l->v : &l->k, l->n - m, m, x, g->d_k, &err), &err);
		}
	}
	for (size_t i = 0; i < m * width; i++)
		x[i] = arbitrary(layer + 100000, first, (uint32_t)i);
	must(kv_queries_add(c, layer, 4, m, first, pos, x, &err), &err);
	free(x);
}

void
small_feed(struct kv_cache *c, uint32_t m)
{
	uint32_t first = (uint32_t)c->state.consumed, *ids = calloc(m + 1, sizeof *ids);
	float *nll = calloc(m + 1, sizeof *nll);
	int32_t pos = c->state.next_pos;
	struct kv_err err;

	must(kv_cache_extend(c, m, &err), &err);
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		feed_layer(c, l, first, pos, m);
	for (uint32_t i = 0; i < m; i++) {
		ids[i] = (first + i) * 7 % c->geom.n_vocab;
		nll[i] = first + i ? 2 + arbitrary(7, first, i) : -1;
	}
	must(kv_cache_add_tokens(c, ids, m, &err), &err);
	must(kv_cache_add_nll(c, nll, m, &err), &err);
	if (!c->hidden)
		c->hidden = calloc(c->geom.n_embd, sizeof *c->hidden);
	for (uint32_t i = 0; i < c->geom.n_embd; i++)
		c->hidden[i] = arbitrary(8, first + m, i);
	free(ids);
	free(nll);
}

void
small_save(const struct kv_cache *c, enum kvs_packing packing, struct kv_buf *out)
{
	char path[] = "/tmp/kv-small-XXXXXX";
	int fd = mkstemp(path);
	struct kv_out *o;
	struct kv_in *in;
	struct kvs_writer *w;
	struct kv_err err = { KV_EIO, "mkstemp" };

	must(fd < 0 ? KV_EIO : KV_OK, &err);
	close(fd);
	must(kv_out_open(path, true, false, &o, &err), &err);
	must(kvs_writer_new(o, packing, NULL, &w, &err), &err);
	must(kv_cache_write(c, w, &err), &err);
	kvs_writer_free(w);
	must(kv_out_commit(o, &err), &err);
	must(kv_in_open(path, &in, &err), &err);
	must(kv_in_rest(in, out, &err), &err);
	kv_in_close(in);
	unlink(path);
}

enum kv_status
small_load(const struct kv_buf *b, struct kv_cache **out, struct kv_err *err)
{
	struct kv_in *in;
	struct kvs_reader *r;
	enum kv_status rc;

	must(kv_in_mem("bytes", b->p, b->len, &in, err), err);
	must(kvs_reader_new(in, &r, err), err);
	if ((rc = kvs_reader_begin(r, err)) == KV_OK)
		rc = kv_cache_read(r, out, err);
	kvs_reader_free(r);
	kv_in_close(in);
	return rc;
}

struct kv_cache *
small_copy(const struct kv_cache *c)
{
	struct kv_buf b = { 0 };
	struct kv_cache *copy = NULL;
	struct kv_err err;

	small_save(c, KVS_PACK_RAW, &b);
	must(small_load(&b, &copy, &err), &err);
	kv_buf_free(&b);
	return copy;
}

char *
small_digest(const struct kv_cache *c, char out[33])
{
	struct kv_cache *copy = small_copy(c);

	kvs_hex128(copy->digest, out);
	kv_cache_free(copy);
	return out;
}

enum kv_status
small_run(const struct kv_stage *s, const char *line, struct kv_cache *c, unsigned threads, struct kv_buf *text, struct kv_err *err)
{
	char *words = strdup(line), *argv[32] = { "stage" }, *save;
	int argc = 1, key;
	struct kv_pool *pool = threads > 1 ? kv_pool_new(threads) : NULL;
	struct kv_notes notes = { 0 };
	struct kv_args a;
	const char *arg;
	void *cfg = NULL;
	enum kv_status rc;

	for (char *w = strtok_r(words, " ", &save); w && argc < 31; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	must(s->start(&cfg, err), err);
	must(kv_args_begin(&a, &s->usage, argc, argv, err), err);
	while ((rc = kv_args_next(&a, &key, &arg, err)) == KV_OK)
		if ((rc = s->option(cfg, key, arg, err)) != KV_OK)
			break;
	if (rc == KV_END)
		rc = s->ready(cfg, err);
	if (rc == KV_OK)
		rc = s->run(cfg, c, pool, &notes, err);
	if (text) {
		kv_buf_add(text, notes.text.p, notes.text.len);
		kv_buf_add(text, notes.remarks.p, notes.remarks.len);
		kv_buf_add(text, notes.detail.p, notes.detail.len);
		kv_buf_add(text, "", 1);
	}
	kv_args_end(&a);
	s->free(cfg);
	kv_notes_free(&notes);
	kv_pool_free(pool);
	free(words);
	return rc;
}

static char *
join(const struct kv_list *l, bool positions, char *out, size_t size)
{
	size_t n = 0;

	*out = 0;
	for (uint32_t i = 0; i < l->n && n < size; i++)
		n += (size_t)snprintf(out + n, size - n, "%s%lld", i ? " " : "", positions ? (long long)l->pos[i] : (long long)l->src[i]);
	return out;
}

char *
small_sources(const struct kv_cache *c, unsigned layer, unsigned head, char *out, size_t size)
{
	return join(kv_cache_list(c, layer, head), false, out, size);
}

char *
small_positions(const struct kv_cache *c, unsigned layer, unsigned head, char *out, size_t size)
{
	return join(kv_cache_list(c, layer, head), true, out, size);
}
