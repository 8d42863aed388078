/* A job's state in a file. */
#include "loop/checkpoint.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/snapshot.h"
#include "kvs/digest.h"
#include "util/text.h"

static const char prefix[] = "--checkpoint";

/* The frame of the main cache, the first in the file. */
static enum kv_status
note_place(struct kv_cache *c, bool twin, json_t *job, const struct kv_place *at, struct kv_err *err)
{
	char hex[33];
	json_t *j = json_pack("{s:O, s:I, s:I, s:s, s:b}", "job", job, "round", (json_int_t)at->round, "tokens", (json_int_t)at->tokens,
		"digest", kvs_hex128(at->digest, hex), "twin", twin);
	char *text = j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
	enum kv_status rc = text ? kv_cache_set_checkpoint(c, text, strlen(text), err) : kv_fail_mem(err, "a checkpoint");

	free(text);
	json_decref(j);
	return rc;
}

enum kv_status
kv_checkpoint_save(const char *path, struct kv_cache *c, struct kv_cache *twin, json_t *job, const struct kv_place *at, struct kv_err *err)
{
	struct kvs_writer *w = NULL;
	struct kv_out *out = NULL;
	enum kv_status rc;

	if ((rc = note_place(c, twin != NULL, job, at, err)) != KV_OK ||
		(rc = kv_out_open(path, true, false, &out, err)) != KV_OK ||
		(rc = kvs_writer_new(out, KVS_PACK_RAW, NULL, &w, err)) != KV_OK ||
		(rc = kv_cache_write(c, w, err)) != KV_OK ||
		(twin && (rc = kv_cache_write(twin, w, err)) != KV_OK))
		goto out;
	rc = kv_out_commit(out, err);
	out = NULL;
out:
	kvs_writer_free(w);
	kv_out_abort(out);
	kv_cache_set_checkpoint(c, NULL, 0, NULL);
	return rc == KV_OK ? rc : kv_err_in(err, prefix);
}

/* The values of two jobs, name by name. */
static enum kv_status
same_job(json_t *was, json_t *now, struct kv_err *err)
{
	const char *key;
	json_t *value;

	json_object_foreach(now, key, value) {
		json_t *other = json_object_get(was, key);
		char *text, q[100];
		enum kv_status rc;

		if (json_equal(value, other))
			continue;
		text = other ? json_dumps(other, JSON_ENCODE_ANY) : NULL;
		rc = kv_fail(err, KV_EFIT, "a checkpoint of another job, whose %s was %s", key,
			text ? kv_quote(q, sizeof q, text, strlen(text)) : "not there");
		free(text);
		return rc;
	}
	return KV_OK;
}

static enum kv_status
read_place(const char *text, size_t n, json_t *job, bool *twin, struct kv_place *at, struct kv_err *err)
{
	json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL), *was = NULL;
	json_int_t round = 0, tokens = 0;
	const char *hex = "";
	struct kv_place p = { 0 };
	char again[33];
	int with_twin = 0;
	enum kv_status rc;

	if (!j || json_unpack(j, "{s:o, s:I, s:I, s:s, s:b}", "job", &was, "round", &round, "tokens", &tokens, "digest", &hex, "twin", &with_twin) ||
		round < 0 || tokens < 0 || strlen(hex) != 32) {
		rc = kv_fail(err, KV_EFIT, "not a checkpoint that this version can go on from");
		goto out;
	}
	for (int i = 0; i < 16; i++) {		/* as kvs_hex128 prints it: high half first */
		char two[3] = { hex[30 - 2 * i], hex[31 - 2 * i], 0 };

		p.digest[i] = (uint8_t)strtoul(two, NULL, 16);
	}
	p.round = (uint64_t)round;
	p.tokens = (uint64_t)tokens;
	rc = strcmp(kvs_hex128(p.digest, again), hex) ? kv_fail(err, KV_EFIT, "the digest in it is not one") : same_job(was, job, err);
	*at = p;
	*twin = with_twin;
out:
	json_decref(j);
	return rc;
}

static enum kv_status
read_one(struct kvs_reader *r, struct kv_cache **c, struct kv_err *err)
{
	enum kv_status rc = kvs_reader_begin(r, err);

	if (rc == KV_END)
		return kv_fail(err, KV_ECORRUPT, "the snapshot of the twin is missing");
	return rc == KV_OK ? kv_cache_read(r, c, err) : rc;
}

static enum kv_status
read_all(struct kv_in *in, json_t *job, struct kv_cache **c, struct kv_cache **twin, struct kv_place *at, struct kv_err *err)
{
	struct kvs_reader *r = NULL;
	const char *text;
	bool with_twin = false;
	size_t n;
	enum kv_status rc;

	if ((rc = kvs_reader_new(in, &r, err)) != KV_OK || (rc = read_one(r, c, err)) != KV_OK)
		goto out;
	if (!(text = kv_cache_checkpoint(*c, &n)))
		rc = kv_fail(err, KV_EFIT, "a snapshot, but not a checkpoint");
	else if ((rc = read_place(text, n, job, &with_twin, at, err)) == KV_OK && with_twin)
		rc = read_one(r, twin, err);
out:
	kvs_reader_free(r);
	return rc;
}

enum kv_status
kv_checkpoint_load(const char *path, json_t *job, struct kv_cache **c, struct kv_cache **twin, struct kv_place *at, struct kv_err *err)
{
	struct kv_cache *main_cache = NULL, *second = NULL;
	struct kv_in *in;
	enum kv_status rc;
	char q[200];

	if (access(path, F_OK) < 0)
		return KV_END;
	if ((rc = kv_in_open(path, &in, err)) != KV_OK)
		return kv_err_in(err, prefix);
	rc = read_all(in, job, &main_cache, &second, at, err);
	kv_in_close(in);
	if (rc != KV_OK) {
		kv_cache_free(main_cache);
		kv_cache_free(second);
		return kv_err_in(err, "%s: %s", prefix, kv_quote(q, sizeof q, path, strlen(path)));
	}
	*c = main_cache;
	*twin = second;
	return KV_OK;
}
