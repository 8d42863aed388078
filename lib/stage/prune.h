/* What the files of kv-prune share; nobody else includes it. */
#ifndef KV_STAGE_PRUNE_H
#define KV_STAGE_PRUNE_H

#include "cache/segments.h"
#include "policy/channels.h"
#include "policy/rows.h"
#include "stage/stage.h"

enum prune_score { PRUNE_THINK, PRUNE_ERROR, PRUNE_REBUILT, PRUNE_KNORM, PRUNE_RANDOM };

struct prune {				/* the command line */
	bool ratio_given;
	struct kv_ratio ratio;
	enum kv_rounding rounding;
	int score;			/* enum prune_score */
	int64_t recent, sinks, last, seed;
	bool score_given;
	bool keys_given, narrowed_keys;	/* --score-keys: of the narrowed entries alone */
	bool per_query_head, pairs, rebuild, values, reuse, requant, report, force;
};

enum prune_idle { PRUNE_BUSY, PRUNE_SHORT, PRUNE_NO_CHANNEL, PRUNE_NO_MASK, PRUNE_NO_GAIN };

/* What happens to one list. */
struct prune_plan {
	enum prune_idle idle;		/* why nothing does */
	struct kv_mask *mask;
	uint32_t from, to;		/* the entries that are narrowed */
	bool lossy;			/* codes have to be made anew */
	double error, rebuilt;		/* squared, relative: of zeros in the dropped channels, of the map; NAN = not asked for */
	uint64_t before, after;		/* bytes of the list's keys, or values */
};

/* The same for all lists. */
struct prune_scene {
	const struct prune *how;
	struct kv_cache *cache;		/* what is needed is loaded */
	const struct kv_turns *turns;
	unsigned n_drop;		/* channels that go */
	struct prune_plan *plan;	/* [n_layers * n_heads_kv] */
};

static inline bool
prune_wants_queries(const struct prune *p)
{
	return p->ratio_given && p->score != PRUNE_KNORM && p->score != PRUNE_RANDOM;
}

static inline struct kv_rows *
prune_rows(const struct prune_scene *s, size_t list)
{
	return s->how->values ? &s->cache->list[list].v : &s->cache->list[list].k;
}

/* Fills plan[list]; changes nothing in the cache. KV_EFIT: what was asked for cannot be done there. */
enum kv_status kv_prune_choose(struct prune_scene *s, size_t list, struct kv_err *err);
/* The error of a mask for the recorded queries. */
enum kv_status kv_prune_measure(const struct prune_scene *s, size_t list, struct prune_plan *p, struct kv_err *err);
/* Narrows the rows as plan[list] says. */
enum kv_status kv_prune_apply(struct prune_scene *s, size_t list, struct kv_err *err);
/* What users are told, and what the provenance keeps. */
void kv_prune_tell(const struct prune_scene *s, struct kv_notes *notes);

#endif
