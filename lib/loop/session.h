/* A model at work in this process: opened once, its tokenizer made when text is first seen. */
#ifndef KV_LOOP_SESSION_H
#define KV_LOOP_SESSION_H

#include "cache/cache.h"
#include "model/forward.h"
#include "model/model.h"
#include "model/tokenizer.h"

enum kv_precision { KV_FAST, KV_EXACT };

struct kv_session {
	struct kv_model *model;
	struct kv_engine *engine;
	struct kv_tokenizer *tokenizer;		/* NULL until kv_session_tokenizer */
	const struct kv_ops *ops;
};

/* path NULL: $KV_MODEL. dtype: element type of a new cache's rows. pool stays the caller's. */
enum kv_status kv_session_open(const char *path, enum kvs_dtype dtype, enum kv_precision precision, struct kv_pool *pool, struct kv_session *s,
	struct kv_err *err);
void kv_session_close(struct kv_session *s);
enum kv_status kv_session_tokenizer(struct kv_session *s, struct kv_err *err);

/* Does this cache belong to the model? force: unknown fingerprints will do. text: its tokenizer matters, too. */
enum kv_status kv_session_fits(const struct kv_session *s, const struct kv_cache *c, bool text, bool force, struct kv_err *err);

/* A new cache of this model, with the model's name noted in it. */
enum kv_status kv_session_cache(const struct kv_session *s, struct kv_cache **out, struct kv_err *err);

#endif
