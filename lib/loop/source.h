/*
 * A text as token ids, read as they are wanted: what is in memory is a stretch of it, however long it is. The ids are those of the whole text,
 * whatever the reads return; it is cut only where that is sure (kv_encode_cut). A text without such places is held until it ends.
 */
#ifndef KV_LOOP_SOURCE_H
#define KV_LOOP_SOURCE_H

#include "loop/prompt.h"
#include "util/in.h"

struct kv_source;

/* A file, opened when its turn comes (NULL or "-": standard input), or bytes in memory, which outlive the source. */
struct kv_source_part {
	const char *path;
	const struct kv_buf *bytes;	/* or NULL */
};

/*
 * The parts [n], which are copied, one behind the other as one text: what reading it behind the cache feeds, c as for kv_prompt_ids. Not for
 * chat and show, which take the text as a whole: give their ids to kv_source_of.
 */
enum kv_status kv_source_open(struct kv_session *s, const struct kv_prompt_opts *o, const struct kv_cache *c,
	const struct kv_source_part *part, size_t n, struct kv_source **out, struct kv_err *err);
/* Ids that are there already. On success they are the source's, and *ids is empty. */
enum kv_status kv_source_of(struct kv_ids *ids, struct kv_source **out, struct kv_err *err);
void kv_source_close(struct kv_source *src);

/* The next ids, *n of them: `want`, or fewer where the text ends. They stay the next until they are skipped; valid until the next peek. */
enum kv_status kv_source_peek(struct kv_source *src, size_t want, const uint32_t **ids, size_t *n, struct kv_err *err);
/* Passes over the first n of those that were peeked at. */
void kv_source_skip(struct kv_source *src, size_t n);

uint64_t kv_source_done(const struct kv_source *src);	/* ids passed over */
uint64_t kv_source_total(const struct kv_source *src);	/* ids in all; 0 until the end of the text has been seen */
uint64_t kv_source_guess(const struct kv_source *src, uint64_t bytes);	/* the same of a text of so many bytes, by those seen so far */
/* Lines worth saying on standard error; they are complete once the end has been seen. */
void kv_source_notes(const struct kv_source *src, struct kv_buf *notes);

#endif
