/* Provenance records, and the rules for JSON inside a snapshot (formats/kvs.md, section 12). */
#include "kvs/prov.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kvs/digest.h"
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
	json_error_t why;
	json_t *j;
	enum kv_status rc;

	if (n > KVS_MAX_JSON)
		return kv_fail(err, KV_ECORRUPT, "%zu bytes of JSON", n);
	if ((rc = check_shape(text, n, err)) != KV_OK)
		return rc;
	errno = 0;	/* jansson calls most failed allocations a syntax error */
	if (!(j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why)))
		return errno == ENOMEM ? kv_fail_mem(err, "JSON") : kv_fail(err, KV_ECORRUPT, "not JSON: line %d, column %d", why.line, why.column);
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

/* "id" of a record, or else its place, counted from 1. */
static json_int_t
id_of(const struct kvs_prov *p, size_t i)
{
	json_t *j, *id;
	json_int_t v = (json_int_t)i + 1;

	if (parse((const uint8_t *)p->record[i], strlen(p->record[i]), &j, NULL) != KV_OK)
		return v;
	if (json_is_integer(id = json_object_get(j, "id")) && json_integer_value(id) > 0)
		v = json_integer_value(id);
	json_decref(j);
	return v;
}

/* How many runs a record stands for; 0 if it is a run itself. */
static json_int_t
folded_in(const struct kvs_prov *p, size_t i)
{
	json_t *j;
	json_int_t v;

	if (parse((const uint8_t *)p->record[i], strlen(p->record[i]), &j, NULL) != KV_OK)
		return 0;
	v = json_integer_value(json_object_get(j, "folded"));
	json_decref(j);
	return v > 0 ? v : 0;
}

/* The oldest record stays; the second and third become one that counts them. */
static enum kv_status
fold(struct kvs_prov *p, struct kv_err *err)
{
	json_int_t n = folded_in(p, 1), m = folded_in(p, 2);
	json_t *j = json_pack("{s:I, s:I}", "folded", (n ? n : 1) + (m ? m : 1), "id", id_of(p, 2));
	char *text = j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

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
	char q[480];
	json_t *j = json_string(s);

	return j ? j : json_string(kv_quote(q, sizeof q, s, strlen(s)));
}

static json_t *
argv_of(const struct kvs_run *run)
{
	json_t *list = json_array();

	for (int i = 0; list && i < run->argc; i++)
		json_array_append_new(list, text_of(run->argv[i]));
	return list;
}

/* Reproducible runs set SOURCE_DATE_EPOCH; nobody else's time is written down. */
static void
add_time(json_t *j)
{
	const char *s = getenv("SOURCE_DATE_EPOCH");
	char text[40], *end;
	long long v;
	struct tm tm;
	time_t t;

	if (!s || !isdigit((unsigned char)*s))
		return;
	errno = 0;
	v = strtoll(s, &end, 10);
	t = (time_t)v;
	if (!errno && !*end && gmtime_r(&t, &tm) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm))
		json_object_set_new(j, "time", json_string(text));
}

static void
add_text(json_t *j, const char *key, const char *value)
{
	if (value)
		json_object_set_new(j, key, text_of(value));
}

static void
fill(json_t *j, const struct kvs_run *run, const struct kvs_prov *p)
{
	char hex[33];
	json_int_t prev = p->n ? id_of(p, p->n - 1) : 0;

	json_object_set_new(j, "argv", argv_of(run));
	json_object_set_new(j, "id", json_integer(prev + 1));
	if (prev)
		json_object_set_new(j, "prev", json_integer(prev));
	if (run->in_digest)
		json_object_set_new(j, "in", json_string(kvs_hex128(run->in_digest, hex)));
	if (run->of) {
		json_object_set_new(j, "kept", json_integer((json_int_t)run->kept));
		json_object_set_new(j, "of", json_integer((json_int_t)run->of));
	}
	add_text(j, "tool", run->tool);
	add_text(j, "version", run->version);
	add_text(j, "device", run->device);
	add_text(j, "precision", run->precision);
	add_text(j, "level", run->level);
	add_text(j, "blas", run->blas);
	add_time(j);
}

enum kv_status
kvs_prov_add_run(struct kvs_prov *p, const struct kvs_run *run, struct kv_err *err)
{
	json_t *j = json_object();
	enum kv_status rc = KV_OK;
	char *text;

	if (!j)
		return kv_fail_mem(err, "provenance");
	fill(j, run, p);
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
