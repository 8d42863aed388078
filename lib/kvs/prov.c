/* Provenance records, and the rules for JSON inside a snapshot (formats/kvs.md, section 12). */
#include "kvs/prov.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvs/digest.h"
#include "util/json.h"
#include "util/text.h"
#include "util/utf8.h"

enum { MAX_DEPTH = 16 };

#define MAX_INTEGER 9007199254740992LL	/* 2^53: what every JSON reader keeps exact */

/* An integer token that some reader would round? Reals are no business of ours. */
static bool
too_large(const char *p, size_t n)
{
	char digits[24];
	long long v;

	for (size_t i = 0; i < n; i++)
		if (p[i] == '.' || p[i] == 'e' || p[i] == 'E')
			return false;
	if (n >= sizeof digits)
		return true;
	memcpy(digits, p, n);
	digits[n] = 0;
	v = strtoll(digits, NULL, 10);
	return v > MAX_INTEGER || v < -MAX_INTEGER;
}

static size_t
skip_string(const char *p, size_t n, size_t i)
{
	for (i++; i < n && p[i] != '"'; i++)
		i += p[i] == '\\';
	return i;
}

/* Before the parser, which nests as deep as its input says. */
static enum kv_status
check_shape(const char *p, size_t n, struct kv_err *err)
{
	int depth = 0;

	for (size_t i = 0; i < n; i++) {
		if (p[i] == '"') {
			i = skip_string(p, n, i);
		} else if (p[i] == '{' || p[i] == '[') {
			if (++depth > MAX_DEPTH)
				return kv_fail(err, KV_ECORRUPT, "JSON nested deeper than %d", MAX_DEPTH);
		} else if (p[i] == '}' || p[i] == ']') {
			depth--;
		} else if (p[i] == '-' || isdigit((unsigned char)p[i])) {
			size_t len = 1;

			while (i + len < n && (isalnum((unsigned char)p[i + len]) || strchr("+-.", p[i + len])))
				len++;
			if (too_large(p + i, len))
				return kv_fail(err, KV_ECORRUPT, "JSON integer beyond 2^53");
			i += len - 1;
		}
	}
	return KV_OK;
}

static enum kv_status
parse(const uint8_t *json, size_t n, json_t **out, struct kv_err *err)
{
	const char *text = (const char *)json;
	bool no_memory;
	json_error_t why;
	json_t *j;
	enum kv_status rc;

	if (n > KVS_MAX_JSON)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes of JSON", n);
	if (memchr(text, 0, n))		/* jansson passes over some of them, and a record is a string */
		return kv_fail(err, KV_ECORRUPT, "a NUL in JSON");
	if ((rc = check_shape(text, n, err)) != KV_OK)
		return rc;
	if (!(j = kv_json_parse(text, n, &why, &no_memory)))
		return no_memory ? kv_fail_mem(err, "JSON") : kv_fail(err, KV_ECORRUPT, "not JSON: line %d, column %d", why.line, why.column);
	if (!json_is_object(j)) {
		json_decref(j);
		return kv_fail(err, KV_ECORRUPT, "JSON that is not an object");
	}
	*out = j;
	return KV_OK;
}

enum kv_status
kvs_json_check(const uint8_t *json, size_t n, struct kv_err *err)
{
	json_t *j;
	enum kv_status rc = parse(json, n, &j, err);

	if (rc == KV_OK)
		json_decref(j);
	return rc;
}

/* Takes the string. */
static enum kv_status
append(struct kvs_prov *p, char *record, struct kv_err *err)
{
	char **r = record ? kv_array_resize(p->record, p->n + 1, sizeof *r) : NULL;

	if (!r) {
		free(record);
		return kv_fail_mem(err, "provenance");
	}
	p->record = r;
	p->record[p->n++] = record;
	return KV_OK;
}

enum kv_status
kvs_prov_add_json(struct kvs_prov *p, const uint8_t *json, size_t n, struct kv_err *err)
{
	enum kv_status rc;
	char *copy;

	if (p->n >= KVS_MAX_PROV)
		return kv_fail(err, KV_ECORRUPT, "more than %d provenance records", KVS_MAX_PROV);
	if ((rc = kvs_json_check(json, n, err)) != KV_OK)
		return rc;
	if ((copy = malloc(n + 1))) {
		memcpy(copy, json, n);
		copy[n] = 0;
	}
	return append(p, copy, err);
}

void
kvs_prov_free(struct kvs_prov *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->record[i]);
	free(p->record);
	*p = (struct kvs_prov){ 0 };
}

/* A positive integer of a record; 0 if it has none, or one so large that a sum of two would leave the range. */
static enum kv_status
number_of(const struct kvs_prov *p, size_t i, const char *key, json_int_t *out, struct kv_err *err)
{
	enum kv_status rc;
	json_t *j;

	if ((rc = parse((const uint8_t *)p->record[i], strlen(p->record[i]), &j, err)) != KV_OK)
		return rc;
	*out = json_integer_value(json_object_get(j, key));
	*out = *out > 0 && *out <= MAX_INTEGER / 2 ? *out : 0;
	json_decref(j);
	return KV_OK;
}

/* "id" of a record, or else its place, counted from 1. */
static enum kv_status
id_of(const struct kvs_prov *p, size_t i, json_int_t *out, struct kv_err *err)
{
	enum kv_status rc = number_of(p, i, "id", out, err);

	if (rc == KV_OK && !*out)
		*out = (json_int_t)i + 1;
	return rc;
}

/* The oldest record stays; the second and third become one that counts them. */
static enum kv_status
fold(struct kvs_prov *p, struct kv_err *err)
{
	json_int_t n, m, id;
	enum kv_status rc;
	json_t *j;
	char *text;

	if ((rc = number_of(p, 1, "folded", &n, err)) != KV_OK || (rc = number_of(p, 2, "folded", &m, err)) != KV_OK ||
	    (rc = id_of(p, 2, &id, err)) != KV_OK)
		return rc;
	j = json_pack("{s:I, s:I}", "folded", (n ? n : 1) + (m ? m : 1), "id", id);
	text = j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	json_decref(j);
	if (!text)
		return kv_fail_mem(err, "provenance");
	free(p->record[1]);
	free(p->record[2]);
	p->record[1] = text;
	memmove(p->record + 2, p->record + 3, (p->n - 3) * sizeof *p->record);
	p->n--;
	return KV_OK;
}

/* Any bytes a command line may hold, as a JSON string. */
static json_t *
text_of(const char *s)
{
	size_t n = strlen(s), i = 0, len;
	char q[480];

	while (i < n && (len = kv_utf8_len((const uint8_t *)s + i, n - i)))
		i += len;
	return json_string(i == n ? s : kv_quote(q, sizeof q, s, n));
}

static json_t *
argv_of(const struct kvs_run *run)
{
	json_t *list = json_array();

	for (int i = 0; list && i < run->argc; i++)
		list = kv_json_add(list, text_of(run->argv[i]));
	return list;
}

/* Reproducible runs set SOURCE_DATE_EPOCH; nobody else's time is written down. */
static json_t *
add_time(json_t *j)
{
	const char *s = getenv("SOURCE_DATE_EPOCH");
	char text[40], *end;
	long long v;
	struct tm tm;
	time_t t;

	if (!s || !isdigit((unsigned char)*s))
		return j;
	errno = 0;
	v = strtoll(s, &end, 10);
	t = (time_t)v;
	if (!errno && !*end && gmtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
		return kv_json_set(j, "time", json_string(text));
	return j;
}

static json_t *
add_text(json_t *j, const char *key, const char *value)
{
	return value ? kv_json_set(j, key, text_of(value)) : j;
}

/* prev: the id before; 0 = this is the first. NULL without memory. */
static json_t *
record_of(const struct kvs_run *run, json_int_t prev)
{
	json_t *j = kv_json_set(json_object(), "argv", argv_of(run));
	char hex[33];

	j = kv_json_set(j, "id", json_integer(prev + 1));
	if (prev)
		j = kv_json_set(j, "prev", json_integer(prev));
	if (run->in_digest)
		j = kv_json_set(j, "in", json_string(kvs_hex128(run->in_digest, hex)));
	if (run->of) {
		j = kv_json_set(j, "kept", json_integer((json_int_t)run->kept));
		j = kv_json_set(j, "of", json_integer((json_int_t)run->of));
	}
	if (run->detail)
		j = kv_json_set(j, "detail", json_loads(run->detail, JSON_REJECT_DUPLICATES, NULL));
	j = add_text(j, "tool", run->tool);
	j = add_text(j, "version", run->version);
	j = add_text(j, "device", run->device);
	j = add_text(j, "precision", run->precision);
	j = add_text(j, "level", run->level);
	j = add_text(j, "blas", run->blas);
	return add_time(j);
}

enum kv_status
kvs_prov_add_run(struct kvs_prov *p, const struct kvs_run *run, struct kv_err *err)
{
	json_int_t prev = 0;
	enum kv_status rc = KV_OK;
	json_t *j;
	char *text;

	if (p->n && (rc = id_of(p, p->n - 1, &prev, err)) != KV_OK)
		return rc;
	if (!(j = record_of(run, prev)))
		return kv_fail_mem(err, "provenance");
	text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(j);
	if (!text)
		return kv_fail_mem(err, "provenance");
	if (strlen(text) > KVS_MAX_JSON) {
		free(text);
		return kv_fail(err, KV_EUSAGE, "a command line of more than 1 MiB does not fit into a provenance record; --no-prov leaves it out");
	}
	while (rc == KV_OK && p->n >= KVS_MAX_PROV)
		rc = fold(p, err);
	if (rc != KV_OK) {
		free(text);
		return rc;
	}
	return append(p, text, err);
}
