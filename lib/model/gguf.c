/* A GGUF file opened, and its keys and tensors by name. */
#include "model/gguf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvs/digest.h"
#include "model/gguf_int.h"
#include "util/in.h"
#include "util/mem.h"
#include "util/text.h"

bool
kv_gguf_names_new(struct kv_gguf_names *s, size_t n)
{
	size_t cap = 16;

	while (cap < 2 * n)
		cap *= 2;
	s->mask = cap - 1;
	s->slot = kv_array_new(cap, sizeof *s->slot);
	return s->slot != NULL;
}

/* Where name is, or where it would go. */
static struct kv_gguf_slot *
slot_of(const struct kv_gguf_names *s, struct kv_str name)
{
	size_t k = (size_t)kvs_hash64(name.p, name.n) & s->mask;

	while (s->slot[k].name.p && (s->slot[k].name.n != name.n || memcmp(s->slot[k].name.p, name.p, name.n)))
		k = (k + 1) & s->mask;
	return &s->slot[k];
}

bool
kv_gguf_names_add(struct kv_gguf_names *s, struct kv_str name, size_t index)
{
	struct kv_gguf_slot *at = slot_of(s, name);

	if (at->name.p)
		return false;
	*at = (struct kv_gguf_slot){ name, index };
	return true;
}

static struct kv_gguf *
new(const char *name)
{
	struct kv_gguf *g = kv_array_new(1, sizeof *g);

	if (g)
		kv_quote(g->name, sizeof g->name, name, strlen(name));
	return g;
}

/* For file systems that cannot map. */
static enum kv_status
read_all(struct kv_gguf *g, const char *path, struct kv_err *err)
{
	struct kv_in *in;
	enum kv_status rc = kv_in_open(path, &in, err);
	size_t got;

	if (rc != KV_OK)
		return rc;
	if (!(g->copy = kv_block_new(g->size, 1)))
		rc = kv_fail_mem(err, "a model file that cannot be mapped");
	else if ((rc = kv_in_read(in, g->copy, g->size, &got, err)) == KV_OK && got < g->size)
		rc = kv_fail(err, KV_ECORRUPT, "%s: the file became shorter", g->name);
	g->base = g->copy;
	kv_in_close(in);
	return rc;
}

static enum kv_status
map(struct kv_gguf *g, const char *path, struct kv_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	enum kv_status rc = KV_OK;
	void *p;

	if (fd < 0 || fstat(fd, &st))
		rc = kv_fail_errno(err, "%s", g->name);
	else if (!S_ISREG(st.st_mode))
		rc = kv_fail(err, KV_EIO, "%s: is %s, not a file", g->name, S_ISDIR(st.st_mode) ? "a folder" : "a pipe or a device");
	else
		g->size = (size_t)st.st_size;
	if (rc == KV_OK && g->size) {
		p = mmap(NULL, g->size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p != MAP_FAILED)
			g->base = g->map = p;
		else
			rc = read_all(g, path, err);
	}
	if (fd >= 0)
		close(fd);
	return rc;
}

enum kv_status
kv_gguf_open(const char *path, struct kv_gguf **out, struct kv_err *err)
{
	struct kv_gguf *g = new(path);
	enum kv_status rc;

	if (!g)
		return kv_fail_mem(err, "a model file");
	if ((rc = map(g, path, err)) != KV_OK || (rc = kv_gguf_parse(g, err)) != KV_OK)
		kv_gguf_close(g);
	else
		*out = g;
	return rc;
}

enum kv_status
kv_gguf_mem(const void *data, size_t n, struct kv_gguf **out, struct kv_err *err)
{
	struct kv_gguf *g = new("model");
	enum kv_status rc;

	if (!g)
		return kv_fail_mem(err, "a model file");
	g->base = data;
	g->size = n;
	if ((rc = kv_gguf_parse(g, err)) != KV_OK)
		kv_gguf_close(g);
	else
		*out = g;
	return rc;
}

void
kv_gguf_close(struct kv_gguf *g)
{
	if (!g)
		return;
	if (g->map)
		munmap(g->map, g->size);
	kv_block_free(g->copy);
	free(g->pair);
	free(g->tensor);
	free(g->keys.slot);
	free(g->names.slot);
	free(g);
}

const char *
kv_gguf_name(const struct kv_gguf *g)
{
	return g->name;
}

const struct kv_gguf_pair *
kv_gguf_pair(const struct kv_gguf *g, const char *key)
{
	const struct kv_gguf_slot *at = slot_of(&g->keys, (struct kv_str){ key, strlen(key) });

	return at->name.p ? &g->pair[at->index] : NULL;
}

const struct kv_tensor *
kv_gguf_tensor(const struct kv_gguf *g, const char *name)
{
	const struct kv_gguf_slot *at = slot_of(&g->names, (struct kv_str){ name, strlen(name) });

	return at->name.p ? &g->tensor[at->index] : NULL;
}

size_t
kv_gguf_n_tensors(const struct kv_gguf *g)
{
	return g->n_tensors;
}

const struct kv_tensor *
kv_gguf_tensor_at(const struct kv_gguf *g, size_t i)
{
	return i < g->n_tensors ? &g->tensor[i] : NULL;
}
