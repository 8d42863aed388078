/*
 * Looking inside snapshots, for people and for programs. Two ways in: a survey of the frames, which keeps no rows however large the
 * snapshot, and a cache in memory where the entries themselves are asked for.
 */
#ifndef KV_VIEW_VIEW_H
#define KV_VIEW_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/cache.h"
#include "kvs/reader.h"
#include "model/tokenizer.h"
#include "util/mem.h"
#include "util/out.h"
#include "util/pool.h"

/* Text on its way out: gathered in buf, written to out when there is much of it. out NULL: only gathered. */
struct kv_print {
	struct kv_buf buf;
	struct kv_out *out;
	bool colour;
};

/* Writes what was gathered if there is much; with all, whatever there is, through to the end. KV_ENOMEM if something did not fit. */
enum kv_status kv_print_flush(struct kv_print *p, bool all, struct kv_err *err);
void kv_print_uint(struct kv_print *p, uint64_t v);
/* A TSV field: tab, newline, carriage return and backslash as \t \n \r \\, other controls and what is not UTF-8 as \xNN. */
void kv_print_field(struct kv_print *p, const void *text, size_t n);
/* One argument of a command line, quoted for sh where it must be. Control characters stay: the caller escapes them. */
void kv_print_word(struct kv_buf *out, const char *word, size_t n);

enum kv_kind { KV_BYTES_KEYS, KV_BYTES_VALUES, KV_BYTES_MASKS, KV_BYTES_SCALES, KV_BYTES_OBSERVATIONS, KV_BYTES_META, KV_N_KINDS };
enum kv_seen { KV_SEEN_LAST, KV_SEEN_ACC, KV_SEEN_NLL, KV_SEEN_CHUNK, KV_SEEN_PROBE, KV_N_SEEN };

/* What one pass over the frames tells. Every payload was decoded and every rule of the format checked on the way. */
struct kv_survey {
	struct kvs_geom geom;
	struct kvs_state state;
	char *model;			/* name, for people; NULL = unknown */
	uint16_t major, minor;

	uint32_t *n;			/* [layer][kv head] entries */
	uint32_t shortest, longest;
	uint64_t rows;			/* entries in all lists */
	int32_t first_pos, last_pos;	/* over all lists; meaningless when rows is 0 */

	uint64_t bytes[KV_N_KINDS];	/* as if nothing were packed; meta = headers, padding and all that is not listed */
	uint64_t total;			/* their sum: the length of the same snapshot written raw */
	uint64_t full_k, full_v;	/* K and V of all tokens read, at full width */
	uint64_t stored;		/* length as it is */

	uint64_t rows_pruned, rows_baked;	/* rows of K or V under a channel mask; keys with their positions baked in */
	uint32_t n_masks, kept_min, kept_max;	/* channels that the masks leave */
	bool pairs;				/* all masks of keys keep rotary pairs whole */
	uint32_t n_maps;			/* masks whose dropped channels can be rebuilt */
	uint32_t bits_k, bits_v, group, residual;	/* of rows stored as codes */
	uint64_t rows_k, rows_v;
	uint64_t odd_rows;		/* rows of K or V with a NaN or an infinity in them */

	struct {
		bool present, fresh;
		uint64_t queries;	/* nll: tokens */
	} seen[KV_N_SEEN];
	double nll_sum;
	uint32_t nll_kind;		/* 0: its mean is one of nats */

	struct kvs_prov prov;
	uint8_t digest[16], observation_digest[16];
};

const char *kv_seen_name(enum kv_seen what);

/* After kvs_reader_begin: reads to the end of the snapshot, decodes on the pool (NULL = here) and checks everything. */
enum kv_status kv_survey_read(struct kvs_reader *r, struct kv_pool *pool, struct kv_survey **out, struct kv_err *err);
void kv_survey_free(struct kv_survey *s);

/* The page for people. name: of the input, for the headline. */
enum kv_status kv_survey_page(const struct kv_survey *s, const char *name, struct kv_print *p, struct kv_err *err);
/* One JSON object and a newline. */
enum kv_status kv_survey_json(const struct kv_survey *s, struct kv_print *p, struct kv_err *err);

/*
 * Tables over the frames, printed as they go by; a damaged snapshot is shown up to the damage. Each reads to the end of one snapshot,
 * after kvs_reader_begin.
 */
enum kv_frame_table { KV_TABLE_FRAMES, KV_TABLE_MASKS, KV_TABLE_PROV };

enum kv_status kv_frame_table(struct kvs_reader *r, enum kv_frame_table which, bool header, struct kv_print *p, struct kv_err *err);
/* Headers and stored hashes to the end, nothing decoded. */
enum kv_status kv_walk(struct kvs_reader *r, struct kv_err *err);

/* Tables over a cache. tok may be NULL: text is left empty. */
enum kv_cache_table { KV_TABLE_ENTRIES, KV_TABLE_TOKENS, KV_TABLE_NLL };

enum kv_status kv_cache_table(const struct kv_cache *c, enum kv_cache_table which, const struct kv_tokenizer *tok, bool header,
	struct kv_print *p, struct kv_err *err);
/* What a policy, with its defaults, makes of every entry. */
enum kv_status kv_score_table(struct kv_cache *c, const char *policy, struct kv_pool *pool, bool header, struct kv_print *p,
	struct kv_err *err);
/* Is there such a policy? KV_EUSAGE */
enum kv_status kv_score_table_check(const char *policy, struct kv_err *err);
/* Tokens scored, mean NLL, perplexity. KV_EFIT without the observation. */
enum kv_status kv_perplexity(const struct kv_cache *c, struct kv_print *p, struct kv_err *err);

/*
 * What differs, nothing if nothing does: sentences about model and state, then a table of the layers that differ: entries in one alone
 * or in both, how many of these stand at another position, largest and root mean square difference of their K and V. Entries are
 * matched by source index, over all kv heads of a layer. Other models are not compared further.
 */
enum kv_status kv_diff(struct kv_cache *a, struct kv_cache *b, struct kv_print *p, bool *different, struct kv_err *err);

/*
 * The text that was read. What none of the lists asked for holds is dimmed in colour, else elided; in colour, where lists differ, what at
 * least half of them hold is bold.
 */
struct kv_which {
	int64_t layer, head;		/* negative: all of them */
};

struct kv_survival {
	uint32_t lists;
	uint64_t tokens, none, few, many;	/* tokens held by no list, by less than half, by at least half of them */
};

enum kv_status kv_survivors(const struct kv_cache *c, const struct kv_tokenizer *tok, const struct kv_which *which, struct kv_print *p,
	struct kv_survival *out, struct kv_err *err);

/*
 * Prologue and END frame of the first and the last snapshot of a regular file, without reading what is between. KV_END: fd is no
 * regular file, it must be walked.
 */
enum kv_status kv_quick(int fd, struct kv_err *err);

#endif
