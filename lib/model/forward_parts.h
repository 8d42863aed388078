/* What the files of the forward pass share; nobody else includes it. */
#ifndef KV_MODEL_FORWARD_PARTS_H
#define KV_MODEL_FORWARD_PARTS_H

#include "kernel/ops.h"
#include "kernel/rope.h"
#include "model/forward.h"

/* Positions and their angles: [n] and [n][n_rot/2][2]. */
struct turned {
	unsigned rope;
	size_t n, cap;
	int32_t *pos;
	float *cs;
};

struct kv_engine {
	const struct kv_model *m;
	const struct kv_ops *ops;
	struct kv_pool *pool;

	/* The tables that angles were made from: the snapshot's, which may differ from the model's a little. */
	struct kvs_rope rope[KVS_MAX_ROPE];
	struct kv_angles *angles[KVS_MAX_ROPE];
	struct turned query, *key;		/* key [K]: positions of lists, mostly the same in all heads and layers */
	struct kv_attn_list *list;		/* [K] of the layer in hand … */
	struct kv_attn_segment *segment;	/* … an array [n_segments] for their segments */
	size_t n_segments;

	/* The batch in hand, m rows each. */
	size_t room;
	float *x, *h;				/* [m][E] the residual stream, and its norm */
	float *q, *k, *v, *o;			/* [m][H D], [m][K D], [m][K D], [m][H D] */
	float *gate, *up;			/* [m][F] */
	uint32_t *src;				/* [m] */
	float *logits;				/* [tokens of a panel][vocabulary], when needed */
	struct kv_attn_sums *received;		/* [K] of the layer in hand, in … */
	double *sums;				/* [n_sums] … this, when needed */
	size_t n_sums;
	struct kv_sums *by_head;		/* where this pass adds the attention of each query head; NULL: nowhere */
};

/*
 * What kv_forward and kv_probe share: m new entries in every list, e->x [m][E] the residual stream behind the last layer. Of `see` only
 * what is recorded in a layer.
 */
enum kv_status kv_forward_layers(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, const struct kv_observe *see,
	struct kv_err *err);

/* Unpacks what the cache holds, and rebuilds channels that a mask has dropped where it says how. */
enum kv_status kv_lists_ready(struct kv_engine *e, struct kv_cache *c, struct kv_err *err);
/* e->list for a layer, without angles. */
enum kv_status kv_lists_offer(struct kv_engine *e, const struct kv_cache *c, unsigned layer, struct kv_err *err);

/* logits [m][vocabulary] of hidden [m][E] */
bool kv_unembed(const struct kv_engine *e, const float *hidden, size_t m, float *logits);

/* Surprisal of each new token; e->h [m][E] are the normed states of the batch, the cache's is still that of the token before it. */
enum kv_status kv_observe_nll(struct kv_engine *e, struct kv_cache *c, const uint32_t *ids, size_t m, struct kv_err *err);

/*
 * Points e->received at zeros for the layer's lists; the attention of its m newest tokens, once summed there, goes to the lists if `lists`, and
 * by query head to e->by_head.
 */
enum kv_status kv_received_begin(struct kv_engine *e, const struct kv_cache *c, unsigned layer, bool lists, struct kv_err *err);
enum kv_status kv_received_end(const struct kv_engine *e, struct kv_cache *c, unsigned layer, size_t m, bool lists, struct kv_err *err);

#endif
