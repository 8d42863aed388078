/* lib/kvs: provenance records and the rules for JSON. */
#include "tap.h"

#include <stdlib.h>

#include "kvs/prov.h"

static struct kv_err err;

static const char *
last(const struct kvs_prov *p)
{
	return p->record[p->n - 1];
}

static void
add(struct kvs_prov *p, struct kvs_run run, const char *line)
{
	static char text[512];
	char *argv[32], *save, *word;

	snprintf(text, sizeof text, "%s", line);
	run.argv = argv;
	for (word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save))
		argv[run.argc++] = word;
	ok(kvs_prov_add_run(p, &run, &err) == KV_OK, "a run: %s", line);
}

static void
test_runs(void)
{
	static const uint8_t digest[16] = { 0x2a, 0xfa, 0x6c, 0x4f, 0x14, 0xfa, 0xab, 0x9c, 0x43, 0xbf, 0x53, 0xee, 0x7f, 0x51, 0xa8, 0xfc };
	struct kvs_prov p = { 0 };

	unsetenv("SOURCE_DATE_EPOCH");
	add(&p, (struct kvs_run){ .tool = "kv-evict", .version = "1.0.0", .kept = 3, .of = 5 }, "--h2o -k 3");
	is_str(last(&p), "{\"argv\":[\"--h2o\",\"-k\",\"3\"],\"id\":1,\"kept\":3,\"of\":5,\"tool\":\"kv-evict\",\"version\":\"1.0.0\"}",
		"the record of the specification");
	add(&p, (struct kvs_run){ .tool = "t", .version = "v", .in_digest = digest }, "-k 7 -pé in.kvs");
	is_str(last(&p),
		"{\"argv\":[\"-k\",\"7\",\"-pé\",\"in.kvs\"],\"id\":2,\"in\":\"fca8517fee53bf439cabfa144f6cfa2a\",\"prev\":1,\"tool\":\"t\","
		"\"version\":\"v\"}",
		"the digest of the input, letters beyond ASCII");
	add(&p, (struct kvs_run){ .tool = "t" }, "-k 3 -- -q -o");
	is_str(last(&p), "{\"argv\":[\"-k\",\"3\",\"--\",\"-q\",\"-o\"],\"id\":3,\"prev\":2,\"tool\":\"t\"}", "words stay as they are");
	add(&p, (struct kvs_run){ .tool = "t", .device = "cpu", .precision = "f32", .level = "avx2", .blas = "b" }, "x\xff");
	is_str(last(&p), "{\"argv\":[\"x\\\\xff\"],\"blas\":\"b\",\"device\":\"cpu\",\"id\":4,\"level\":\"avx2\",\"precision\":\"f32\",\"prev\":3,"
		"\"tool\":\"t\"}", "bytes that are not UTF-8, and what a tool with a model adds");
	setenv("SOURCE_DATE_EPOCH", "86400", 1);
	add(&p, (struct kvs_run){ .tool = "t" }, "");
	is_str(last(&p), "{\"argv\":[],\"id\":5,\"prev\":4,\"time\":\"1970-01-02T00:00:00Z\",\"tool\":\"t\"}", "a time where it is given");
	setenv("SOURCE_DATE_EPOCH", "soon", 1);
	add(&p, (struct kvs_run){ .tool = "t" }, "");
	ok(!strstr(last(&p), "time"), "and none where it is nonsense");
	unsetenv("SOURCE_DATE_EPOCH");
	kvs_prov_free(&p);
}

static void
test_folding(void)
{
	struct kvs_prov p = { 0 };
	struct kvs_run run = { .tool = "t" };
	int bad = 0;

	for (int i = 0; i < 300; i++)
		bad += kvs_prov_add_run(&p, &run, &err) != KV_OK;
	is_int(bad, 0, "300 runs");
	is_int(p.n, KVS_MAX_PROV, "are 256 records");
	is_str(p.record[0], "{\"argv\":[],\"id\":1,\"tool\":\"t\"}", "the oldest stays");
	is_str(p.record[1], "{\"folded\":45,\"id\":46}", "45 are folded into one");
	is_str(p.record[2], "{\"argv\":[],\"id\":47,\"prev\":46,\"tool\":\"t\"}", "the next follows it");
	is_str(last(&p), "{\"argv\":[],\"id\":300,\"prev\":299,\"tool\":\"t\"}", "the newest is whole");
	ok(kvs_prov_add_json(&p, (const uint8_t *)"{}", 2, &err) == KV_ECORRUPT, "no snapshot brings more than 256");
	kvs_prov_free(&p);
}

/* A foreign record may count as high as JSON integers go; the next one must stay within them. */
static void
test_highest_id(void)
{
	struct kvs_prov p = { 0 };

	ok(kvs_prov_add_json(&p, (const uint8_t *)"{\"id\":9007199254740992}", 23, &err) == KV_OK, "the highest id");
	ok(kvs_prov_add_run(&p, &(struct kvs_run){ .tool = "t" }, &err) == KV_OK, "a run after it");
	is_str(last(&p), "{\"argv\":[],\"id\":2,\"prev\":1,\"tool\":\"t\"}", "counts places instead");
	ok(kvs_json_check((const uint8_t *)last(&p), strlen(last(&p)), &err) == KV_OK, "and is a record");
	kvs_prov_free(&p);
}

static void
test_json(void)
{
	static const char *const good[] = { "{}", "{\"a\":9007199254740992}", "{\"a\":-9007199254740992,\"b\":1e300}",
		"{\"a\":[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]}", "{\"a\":\"[[[[[[[[[[[[[[[[[[[[\"}", "{\"99999999999999999999\":\"\\\"9999999999999999999\"}" };
	static const char *const bad[] = { "", "[]", "1", "{", "{}x", "{\"a\":1,\"a\":2}", "{\"a\":9007199254740993}", "{\"a\":-9007199254740993}",
		"{\"a\":99999999999999999999999999}", "{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", "{\"a\":\"\xff\"}", "{\"a\":\"\\u0000\"}", "{\"a\":NaN}" };
	struct kvs_prov p = { 0 };

	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		ok(kvs_json_check((const uint8_t *)good[i], strlen(good[i]), &err) == KV_OK, "good: %s", good[i]);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		ok(kvs_json_check((const uint8_t *)bad[i], strlen(bad[i]), &err) == KV_ECORRUPT, "bad number %zu", i);
	ok(kvs_json_check((const uint8_t *)"{}\0", 3, &err) == KV_ECORRUPT, "a NUL at the end");
	ok(kvs_json_check((const uint8_t *)"{\"a\":5.4\0}", 10, &err) == KV_ECORRUPT, "a NUL in the middle");
	ok(kvs_prov_add_json(&p, (const uint8_t *)"{ \"z\":1, \"id\":41 }", 18, &err) == KV_OK, "a foreign record");
	is_str(p.record[0], "{ \"z\":1, \"id\":41 }", "stays as it was");
	ok(kvs_prov_add_run(&p, &(struct kvs_run){ .tool = "t" }, &err) == KV_OK, "a run after it");
	is_str(p.record[1], "{\"argv\":[],\"id\":42,\"prev\":41,\"tool\":\"t\"}", "goes on with its number");
	kvs_prov_free(&p);
}

int
main(void)
{
	test_runs();
	test_folding();
	test_highest_id();
	test_json();
	return done_testing();
}
