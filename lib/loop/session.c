/* A model at work in this process. */
#include "loop/session.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "util/utf8.h"

#include "kernel/blas.h"
#include "kernel/level.h"

enum kv_status
kv_session_open(const char *path, enum kvs_dtype dtype, enum kv_precision precision, struct kv_pool *pool, struct kv_session *s,
	struct kv_err *err)
{
	struct kv_session new = { .ops = &kv_ops_generic };
	enum kv_status rc;

	if (precision == KV_FAST && (rc = kv_ops_choose(getenv("KV_ISA"), &new.ops, err)) != KV_OK)
		return rc;
	if (new.ops == &kv_ops_generic && (rc = kv_blas_load(err)) != KV_OK)
		return rc;
	if (!path)
		path = getenv("KV_MODEL");
	if (!path || !*path)
		return kv_fail(err, KV_EUSAGE, "no model: name a GGUF file with -m or in KV_MODEL");
	if ((rc = kv_model_open(path, dtype, &new.model, err)) != KV_OK)
		return rc;
	if ((rc = kv_engine_new(new.model, new.ops, pool, &new.engine, err)) != KV_OK) {
		kv_model_free(new.model);
		return rc;
	}
	*s = new;
	return KV_OK;
}

void
kv_session_close(struct kv_session *s)
{
	kv_tokenizer_free(s->tokenizer);
	kv_engine_free(s->engine);
	kv_model_free(s->model);
	*s = (struct kv_session){ 0 };
}

enum kv_status
kv_session_tokenizer(struct kv_session *s, struct kv_err *err)
{
	enum kv_status rc = s->tokenizer ? KV_OK : kv_tokenizer_new(s->model->gguf, &s->tokenizer, err);

	return rc == KV_OK ? rc : kv_err_in(err, "%s", kv_gguf_name(s->model->gguf));
}

enum kv_status
kv_session_fits(const struct kv_session *s, const struct kv_cache *c, bool text, bool force, struct kv_err *err)
{
	enum kv_status rc = kvs_geom_same_model(&s->model->geom, &c->geom, force, err);

	if (rc == KV_OK && text)
		rc = kvs_geom_same_tokenizer(&s->model->geom, &c->geom, force, err);
	return rc;
}

static bool
is_utf8(const struct kv_str *s)
{
	size_t at = 0, n;

	while (at < s->n && (n = kv_utf8_len((const uint8_t *)s->p + at, s->n - at)))
		at += n;
	return at == s->n;
}

/* {"model":"…"} */
static enum kv_status
note_name(const struct kv_str *name, struct kv_cache *c, struct kv_err *err)
{
	json_t *info = json_pack("{s:o}", "model", json_stringn(name->p, name->n));
	char *text = info ? json_dumps(info, JSON_COMPACT) : NULL;
	enum kv_status rc = text ? kv_cache_set_info(c, text, strlen(text), err) : kv_fail_mem(err, "the model's name");

	free(text);
	json_decref(info);
	return rc;
}

enum kv_status
kv_session_cache(const struct kv_session *s, struct kv_cache **out, struct kv_err *err)
{
	const struct kv_str *name = &s->model->name;
	struct kv_cache *c;
	enum kv_status rc;

	if ((rc = kv_cache_new(&s->model->geom, &c, err)) != KV_OK)
		return rc;
	if (name->n && is_utf8(name) && (rc = note_name(name, c, err)) != KV_OK) {
		kv_cache_free(c);
		return rc;
	}
	*out = c;
	return KV_OK;
}
