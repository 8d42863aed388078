/* Generated tokens as output. */
#include "loop/render.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/mem.h"
#include "util/utf8.h"

/* JSON is UTF-8: bytes that are no character become U+FFFD. */
static json_t *
json_text(const char *p, size_t n)
{
	struct kv_buf b = { 0 };
	json_t *j;

	for (size_t i = 0; i < n;) {
		size_t len = kv_utf8_len((const uint8_t *)p + i, n - i);

		kv_buf_add(&b, len ? p + i : "\xef\xbf\xbd", len ? len : 3);
		i += len ? len : 1;
	}
	j = b.failed ? NULL : json_stringn(b.len ? (const char *)b.p : "", b.len);
	kv_buf_free(&b);
	return j;
}

static json_t *
json_choice(const struct kv_render *r, const struct kv_alternative *c)
{
	struct kv_buf b = { 0 };
	json_t *j;

	kv_token_bytes(r->tokenizer, c->id, true, &b);
	j = json_pack("{s:I, s:o?, s:f}", "id", (json_int_t)c->id, "text", json_text((const char *)b.p, b.len), "logprob", c->logprob);
	kv_buf_free(&b);
	return j;
}

static enum kv_status
put_json(struct kv_render *r, const struct kv_token_out *t, struct kv_err *err)
{
	json_t *top = r->n_top ? json_array() : NULL;
	enum kv_status rc;
	json_t *j;
	char *line;

	for (unsigned i = 0; i < r->n_top; i++)
		json_array_append_new(top, json_choice(r, &t->top[i]));
	j = json_pack("{s:I, s:o?, s:f, s:o*}", "id", (json_int_t)t->id, "text", json_text(t->text, t->n), "logprob", t->logprob, "top", top);
	line = j ? json_dumps(j, JSON_COMPACT) : NULL;
	if (!line)
		rc = kv_fail_mem(err, "a JSON line");
	else if ((rc = kv_out_write(r->out, line, strlen(line), err)) == KV_OK)
		rc = kv_out_write(r->out, "\n", 1, err);
	free(line);
	json_decref(j);
	return rc;
}

static enum kv_status
put_id(struct kv_render *r, uint32_t id, struct kv_err *err)
{
	char word[16];
	int n = snprintf(word, sizeof word, "%s%u", r->open_line ? " " : "", id);

	r->open_line = true;
	return kv_out_write(r->out, word, (size_t)n, err);
}

enum kv_status
kv_render_token(void *arg, const struct kv_token_out *t, struct kv_err *err)
{
	struct kv_render *r = arg;
	enum kv_status rc;

	switch (r->format) {
	case KV_AS_IDS:
		rc = put_id(r, t->id, err);
		break;
	case KV_AS_JSON:
		rc = put_json(r, t, err);
		break;
	default:
		if (t->n)
			r->open_line = t->text[t->n - 1] != '\n';
		rc = kv_out_write(r->out, t->text, t->n, err);
	}
	return rc == KV_OK ? kv_out_flush(r->out, err) : rc;
}

enum kv_status
kv_render_end(struct kv_render *r, struct kv_err *err)
{
	bool open = r->open_line;

	r->open_line = false;
	return open ? kv_out_write(r->out, "\n", 1, err) : KV_OK;
}
