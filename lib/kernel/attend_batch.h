/*
 * Attention of a batch, a tile of queries at a time against blocks of keys, with a running maximum and sum (FlashAttention): the frame is
 * in attend.c; what is done with one block belongs to the level.
 */
#ifndef KV_KERNEL_ATTEND_BATCH_H
#define KV_KERNEL_ATTEND_BATCH_H

#include "kernel/attend.h"

enum {
	KV_ATTN_BLOCK = 256,	/* keys of a block */
	KV_ATTN_LD = KV_ATTN_BLOCK + 16,	/* floats from one row of scores to the next: no power of two */
};

/* The work on one kv head. */
struct kv_attn_group {
	const struct kv_attn *a;
	const struct kv_attn_list *l;
	const float *q;		/* [m][heads][d_k], at the group's first head */
	size_t m, heads;	/* heads: of the group */
	float *out;		/* [m][heads][d_v], likewise */
	struct kv_span *see;	/* [m] what each query sees: both ends ascend */
	struct kv_span all;	/* what any query sees */
	float *k;		/* keys [all, in whole panels][d_k], turned, … */
	float *v;		/* … and values, as the level packs them: it has room for f32 */
};

/* Tokens of a batch and all their query heads: row = token * heads + head. */
struct kv_attn_tile {
	size_t first, tokens;	/* the tokens in hand */
	size_t rows, blocks;	/* room for rows; blocks whose weights are kept: 1, or all if sums are asked for */
	float *q;		/* [rows][d_k] times the scale; the level may pack them where they are, at block 0 */
	float *s;		/* [blocks][rows][LD] scores, then weights … */
	float *then;		/* [blocks][rows] … relative to this maximum */
	float *o;		/* [rows][width of a packed value] weighted values so far … */
	float *top;		/* [rows] … relative to this maximum */
	double *sum;		/* [rows] of the weights */
	float *share;		/* [rows] what a weight counts: 1 / the row's sum, at the row's maximum */
	float *scratch;		/* [panel][max(d_k, d_v)] */
};

/* Block b of a tile: entries [at, at + n) of the list. */
struct kv_attn_block {
	size_t b, at, n;
};

struct kv_attn_level {
	size_t rows;		/* tiles have room for a multiple of so many */
	size_t panel;		/* keys are packed so many at a time; divides KV_ATTN_BLOCK */
	size_t lanes;		/* values are packed as [d_v, rounded up to a multiple of this] */
	/* Entries s of the list, from a multiple of panel after all.from on: into g->k and g->v */
	void (*pack)(const struct kv_attn_group *g, struct kv_span s, float *scratch);
	/* Weights of a block, from t->q; t->o, top and sum take it in */
	void (*attend)(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x);
	/* Adds, once to each sum, what the block's entries receive from the tile, now that all maxima and sums are known */
	void (*receive)(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x, const struct kv_attn_sums *to);
};

bool kv_attend_batch(struct kv_pool *pool, const struct kv_attn *a, const struct kv_attn_level *how, const float *q, size_t m, float *out);

/* Tokens of the tile that see something of entries [at, at + n). */
struct kv_span kv_attn_who(const struct kv_attn_group *g, const struct kv_attn_tile *t, size_t at, size_t n);
/* t->share of those tokens' rows for block b */
void kv_attn_shares(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_span tokens, size_t b);

/* How much of x lies beyond at, n at most. */
static inline size_t
kv_attn_clip(size_t x, size_t at, size_t n)
{
	return x <= at ? 0 : x - at < n ? x - at : n;
}

#endif
