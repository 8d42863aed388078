/* Chat templates without Jinja: known ones by the hash of their text, clear markers, or by name. */
#ifndef KV_MODEL_CHAT_H
#define KV_MODEL_CHAT_H

#include "model/tokenizer.h"
#include "util/mem.h"

struct kv_chat;		/* a template; never freed */

/* name: "auto" (from the model file), "none", "chatml", "llama3", … Unknown name: KV_EUSAGE; unknown template: KV_EUNSUP.
   *guessed = true when auto went by markers. */
enum kv_status kv_chat_find(const struct kv_gguf *g, const char *name, const struct kv_chat **out, bool *guessed, struct kv_err *err);
const char *kv_chat_name(const struct kv_chat *c);
const char *kv_chat_names(void);	/* "chatml llama3 …" for the help */

/* Text and, byte by byte, whether it belongs to the template. */
struct kv_prompt {
	struct kv_buf text, owned;
};

/* Appends text that belongs to the template, or does not. */
enum kv_status kv_prompt_add(struct kv_prompt *p, const char *text, size_t n, bool owned, struct kv_err *err);
void kv_prompt_free(struct kv_prompt *p);

/*
 * Appends one user message and the opening of the assistant's turn. first: begins the conversation, so that a system message may
 * stand in front (system NULL = the template's default, "" = none). Otherwise only the next message is rendered, without a system
 * message; what has to come before it kv_chat_turn says.
 */
enum kv_status kv_chat_render(const struct kv_chat *c, const char *system, const char *user, size_t n, bool first,
	struct kv_prompt *out, struct kv_err *err);

/* Where a sequence of tokens ends, seen as a conversation. */
enum kv_turn {
	KV_TURN_NONE,		/* it holds no turn */
	KV_TURN_INSIDE,		/* inside the assistant's, which is not closed */
	KV_TURN_CLOSED,		/* behind the end of a turn */
};

/*
 * *before = what of the template's text has to come in front of the next message: all that closes the turn inside one, its rest
 * where the ids end with the end-of-turn token alone, else "". Control tokens count only as such: the same letters in plain text do
 * not end a turn.
 */
enum kv_status kv_chat_turn(const struct kv_chat *c, const struct kv_tokenizer *t, const uint32_t *ids, size_t n, enum kv_turn *turn,
	const char **before, struct kv_err *err);

#endif
