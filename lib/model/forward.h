/* The forward pass: tokens in, cache grown, hidden state out. */
#ifndef KV_MODEL_FORWARD_H
#define KV_MODEL_FORWARD_H

#include "cache/cache.h"
#include "model/model.h"

struct kv_engine;	/* a model, a table of operations, a pool, and scratch memory */

/* ops, pool and model stay the caller's. */
enum kv_status kv_engine_new(const struct kv_model *m, const struct kv_ops *ops, struct kv_pool *pool, struct kv_engine **out, struct kv_err *err);
void kv_engine_free(struct kv_engine *e);

/* What to record on the way (cli.md 2, --observe). */
struct kv_observe {
	uint32_t last;		/* queries a layer; 0 = leave what is there */
	bool nll;
	bool received;		/* attention received by every entry (--observe acc) */
	bool chunk;		/* attention of the round's text over the entries that were there before, by query head */
};

/*
 * Runs ids[0..m) as one batch behind what the cache holds: new entries at consumed … and next_pos …, the hidden state of the last,
 * token ids, the observations asked for, tail = m. K and V are rounded to the rows' type before they are used. On failure the cache
 * must not be used any more. Token ids must be below n_vocab (KV_EFIT).
 *
 * Outside of a round (kv_cache_begin_round) the batch is one. Inside, chunk adds to c->sums[KV_SUMS_CHUNK], which was made when it began.
 */
enum kv_status kv_forward(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, const struct kv_observe *o, struct kv_err *err);

/*
 * Runs ids[0..m) over what the cache holds, at next_pos …, and leaves nothing of them but c->sums[KV_SUMS_PROBE]: the attention that the entries
 * received from them, softmax over entries and the probe's own tokens. all: what sums.all is to say. On failure the cache must not be used any more.
 */
enum kv_status kv_probe(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, bool all, struct kv_err *err);

/* logits [n_vocab] of a hidden state, soft cap included. */
enum kv_status kv_logits(struct kv_engine *e, const float *hidden, float *logits, struct kv_err *err);

#endif
