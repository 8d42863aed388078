/* The fingerprints of a model and of its tokenizer (formats/kvs.md, section 7.4). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvs/digest.h"
#include "model/gguf_int.h"
#include "util/le.h"
#include "util/mem.h"

enum {
	WHOLE = 65536,		/* tensors up to this many bytes are hashed whole */
	BLOCKS = 16,
	BLOCK = 4096,
};

static int
compare(struct kv_str a, struct kv_str b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int
by_key(const void *a, const void *b)
{
	return compare((*(const struct kv_gguf_pair *const *)a)->key, (*(const struct kv_gguf_pair *const *)b)->key);
}

static int
by_name(const void *a, const void *b)
{
	return compare((*(const struct kv_tensor *const *)a)->name, (*(const struct kv_tensor *const *)b)->name);
}

static void
add32(struct kvs_digest *d, uint32_t v)
{
	uint8_t le[4];

	le32_put(le, v);
	kvs_digest_add(d, le, sizeof le);
}

static void
add64(struct kvs_digest *d, uint64_t v)
{
	uint8_t le[8];

	le64_put(le, v);
	kvs_digest_add(d, le, sizeof le);
}

static void
add_str(struct kvs_digest *d, struct kv_str s)
{
	add64(d, s.n);
	kvs_digest_add(d, s.p, s.n);
}

static bool
begins(struct kv_str s, const char *with, size_t n)
{
	return s.n >= n && !memcmp(s.p, with, n);
}

/* The pairs whose key begins with prefix but not with except, in ascending order. */
static void
add_pairs(struct kvs_digest *d, const struct kv_gguf *g, struct kv_str prefix, const char *except, const struct kv_gguf_pair **sorted)
{
	size_t n = 0;

	for (size_t i = 0; i < g->n_pairs; i++)
		if (begins(g->pair[i].key, prefix.p, prefix.n) && !(except && begins(g->pair[i].key, except, strlen(except))))
			sorted[n++] = &g->pair[i];
	qsort(sorted, n, sizeof *sorted, by_key);
	for (size_t i = 0; i < n; i++) {
		add_str(d, sorted[i]->key);
		add32(d, sorted[i]->type);
		kvs_digest_add(d, sorted[i]->value, sorted[i]->n);
	}
}

static void
add_tensor(struct kvs_digest *d, const struct kv_tensor *t)
{
	add_str(d, t->name);
	add32(d, t->type);
	add32(d, t->n_dims);
	for (uint32_t k = 0; k < t->n_dims; k++)
		add64(d, t->dim[k]);
	add64(d, t->bytes);
	if (t->bytes <= WHOLE) {
		if (t->data)
			kvs_digest_add(d, t->data, (size_t)t->bytes);
		return;
	}
	for (unsigned i = 0; i < BLOCKS; i++)
		kvs_digest_add(d, t->data + i * (t->bytes - BLOCK) / (BLOCKS - 1), BLOCK);
}

static void
add_tensors(struct kvs_digest *d, const struct kv_gguf *g, const struct kv_tensor **sorted)
{
	for (size_t i = 0; i < g->n_tensors; i++)
		sorted[i] = &g->tensor[i];
	qsort(sorted, g->n_tensors, sizeof *sorted, by_name);
	for (size_t i = 0; i < g->n_tensors; i++)
		add_tensor(d, sorted[i]);
}

enum kv_status
kv_gguf_fingerprint(const struct kv_gguf *g, uint8_t model[16], uint8_t tokenizer[16], struct kv_err *err)
{
	const struct kv_gguf_pair **pairs = kv_array_new(g->n_pairs, sizeof *pairs);
	const struct kv_tensor **tensors = kv_array_new(g->n_tensors, sizeof *tensors);
	struct kvs_digest *d = kvs_digest_new();
	struct kv_buf prefix = { 0 };
	struct kv_str arch;
	enum kv_status rc;

	if ((rc = kv_gguf_str(g, "general.architecture", &arch, err)) != KV_OK) {
		if (rc == KV_END)
			rc = kv_fail(err, KV_ECORRUPT, "%s: key 'general.architecture' is missing", g->name);
		goto out;
	}
	kv_buf_add(&prefix, arch.p, arch.n);
	kv_buf_add(&prefix, ".", 1);
	if (!pairs || !tensors || !d || prefix.failed) {
		rc = kv_fail_mem(err, "a fingerprint");
		goto out;
	}
	add_pairs(d, g, (struct kv_str){ (const char *)prefix.p, prefix.len }, NULL, pairs);
	add_tensors(d, g, tensors);
	kvs_digest_get(d, model);
	kvs_digest_reset(d);
	add_pairs(d, g, (struct kv_str){ "tokenizer.", 10 }, "tokenizer.chat_template", pairs);
	kvs_digest_get(d, tokenizer);
out:
	kv_buf_free(&prefix);
	kvs_digest_free(d);
	free(tensors);
	free(pairs);
	return rc;
}
