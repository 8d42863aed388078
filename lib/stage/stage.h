/*
 * What a filter does, as a function on a cache: shared by the executable and by --each. A stage has an option table, a parser and
 * a run; nothing that changes a result stands outside of it.
 */
#ifndef KV_STAGE_STAGE_H
#define KV_STAGE_STAGE_H

#include "cache/cache.h"
#include "util/mem.h"
#include "util/opt.h"
#include "util/pool.h"

enum kv_output {
	KV_WRITES_SNAPSHOT,
	KV_PRINTS,			/* text about every snapshot instead (--dry-run) */
	KV_PRINTS_ALONE,		/* text without any input (--list) */
};

/* What a run has to say beside the cache. */
struct kv_notes {
	struct kv_buf report;		/* lines for standard error, shown with -v or when the stage was asked to report */
	struct kv_buf remarks;		/* lines for standard error, shown but with -q: what users should know, or asked for */
	struct kv_buf text;		/* what is printed instead of a snapshot */
	struct kv_buf detail;		/* a JSON object of figures for the provenance; empty: none */
	uint64_t kept, of;		/* entries, for the provenance; of = 0: says nothing */
};

static inline void
kv_notes_free(struct kv_notes *n)
{
	kv_buf_free(&n->report);
	kv_buf_free(&n->remarks);
	kv_buf_free(&n->text);
	kv_buf_free(&n->detail);
}

struct kv_stage {
	struct kv_usage usage;		/* tables: its own options; the tool adds the common ones behind them */
	bool moves_only;		/* run moves positions and asks for no rows: kv_cache_pass will do */
	enum kv_status (*start)(void **cfg, struct kv_err *err);
	enum kv_status (*option)(void *cfg, int key, const char *arg, struct kv_err *err);	/* one row of the table */
	void (*force)(void *cfg);			/* --force was given; NULL: it makes no difference */
	enum kv_status (*ready)(void *cfg, struct kv_err *err);		/* after the last: is it a whole command? */
	enum kv_output (*output)(const void *cfg);			/* NULL: a snapshot */
	unsigned (*needs)(const void *cfg);				/* enum kv_needs; NULL: none */
	uint32_t (*queries)(const void *cfg);				/* of each layer, that should be on record; NULL: none */
	/* cache is NULL where output says KV_PRINTS_ALONE. */
	enum kv_status (*run)(const void *cfg, struct kv_cache *cache, struct kv_pool *pool, struct kv_notes *notes, struct kv_err *err);
	void (*free)(void *cfg);
};

extern const struct kv_stage kv_stage_evict, kv_stage_prune, kv_stage_quant, kv_stage_reposition;

#endif
