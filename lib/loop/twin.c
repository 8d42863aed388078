/* A second cache beside the first. */
#include "loop/twin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/snapshot.h"
#include "util/mem.h"

static enum kv_status
save(const struct kv_cache *c, int fd, struct kv_err *err)
{
	struct kvs_writer *w = NULL;
	struct kv_out *out = NULL;
	enum kv_status rc;

	if ((rc = kv_out_adopt(fd, -1, "a temporary file", &out, err)) != KV_OK) {
		close(fd);
		return rc;
	}
	if ((rc = kvs_writer_new(out, KVS_PACK_RAW, NULL, &w, err)) != KV_OK || (rc = kv_cache_write(c, w, err)) != KV_OK)
		kv_out_abort(out);
	else
		rc = kv_out_commit(out, err);
	kvs_writer_free(w);
	return rc;
}

static enum kv_status
load(int fd, struct kv_cache **c, struct kv_err *err)
{
	struct kvs_reader *r = NULL;
	struct kv_in *in;
	enum kv_status rc;

	if ((rc = kv_in_adopt(fd, "a temporary file", &in, err)) != KV_OK) {
		close(fd);
		return rc;
	}
	if ((rc = kvs_reader_new(in, &r, err)) == KV_OK && (rc = kvs_reader_begin(r, err)) == KV_OK)
		rc = kv_cache_read(r, c, err);
	kvs_reader_free(r);
	kv_in_close(in);
	return rc;
}

/* Through the file format: whatever a cache may hold, a snapshot can say it. */
enum kv_status
kv_twin_new(const struct kv_cache *c, struct kv_cache **twin, struct kv_err *err)
{
	FILE *f = tmpfile();
	int to = f ? fcntl(fileno(f), F_DUPFD_CLOEXEC, 3) : -1, from = f ? fcntl(fileno(f), F_DUPFD_CLOEXEC, 3) : -1;
	enum kv_status rc;

	if (to < 0 || from < 0) {
		rc = kv_fail_errno(err, "a temporary file");
		goto out;
	}
	rc = save(c, to, err);
	to = -1;
	if (rc == KV_OK && lseek(from, 0, SEEK_SET) < 0)
		rc = kv_fail_errno(err, "a temporary file");
	if (rc == KV_OK) {
		rc = load(from, twin, err);
		from = -1;
	}
	if (rc == KV_OK)
		memcpy((*twin)->digest, c->digest, sizeof c->digest);
out:
	if (to >= 0)
		close(to);
	if (from >= 0)
		close(from);
	if (f)
		fclose(f);
	return rc;
}

/* The m newest rows of a list. */
static enum kv_status
copy_rows(struct kv_rows *to, uint32_t to_n, const struct kv_rows *from, uint32_t from_n, uint32_t m, struct kv_err *err)
{
	float *x = kv_block_new(m, from->width * sizeof *x);
	enum kv_status rc;

	if (!x)
		return kv_fail_mem(err, "rows of the twin");
	for (uint32_t i = 0; i < m; i++)
		kv_rows_get(from, from_n - m + i, x + (size_t)i * from->width);
	rc = kv_rows_put(to, to_n - m, m, x, from->width, err);
	kv_block_free(x);
	return rc;
}

/* Those of the newest queries that are of the m newest tokens, the last of them at `pos`. */
static enum kv_status
copy_queries(struct kv_cache *twin, const struct kv_cache *c, unsigned layer, uint32_t m, int32_t pos, struct kv_err *err)
{
	const struct kv_queries *q = &c->queries[layer];
	size_t d = c->geom.d_k, heads = c->geom.n_heads;
	uint32_t n = q->w < m ? q->w : m, skip = q->w - n;
	enum kv_status rc;
	float *x;

	if (!n || q->src[q->w - 1] + 1 != c->state.consumed)
		return KV_OK;
	if (!(x = kv_block_new(n, heads * d * sizeof *x)))
		return kv_fail_mem(err, "queries of the twin");
	for (uint32_t i = 0; i < n; i++)
		for (size_t h = 0; h < heads; h++)
			memcpy(x + (i * heads + h) * d, q->q + (h * q->w + skip + i) * d, d * sizeof *x);
	rc = kv_queries_add(twin, layer, q->w, n, q->src[skip], pos - (int32_t)(n - 1), x, err);
	kv_block_free(x);
	return rc;
}

/* Ids, surprisals, hidden state. */
static enum kv_status
copy_history(struct kv_cache *twin, const struct kv_cache *c, uint32_t m, struct kv_err *err)
{
	uint32_t *ids = kv_array_new(m, sizeof *ids), first = (uint32_t)c->state.consumed - m;
	float *nll = kv_array_new(m, sizeof *nll);
	size_t d = c->geom.n_embd;
	bool all = true;
	enum kv_status rc = KV_OK;

	if (!ids || !nll || (!twin->hidden && !(twin->hidden = kv_array_new(d, sizeof *twin->hidden)))) {
		rc = kv_fail_mem(err, "history of the twin");
		goto out;
	}
	memcpy(twin->hidden, c->hidden, d * sizeof *twin->hidden);
	for (uint32_t i = 0; i < m; i++) {
		all &= kv_cache_token(c, first + i, &ids[i]);
		if (!kv_cache_nll(c, first + i, &nll[i]))
			nll[i] = -1;
	}
	if (all)
		rc = kv_cache_add_tokens(twin, ids, m, err);
	if (rc == KV_OK && c->has_nll)
		rc = kv_cache_add_nll(twin, nll, m, err);
out:
	free(ids);
	free(nll);
	return rc;
}

enum kv_status
kv_twin_follow(struct kv_cache *twin, const struct kv_cache *c, uint32_t m, struct kv_err *err)
{
	enum kv_status rc;

	if (!m)
		return KV_OK;
	if ((rc = kv_cache_load(twin, KV_LOAD_K | KV_LOAD_V, NULL, err)) != KV_OK || (rc = kv_cache_extend(twin, m, err)) != KV_OK)
		return rc;
	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv; i++) {
		const struct kv_list *from = &c->list[i];
		struct kv_list *to = &twin->list[i];

		if ((rc = copy_rows(&to->k, to->n, &from->k, from->n, m, err)) != KV_OK ||
			(rc = copy_rows(&to->v, to->n, &from->v, from->n, m, err)) != KV_OK)
			return rc;
	}
	for (unsigned layer = 0; layer < c->geom.n_layers; layer++)
		if ((rc = copy_queries(twin, c, layer, m, twin->state.next_pos - 1, err)) != KV_OK)
			return rc;
	return copy_history(twin, c, m, err);
}
