/*
 * Pre-tokenising: a pipeline of regular expressions, each cutting up the pieces of the one before. Matches and the gaps between
 * them are pieces alike, and a look-ahead sees no further than its piece.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/tok_int.h"
#include "util/text.h"

/*
 * White space written out: under UCP \s would take U+180E as well, which the tokenizers that models were trained with do not.
 * Likewise 's in both cases: (?i:'s) would take U+017F.
 */
#define WS "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define ENDS "[" WS "]+(?![^" WS "])|[" WS "]+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" WS "\\p{L}\\p{N}]+|" ENDS
#define LLAMA3(digits) "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
	"| ?[^" WS "\\p{L}\\p{N}]+[\\r\\n]*|[" WS "]*[\\r\\n]+|" ENDS

enum { STAGES = 4 };

static const char *const gpt2[] = { GPT2, NULL };
static const char *const smollm[] = { "\\p{N}", GPT2, NULL };
static const char *const llama3[] = { LLAMA3("\\p{N}{1,3}"), NULL };
static const char *const qwen2[] = { LLAMA3("\\p{N}"), NULL };
static const char *const general[] = { "[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]", NULL };

static const struct rule {
	const char *names;	/* between spaces */
	struct kv_tok_rule rule;
} rules[] = {
	{ " gpt-2 phi-2 mpt olmo exaone4 ", { .pattern = gpt2 } },
	{ " smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ", { .pattern = smollm } },
	{ " llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ",
	  { .pattern = llama3, .ignore_merges = true, .add_bos = true } },
	{ " glm4 ", { .pattern = llama3, .ignore_merges = true } },
	{ " dbrx smaug-bpe chatglm-bpe ", { .pattern = llama3 } },
	{ " qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan solar-open ", { .pattern = qwen2 } },
	{ " default ", { .pattern = general, .guess = true } },
};

/* One stage: its subject, how far it was cut, and the match that was found ahead of a gap. */
struct stage {
	pcre2_code *code;
	pcre2_match_data *match;
	const char *text;
	size_t n, at;
	size_t from, to;	/* of the match, if to > at */
	bool ended;		/* no further match */
};

struct kv_splitter {
	struct stage stage[STAGES];
	size_t n_stages, depth;		/* stage whose subject is being cut */
	pcre2_match_context *context;
};

enum kv_status
kv_tok_rule(struct kv_str name, struct kv_tok_rule *out, struct kv_err *err)
{
	struct kv_str s = name.p ? name : (struct kv_str){ "default", 7 };
	char q[80], spaced[64] = "?";

	if (s.n && s.n < sizeof spaced - 2 && !memchr(s.p, ' ', s.n) && !memchr(s.p, 0, s.n))
		snprintf(spaced, sizeof spaced, " %.*s ", (int)s.n, s.p);
	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
		if (strstr(rules[i].names, spaced)) {
			*out = rules[i].rule;
			return KV_OK;
		}
	return kv_fail(err, KV_EUNSUP, "pre-tokeniser '%s' is not known to this version", kv_quote(q, sizeof q, name.p, name.n));
}

static enum kv_status
stage_new(struct stage *s, const char *pattern, struct kv_err *err)
{
	PCRE2_SIZE where;
	int code;

	s->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
	if (!s->code && code == PCRE2_ERROR_HEAP_FAILED)
		return kv_fail_mem(err, "a pre-tokeniser");
	if (!s->code)
		return kv_fail(err, KV_EUNSUP, "this machine's PCRE2 does not take a pre-tokeniser's pattern (error %d)", code);
	pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE);		/* where it cannot, the interpreter does the work */
	s->match = pcre2_match_data_create_from_pattern(s->code, NULL);
	return s->match ? KV_OK : kv_fail_mem(err, "a pre-tokeniser");
}

enum kv_status
kv_splitter_new(const struct kv_tok_rule *rule, struct kv_splitter **out, struct kv_err *err)
{
	struct kv_splitter *s = kv_array_new(1, sizeof *s);
	enum kv_status rc = KV_OK;

	if (!s || !(s->context = pcre2_match_context_create(NULL))) {
		free(s);
		return kv_fail_mem(err, "a pre-tokeniser");
	}
	/* The default of 10 million gives up inside a run of 32 million spaces. */
	pcre2_set_match_limit(s->context, UINT32_MAX);
	pcre2_set_heap_limit(s->context, UINT32_MAX);
	for (; rc == KV_OK && rule->pattern[s->n_stages]; s->n_stages++)
		rc = stage_new(&s->stage[s->n_stages], rule->pattern[s->n_stages], err);
	if (rc != KV_OK)
		kv_splitter_free(s);
	else
		*out = s;
	return rc;
}

void
kv_splitter_free(struct kv_splitter *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < STAGES; i++) {
		pcre2_match_data_free(s->stage[i].match);
		pcre2_code_free(s->stage[i].code);
	}
	pcre2_match_context_free(s->context);
	free(s);
}

static void
begin(struct stage *s, const char *text, size_t n)
{
	s->text = text;
	s->n = n;
	s->at = s->from = s->to = 0;
	s->ended = false;
}

void
kv_splitter_start(struct kv_splitter *s, const char *text, size_t n)
{
	s->depth = 0;
	begin(&s->stage[0], text, n);
}

/* Looks for the next match from s->at. Without NO_UTF_CHECK every call would check the rest of the subject: quadratic. */
static enum kv_status
find(struct stage *s, pcre2_match_context *context, struct kv_err *err)
{
	size_t from = s->at;

	while (from < s->n) {
		int rc = pcre2_match(s->code, (PCRE2_SPTR)s->text, s->n, from, PCRE2_NO_UTF_CHECK, s->match, context);
		const size_t *range = pcre2_get_ovector_pointer(s->match);

		if (rc == PCRE2_ERROR_NOMATCH)
			break;
		if (rc < 0)
			return kv_fail(err, KV_EIO, "the pre-tokeniser failed: PCRE2 error %d", rc);
		s->from = range[0];
		s->to = range[1];
		if (s->to > s->from)
			return KV_OK;
		for (from = s->to + 1; from < s->n && (s->text[from] & 0xc0) == 0x80; from++)
			;	/* no pattern here matches nothing, but if one does it moves on by a character */
	}
	s->ended = true;
	return KV_OK;
}

/* The next piece of one stage; it has one, s->at < s->n. */
static enum kv_status
cut(struct stage *s, pcre2_match_context *context, struct kv_str *piece, struct kv_err *err)
{
	size_t end = s->n;
	enum kv_status rc;

	if (!s->ended && s->to <= s->at && (rc = find(s, context, err)) != KV_OK)
		return rc;
	if (!s->ended)
		end = s->at < s->from ? s->from : s->to;
	*piece = (struct kv_str){ s->text + s->at, end - s->at };
	s->at = end;
	return KV_OK;
}

enum kv_status
kv_splitter_next(struct kv_splitter *s, struct kv_str *piece, struct kv_err *err)
{
	enum kv_status rc;

	for (;;) {
		struct stage *st = &s->stage[s->depth];

		if (st->at == st->n) {
			if (!s->depth)
				return KV_END;
			s->depth--;
			continue;
		}
		if ((rc = cut(st, s->context, piece, err)) != KV_OK || s->depth + 1 == s->n_stages)
			return rc;
		begin(&s->stage[++s->depth], piece->p, piece->n);
	}
}
