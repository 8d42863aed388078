/*
 * Tables from outside, one line an entry: layer, head, slot and perhaps a value, tabs between. A header line names the columns (others
 * are ignored), without one they stand in this order. `*` stands for every layer or head; of lines for the same entry the last counts.
 * Lines with # are comments, but `# digest HEX` must be that of the snapshot.
 */
#ifndef KV_STAGE_TSV_H
#define KV_STAGE_TSV_H

#include "cache/cache.h"

struct kv_tsv_row {
	int32_t layer, head;		/* -1: every */
	uint32_t slot;
	double value;
	size_t line;
};

struct kv_tsv {
	char *name;			/* of the file, quoted */
	struct kv_tsv_row *row;
	size_t n;
	bool has_digest;
	char digest[33];		/* as it stands there */
};

enum kv_tsv_value { KV_TSV_NONE, KV_TSV_REAL, KV_TSV_INT };

/* path "-": standard input. column = the value's name. A bad line, a value that is not a number: KV_ECORRUPT. */
enum kv_status kv_tsv_read(const char *path, const char *column, enum kv_tsv_value kind, struct kv_tsv **out, struct kv_err *err);
void kv_tsv_free(struct kv_tsv *t);

/*
 * Calls visit for every entry that a line names, lines in order. KV_EFIT for an entry that the cache does not have, and for a table made
 * from another snapshot.
 */
typedef void kv_tsv_visitor(void *arg, size_t list, uint32_t slot, double value);
enum kv_status kv_tsv_visit(const struct kv_tsv *t, const struct kv_cache *c, kv_tsv_visitor *visit, void *arg, struct kv_err *err);

#endif
