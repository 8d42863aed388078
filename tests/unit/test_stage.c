/* Stages: what a command line may say, what is refused and how, tables from outside. */
#include "tap.h"

#include <stdlib.h>
#include <unistd.h>

#include "kvs/digest.h"
#include "small_cache.h"
#include "util/mem.h"

static struct kv_cache *
cache_of(uint32_t n)
{
	struct kv_cache *c = small_cache(small_geom(2, 4, 2, 8)), *read;

	small_feed(c, n);
	read = small_copy(c);
	kv_cache_free(c);
	return read;
}

static const struct kv_stage *
stage_of(const char *tool)
{
	return *tool == 'e' ? &kv_stage_evict : &kv_stage_reposition;
}

struct command {
	const char *tool, *line;
	enum kv_status want;
	const char *says;		/* part of the message */
};

static void
check_commands(const struct command *row, size_t n)
{
	struct kv_err err;

	for (size_t i = 0; i < n; i++) {
		struct kv_cache *c = cache_of(10);
		enum kv_status rc = (err.text[0] = 0, small_run(stage_of(row[i].tool), row[i].line, c, 1, NULL, &err));

		ok(rc == row[i].want && (!row[i].says || strstr(err.text, row[i].says)), "%s %s: %s", row[i].tool, row[i].line, err.text);
		ok(rc == KV_OK || !kv_cache_edited(c), "and nothing has changed");
		kv_cache_free(c);
	}
}

static void
test_evict_usage(void)
{
	static const struct command row[] = {
		{ "evict", "--tova", KV_EUSAGE, "no budget" },
		{ "evict", "--tova -k 0", KV_EUSAGE, "-k" },
		{ "evict", "--tova -k x", KV_EUSAGE, "-k" },
		{ "evict", "--tova -k 101%", KV_EUSAGE, "-k" },
		{ "evict", "-k 5", KV_EUSAGE, "no policy" },
		{ "evict", "--tova --knorm -k 5", KV_EUSAGE, "--tova and --knorm" },
		{ "evict", "--policy nonsense -k 5", KV_EUSAGE, "nonsense" },
		{ "evict", "--tova --scores x -k 5", KV_EUSAGE, "--tova and --scores" },
		{ "evict", "--tova --keep-list x", KV_EUSAGE, "--keep-list" },
		{ "evict", "--keep-list x -k 5", KV_EUSAGE, "-k" },
		{ "evict", "--keep-list x --sinks 2", KV_EUSAGE, "--sinks does not go with --keep-list" },
		{ "evict", "--tova -k 5 --random-seed 1", KV_EUSAGE, "--random-seed does not go with --tova" },
		{ "evict", "--window -k 5 --protect-last 1", KV_EUSAGE, "--protect-last does not go with --window" },
		{ "evict", "--knorm -k 5 --scope model", KV_EUSAGE, "--scope model does not go with --knorm" },
		{ "evict", "--knorm -k 5 --scope all", KV_EUSAGE, "none of head, layer, model" },
		{ "evict", "--knorm -k 5 --sinks -1", KV_EUSAGE, "--sinks" },
		{ "evict", "--streaming -k 4", KV_EUSAGE, "no place beside the 4 sinks" },
		{ "evict", "--window --sinks 4 -k 3", KV_EUSAGE, "less than the 4" },
		{ "evict", "--knorm -k 5 --sinks 3 --protect-last 3", KV_EUSAGE, "less than the 6" },
		{ "evict", "--knorm -k 50% --sinks 3 --protect-last 3", KV_EFIT, "layer 0 head 0: 6 entries are protected, -k keeps 5" },
		{ "evict", "--streaming -k 30%", KV_EFIT, "5 entries are protected" },
		{ "evict", "--scores /nowhere/at/all -k 5", KV_EIO, "/nowhere/at/all" },
		{ "evict", "--tova -k 5", KV_OK, NULL },
		{ "evict", "--policy tova -k 5 --protect-last 2 --sinks 3", KV_OK, NULL },
		{ "evict", "--tova --tova -k 5", KV_OK, NULL },
		{ "evict", "--knorm -k 5 --sinks 5", KV_OK, NULL },
	};

	check_commands(row, sizeof row / sizeof *row);
}

static void
test_reposition_usage(void)
{
	static const struct command row[] = {
		{ "reposition", "", KV_EUSAGE, "no mode" },
		{ "reposition", "--next 5", KV_EUSAGE, "no mode" },
		{ "reposition", "--compact --original", KV_EUSAGE, "--compact and --original" },
		{ "reposition", "--compact --align middle", KV_EUSAGE, "middle" },
		{ "reposition", "--original --align end", KV_EUSAGE, "--compact alone" },
		{ "reposition", "--shift", KV_EUSAGE, "--shift" },
		{ "reposition", "--shift x", KV_EUSAGE, "--shift" },
		{ "reposition", "--gaps --next -1", KV_EUSAGE, "--next" },
		{ "reposition", "--shift -1", KV_EFIT, "layer 0 head 0: entry 0 would stand at -1" },
		{ "reposition", "--shift 2147483640", KV_EFIT, "the next token would stand at 2147483650" },
		{ "reposition", "--shift 2147483637", KV_OK, NULL },
		{ "reposition", "--compact --next 9", KV_EFIT, "entry 9 would stand at 9, not before the next token at 9" },
		{ "reposition", "--shift -0", KV_OK, NULL },
	};

	check_commands(row, sizeof row / sizeof *row);
}

static void
is_positions(const struct kv_cache *c, unsigned head, const char *want, const char *what)
{
	char s[200];

	is_str(small_positions(c, 0, head, s, sizeof s), want, "%s", what);
}

static void
test_reposition_modes(void)
{
	static const uint32_t keep[] = { 0, 1, 2, 50, 60 };
	struct kv_cache *c = cache_of(70);
	struct kv_err err;

	kv_list_keep(kv_cache_list(c, 0, 0), keep, 5, &err);
	kv_list_keep(kv_cache_list(c, 0, 1), keep + 2, 3, &err);
	for (unsigned h = 0; h < 2; h++)
		kv_list_keep(kv_cache_list(c, 1, h), keep, 4, &err);
	small_run(&kv_stage_reposition, "--gaps", c, 1, NULL, &err);
	is_positions(c, 0, "0 1 2 14 24", "log-log gaps, as the authors' code makes them");
	is_positions(c, 1, "2 14 24", "each list by itself");
	is_int(c->state.next_pos, 25, "the next token behind the largest");
	small_run(&kv_stage_reposition, "--gaps", c, 1, NULL, &err);
	is_positions(c, 0, "0 1 2 14 24", "twice is once");
	ok(c->queries[0].pos[3] == 24 && c->queries[0].pos[0] == 21, "recorded queries move with the next token");
	small_run(&kv_stage_reposition, "--compact", c, 1, NULL, &err);
	is_positions(c, 0, "0 1 2 3 4", "compact");
	is_positions(c, 1, "0 1 2", "a shorter list from the start");
	is_int(c->state.next_pos, 5, "the next token behind the longest list");
	small_run(&kv_stage_reposition, "--compact --align end", c, 1, NULL, &err);
	is_positions(c, 1, "2 3 4", "or up to the end");
	small_run(&kv_stage_reposition, "--shift 7", c, 1, NULL, &err);
	is_positions(c, 0, "7 8 9 10 11", "shifted");
	is_int(c->state.next_pos, 12, "the next token as well");
	small_run(&kv_stage_reposition, "--original", c, 1, NULL, &err);
	is_positions(c, 0, "0 1 2 50 60", "back again");
	is_int(c->state.next_pos, 70, "behind all that was read");
	ok(c->queries[1].pos[3] == 69, "and so are the queries");
	small_run(&kv_stage_reposition, "--gaps --next 100", c, 1, NULL, &err);
	is_int(c->state.next_pos, 100, "--next");
	kv_cache_free(c);
}

/* Runs the command with FILE replaced by a file of this content. */
static enum kv_status
with_file(const char *tool, const char *line, const char *content, struct kv_cache *c, struct kv_buf *text, struct kv_err *err)
{
	char path[] = "/tmp/kv-stage-XXXXXX", full[200];
	int fd = mkstemp(path), before = (int)(strstr(line, "FILE") - line);
	enum kv_status rc;

	if (fd < 0 || write(fd, content, strlen(content)) < 0)
		abort();
	close(fd);
	snprintf(full, sizeof full, "%.*s%s%s", before, line, path, line + before + 4);
	err->text[0] = 0;
	rc = small_run(stage_of(tool), full, c, 1, text, err);
	unlink(path);
	return rc;
}

struct file_case {
	const char *tool, *line, *content;
	enum kv_status want;
	const char *says;		/* part of the message, or after success the sources (positions) of layer 1 head 1 */
};

static void
check_files(const struct file_case *row, size_t n)
{
	struct kv_err err;
	char s[200];

	for (size_t i = 0; i < n; i++) {
		struct kv_cache *c = cache_of(4);
		enum kv_status rc = with_file(row[i].tool, row[i].line, row[i].content, c, NULL, &err);

		if (row[i].want != KV_OK)
			ok(rc == row[i].want && strstr(err.text, row[i].says) && !kv_cache_edited(c), "%s: %s", row[i].line, err.text);
		else if (ok(rc == KV_OK, "%s %s", row[i].line, err.text))
			is_str((*row[i].tool == 'e' ? small_sources : small_positions)(c, 1, 1, s, sizeof s), row[i].says, "layer 1 head 1");
		kv_cache_free(c);
	}
}

static void
test_tables(void)
{
	static const struct file_case row[] = {
		{ "e", "--scores FILE -k 2", "*\t*\t0\t1\n*\t*\t1\t.5\n*\t*\t2\tinf\n*\t*\t3\t-inf\n", KV_OK, "0 2" },
		{ "e", "--scores FILE -k 2", "# mine\n*\t*\t0\t1\n*\t*\t1\t.5\n*\t*\t2\t2\n*\t*\t3\t1e-3\n1\t1\t3\t7", KV_OK, "2 3" },
		{ "e", "--scores FILE -k 2", "score\tx\tslot\tlayer\thead\n1\ta b\t0\t*\t*\n2\t\t1\t*\t*\n3\t\t2\t*\t*\n0\t\t3\t*\t*\n", KV_OK, "1 2" },
		{ "e", "--scores FILE -k 2 --protect-last 1", "*\t*\t0\t4\n*\t*\t1\t3\n*\t*\t2\t2\n*\t*\t3\t1\n", KV_OK, "0 3" },
		{ "e", "--scores FILE -k 2 --scope model", "*\t*\t0\t4\n*\t*\t1\t3\n*\t*\t2\t2\n*\t*\t3\t1\n1\t1\t3\t90\n", KV_OK, "0 3" },
		{ "e", "--scores FILE -k 2", "*\t*\t0\t1\n", KV_EFIT, "no score for layer 0 head 0 slot 1" },
		{ "e", "--scores FILE -k 4", "*\t*\t0\t1\n", KV_EFIT, "no score for layer 0 head 0 slot 1" },
		{ "e", "--scores FILE -k 2", "*\t*\t0\tnan\n", KV_ECORRUPT, "line 1: not a number: 'nan'" },
		{ "e", "--scores FILE -k 2", "*\t*\t0\n", KV_ECORRUPT, "line 1: 3 columns, want 4" },
		{ "e", "--scores FILE -k 2", "\n*\t*\t0\t1x\n", KV_ECORRUPT, "line 2: not a number" },
		{ "e", "--scores FILE -k 2", "*\t*\t*\t1\n", KV_ECORRUPT, "not a slot" },
		{ "e", "--scores FILE -k 2", "*\t-1\t0\t1\n", KV_ECORRUPT, "not a head" },
		{ "e", "--scores FILE -k 2", "layer\thead\tslot\n", KV_ECORRUPT, "without the column 'score'" },
		{ "e", "--scores FILE -k 2", "*\t*\t4\t1\n", KV_EFIT, "layer 0 head 0 has no slot 4" },
		{ "e", "--scores FILE -k 2", "2\t*\t0\t1\n", KV_EFIT, "no layer 2" },
		{ "e", "--scores FILE -k 2", "# digest 00112233445566778899aabbccddeeff\n*\t*\t0\t1\n", KV_EFIT, "this is" },
		{ "e", "--scores FILE -k 2", "# digest 0011\n*\t*\t0\t1\n", KV_ECORRUPT, "not a digest" },
		{ "e", "--keep-list FILE", "*\t*\t3\n*\t*\t1\n1\t1\t3\n", KV_OK, "1 3" },
		{ "e", "--keep-list FILE", "layer\thead\tslot\n0\t0\t1\n", KV_OK, "" },
		{ "e", "--keep-list FILE", "1\t1\t9\n", KV_EFIT, "no slot 9" },
		{ "r", "--map FILE", "*\t*\t3\t10\n1\t1\t2\t8\n", KV_OK, "0 1 8 10" },
		{ "r", "--map FILE", "*\t*\t3\t2\n", KV_EFIT, "layer 0 head 0: entry 3 would stand at 2, not behind" },
		{ "r", "--map FILE", "*\t*\t0\t-1\n", KV_EFIT, "before position 0" },
		{ "r", "--map FILE --next 10", "*\t*\t3\t10\n", KV_EFIT, "not before the next token at 10" },
		{ "r", "--map FILE", "*\t*\t3\t2147483647\n", KV_EFIT, "next token would stand at 2147483648" },
		{ "r", "--map FILE", "*\t*\t3\t9223372036854775807\n", KV_EFIT, "outside" },
		{ "r", "--map FILE", "*\t*\t3\t1.5\n", KV_ECORRUPT, "not a number" },
	};

	check_files(row, sizeof row / sizeof *row);
}

static void
test_digest_line(void)
{
	struct kv_cache *c = cache_of(4);
	struct kv_err err;
	char hex[33], text[100];

	snprintf(text, sizeof text, "# digest %s\n*\t*\t2\n", kvs_hex128(c->digest, hex));
	ok(with_file("e", "--keep-list FILE", text, c, NULL, &err) == KV_OK && kv_cache_longest(c) == 1, "made for this snapshot %s", err.text);
	ok(with_file("e", "--keep-list FILE", text, c, NULL, &err) == KV_EFIT, "no longer: %s", err.text);
	kv_cache_free(c);
}

static void
test_dry_run(void)
{
	static const char begin[] = "layer\thead\tslot\tsource\tscore\tkept\n0\t0\t0\t0\tinf\t1\n0\t0\t1\t1\t1\t0\n0\t0\t2\t2\t2\t1\n";
	struct kv_cache *c = cache_of(3), *d = cache_of(3);
	struct kv_buf text = { 0 }, list = { 0 };
	struct kv_err err;
	char a[33], b[33];

	small_run(&kv_stage_evict, "--streaming --sinks 1 -k 2 --dry-run", c, 1, &text, &err);
	ok(!strncmp((char *)text.p, begin, sizeof begin - 1), "sinks score inf, the rest by slot");
	ok(!kv_cache_edited(c), "nothing goes");
	text.len = 0;
	small_run(&kv_stage_evict, "--tova -k 2 --dry-run", c, 1, &text, &err);
	ok(with_file("e", "--scores FILE -k 2 --scope layer", (char *)text.p, c, NULL, &err) == KV_OK, "the scores of --dry-run are input for --scores %s",
		err.text);
	small_run(&kv_stage_evict, "--tova -k 2", d, 1, NULL, &err);
	is_str(small_digest(c, a), small_digest(d, b), "and lead to the same cache");
	text.len = 0;
	small_run(&kv_stage_evict, "--tova -k 9 --dry-run", d, 1, &text, &err);
	ok(strstr((char *)text.p, "1\t1\t1\t"), "scores are printed although nothing would go");
	small_run(&kv_stage_evict, "--list", NULL, 1, &list, &err);
	ok(strstr((char *)list.p, "tova\tOren et al. 2024, arXiv:2401.06104\tlayer\tlast=1\t--sinks 0 --recent 0 --protect-last 0 --score-dtype f32\n"), "--list");
	ok(strstr((char *)list.p, "\nstreaming\t") && strstr((char *)list.p, "\tmodel\t-\t--sinks 4\n"), "--list, another line");
	kv_buf_free(&text);
	kv_buf_free(&list);
	kv_cache_free(c);
	kv_cache_free(d);
}

static void
test_observations(void)
{
	struct kv_cache *c = cache_of(6);
	struct kv_err err;
	float *k;

	c->queries[1].w = 0;
	ok(small_run(&kv_stage_evict, "--tova -k 3", c, 1, NULL, &err) == KV_EFIT && strstr(err.text, "--observe last=1"), "%s", err.text);
	ok(small_run(&kv_stage_evict, "--tova -k 9", c, 1, NULL, &err) == KV_EFIT, "even where the budget suffices");
	c->queries[1].w = 4;
	kv_cache_load(c, KV_LOAD_K, NULL, &err);
	k = calloc(8, sizeof *k);
	k[3] = NAN;
	kv_rows_put(&kv_cache_list(c, 1, 0)->k, 2, 1, k, 8, &err);
	ok(small_run(&kv_stage_evict, "--tova -k 3", c, 1, NULL, &err) == KV_EFIT && strstr(err.text, "layer 1 head 0"), "%s", err.text);
	ok(small_run(&kv_stage_evict, "--knorm -k 3", c, 2, NULL, &err) == KV_EFIT && strstr(err.text, "layer 1 head 0"), "%s", err.text);
	ok(!kv_cache_edited(c), "nothing has gone");
	free(k);
	kv_cache_free(c);
}

int
main(void)
{
	test_evict_usage();
	test_reposition_usage();
	test_reposition_modes();
	test_tables();
	test_digest_line();
	test_dry_run();
	test_observations();
	return done_testing();
}
