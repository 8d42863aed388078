/* Walks a GGUF file once: one cursor over the bytes, nothing believed that was not compared with what is there. */
#include "model/gguf_int.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "util/le.h"
#include "util/mem.h"
#include "util/text.h"

enum {
	MAX_PAIRS = 65536,
	MAX_TENSORS = 65536,
	MAX_KEY = 65535,
	MAX_NAME = 63,
	MAX_STRING = 64 << 20,
	MIN_PAIR = 8 + 1 + 4 + 1,		/* bytes that the shortest pair takes */
	MIN_TENSOR = 8 + 1 + 4 + 4 + 8,
	ALIGN = 32,				/* unless general.alignment says otherwise */
};

/* After the first failure rc keeps it, and every read gives zeros: callers look once, at the end of a step. */
struct cursor {
	const struct kv_gguf *g;
	size_t at;
	enum kv_status rc;
	struct kv_err *err;
};

static void __attribute__((format(printf, 2, 3)))
corrupt(struct cursor *c, const char *fmt, ...)
{
	char what[320];
	va_list ap;

	if (c->rc != KV_OK)
		return;
	va_start(ap, fmt);
	vsnprintf(what, sizeof what, fmt, ap);
	va_end(ap);
	c->rc = kv_fail(c->err, KV_ECORRUPT, "%s: byte %zu: %s", c->g->name, c->at, what);
}

static size_t
left(const struct cursor *c)
{
	return c->g->size - c->at;
}

static const uint8_t *
take(struct cursor *c, uint64_t n, const char *what)
{
	static const uint8_t zeros[8];
	const uint8_t *p = c->g->base + c->at;

	if (n > left(c))
		corrupt(c, "the file ends inside %s", what);
	if (c->rc != KV_OK)
		return zeros;
	c->at += (size_t)n;
	return p;
}

static uint32_t
take32(struct cursor *c, const char *what)
{
	return le32_get(take(c, 4, what));
}

static uint64_t
take64(struct cursor *c, const char *what)
{
	return le64_get(take(c, 8, what));
}

static struct kv_str
take_str(struct cursor *c, uint64_t max, const char *what)
{
	uint64_t n = take64(c, what);
	struct kv_str s;

	if (n > max)
		corrupt(c, "%s has %" PRIu64 " bytes, more than %" PRIu64, what, n, max);
	s.p = (const char *)take(c, n, what);
	s.n = c->rc == KV_OK ? (size_t)n : 0;
	return s;
}

/* Bytes of a value of fixed length; 0 for the others. */
static unsigned
type_size(uint32_t type)
{
	static const uint8_t size[KV_GGUF_TYPES] = {
		[KV_GGUF_U8] = 1, [KV_GGUF_I8] = 1, [KV_GGUF_BOOL] = 1, [KV_GGUF_U16] = 2, [KV_GGUF_I16] = 2, [KV_GGUF_U32] = 4,
		[KV_GGUF_I32] = 4, [KV_GGUF_F32] = 4, [KV_GGUF_U64] = 8, [KV_GGUF_I64] = 8, [KV_GGUF_F64] = 8,
	};

	return type < KV_GGUF_TYPES ? size[type] : 0;
}

static void
skip_array(struct cursor *c, const char *what)
{
	uint32_t type = take32(c, what);
	uint64_t n = take64(c, what);

	if (type == KV_GGUF_STR) {
		if (n > left(c) / 8)
			corrupt(c, "%s promises %" PRIu64 " strings, more than the file can hold", what, n);
		for (uint64_t i = 0; i < n && c->rc == KV_OK; i++)
			take_str(c, MAX_STRING, what);
	} else if (type == KV_GGUF_ARRAY) {
		corrupt(c, "%s is an array of arrays, which are not read", what);
	} else if (!type_size(type)) {
		corrupt(c, "%s is an array of type %" PRIu32 ", which does not exist", what, type);
	} else if (n > left(c) / type_size(type)) {
		corrupt(c, "%s promises %" PRIu64 " values, more than the file can hold", what, n);
	} else {
		take(c, n * type_size(type), what);
	}
}

static void
read_pair(struct cursor *c, struct kv_gguf_pair *p)
{
	char q[80], what[100] = "a key";

	p->key = take_str(c, MAX_KEY, what);
	if (!p->key.n)
		corrupt(c, "a key is empty");
	p->type = take32(c, "the type of a key");
	if (c->rc != KV_OK)
		return;
	snprintf(what, sizeof what, "key '%s'", kv_quote(q, sizeof q, p->key.p, p->key.n));
	p->value = c->g->base + c->at;
	if (p->type == KV_GGUF_STR)
		take_str(c, MAX_STRING, what);
	else if (p->type == KV_GGUF_ARRAY)
		skip_array(c, what);
	else if (type_size(p->type))
		take(c, type_size(p->type), what);
	else
		corrupt(c, "%s has type %" PRIu32 ", which does not exist", what, p->type);
	p->n = (size_t)(c->g->base + c->at - p->value);
}

static enum kv_status
read_pairs(struct cursor *c, struct kv_gguf *g, uint64_t n)
{
	char q[80];

	if (n > MAX_PAIRS || n > left(c) / MIN_PAIR)
		corrupt(c, "%" PRIu64 " metadata pairs promised, more than %s", n,
			n > MAX_PAIRS ? "65536" : "the file can hold");
	if (c->rc != KV_OK)
		return c->rc;
	if (!(g->pair = kv_array_new((size_t)n, sizeof *g->pair)) || !kv_gguf_names_new(&g->keys, (size_t)n))
		return kv_fail_mem(c->err, "the metadata of a model file");
	for (size_t i = 0; i < n; i++) {
		struct kv_gguf_pair *p = &g->pair[i];

		read_pair(c, p);
		if (c->rc == KV_OK && !kv_gguf_names_add(&g->keys, p->key, i))
			corrupt(c, "key '%s' stands there twice", kv_quote(q, sizeof q, p->key.p, p->key.n));
		if (c->rc != KV_OK)
			break;
		g->n_pairs = i + 1;
	}
	return c->rc;
}

/* Bytes of a tensor of a type that we read; *known = false for another. */
static void
size_tensor(struct cursor *c, struct kv_tensor *t, const char *q, bool *known)
{
	const struct kv_wtype_info *w = kv_wtype_info(t->type);
	size_t rows, bytes = 0;

	*known = w && w->values;
	if (!kv_mul((size_t)t->dim[1], (size_t)t->dim[2], &rows) || !kv_mul(rows, (size_t)t->dim[3], &rows)
	    || !kv_mul(rows, (size_t)t->dim[0], &bytes)) {
		corrupt(c, "tensor '%s' has more values than can be counted", q);
		return;
	}
	if (!*known)
		return;
	if (t->dim[0] % w->values)
		corrupt(c, "tensor '%s' has rows of %" PRIu64 " values, no multiple of %u as %s asks for", q, t->dim[0],
			w->values, w->name);
	else if (!kv_mul((size_t)t->dim[0] / w->values, w->bytes, &bytes) || !kv_mul(bytes, rows, &bytes))
		corrupt(c, "tensor '%s' has more bytes than can be counted", q);
	t->bytes = bytes;
}

/* Leaves the offset in *offset; the data are looked for when the start of the data section is known. */
static void
read_tensor(struct cursor *c, struct kv_tensor *t, uint64_t *offset)
{
	char q[80];
	bool known;

	t->name = take_str(c, MAX_NAME, "the name of a tensor");
	if (!t->name.n)
		corrupt(c, "the name of a tensor is empty");
	t->n_dims = take32(c, "a tensor's number of dimensions");
	if (c->rc != KV_OK)
		return;
	kv_quote(q, sizeof q, t->name.p, t->name.n);
	if (t->n_dims > 4) {
		corrupt(c, "tensor '%s' has %" PRIu32 " dimensions, more than 4", q, t->n_dims);
		return;
	}
	for (unsigned k = 0; k < 4; k++) {
		t->dim[k] = k < t->n_dims ? take64(c, "a tensor's dimensions") : 1;
		if (t->dim[k] - 1 >= INT64_MAX)
			corrupt(c, "tensor '%s' has dimension %u of length %" PRId64, q, k, (int64_t)t->dim[k]);
	}
	t->type = take32(c, "a tensor's type");
	*offset = take64(c, "a tensor's offset");
	if (c->rc == KV_OK)
		size_tensor(c, t, q, &known);
	if (c->rc == KV_OK && !known)
		*offset = UINT64_MAX;
}

static enum kv_status
read_tensors(struct cursor *c, struct kv_gguf *g, uint64_t *offset, size_t n)
{
	char q[80];

	for (size_t i = 0; i < n; i++) {
		struct kv_tensor *t = &g->tensor[i];

		read_tensor(c, t, &offset[i]);
		if (c->rc == KV_OK && !kv_gguf_names_add(&g->names, t->name, i))
			corrupt(c, "tensor '%s' stands there twice", kv_quote(q, sizeof q, t->name.p, t->name.n));
		if (c->rc != KV_OK)
			break;
		g->n_tensors = i + 1;
	}
	return c->rc;
}

static int
by_data(const void *a, const void *b)
{
	const struct kv_tensor *x = *(const struct kv_tensor *const *)a, *y = *(const struct kv_tensor *const *)b;

	return (x->data > y->data) - (x->data < y->data);
}

/* Tensors may come in any order and leave gaps, but no two may share bytes. */
static enum kv_status
check_overlap(struct cursor *c, const struct kv_gguf *g)
{
	const struct kv_tensor **sorted = kv_array_new(g->n_tensors, sizeof *sorted);
	size_t n = 0;

	if (!sorted)
		return kv_fail_mem(c->err, "the tensors of a model file");
	for (size_t i = 0; i < g->n_tensors; i++)
		if (g->tensor[i].data)
			sorted[n++] = &g->tensor[i];
	qsort(sorted, n, sizeof *sorted, by_data);
	for (size_t i = 1; i < n; i++)
		if (sorted[i - 1]->data + sorted[i - 1]->bytes > sorted[i]->data) {
			char a[80], b[80];

			corrupt(c, "tensors '%s' and '%s' share bytes",
				kv_quote(a, sizeof a, sorted[i - 1]->name.p, sorted[i - 1]->name.n),
				kv_quote(b, sizeof b, sorted[i]->name.p, sorted[i]->name.n));
			break;
		}
	free(sorted);
	return c->rc;
}

static enum kv_status
place_tensors(struct cursor *c, struct kv_gguf *g, const uint64_t *offset, uint64_t align)
{
	size_t start, room = 0;

	if (!g->n_tensors)
		return KV_OK;
	if (!kv_add(c->at, (size_t)align - 1, &start))
		start = SIZE_MAX;
	start -= start % (size_t)align;
	if (start <= g->size)
		room = g->size - start;
	for (size_t i = 0; i < g->n_tensors; i++) {
		struct kv_tensor *t = &g->tensor[i];
		char q[80];

		if (offset[i] == UINT64_MAX)
			continue;
		kv_quote(q, sizeof q, t->name.p, t->name.n);
		if (offset[i] % align)
			corrupt(c, "tensor '%s' begins at offset %" PRIu64 ", no multiple of %" PRIu64, q, offset[i], align);
		else if (offset[i] > room || t->bytes > room - offset[i])
			corrupt(c, "the file ends before tensor '%s' does", q);
		if (c->rc != KV_OK)
			return c->rc;
		t->data = g->base + start + offset[i];
	}
	return check_overlap(c, g);
}

static enum kv_status
check_head(struct cursor *c, const struct kv_gguf *g)
{
	const char *magic = (const char *)take(c, 4, "the magic number");
	uint32_t version = take32(c, "the version");
	char q[40];

	if (g->size < 4 || memcmp(magic, "GGUF", 4))
		return kv_fail(c->err, KV_ECORRUPT, "%s: not a GGUF file: it begins with '%s'", g->name,
			       kv_quote(q, sizeof q, (const char *)g->base, g->size < 4 ? g->size : 4));
	if (c->rc != KV_OK)
		return c->rc;
	if (!(version & 0xffff) && version)
		return kv_fail(c->err, KV_EUNSUP, "%s: a big-endian GGUF file; only little-endian ones are read", g->name);
	if (version < 2 || version > 3)
		return kv_fail(c->err, KV_EUNSUP, "%s: GGUF version %" PRIu32 "; versions 2 and 3 are read", g->name, version);
	return KV_OK;
}

/* What the metadata say about the file itself. */
static enum kv_status
check_general(struct cursor *c, const struct kv_gguf *g, uint64_t *align)
{
	const struct kv_gguf_pair *p = kv_gguf_pair(g, "general.alignment");
	uint64_t parts = 0;
	enum kv_status rc;

	*align = ALIGN;
	if (p) {
		*align = p->type == KV_GGUF_U32 ? le32_get(p->value) : 0;
		if (*align < 8 || *align & (*align - 1))
			return kv_fail(c->err, KV_ECORRUPT, 
				       "%s: key 'general.alignment' is not a power of two, 8 or more, of type u32", g->name);
	}
	if ((rc = kv_gguf_u64(g, "split.count", UINT16_MAX, &parts, c->err)) != KV_OK && rc != KV_END)
		return rc;
	if (parts > 1)
		return kv_fail(c->err, KV_EUNSUP, "%s: one part of a model split into %" PRIu64 " files; join them first "
			       "(gguf-split --merge)", g->name, parts);
	return KV_OK;
}

enum kv_status
kv_gguf_parse(struct kv_gguf *g, struct kv_err *err)
{
	struct cursor c = { .g = g, .err = err };
	uint64_t n_tensors, n_pairs, align, *offset = NULL;
	enum kv_status rc;

	if (!g->size)
		return kv_fail(err, KV_ECORRUPT, "%s: the file is empty", g->name);
	if ((rc = check_head(&c, g)) != KV_OK)
		return rc;
	n_tensors = take64(&c, "the number of tensors");
	n_pairs = take64(&c, "the number of metadata pairs");
	if ((rc = read_pairs(&c, g, n_pairs)) != KV_OK || (rc = check_general(&c, g, &align)) != KV_OK)
		return rc;
	if (n_tensors > MAX_TENSORS || n_tensors > left(&c) / MIN_TENSOR) {
		corrupt(&c, "%" PRIu64 " tensors promised, more than %s", n_tensors,
			n_tensors > MAX_TENSORS ? "65536" : "the file can hold");
		return c.rc;
	}
	g->tensor = kv_array_new((size_t)n_tensors, sizeof *g->tensor);
	offset = kv_array_new((size_t)n_tensors, sizeof *offset);
	if (!g->tensor || !offset || !kv_gguf_names_new(&g->names, (size_t)n_tensors))
		rc = kv_fail_mem(err, "the tensors of a model file");
	else if ((rc = read_tensors(&c, g, offset, (size_t)n_tensors)) == KV_OK)
		rc = place_tensors(&c, g, offset, align);
	free(offset);
	return rc;
}
