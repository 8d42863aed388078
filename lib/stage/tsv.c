/* Tables from outside: scores, kept sets, positions. */
#include "stage/tsv.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kvs/digest.h"
#include "util/in.h"
#include "util/mem.h"
#include "util/text.h"

enum { LAYER, HEAD, SLOT, VALUE, COLUMNS, MAX_FIELDS = 64 };

struct parsing {
	struct kv_tsv *t;
	const char *column;
	enum kv_tsv_value kind;
	size_t cap, line;
	int at[COLUMNS];		/* which field holds it; at[LAYER] < 0: not known yet */
	int exactly;			/* fields a line must have; 0 = those named will do */
};

static enum kv_status
bad(const struct parsing *ps, const char *what, const char *field, struct kv_err *err)
{
	char q[60];

	return kv_fail(err, KV_ECORRUPT, "%s line %zu: %s '%s'",
		ps->t->name, ps->line, what, kv_quote(q, sizeof q, field, strlen(field)));
}

/* Cuts the line at its tabs. */
static int
split(char *line, char **field)
{
	int n = 0;

	field[n++] = line;
	for (char *p = line; *p; p++)
		if (*p == '\t') {
			*p = 0;
			if (n < MAX_FIELDS)
				field[n++] = p + 1;
		}
	return n;
}

/* A line whose first field is no number and no star names the columns. */
static enum kv_status
find_columns(struct parsing *ps, char **field, int n, bool *is_header, struct kv_err *err)
{
	const char *const names[COLUMNS] = { "layer", "head", "slot", ps->column };
	int wanted = ps->kind == KV_TSV_NONE ? VALUE : COLUMNS;

	*is_header = !isdigit((unsigned char)field[0][0]) && strcmp(field[0], "*");
	for (int c = 0; c < wanted; c++) {
		ps->at[c] = *is_header ? -1 : c;
		for (int i = 0; *is_header && i < n; i++)
			if (!strcmp(field[i], names[c]))
				ps->at[c] = i;
		if (ps->at[c] < 0)
			return bad(ps, "a header without the column", names[c], err);
	}
	ps->exactly = *is_header ? 0 : wanted;
	return KV_OK;
}

static bool
parse_index(const char *s, bool star, int64_t max, int64_t *out)
{
	char *end;

	*out = -1;
	if (star && !strcmp(s, "*"))
		return true;
	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	*out = strtoll(s, &end, 10);
	return !*end && !errno && *out <= max;
}

static bool
parse_value(const char *s, enum kv_tsv_value kind, double *out)
{
	char *end;

	if (!*s || isspace((unsigned char)*s))
		return false;
	if (kind == KV_TSV_INT) {
		errno = 0;
		*out = (double)strtoll(s, &end, 10);
		return !*end && !errno;
	}
	*out = strtod(s, &end);
	return !*end && !isnan(*out);
}

static enum kv_status
parse_row(struct parsing *ps, char **field, int n, struct kv_err *err)
{
	int64_t layer, head, slot;
	struct kv_tsv_row *row, *p;
	double value = 0;

	if (ps->exactly && n != ps->exactly)
		return kv_fail(err, KV_ECORRUPT, "%s line %zu: %d columns, want %d with tabs between (or a header that names them)",
			ps->t->name, ps->line, n, ps->exactly);
	for (int c = 0; c < COLUMNS; c++)
		if (ps->at[c] >= n)
			return kv_fail(err, KV_ECORRUPT, "%s line %zu: only %d columns", ps->t->name, ps->line, n);
	if (!parse_index(field[ps->at[LAYER]], true, INT32_MAX, &layer))
		return bad(ps, "not a layer:", field[ps->at[LAYER]], err);
	if (!parse_index(field[ps->at[HEAD]], true, INT32_MAX, &head))
		return bad(ps, "not a head:", field[ps->at[HEAD]], err);
	if (!parse_index(field[ps->at[SLOT]], false, UINT32_MAX, &slot))
		return bad(ps, "not a slot:", field[ps->at[SLOT]], err);
	if (ps->kind != KV_TSV_NONE && !parse_value(field[ps->at[VALUE]], ps->kind, &value))
		return bad(ps, "not a number:", field[ps->at[VALUE]], err);
	if (ps->t->n == ps->cap) {
		size_t cap = ps->cap ? 2 * ps->cap : 64;

		if (!(p = kv_array_resize(ps->t->row, cap, sizeof *p)))
			return kv_fail_mem(err, "a table");
		ps->t->row = p;
		ps->cap = cap;
	}
	row = &ps->t->row[ps->t->n++];
	*row = (struct kv_tsv_row){ (int32_t)layer, (int32_t)head, (uint32_t)slot, value, ps->line };
	return KV_OK;
}

static enum kv_status
parse_comment(struct parsing *ps, const char *line, struct kv_err *err)
{
	const char *p = line + 1 + strspn(line + 1, " \t");
	size_t n;

	if (strncmp(p, "digest", 6) || !strchr(" \t", p[6]) || !p[6])
		return KV_OK;
	p += 6 + strspn(p + 6, " \t");
	n = strspn(p, "0123456789abcdefABCDEF");
	if (n != 32 || p[n + strspn(p + n, " \t")])
		return bad(ps, "not a digest:", p, err);
	for (size_t i = 0; i < n; i++)
		ps->t->digest[i] = (char)tolower((unsigned char)p[i]);
	ps->t->digest[n] = 0;
	ps->t->has_digest = true;
	return KV_OK;
}

static enum kv_status
parse_line(struct parsing *ps, char *line, struct kv_err *err)
{
	char *field[MAX_FIELDS];
	bool is_header = false;
	enum kv_status rc;
	int n;

	ps->line++;
	if (!*line)
		return KV_OK;
	if (*line == '#')
		return parse_comment(ps, line, err);
	n = split(line, field);
	if (ps->at[LAYER] < 0 && (rc = find_columns(ps, field, n, &is_header, err)) != KV_OK)
		return rc;
	return is_header ? KV_OK : parse_row(ps, field, n, err);
}

/* text [n] and a NUL behind it. */
static enum kv_status
parse_text(struct parsing *ps, char *text, size_t n, struct kv_err *err)
{
	enum kv_status rc = KV_OK;

	if (memchr(text, 0, n))
		return kv_fail(err, KV_ECORRUPT, "%s: not a text", ps->t->name);
	for (char *p = text; *p && rc == KV_OK; ) {
		char *end = p + strcspn(p, "\n");
		bool last = !*end;

		*end = 0;
		rc = parse_line(ps, p, err);
		p = last ? end : end + 1;
	}
	return rc;
}

enum kv_status
kv_tsv_read(const char *path, const char *column, enum kv_tsv_value kind, struct kv_tsv **out, struct kv_err *err)
{
	struct kv_tsv *t = kv_array_new(1, sizeof *t);
	struct parsing ps = { t, column, kind, 0, 0, { -1, 0, 0, 0 }, 0 };
	struct kv_buf text = { 0 };
	struct kv_in *in = NULL;
	enum kv_status rc;

	if (!t)
		return kv_fail_mem(err, "a table");
	if ((rc = kv_in_open(path, &in, err)) != KV_OK)
		goto out;
	if (!(t->name = strdup(kv_in_name(in)))) {
		rc = kv_fail_mem(err, "a table");
		goto out;
	}
	if ((rc = kv_in_rest(in, &text, err)) != KV_OK)
		goto out;
	kv_buf_add(&text, "", 1);
	if (text.failed) {
		rc = kv_fail_mem(err, "a table");
		goto out;
	}
	if ((rc = parse_text(&ps, (char *)text.p, text.len - 1, err)) != KV_OK)
		goto out;
	*out = t;
	t = NULL;
out:
	kv_tsv_free(t);
	kv_buf_free(&text);
	kv_in_close(in);
	return rc;
}

void
kv_tsv_free(struct kv_tsv *t)
{
	if (!t)
		return;
	free(t->name);
	free(t->row);
	free(t);
}

static enum kv_status
check_digest(const struct kv_tsv *t, const struct kv_cache *c, struct kv_err *err)
{
	char hex[33];

	if (!t->has_digest)
		return KV_OK;
	if (kv_cache_edited(c))
		return kv_fail(err, KV_EFIT, "%s is for the snapshot %s, and this cache has changed since it was read",
			t->name, t->digest);
	if (strcmp(kvs_hex128(c->digest, hex), t->digest))
		return kv_fail(err, KV_EFIT, "%s is for the snapshot %s, this is %s", t->name, t->digest, hex);
	return KV_OK;
}

enum kv_status
kv_tsv_visit(const struct kv_tsv *t, const struct kv_cache *c, kv_tsv_visitor *visit, void *arg, struct kv_err *err)
{
	int64_t layers = c->geom.n_layers, heads = c->geom.n_heads_kv;
	enum kv_status rc;

	if ((rc = check_digest(t, c, err)) != KV_OK)
		return rc;
	for (const struct kv_tsv_row *r = t->row; r < t->row + t->n; r++) {
		int64_t l0 = r->layer < 0 ? 0 : r->layer, l1 = r->layer < 0 ? layers : l0 + 1;
		int64_t h0 = r->head < 0 ? 0 : r->head, h1 = r->head < 0 ? heads : h0 + 1;

		if (l0 >= layers || h0 >= heads)
			return kv_fail(err, KV_EFIT, "%s line %zu: the snapshot has no layer %lld head %lld",
				t->name, r->line, (long long)l0, (long long)h0);
		for (int64_t l = l0; l < l1; l++)
			for (int64_t h = h0; h < h1; h++) {
				size_t list = (size_t)(l * heads + h);

				if (r->slot >= c->list[list].n)
					return kv_fail(err, KV_EFIT, "%s line %zu: layer %lld head %lld has no slot %u",
						t->name, r->line, (long long)l, (long long)h, r->slot);
				visit(arg, list, r->slot, r->value);
			}
	}
	return KV_OK;
}
