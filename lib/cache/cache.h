/*
 * The KV cache in memory: a plain value that stages, policies and the forward pass take and change.
 * Entries of a list stand in time order: row r of K and V belongs to src[r], pos[r]; both ascend. Keys are kept before RoPE.
 */
#ifndef KV_CACHE_CACHE_H
#define KV_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvs/frame.h"
#include "kvs/geom.h"
#include "kvs/payload.h"
#include "kvs/prov.h"
#include "util/err.h"
#include "util/pool.h"

/* A frame as it was read, kept to be forwarded without unpacking it. */
struct kv_held {
	struct kvs_head head;
	const uint8_t *payload;		/* head.enc_len bytes */
	uint8_t *block;			/* what they are; NULL: part of map */
	struct kv_map *map;
};

/*
 * Rows of K or of V of one list. As read they stay packed in their frames (held); whoever needs the numbers calls
 * kv_rows_load first, whoever changes them writes into data. Rows that were pruned or quantised stand in segments before the plain ones
 * (cache/segments.h); a cache that nobody pruned or quantised has none.
 */
struct kv_rows {
	uint8_t dtype;			/* enum kvs_dtype of the plain rows */
	uint32_t width;			/* channels of a whole row */
	uint32_t cap;			/* rows that data has room for; while held, that it is to have once they are loaded, if more than there are */
	uint8_t *data;			/* block [cap][width] of dtype: rows front … of the list; NULL while held */
	struct kv_held *held;		/* [n_held], in row order, scales before their rows; NULL once the numbers are there */
	size_t n_held;
	uint32_t *left;			/* an array [n_left]: of the rows held, all plain and not packed, those that are left; NULL: all */
	uint32_t n_left;
	uint32_t front;			/* rows in segments, all of them before the plain ones */
	struct kv_segment *seg;		/* an array [n_seg] */
	size_t n_seg;
};

/*
 * Attention that every entry of a list received since it came, from all queries that saw it: mean over the query heads of the group, before
 * it is summed or squared (formats/kvs.md, section 11.2). Sums in f64 within one forward pass, rounded to f32 at its end.
 */
struct kv_received {
	uint32_t cap;
	uint32_t from, to;		/* source of the first query counted, one past that of the last; stale when to < consumed */
	float *sum, *square;		/* [n] */
	uint32_t *count;		/* [n] queries that could see the entry */
};

struct kv_list {			/* of one (layer, kv head) */
	uint32_t n, cap;
	bool changed;			/* rows came or went since it was read: what is recorded by row fits no longer */
	uint32_t *src;			/* [n] source index: never changes */
	int32_t *pos;			/* [n] position: what RoPE rotates by */
	struct kv_rows k, v;
	struct kv_received *received;	/* attention that the entries received; NULL = not recorded */
};

/* The last w queries of a layer, before RoPE. */
struct kv_queries {
	uint32_t w;			/* 0 = none */
	uint32_t *src;			/* [w] */
	int32_t *pos;			/* [w] */
	float *q;			/* a block [n_heads][w][d_k] */
};

/* A 32-bit value for every token from `first` on, and for single ones before it: its id, or its surprisal as the bits of an f32. */
struct kv_track {
	uint32_t first, n, cap;
	uint32_t *v;			/* [n] tokens first … first + n - 1 */
	uint32_t n_sparse;
	uint32_t *src, *sparse;		/* [n_sparse] src ascending, below first */
};

/*
 * Attention that the first `cols` entries of every list received from the chunk of text that came last, or from a probe: sums over its
 * queries, for each query head of the group (formats/kvs.md, section 11.3). No column is no missing record: nothing was there to be seen.
 */
struct kv_sums {
	bool there;
	bool all;			/* all entries were scored; else those that were there before the chunk */
	uint32_t queries;
	uint32_t at;			/* chunk: source of its first query; probe: position of its first token */
	uint64_t probe_hash;		/* XXH3-64 of the probe's ids, u32 each; 0 for a chunk */
	uint32_t rows;			/* query heads of a group; 1 where the snapshot held them reduced … */
	uint8_t reduction;		/* … so: 0 mean, 1 sum, 2 max */
	struct kv_sums_list {
		bool missing;		/* the snapshot had none of this list, or one that does not go with the rest */
		uint32_t cols;
		float *sum;		/* a block [rows][cols] */
	} *list;			/* [layer * n_heads_kv + head] */
};
enum kv_sums_of { KV_SUMS_CHUNK, KV_SUMS_PROBE, KV_SUMS_KINDS };

struct kv_cache {
	struct kvs_geom geom;
	struct kvs_state state;
	struct kv_list *list;		/* [layer * n_heads_kv + head] */
	struct kv_track tokens;		/* ids, if state.ids; first = hist_first */
	bool has_nll;
	struct kv_track nll;		/* nats as f32 bits, -1 = none */
	uint32_t nll_kind;		/* as in oBSn */
	uint64_t nll_count;		/* tokens ever scored … */
	double nll_sum;			/* … and their sum, in order of source index */
	float *hidden;			/* an array [n_embd], after the final norm; NULL = none */
	struct kv_queries *queries;	/* [layer] */
	bool reading;			/* a round of text is being read */
	struct kv_sums sums[KV_SUMS_KINDS];
	bool has_round;
	struct kvs_obsr round;		/* the round in hand, as kv-prefill left it */
	struct kvs_prov prov;
	struct kv_buf checkpoint;	/* JSON; empty: none */
	struct kv_held *other;		/* [n_other] frames that no stage here understands, in the order found */
	size_t n_other;
	bool edited;			/* beside the lists something critical will differ from what was read */
	uint8_t digest[16];		/* of the snapshot this was read from; zero if none */
};

/* Geometry is copied; no entries, nothing read. */
enum kv_status kv_cache_new(const struct kvs_geom *g, struct kv_cache **out, struct kv_err *err);
void kv_cache_free(struct kv_cache *c);
void kv_cache_swap(struct kv_cache *a, struct kv_cache *b);	/* all of their content */

static inline struct kv_list *
kv_cache_list(const struct kv_cache *c, unsigned layer, unsigned head)
{
	return &c->list[(size_t)layer * c->geom.n_heads_kv + head];
}

uint32_t kv_cache_longest(const struct kv_cache *c);	/* entries of the fullest list */
uint64_t kv_cache_entries(const struct kv_cache *c);	/* rows in all lists */

bool kv_cache_edited(const struct kv_cache *c);		/* will its content differ from the snapshot it was read from? */

/* Same source indices and positions in both? */
bool kv_list_same(const struct kv_list *a, const struct kv_list *b);

/* Unpacks held rows of one list into data. Idempotent. */
enum kv_status kv_rows_load(struct kv_rows *r, struct kv_err *err);
enum kv_load { KV_LOAD_K = 1, KV_LOAD_V = 2 };
/* The same for all lists, on the pool; what = enum kv_load. */
enum kv_status kv_cache_load(struct kv_cache *c, unsigned what, struct kv_pool *pool, struct kv_err *err);
/*
 * Row r as f32[width]; what a mask dropped is 0, or rebuilt where the mask says how. Keys are before RoPE unless kv_rows_rotated. The rows
 * must be loaded.
 */
void kv_rows_get(const struct kv_rows *r, uint32_t row, float *out);

/*
 * Appends m entries to every list, with the sources consumed … and the positions next_pos …, rows unset; the state moves on and
 * tail becomes m. Positions beyond 2^31 - 1: KV_EFIT. The rows of entry n - m + i are then written by the caller, through
 * kv_rows_put, in the list's element type. On failure nothing has changed.
 */
enum kv_status kv_cache_extend(struct kv_cache *c, uint32_t m, struct kv_err *err);
/*
 * Makes room for m more entries in every list at once, and no more: who knows what will come spares the growing. Held rows get theirs when
 * they are loaded.
 */
enum kv_status kv_cache_reserve(struct kv_cache *c, uint32_t m, struct kv_err *err);
/* So many more entries may come: rows that are still held get room for them when they are loaded, so that they need not move again. */
void kv_cache_expect(struct kv_cache *c, uint32_t m);
/* Rounds f32[n][width] (rows ld floats apart) into the plain rows first …; KV_EFIT if a finite number would become infinite. */
enum kv_status kv_rows_put(struct kv_rows *r, uint32_t first, uint32_t n, const float *x, size_t ld, struct kv_err *err);

/*
 * Keeps the entries keep[0..n), ascending ranks, of one list and drops the rest. All of them: nothing happens. Different lists may be cut
 * at the same time. On failure the list must not be used any more.
 */
enum kv_status kv_list_keep(struct kv_list *l, const uint32_t *keep, uint32_t n, struct kv_err *err);

/* Appends m queries (f32 rows of n_heads * d_k, before RoPE) of the tokens src … at pos … to a layer's record and keeps the last w. */
enum kv_status kv_queries_add(struct kv_cache *c, unsigned layer, uint32_t w, uint32_t m, uint32_t src, int32_t pos, const float *q,
	struct kv_err *err);

/*
 * Adds to the record of a list what its entries received from the queries of the m newest, sums [n] and squares [n]; window 0 = all of it
 * is seen. Where none was, or some queries in between were not counted, the record begins with these.
 */
enum kv_status kv_received_add(struct kv_list *l, uint32_t m, uint32_t window, const double *sum, const double *square, struct kv_err *err);

/*
 * A round of text begins: what was recorded of the one before goes, sums and has_round. Until it ends kv_cache_extend drops nothing; without
 * a round in hand every kv_cache_extend is one of its own. end: tail becomes the tokens that were new in it.
 */
void kv_cache_begin_round(struct kv_cache *c);
void kv_cache_end_round(struct kv_cache *c, uint32_t tail);

/*
 * An empty record of the chunk's or the probe's attention over all entries that are there now, sums 0, in the place of any that is there;
 * the caller fills it in. It stands until the next round begins; who evicts calls kv_cache_drop_sums.
 */
enum kv_status kv_cache_new_sums(struct kv_cache *c, enum kv_sums_of which, uint32_t queries, uint32_t at, struct kv_err *err);
void kv_cache_drop_sums(struct kv_cache *c);

/* Token id of a source index; false if it is not in the history. The same for the surprisal. */
bool kv_cache_token(const struct kv_cache *c, uint32_t src, uint32_t *id);
bool kv_cache_nll(const struct kv_cache *c, uint32_t src, float *nll);
/*
 * After kv_cache_extend: ids (surprisals; -1 = none) of the m newest tokens. Surprisals that are missing between the record and them count
 * as none. Ids missing there leave no whole history: from then on the cache keeps no ids (state.ids).
 */
enum kv_status kv_cache_add_tokens(struct kv_cache *c, const uint32_t *id, uint32_t m, struct kv_err *err);
enum kv_status kv_cache_add_nll(struct kv_cache *c, const float *nll, uint32_t m, struct kv_err *err);

/*
 * Forgets history that is older than the last round (formats/kvs.md, section 8.1), so that a cache of fixed size stays one of fixed size
 * whatever is read. KV_HISTORY_NONE keeps no id at all; of surprisals those of living entries stay under both, since policies ask for them.
 */
enum kv_history { KV_HISTORY_ALL, KV_HISTORY_ALIVE, KV_HISTORY_NONE };
enum kv_status kv_cache_forget(struct kv_cache *c, enum kv_history keep, struct kv_err *err);
/* Forgets single surprisals; their count and sum stay. */
void kv_cache_forget_nll(struct kv_cache *c);

/* A JSON object for people (iNFo) in the place of any that is there; nothing may branch on it. */
enum kv_status kv_cache_set_info(struct kv_cache *c, const char *json, size_t n, struct kv_err *err);
/*
 * What a job says of itself (cKPT) in the snapshots that are written from now on; n = 0: nothing. And what the snapshot had that c was read
 * from, as long as no round has begun: not ended by 0, or NULL. Packed ones, which nobody here writes, are not looked at.
 */
enum kv_status kv_cache_set_checkpoint(struct kv_cache *c, const char *json, size_t n, struct kv_err *err);
const char *kv_cache_checkpoint(const struct kv_cache *c, size_t *n);

#endif
