/* What the files of kv-quant share; nobody else includes it. */
#ifndef KV_STAGE_QUANTISE_H
#define KV_STAGE_QUANTISE_H

#include "cache/segments.h"
#include "policy/rows.h"
#include "stage/stage.h"

enum quantise_mode { QUANTISE_NONE, QUANTISE_KIVI, QUANTISE_RESTORE, QUANTISE_DTYPE };

struct quantise {			/* the command line */
	enum quantise_mode mode;
	unsigned bits;
	enum kvs_dtype dtype;
	unsigned what;			/* enum kv_load */
	int64_t group, residual, sinks;
	bool kivi_only;			/* an option was given that goes with --kivi alone */
	bool report;
};

/* What happens to the rows of K, or V, of one list. */
struct quantise_plan {
	uint32_t from, to;		/* entries to code; from = to: none */
	bool coded;			/* some are already … */
	bool of_round;			/* … among them entries of the round that came last */
	uint64_t before, after;		/* bytes */
	double size, error;		/* squares of the numbers coded, and of what they are off by */
	double products, off;		/* the same of their products with the recorded queries */
};

struct quantise_scene {
	const struct quantise *how;
	struct kv_cache *cache;
	const struct kv_turns *turns;	/* NULL: products are not measured */
	struct quantise_plan *plan;	/* [n_lists][2] keys, values */
};

static inline struct kv_rows *
quantise_rows(const struct quantise_scene *s, size_t item)
{
	return item % 2 ? &s->cache->list[item / 2].v : &s->cache->list[item / 2].k;
}

/* Does item, a list's keys (even) or values (odd), take part? */
static inline bool
quantise_takes(const struct quantise_scene *s, size_t item)
{
	return s->how->what & (item % 2 ? KV_LOAD_V : KV_LOAD_K);
}

/* Fills plan[item]. KV_EFIT: rows in other codes. */
enum kv_status kv_quantise_choose(struct quantise_scene *s, size_t item, struct kv_err *err);
/* Changes the rows as plan[item] says; measures what that did if asked. */
enum kv_status kv_quantise_apply(struct quantise_scene *s, size_t item, struct kv_err *err);
void kv_quantise_tell(const struct quantise_scene *s, struct kv_notes *notes);
/* "K is quantised already (kivi, 2 bits) …" */
enum kv_status kv_quantise_refuse(const struct quantise_scene *s, size_t item, struct kv_err *err);

#endif
