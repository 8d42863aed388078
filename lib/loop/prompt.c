/* From what the user gave to token ids. */
#include "loop/prompt.h"

#include <string.h>

#include "model/chat.h"
#include "util/text.h"

enum { OPT_TOKENS = 300, OPT_SPECIAL, OPT_CHAT, OPT_TEMPLATE, OPT_SYSTEM, OPT_SHOW, OPT_BOS };

const struct kv_opt kv_prompt_options[] = {
	{ "tokens", OPT_TOKENS, NULL, "the input is token ids in decimal, between white space" },
	{ "special", OPT_SPECIAL, NULL, "control tokens spelt out in the text (<|im_end|>) are those tokens" },
	{ "chat", OPT_CHAT, NULL, "the text is a user's message; the assistant's turn is opened after it" },
	{ "template", OPT_TEMPLATE, "NAME", "chat template: auto (from the model), none, chatml, llama3, …; implies --chat" },
	{ "system", OPT_SYSTEM, "TEXT", "system message of a new conversation ('' = none); implies --chat" },
	{ "show-prompt", OPT_SHOW, NULL, "print what is fed on standard error" },
	{ "bos", OPT_BOS, "auto|yes|no", "begin a new cache with the model's BOS token (default auto: as the model says)" },
	{ 0 },
};

enum kv_status
kv_prompt_option(struct kv_prompt_opts *o, int key, const char *arg, struct kv_err *err)
{
	char q[60];

	switch (key) {
	case OPT_TOKENS:
		o->tokens = true;
		break;
	case OPT_SPECIAL:
		o->special = true;
		break;
	case OPT_TEMPLATE:
		o->template = arg;
		o->chat = true;
		break;
	case OPT_SYSTEM:
		o->system = arg;
		o->chat = true;
		break;
	case OPT_CHAT:
		o->chat = true;
		break;
	case OPT_SHOW:
		o->show = true;
		break;
	case OPT_BOS:
		if (!strcmp(arg, "auto"))
			o->bos = KV_BOS_AUTO;
		else if (!strcmp(arg, "yes"))
			o->bos = KV_BOS_YES;
		else if (!strcmp(arg, "no"))
			o->bos = KV_BOS_NO;
		else
			return kv_fail(err, KV_EUSAGE, "--bos: '%s' is not auto, yes or no", kv_quote(q, sizeof q, arg, strlen(arg)));
		break;
	default:
		return KV_END;
	}
	return KV_OK;
}

enum kv_status
kv_prompt_ready(const struct kv_prompt_opts *o, struct kv_err *err)
{
	if (o->tokens && (o->chat || o->special))
		return kv_fail(err, KV_EUSAGE, "--tokens reads ids: %s does not go with it", o->chat ? "--chat" : "--special");
	return KV_OK;
}

static bool
is_space(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

enum kv_status
kv_prompt_parse_ids(const uint8_t *p, size_t n, uint32_t n_vocab, struct kv_ids *ids, struct kv_err *err)
{
	const uint8_t *end = p + n;
	enum kv_status rc;
	char q[40];

	while (p < end) {
		const uint8_t *word = p;
		uint64_t id = 0;

		if (is_space(*p)) {
			p++;
			continue;
		}
		for (; p < end && *p >= '0' && *p <= '9' && id < n_vocab; p++)
			id = id * 10 + (uint64_t)(*p - '0');
		if (p == word || (p < end && !is_space(*p)) || id >= n_vocab) {
			while (p < end && !is_space(*p))
				p++;
			return kv_fail(err, KV_EUSAGE, "--tokens: '%s' is not a token id below %u",
				kv_quote(q, sizeof q, (const char *)word, (size_t)(p - word)), n_vocab);
		}
		if ((rc = kv_ids_add(ids, (uint32_t)id, err)) != KV_OK)
			return rc;
	}
	return KV_OK;
}

/* What was read before, as far as it is known. */
struct past {
	bool any;
	const uint32_t *id;		/* [n] */
	size_t n;
};

/* The text in its template, behind what closes the turn that the past ends in. */
static enum kv_status
render(struct kv_session *s, const struct kv_prompt_opts *o, const struct past *past, const struct kv_buf *text,
	struct kv_prompt *prompt, struct kv_buf *notes, struct kv_err *err)
{
	const struct kv_chat *chat;
	const char *before = "";
	bool guessed;
	enum kv_turn turn;
	enum kv_status rc;

	if ((rc = kv_chat_find(s->model->gguf, o->template ? o->template : "auto", &chat, &guessed, err)) != KV_OK)
		return rc;
	if (guessed)
		kv_buf_printf(notes, "the model's chat template is not a known one; by its markers it is taken for %s\n", kv_chat_name(chat));
	if (past->any && ((rc = kv_chat_turn(chat, s->tokenizer, past->id, past->n, &turn, &before, err)) != KV_OK ||
		(rc = kv_prompt_add(prompt, before, strlen(before), true, err)) != KV_OK))
		return rc;
	return kv_chat_render(chat, o->system, (const char *)text->p, text->len, !past->any, prompt, err);
}

void
kv_prompt_note(const struct kv_session *s, const struct kv_encode_notes *n, const uint32_t *id, size_t n_ids, struct kv_buf *notes)
{
	if (kv_tokenizer_note(s->tokenizer))
		kv_buf_printf(notes, "%s\n", kv_tokenizer_note(s->tokenizer));
	if (n->bad_utf8)
		kv_buf_printf(notes, "%llu bytes of the text are not UTF-8 (first at byte %llu); they are read as U+FFFD\n",
			(unsigned long long)n->bad_utf8, (unsigned long long)n->first_bad);
	if (n->dropped)
		kv_buf_printf(notes, "%llu bytes of the text have no token in this vocabulary and were left out\n", (unsigned long long)n->dropped);
	if (n_ids > 1 && id[0] == id[1] && id[0] == kv_token_bos(s->tokenizer))
		kv_buf_printf(notes, "the text begins with two BOS tokens; --bos no leaves ours out\n");
}

enum kv_status
kv_prompt_add_bos(const struct kv_session *s, const struct kv_prompt_opts *o, struct kv_ids *ids, struct kv_err *err)
{
	uint32_t bos = kv_token_bos(s->tokenizer);

	if (o->bos == KV_BOS_NO || (o->bos == KV_BOS_AUTO && !kv_token_wants_bos(s->tokenizer)))
		return KV_OK;
	if (bos == KV_NO_TOKEN)
		return o->bos == KV_BOS_YES ? kv_fail(err, KV_EFIT, "--bos yes: the model has no BOS token") : KV_OK;
	return kv_ids_add(ids, bos, err);
}

static void
show(const struct kv_session *s, const struct kv_ids *ids, size_t from, struct kv_buf *shown)
{
	for (size_t i = from; i < ids->n; i++)
		kv_token_bytes(s->tokenizer, ids->id[i], true, shown);
}

static enum kv_status
make_ids(struct kv_session *s, const struct kv_prompt_opts *o, const struct past *past, const struct kv_buf *text,
	struct kv_ids *ids, struct kv_buf *shown, struct kv_buf *notes, struct kv_err *err)
{
	struct kv_encode how = { .special = o->special, .begins = !past->any };
	struct kv_prompt prompt = { 0 };
	struct kv_encode_notes odd = { 0 };
	const struct kv_buf *fed = text;
	size_t before = ids->n;
	enum kv_status rc;

	if (o->tokens && (rc = kv_prompt_parse_ids(text->p, text->len, s->model->geom.n_vocab, ids, err)) != KV_OK)
		return rc;
	if ((!o->tokens || (shown && o->show)) && (rc = kv_session_tokenizer(s, err)) != KV_OK)
		return rc;
	if (!o->tokens) {
		if (o->chat) {
			if ((rc = render(s, o, past, text, &prompt, notes, err)) != KV_OK)
				goto out;
			fed = &prompt.text;
			how.owned = prompt.owned.p;
		}
		if ((fed->len && !past->any && (rc = kv_prompt_add_bos(s, o, ids, err)) != KV_OK) ||
		    (rc = kv_encode(s->tokenizer, (const char *)fed->p, fed->len, &how, ids, &odd, err)) != KV_OK)
			goto out;
		kv_prompt_note(s, &odd, ids->id ? ids->id + before : NULL, ids->n - before, notes);
	}
	if (shown && o->show)
		show(s, ids, before, shown);
	rc = KV_OK;
out:
	kv_prompt_free(&prompt);
	return rc;
}

enum kv_status
kv_prompt_ids(struct kv_session *s, const struct kv_prompt_opts *o, const struct kv_cache *c, const struct kv_buf *text,
	struct kv_ids *ids, struct kv_buf *shown, struct kv_buf *notes, struct kv_err *err)
{
	struct past past = { 0 };

	if (c && c->state.consumed)
		past = (struct past){ true, c->tokens.v, c->tokens.n };
	return make_ids(s, o, &past, text, ids, shown, notes, err);
}

enum kv_status
kv_prompt_probe(struct kv_session *s, const struct kv_prompt_opts *o, const struct kv_cache *c, const uint32_t *next, size_t n,
	const struct kv_buf *text, struct kv_ids *ids, struct kv_buf *notes, struct kv_err *err)
{
	size_t before = ids->n;
	struct kv_ids all = { 0 };
	enum kv_status rc = KV_OK;

	for (size_t i = 0; o->chat && i < c->tokens.n && rc == KV_OK; i++)
		rc = kv_ids_add(&all, c->tokens.v[i], err);
	for (size_t i = 0; o->chat && i < n && rc == KV_OK; i++)
		rc = kv_ids_add(&all, next[i], err);
	if (rc == KV_OK)
		rc = make_ids(s, o, &(struct past){ true, all.id, all.n }, text, ids, NULL, notes, err);
	if (rc == KV_OK && ids->n == before)
		rc = kv_fail(err, KV_EUSAGE, "--probe: there is no token in it");
	kv_ids_free(&all);
	return rc;
}
