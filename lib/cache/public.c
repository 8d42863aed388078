/* The public interface (kvs/kvs.h) in terms of our own. */
#include "kvs/kvs.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/snapshot.h"
#include "kvs/digest.h"
#include "util/in.h"

struct kvs_file {
	struct kv_in *in;
	struct kvs_reader *reader;
	struct kv_cache *cache;		/* the snapshot in hand; NULL before the first and after the last */
};

static int
result(enum kv_status rc, const struct kv_err *err, struct kvs_error *e)
{
	if (rc == KV_OK)
		return KVS_GOOD;
	if (rc == KV_END)
		return KVS_OVER;
	if (e) {
		e->code = kv_exit_code(rc);
		memcpy(e->text, err->text, sizeof e->text);
	}
	return kv_exit_code(rc);
}

/* Takes in. */
static int
start(struct kv_in *in, struct kvs_file **out, struct kvs_error *e)
{
	struct kvs_file *f = calloc(1, sizeof *f);
	struct kv_err err;
	enum kv_status rc = f ? kvs_reader_new(in, &f->reader, &err) : kv_fail_mem(&err, "reading a snapshot");

	if (rc != KV_OK) {
		free(f);
		kv_in_close(in);
		return result(rc, &err, e);
	}
	f->in = in;
	*out = f;
	return KVS_GOOD;
}

int
kvs_open(const char *path, struct kvs_file **out, struct kvs_error *e)
{
	struct kv_in *in;
	struct kv_err err;
	enum kv_status rc = kv_in_open(path, &in, &err);

	return rc == KV_OK ? start(in, out, e) : result(rc, &err, e);
}

int
kvs_open_fd(int fd, struct kvs_file **out, struct kvs_error *e)
{
	struct kv_in *in;
	struct kv_err err;
	enum kv_status rc = kv_in_adopt(fd, "a descriptor", &in, &err);

	if (rc == KV_OK)
		return start(in, out, e);
	close(fd);
	return result(rc, &err, e);
}

int
kvs_open_memory(const void *data, size_t n, struct kvs_file **out, struct kvs_error *e)
{
	struct kv_in *in;
	struct kv_err err;
	enum kv_status rc = kv_in_mem("memory", data, n, &in, &err);

	return rc == KV_OK ? start(in, out, e) : result(rc, &err, e);
}

void
kvs_close(struct kvs_file *f)
{
	if (!f)
		return;
	kv_cache_free(f->cache);
	kvs_reader_free(f->reader);
	kv_in_close(f->in);
	free(f);
}

int
kvs_next(struct kvs_file *f, struct kvs_error *e)
{
	struct kv_err err;
	enum kv_status rc;

	kv_cache_free(f->cache);
	f->cache = NULL;
	if ((rc = kvs_reader_begin(f->reader, &err)) == KV_OK)
		rc = kv_cache_read(f->reader, &f->cache, &err);
	if (rc != KV_OK && rc != KV_END && rc != KV_EIO)
		kv_err_in(&err, "%s", kv_in_name(f->in));
	return result(rc, &err, e);
}

void
kvs_describe(const struct kvs_file *f, struct kvs_shape *out)
{
	const struct kvs_geom *g = &f->cache->geom;
	const struct kvs_state *s = &f->cache->state;

	*out = (struct kvs_shape){
		.n_layers = g->n_layers, .n_heads = g->n_heads, .n_heads_kv = g->n_heads_kv, .d_k = g->d_k, .d_v = g->d_v,
		.n_embd = g->n_embd, .n_vocab = g->n_vocab, .attn_scale = g->attn_scale,
		.n_tokens = s->consumed, .next_pos = s->next_pos, .tail = s->tail,
	};
	memcpy(out->arch, g->arch, sizeof out->arch);
	memcpy(out->model, g->fp_model, sizeof out->model);
	memcpy(out->digest, f->cache->digest, sizeof out->digest);
}

char *
kvs_print_digest(const uint8_t digest[16], char out[33])
{
	return kvs_hex128(digest, out);
}

/* NULL: there is no such list. */
static struct kv_list *
list_of(const struct kvs_file *f, unsigned layer, unsigned head)
{
	const struct kvs_geom *g = &f->cache->geom;

	return layer < g->n_layers && head < g->n_heads_kv ? kv_cache_list(f->cache, layer, head) : NULL;
}

uint32_t
kvs_entries(const struct kvs_file *f, unsigned layer, unsigned head)
{
	const struct kv_list *l = list_of(f, layer, head);

	return l ? l->n : 0;
}

const uint32_t *
kvs_sources(const struct kvs_file *f, unsigned layer, unsigned head)
{
	const struct kv_list *l = list_of(f, layer, head);

	return l ? l->src : NULL;
}

const int32_t *
kvs_positions(const struct kvs_file *f, unsigned layer, unsigned head)
{
	const struct kv_list *l = list_of(f, layer, head);

	return l ? l->pos : NULL;
}

/* Rows are unpacked when they are first asked for, and stay so until the next snapshot. */
static int
rows(struct kv_rows *r, uint32_t first, uint32_t n, float *out, struct kvs_error *e)
{
	struct kv_err err;
	enum kv_status rc;

	if (n && (rc = kv_rows_load(r, &err)) != KV_OK)
		return result(rc, &err, e);
	for (uint32_t i = 0; i < n; i++)
		kv_rows_get(r, first + i, out + (size_t)i * r->width);
	return KVS_GOOD;
}

static int
not_there(unsigned layer, unsigned head, uint32_t first, uint32_t n, struct kvs_error *e)
{
	struct kv_err err;

	return result(kv_fail(&err, KV_EFIT, "layer %u head %u has no %lu rows from %lu on", layer, head, (unsigned long)n,
		(unsigned long)first), &err, e);
}

int
kvs_keys(struct kvs_file *f, unsigned layer, unsigned head, uint32_t first, uint32_t n, float *out, struct kvs_error *e)
{
	struct kv_list *l = list_of(f, layer, head);

	if (!l || first > l->n || n > l->n - first)
		return not_there(layer, head, first, n, e);
	return rows(&l->k, first, n, out, e);
}

int
kvs_values(struct kvs_file *f, unsigned layer, unsigned head, uint32_t first, uint32_t n, float *out, struct kvs_error *e)
{
	struct kv_list *l = list_of(f, layer, head);

	if (!l || first > l->n || n > l->n - first)
		return not_there(layer, head, first, n, e);
	return rows(&l->v, first, n, out, e);
}

int
kvs_token(const struct kvs_file *f, uint32_t source, uint32_t *id)
{
	return kv_cache_token(f->cache, source, id);
}

const float *
kvs_hidden(const struct kvs_file *f)
{
	return f->cache->hidden;
}
