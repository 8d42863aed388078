/* Generated tokens as output: text, ids, or JSON lines. */
#ifndef KV_LOOP_RENDER_H
#define KV_LOOP_RENDER_H

#include "loop/generate.h"
#include "util/out.h"

enum kv_format { KV_AS_TEXT, KV_AS_IDS, KV_AS_JSON };

struct kv_render {
	enum kv_format format;
	struct kv_out *out;
	const struct kv_tokenizer *tokenizer;
	unsigned n_top;			/* of every token, in JSON */
	bool open_line;			/* something stands on the line and no newline after it */
};

/* A kv_sink with a struct kv_render: flushed after every token. */
kv_sink kv_render_token;
/* The newline at the end, if there is text without one. */
enum kv_status kv_render_end(struct kv_render *r, struct kv_err *err);

#endif
