/* Chat templates: what stands around a message, as data, and which of them a model means. */
#include "model/chat.h"

#include <stdlib.h>
#include <string.h>

#include "kvs/digest.h"
#include "model/tok_int.h"
#include "util/text.h"

/* All texts may be "". Order: system (unless inside), user_open, system (if inside), the message, user_close, opening. */
struct kv_chat {
	const char *name;
	const char *sys_open, *sys_close, *user_open, *user_close;
	const char *opening, *closing;	/* of the assistant's turn */
	const char *system;		/* said when nothing else is; NULL: nothing */
	bool sys_inside;		/* the system text is part of the user's message */
	bool trim;			/* messages lose white space at both ends */
};

#define CHATML "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n", "<|im_end|>\n", \
	"<|im_start|>assistant\n", "<|im_end|>\n"
#define LLAMA3(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define ZEPHYR "<|system|>\n", "</s>\n", "<|user|>\n", "</s>\n", "<|assistant|>\n", "</s>\n"

static const struct kv_chat templates[] = {
	{ "chatml", CHATML, NULL, false, false },
	{ "smollm2", CHATML, "You are a helpful AI assistant named SmolLM, trained by Hugging Face", false, false },
	{ "qwen2.5", CHATML, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", false, false },
	{ "llama3", LLAMA3("system"), "<|eot_id|>", LLAMA3("user"), "<|eot_id|>", LLAMA3("assistant"), "<|eot_id|>",
	  NULL, false, true },
	{ "llama2", "<<SYS>>\n", "\n<</SYS>>\n\n", "[INST] ", "", " [/INST]", "</s>", NULL, true, false },
	{ "mistral-v1", "", "\n\n", " [INST] ", "", " [/INST]", "</s>", NULL, true, false },
	{ "mistral-v3", "", "\n\n", "[INST] ", "", "[/INST]", "</s>", NULL, true, false },
	{ "mistral-v3-tekken", "", "\n\n", "[INST]", "", "[/INST]", "</s>", NULL, true, false },
	{ "mistral-v7", "[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]", "[INST] ", "", "[/INST]", "</s>", NULL, false, false },
	{ "mistral-v7-tekken", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "", "[/INST]", "</s>", NULL, false, false },
	{ "zephyr", ZEPHYR, NULL, false, false },
	{ "tinyllama", ZEPHYR, NULL, false, false },
	{ "gemma", "", "\n\n", "<start_of_turn>user\n", "<end_of_turn>\n", "<start_of_turn>model\n", "<end_of_turn>\n", NULL, true, true },
	{ "none", "", "", "", "", "", "", NULL, false, false },
};

/* Templates met in model files, by XXH3-128 of their text as kvs_hex128 prints it. */
static const struct {
	const char *hash, *name;
} known[] = {
	{ "98f63cc3d421d28f99ab995e9629dacd", "smollm2" },		/* SmolLM2-Instruct, 368 bytes */
	{ "f0a6a8278439fdb056191e205a440263", "chatml" },		/* the common form, no default system message */
	{ "09facc0e4aa943189799ad6e2dea0594", "llama3" },		/* Meta-Llama-3-Instruct */
};

/* A template that has all of one row's marks, and none of those that speak against it. */
static const struct {
	const char *name, *marks[3], *against[2];
} marks[] = {
	{ "chatml", { "<|im_start|>", "<|im_end|>" }, { "<|im_sep|>", "<end_of_utterance>" } },
	{ "llama3", { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" }, { NULL } },
	{ "gemma", { "<start_of_turn>", "<end_of_turn>" }, { NULL } },
};

static const struct kv_chat *
by_name(const char *name)
{
	for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
		if (!strcmp(templates[i].name, name))
			return &templates[i];
	return NULL;
}

const char *
kv_chat_names(void)
{
	return "chatml smollm2 qwen2.5 llama3 llama2 mistral-v1 mistral-v3 mistral-v3-tekken mistral-v7 mistral-v7-tekken zephyr "
	       "tinyllama gemma";
}

static bool
has(struct kv_str s, const char *what)
{
	size_t n = strlen(what);

	for (size_t i = 0; i + n <= s.n; i++)
		if (!memcmp(s.p + i, what, n))
			return true;
	return false;
}

static bool
fits(struct kv_str s, size_t row)
{
	for (size_t k = 0; k < 3 && marks[row].marks[k]; k++)
		if (!has(s, marks[row].marks[k]))
			return false;
	for (size_t k = 0; k < 2 && marks[row].against[k]; k++)
		if (has(s, marks[row].against[k]))
			return false;
	return true;
}

/* NULL: no row fits, or more than one. */
static const struct kv_chat *
by_marks(struct kv_str s)
{
	const struct kv_chat *found = NULL;

	for (size_t row = 0; row < sizeof marks / sizeof *marks; row++) {
		if (!fits(s, row))
			continue;
		if (found)
			return NULL;
		found = by_name(marks[row].name);
	}
	/* Of the same form, but with something to say when nobody else does. */
	for (size_t i = 0; found && i < sizeof templates / sizeof *templates; i++)
		if (templates[i].system && !strcmp(templates[i].opening, found->opening) && has(s, templates[i].system))
			return &templates[i];
	return found;
}

static enum kv_status
from_model(const struct kv_gguf *g, const struct kv_chat **out, bool *guessed, struct kv_err *err)
{
	struct kv_str s;
	enum kv_status rc = kv_gguf_str(g, "tokenizer.chat_template", &s, err);
	const struct kv_chat *c;
	uint8_t hash[16];
	char hex[33];

	if (rc == KV_END)
		return kv_fail(err, KV_EUNSUP, "%s: the model has no chat template: use --template NAME or --template none",
			       kv_gguf_name(g));
	if (rc != KV_OK)
		return rc;
	kvs_hash128(s.p, s.n, hash);
	kvs_hex128(hash, hex);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(known[i].hash, hex)) {
			*out = by_name(known[i].name);
			*guessed = false;
			return KV_OK;
		}
	if (!(c = by_marks(s)))
		return kv_fail(err, KV_EUNSUP, "%s: unknown chat template (xxh3-128 %s): use --template NAME or --template none",
			       kv_gguf_name(g), hex);
	*out = c;
	*guessed = true;
	return KV_OK;
}

enum kv_status
kv_chat_find(const struct kv_gguf *g, const char *name, const struct kv_chat **out, bool *guessed, struct kv_err *err)
{
	const struct kv_chat *c;
	char q[40];

	if (!strcmp(name, "auto"))
		return from_model(g, out, guessed, err);
	if (!(c = by_name(name)))
		return kv_fail(err, KV_EUSAGE, "--template: '%s' is not known; there are auto none %s",
			       kv_quote(q, sizeof q, name, strlen(name)), kv_chat_names());
	*out = c;
	*guessed = false;
	return KV_OK;
}

const char *
kv_chat_name(const struct kv_chat *c)
{
	return c->name;
}

static void
add(struct kv_prompt *p, const char *text, size_t n, bool owned)
{
	uint8_t *mask = kv_buf_grow(&p->owned, n);

	kv_buf_add(&p->text, text, n);
	if (mask && n)
		memset(mask, owned, n);
}

static enum kv_status
check(const struct kv_prompt *p, struct kv_err *err)
{
	return p->text.failed || p->owned.failed ? kv_fail_mem(err, "a prompt") : KV_OK;
}

enum kv_status
kv_prompt_add(struct kv_prompt *p, const char *text, size_t n, bool owned, struct kv_err *err)
{
	add(p, text, n, owned);
	return check(p, err);
}

void
kv_prompt_free(struct kv_prompt *p)
{
	kv_buf_free(&p->text);
	kv_buf_free(&p->owned);
}

static void
add_owned(struct kv_prompt *p, const char *text)
{
	add(p, text, strlen(text), true);
}

static bool
white(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static void
add_message(struct kv_prompt *p, const char *text, size_t n, bool trim)
{
	while (trim && n && white(text[n - 1]))
		n--;
	for (; trim && n && white(*text); n--)
		text++;
	add(p, text, n, false);
}

static void
add_system(const struct kv_chat *c, const char *system, struct kv_prompt *p)
{
	add_owned(p, c->sys_open);
	add_message(p, system, strlen(system), c->trim);
	add_owned(p, c->sys_close);
}

enum kv_status
kv_chat_render(const struct kv_chat *c, const char *system, const char *user, size_t n, bool first,
	struct kv_prompt *out, struct kv_err *err)
{
	const char *say = !first ? NULL : system ? system : c->system;

	if (say && !*say)
		say = NULL;
	if (say && !c->sys_inside)
		add_system(c, say, out);
	add_owned(out, c->user_open);
	if (say && c->sys_inside)
		add_system(c, say, out);
	add_message(out, user, n, c->trim);
	add_owned(out, c->user_close);
	add_owned(out, c->opening);
	return check(out, err);
}

/* The text with all special tokens written out, and a mask of the bytes that are theirs. */
static enum kv_status
spell(const struct kv_tokenizer *t, const uint32_t *ids, size_t n, struct kv_prompt *p, struct kv_err *err)
{
	for (size_t i = 0; i < n; i++) {
		size_t from = p->text.len;
		uint8_t *mask;

		kv_token_bytes(t, ids[i], true, &p->text);
		if ((mask = kv_buf_grow(&p->owned, p->text.len - from)) && p->text.len > from)
			memset(mask, ids[i] < t->n && kv_tok_is_special(t, ids[i]), p->text.len - from);
	}
	return check(p, err);
}

/* The same of a template's text: which of it this vocabulary has special tokens for. */
static enum kv_status
spell_text(const struct kv_tokenizer *t, const char *text, size_t n, struct kv_prompt *p, struct kv_err *err)
{
	struct kv_encode how = { .special = true };
	struct kv_tok_hit *hits;
	size_t n_hits;
	enum kv_status rc = kv_tok_specials(t, text, n, &how, &hits, &n_hits, err);

	if (rc != KV_OK)
		return rc;
	add(p, text, n, false);
	if ((rc = check(p, err)) == KV_OK)
		for (size_t k = 0; k < n_hits; k++)
			memset(p->owned.p + hits[k].at, 1, t->text[hits[k].id].n);
	free(hits);
	return rc;
}

/* End of the last place where part stands in all, 0 if there is none. */
static size_t
last_end(const struct kv_prompt *all, const struct kv_prompt *part)
{
	size_t n = part->text.len;

	for (size_t at = all->text.len; n && at >= n; at--)
		if (!memcmp(all->text.p + at - n, part->text.p, n) && !memcmp(all->owned.p + at - n, part->owned.p, n))
			return at;
	return 0;
}

enum kv_status
kv_chat_turn(const struct kv_chat *c, const struct kv_tokenizer *t, const uint32_t *ids, size_t n, enum kv_turn *turn,
	const char **before, struct kv_err *err)
{
	struct kv_prompt all = { 0 }, open = { 0 }, end = { 0 };
	/* Blanks in front of "[/INST]" may have become part of the message; a newline may follow an end or not. */
	const char *opening = c->opening + strspn(c->opening, " "), *rest = c->closing + strcspn(c->closing, "\n");
	size_t opened, ended, tail;
	enum kv_status rc;

	if ((rc = spell(t, ids, n, &all, err)) != KV_OK || (rc = spell_text(t, opening, strlen(opening), &open, err)) != KV_OK
	    || (rc = spell_text(t, c->closing, (size_t)(rest - c->closing), &end, err)) != KV_OK)
		goto out;
	opened = last_end(&all, &open);
	ended = last_end(&all, &end);
	tail = all.text.len - ended;
	*before = "";
	if (opened > ended) {
		*turn = KV_TURN_INSIDE;
		*before = c->closing;
	} else if (ended) {
		*turn = KV_TURN_CLOSED;
		if (tail < strlen(rest) && !memcmp(all.text.p + ended, rest, tail))
			*before = rest + tail;
	} else {
		*turn = KV_TURN_NONE;
	}
out:
	kv_prompt_free(&all);
	kv_prompt_free(&open);
	kv_prompt_free(&end);
	return rc;
}
