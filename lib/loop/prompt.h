/* From what the user gave to token ids: plain text, a chat message, or ids. Shared by kv-prefill and kv-decode. */
#ifndef KV_LOOP_PROMPT_H
#define KV_LOOP_PROMPT_H

#include "loop/session.h"
#include "util/mem.h"
#include "util/opt.h"

enum kv_bos { KV_BOS_AUTO, KV_BOS_YES, KV_BOS_NO };

struct kv_prompt_opts {
	bool tokens, special, chat, show;
	const char *template;		/* NULL = auto */
	const char *system;		/* NULL = the template's own */
	enum kv_bos bos;
};

extern const struct kv_opt kv_prompt_options[];

/* KV_END: not an option of this table. */
enum kv_status kv_prompt_option(struct kv_prompt_opts *o, int key, const char *arg, struct kv_err *err);
/* Do the options go together? */
enum kv_status kv_prompt_ready(const struct kv_prompt_opts *o, struct kv_err *err);

/*
 * Appends the ids that reading `text` behind the cache feeds; c NULL: at the beginning. shown (may be NULL) gets what is fed, as text, for
 * --show-prompt; notes gets lines worth saying on standard error.
 */
enum kv_status kv_prompt_ids(struct kv_session *s, const struct kv_prompt_opts *o, const struct kv_cache *c,
	const struct kv_buf *text, struct kv_ids *ids, struct kv_buf *shown, struct kv_buf *notes, struct kv_err *err);

/*
 * The parts of it, for who reads a text bit by bit: ids in decimal; what begins a new document; what was odd about a text whose first ids
 * these are.
 */
enum kv_status kv_prompt_parse_ids(const uint8_t *text, size_t n, uint32_t n_vocab, struct kv_ids *ids, struct kv_err *err);
enum kv_status kv_prompt_add_bos(const struct kv_session *s, const struct kv_prompt_opts *o, struct kv_ids *ids, struct kv_err *err);
void kv_prompt_note(const struct kv_session *s, const struct kv_encode_notes *n, const uint32_t *id, size_t n_ids, struct kv_buf *notes);

/*
 * Appends the ids of a probe: those that kv_prompt_ids will give for the same text once c has read next[0..n) as well. No BOS, whatever the
 * cache holds now; with --chat the next user message. KV_EUSAGE: there is no token in it.
 */
enum kv_status kv_prompt_probe(struct kv_session *s, const struct kv_prompt_opts *o, const struct kv_cache *c, const uint32_t *next, size_t n,
	const struct kv_buf *text, struct kv_ids *ids, struct kv_buf *notes, struct kv_err *err);

#endif
