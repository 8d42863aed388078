/* The golden files: made anew they are the same; the library's verdict, and that of the second reader, is what their names say. */
#include "tap.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "golden.h"
#include "snapfile.h"

static void
test_library(const struct kv_buf *tiny)
{
	struct kv_buf made = { 0 }, kept = { 0 };
	struct kv_err err;
	char path[256];

	for (size_t i = 0; i < golden_count(); i++) {
		const struct golden *g = golden_at(i);
		enum kv_status rc;

		made.len = kept.len = 0;
		snprintf(path, sizeof path, "tests/files/%s.kvs", g->name);
		ok(golden_make(i, tiny, &made) && snap_load(path, &kept, &err) == KV_OK && (golden_is_packed(i) ||
			   (made.len == kept.len && !memcmp(made.p, kept.p, made.len))), "%s is as it was", g->name);
		if (golden_is_packed(i))
			is_int(kv_exit_code(snap_verdict(made.p, made.len, NULL, NULL)), golden_exit(g), "%s, made anew", g->name);
		err.text[0] = 0;
		rc = snap_verdict(kept.p, kept.len, NULL, &err);
		is_int(kv_exit_code(rc), golden_exit(g), "%s (%s): %s", g->name, g->note, err.text);
	}
	kv_buf_free(&made);
	kv_buf_free(&kept);
}

static int
run(const char *command)
{
	int status = system(command);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* formats/kvs-min.c is built as a stranger would build it. */
static void
test_second_reader(void)
{
	char dir[] = "/tmp/kvs-min-XXXXXX", command[512], exe[64];

	if (!mkdtemp(dir)) {
		ok(false, "a folder for kvs-min");
		return;
	}
	snprintf(exe, sizeof exe, "%s/kvs-min", dir);
	snprintf(command, sizeof command, "${CC:-cc} -O1 -o %s formats/kvs-min.c -lz -lxxhash", exe);
	if (is_int(run(command), 0, "kvs-min is built alone"))
		for (size_t i = 0; i < golden_count(); i++) {
			const struct golden *g = golden_at(i);

			snprintf(command, sizeof command, "%s <tests/files/%s.kvs >/dev/null 2>&1", exe, g->name);
			is_int(run(command), g->lenient == GOLDEN_SAME ? golden_exit(g) : g->lenient, "kvs-min: %s", g->name);
		}
	unlink(exe);
	rmdir(dir);
}

int
main(void)
{
	struct kv_buf tiny = { 0 };
	struct kv_err err;

	ok(snap_load("tests/files/good-tiny.kvs", &tiny, &err) == KV_OK, "the worked example");
	test_library(&tiny);
	test_second_reader();
	kv_buf_free(&tiny);
	return done_testing();
}
