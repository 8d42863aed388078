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

/*
 * One user message and the opening of the assistant's turn. first: begins the conversation, so that a system message may stand in
 * front (system NULL = the template's default, "" = none). Otherwise only the next message is rendered, after what closes the
 * assistant's turn if the history is inside one: kv_chat_closing says what.
 */
enum kv_status kv_chat_render(const struct kv_chat *c, const char *system, const char *user, size_t n, bool first, struct kv_prompt *out, struct kv_err *err);

/* Text that ends an assistant's turn ("<|im_end|>\n"), what opens one, for deciding what to close. May be "". */
const char *kv_chat_closing(const struct kv_chat *c);
const char *kv_chat_opening(const struct kv_chat *c);
void kv_prompt_free(struct kv_prompt *p);

#endif
