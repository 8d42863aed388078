/* Texts as streams: wherever a text is cut, and however it arrives, the ids are those of the whole. */
#include "tap.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loop/source.h"
#include "model/tok_int.h"
#include "vocab.h"

static struct kv_err err;

struct model {
	struct kv_buf file;
	struct kv_gguf *g;
	struct kv_tokenizer *t;
};

static const struct vocab_token bpe_extra[] = {
	{ "he", 1, 0 }, { "ll", 1, 0 }, { "\u0120h", 1, 0 }, { "\u0120\u0120", 1, 0 }, { "\u010a\u010a", 1, 0 }, { "!\u010a", 1, 0 }, { "12", 1, 0 },
	{ "123", 1, 0 }, { "'s", 1, 0 }, { "\u0120!", 1, 0 }, { "\u00e3\u0122", 1, 0 },
	{ "<|end|>", 3, 0 }, { "<s>", 3, 0 }, { "[ab]", 4, 0 }, { "b]c", 4, 0 }, { "a b", 4, 0 }, { "   ", 4, 0 }, { "x\n", 4, 0 },
};
static const char *const bpe_merges[] = { "h e", "l l", "\u0120 h", "\u0120 \u0120", "\u010a \u010a", "! \u010a", "1 2", "12 3", "' s", "\u0120 !",
	"\u00e3 \u0122" };

static const struct vocab_token spm_extra[] = {
	{ "\u2581", 1, -1 }, { "h", 1, -2 }, { "e", 1, -3 }, { "he", 1, -4 }, { "\u2581h", 1, -5 }, { "\u2581he", 1, -6 }, { "\u2581\u2581", 1, -7 },
	{ "\n\n", 1, -8 }, { "[ab]", 4, 0 }, { "a b", 4, 0 }, { "x", 1, -9 },
	{ "e\u2581h", 1, -10 },		/* goes on past a word */
};

enum { SPM_WORDS = sizeof spm_extra / sizeof *spm_extra - 1 };

/* pre NULL: SPM, with tokens that stay within words. "-": with one that does not. */
static bool
open_model(const char *pre, bool plain, struct model *m)
{
	struct ggufbuild b;

	gb_begin(&b);
	if (pre && *pre != '-')
		vocab_bpe(&b, pre, 4, bpe_extra, plain ? 11 : sizeof bpe_extra / sizeof *bpe_extra, bpe_merges,
			sizeof bpe_merges / sizeof *bpe_merges);
	else
		vocab_spm(&b, spm_extra, SPM_WORDS + (pre != NULL));
	*m = (struct model){ .t = NULL };
	return ok(vocab_open(&b, &m->file, &m->g, &m->t, &err) == KV_OK, "a vocabulary opens %s", err.text);
}

static void
close_model(struct model *m)
{
	kv_tokenizer_free(m->t);
	kv_gguf_close(m->g);
	kv_buf_free(&m->file);
}

static uint64_t
next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* Characters and shreds that pre-tokenisers treat differently, and some that are broken. */
static void
make_text(uint64_t *state, size_t n, bool broken, struct kv_buf *out)
{
	static const char *const part[] = { "he", "hell", " he", "a", "Z", " a b", "x", "'s", "'S", "'re", "'", "\u2019ll", "1", "12", "123", "\u0663",
		"\u00bd", " ", " ", "  ", "    ", "\n", "\n", "\n\n", "\r\n", "\t", "\v", "\u00a0", "\xc2\x85", "\u2003", "\u2028", "\u3000", "\u180e",
		"\u200b", "!", "!!", "?!\n", ".", ", ", "(", ")", "$", "+", "<=", "^~|", "\u3002", "\uff0c", "\u3001", "\u6587\u5b57", "\u3072\u3089",
		"\u30ab\u30fc", "\ud55c\uae00", "\u0441\u043b\u043e\u0432\u043e", "\u00e9", "e\u0301", "\u0301", "\u0e01\u0e33", "\U0001f600", "\U00020000",
		"\u2581", "<|end|>", "<|end", "|>", "<s>", "[ab]", "[ab", "]c", "a b", "\ufffd", "\u00aa", "\u01c5", "\u2160", "\x7f", "\x1c" };
	static const char *const bad[] = { "\xff", "\xe2", "\xe2\x96", "\xf0\x9f\x98", "\x80", "\xed\xa0\x80", "\xc0\xaf", "\xf4\x90\x80\x80", "\xc3" };

	out->len = 0;
	while (out->len < n) {
		uint64_t r = next_random(state);

		if (broken && r % 16 == 0)
			kv_buf_add(out, bad[r / 16 % 9], strlen(bad[r / 16 % 9]));
		else if (r % 64 == 1)
			kv_buf_add(out, "", 1);
		else
			kv_buf_add(out, part[r / 64 % (sizeof part / sizeof *part)], strlen(part[r / 64 % (sizeof part / sizeof *part)]));
	}
}

static bool
encode(struct kv_tokenizer *t, const uint8_t *text, size_t n, bool special, bool begins, struct kv_ids *out)
{
	return kv_encode(t, (const char *)text, n, &(struct kv_encode){ .special = special, .begins = begins }, out, NULL, &err) == KV_OK;
}

static bool
same_ids(const struct kv_ids *a, const struct kv_ids *b)
{
	return a->n == b->n && (!a->n || !memcmp(a->id, b->id, a->n * sizeof *a->id));
}

/* Pieces of text[0..n) of the splitter alone: their ends, from `base`. */
static void
add_ends(struct kv_splitter *s, const uint8_t *text, size_t n, size_t base, struct kv_ids *out)
{
	struct kv_str piece;

	kv_splitter_start(s, (const char *)text, n);
	while (kv_splitter_next(s, &piece, &err) == KV_OK)
		kv_ids_add(out, (uint32_t)(base + (size_t)(piece.p - (const char *)text) + piece.n), &err);
}

/* Random texts, cut where they may be, knowing only a beginning of them. */
static void
test_cuts(const char *pre, bool broken, bool plain)
{
	enum { TEXTS = 3000 };
	struct kv_buf text = { 0 };
	struct model m;
	uint64_t state = 7;
	unsigned cuts = 0, wrong = 0, wrong_pieces = 0;

	if (!open_model(pre, plain, &m))
		return;
	for (int i = 0; i < TEXTS; i++) {
		bool special = i & 1;
		struct kv_ids whole = { 0 }, parts = { 0 };
		size_t n, p;

		make_text(&state, 8 + next_random(&state) % 60, broken, &text);
		n = 1 + next_random(&state) % text.len;
		if ((p = kv_encode_cut(m.t, (const char *)text.p, n, special))) {
			cuts++;
			if (!encode(m.t, text.p, text.len, special, true, &whole) || !encode(m.t, text.p, p, special, true, &parts) ||
			    !encode(m.t, text.p + p, text.len - p, special, false, &parts) || p >= n || !same_ids(&whole, &parts))
				wrong++;
			if (m.t->splitter && !broken && plain) {
				whole.n = parts.n = 0;
				add_ends(m.t->splitter, text.p, text.len, 0, &whole);
				add_ends(m.t->splitter, text.p, p, 0, &parts);
				add_ends(m.t->splitter, text.p + p, text.len - p, p, &parts);
				wrong_pieces += !same_ids(&whole, &parts);
			}
		}
		kv_ids_free(&whole);
		kv_ids_free(&parts);
	}
	is_int(wrong, 0, "%s%s: %u cuts of %d texts leave the ids as they are", pre ? pre : "SPM", broken ? ", broken texts" : "", cuts, TEXTS);
	is_int(wrong_pieces, 0, "and the pieces");
	if (pre && *pre == '-')
		is_int(cuts, 0, "tokens that go on past words: nowhere");
	else
		ok(cuts > TEXTS / 4, "they are found often enough");
	kv_buf_free(&text);
	close_model(&m);
}

/* Every place of a text where the rule allows a cut, one at a time: what was found last is not the only one that must be right. */
static void
test_all_places(const char *pre)
{
	struct kv_buf text = { 0 };
	struct model m;
	uint64_t state = 99;
	unsigned wrong = 0, cuts = 0;

	if (!open_model(pre, true, &m))
		return;
	make_text(&state, 20000, true, &text);
	for (size_t n = text.len, p; (p = kv_encode_cut(m.t, (const char *)text.p, n, false)); n = p + 3) {
		size_t from = p > 60 ? p - 60 : 0, to = p + 60 < text.len ? p + 60 : text.len;
		struct kv_ids whole = { 0 }, parts = { 0 };

		/* A window around it, begun where a cut is right as well. */
		from = from ? kv_encode_cut(m.t, (const char *)text.p, from, false) : 0;
		encode(m.t, text.p + from, to - from, false, false, &whole);
		encode(m.t, text.p + from, p - from, false, false, &parts);
		encode(m.t, text.p + p, to - p, false, false, &parts);
		wrong += !same_ids(&whole, &parts);
		cuts++;
		kv_ids_free(&whole);
		kv_ids_free(&parts);
	}
	is_int(wrong, 0, "%s: %u places in one text", pre ? pre : "SPM", cuts);
	ok(cuts > 500, "one every few characters");
	kv_buf_free(&text);
	close_model(&m);
}

static void
test_ordinary(void)
{
	static const char english[] = "It is a truth universally acknowledged, that a single man", chinese[] = "\u4eba\u4eba\u751f\u800c\u81ea\u7531\uff0c"
		"\u5728\u5c0a\u4e25\u548c\u6743\u5229\u4e0a\u4e00\u5f8b\u5e73\u7b49\u3002", code[] = "\tif (x)\n\t\treturn;\n", run[] = "aaaaaaaaaaaaaaaaaa";
	struct model m;

	if (!open_model("llama-bpe", false, &m))
		return;
	is_int(kv_encode_cut(m.t, english, strlen(english), false), 53, "English: before a word");
	is_int(kv_encode_cut(m.t, chinese, strlen(chinese), false), 18, "Chinese: before punctuation");
	ok(kv_encode_cut(m.t, code, strlen(code), false) > 0, "code");
	is_int(kv_encode_cut(m.t, run, strlen(run), false), 0, "a run of letters: nowhere");
	is_int(kv_encode_cut(m.t, "a b", 3, false), 0, "too short to say");
	close_model(&m);
}

/* The end to read of a pipe into which a process writes text in the given portions, one after the other. */
static int
slow_pipe(const struct kv_buf *text, size_t portion, pid_t *child)
{
	int fd[2];

	if (pipe(fd) || (*child = fork()) < 0)
		abort();
	if (!*child) {
		close(fd[0]);
		for (size_t i = 0; i < text->len; i += portion)
			if (write(fd[1], text->p + i, text->len - i < portion ? text->len - i : portion) < 0)
				_exit(1);
		_exit(0);
	}
	close(fd[1]);
	return fd[0];
}

/* What comes out in handfuls, looking ahead. */
static enum kv_status
drain(struct kv_source *src, uint64_t *state, struct kv_ids *out)
{
	const uint32_t *id;
	size_t n, want, ahead, m;
	enum kv_status rc;

	do {
		want = 1 + next_random(state) % 700;
		ahead = next_random(state) % 900;
		if ((rc = kv_source_peek(src, want + ahead, &id, &n, &err)) != KV_OK)
			return rc;
		m = n < want ? n : want;
		for (size_t i = 0; i < m; i++)
			kv_ids_add(out, id[i], &err);
		kv_source_skip(src, m);
		if (n < want + ahead && kv_source_total(src) != kv_source_done(src) + n - m)
			return KV_EIO;
	} while (n == want + ahead || n > m);
	return KV_OK;
}

static void
test_streams(const char *pre, size_t n, size_t portion)
{
	struct kv_prompt_opts o = { .special = true, .bos = KV_BOS_AUTO };
	struct kv_buf text = { 0 }, notes = { 0 }, more = { 0 };
	struct kv_ids want = { 0 }, got = { 0 };
	struct kv_encode_notes odd = { 0 };
	struct kv_session s = { 0 };
	struct kv_source *src;
	struct kv_source_part part[3] = { { 0 } };
	struct model m;
	uint64_t state = n;
	pid_t child;
	char line[80], path[40];
	int fd;

	if (!open_model(pre, false, &m))
		return;
	s.tokenizer = m.t;
	make_text(&state, n, true, &text);
	fd = slow_pipe(&text, portion, &child);
	snprintf(path, sizeof path, "/dev/fd/%d", fd);
	part[0].path = path;
	part[1].path = "/dev/null";
	part[2].bytes = &(struct kv_buf){ .p = (uint8_t *)" and h", .len = 6 };
	kv_buf_add(&more, text.p, text.len);
	kv_buf_add(&more, " and h", 6);
	if (kv_token_wants_bos(m.t) && kv_token_bos(m.t) != KV_NO_TOKEN)
		kv_ids_add(&want, kv_token_bos(m.t), &err);
	kv_encode(m.t, (const char *)more.p, more.len, &(struct kv_encode){ .special = true, .begins = true }, &want, &odd, &err);
	if (ok(kv_source_open(&s, &o, NULL, part, 3, &src, &err) == KV_OK, "a source opens")) {
		is_int(drain(src, &state, &got), KV_OK, "it is read %s", err.text);
		ok(same_ids(&want, &got), "%s: %zu bytes in portions of %zu give the ids of the whole", pre ? pre : "SPM", n, portion);
		ok(kv_source_done(src) == want.n && kv_source_total(src) == want.n, "and their number");
		kv_source_notes(src, &notes);
		kv_buf_add(&notes, "", 1);
		snprintf(line, sizeof line, "%llu bytes of the text are not UTF-8 (first at byte %llu)", (unsigned long long)odd.bad_utf8,
			(unsigned long long)odd.first_bad);
		ok(!odd.bad_utf8 || strstr((char *)notes.p, line), "what was odd is counted over all of it");
		kv_source_close(src);
	}
	close(fd);
	waitpid(child, NULL, 0);
	kv_buf_free(&text);
	kv_buf_free(&notes);
	kv_buf_free(&more);
	kv_ids_free(&want);
	kv_ids_free(&got);
	close_model(&m);
}

/* Ids in decimal go through the same stream; behind a cache nothing begins; what is there already is a source, too. */
static void
test_other_sources(void)
{
	struct kv_prompt_opts o = { .tokens = true };
	struct kv_model model = { .geom.n_vocab = 1000 };
	struct kv_session s = { .model = &model };
	struct kv_cache past = { .state.consumed = 3 };
	struct kv_buf text = { 0 };
	struct kv_source *src;
	struct kv_buf bytes = { 0 };
	struct kv_source_part part = { .bytes = &bytes };
	struct kv_ids got = { 0 }, ids = { 0 };
	struct model m;
	const uint32_t *id;
	uint64_t state = 5, sum = 0;
	size_t n;

	for (unsigned i = 0; i < 30000; i++)
		kv_buf_printf(&text, "%u%s", i % 1000, i % 11 ? " " : "\n");
	bytes = (struct kv_buf){ .p = text.p, .len = text.len };
	kv_source_open(&s, &o, NULL, &part, 1, &src, &err);
	is_int(drain(src, &state, &got), KV_OK, "--tokens %s", err.text);
	for (unsigned i = 0; i < 30000 && got.n == 30000; i++)
		sum += got.id[i] == i % 1000;
	is_int(sum, 30000, "all of them");
	kv_source_close(src);
	bytes = (struct kv_buf){ .p = (uint8_t *)"1 2 1000", .len = 8 };
	kv_source_open(&s, &o, NULL, &part, 1, &src, &err);
	is_int(kv_source_peek(src, 1, &id, &n, &err), KV_EUSAGE, "%s", err.text);
	kv_source_close(src);
	kv_source_of(&got, &src, &err);
	ok(!got.n && kv_source_total(src) == 30000 && kv_source_peek(src, 50000, &id, &n, &err) == KV_OK && n == 30000, "ids that are there");
	kv_source_close(src);
	kv_buf_free(&text);
	if (!open_model(NULL, false, &m))
		return;
	s.tokenizer = m.t;
	o.tokens = false;
	bytes = (struct kv_buf){ .p = (uint8_t *)"h he", .len = 4 };
	kv_source_open(&s, &o, &past, &part, 1, &src, &err);
	encode(m.t, (const uint8_t *)"h he", 4, false, false, &ids);
	drain(src, &state, &got);
	ok(same_ids(&ids, &got), "behind a cache: no BOS, no prefix");
	kv_source_close(src);
	bytes = (struct kv_buf){ .p = (uint8_t *)"", .len = 0 };
	kv_source_open(&s, &o, NULL, &part, 1, &src, &err);
	ok(kv_source_peek(src, 9, &id, &n, &err) == KV_OK && !n, "nothing, not even BOS");
	kv_source_close(src);
	part = (struct kv_source_part){ .path = "/nowhere/at/all" };
	kv_source_open(&s, &o, NULL, &part, 1, &src, &err);
	is_int(kv_source_peek(src, 9, &id, &n, &err), KV_EIO, "%s", err.text);
	kv_source_close(src);
	kv_ids_free(&ids);
	kv_ids_free(&got);
	close_model(&m);
}

int
main(void)
{
	static const char *const rules[] = { "gpt-2", "smollm", "llama-bpe", "glm4", "dbrx", "qwen2", "default", NULL };

	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
		test_cuts(rules[i], false, true);
		test_cuts(rules[i], false, false);
		test_cuts(rules[i], true, false);
		test_all_places(rules[i]);
	}
	test_cuts("-", false, false);
	test_ordinary();
	test_streams("llama-bpe", 30000, 1);
	test_streams("llama-bpe", 200000, 4096);
	test_streams("smollm", 100000, 1000);
	test_streams("default", 100000, 777);
	test_streams(NULL, 100000, 1000);
	test_streams(NULL, 40000, 1);
	test_streams("-", 50000, 1000);
	test_other_sources();
	return done_testing();
}
