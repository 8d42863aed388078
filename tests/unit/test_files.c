/* The golden files: made anew they are the same, and the library's verdict is what their names say. */
#include "check.h"

#include "golden.h"
#include "snapfile.h"

int
main(void)
{
	struct kv_buf tiny = { 0 }, made = { 0 }, kept = { 0 };
	struct kv_err err;
	char path[256];

	ok(snap_load("tests/files/good-tiny.kvs", &tiny, &err) == KV_OK, "the worked example");
	for (size_t i = 0; i < golden_count(); i++) {
		const struct golden *g = golden_at(i);
		enum kv_status rc;

		made.len = kept.len = 0;
		snprintf(path, sizeof path, "tests/files/%s.kvs", g->name);
		ok(golden_make(i, &tiny, &made) && snap_load(path, &kept, &err) == KV_OK && (golden_is_packed(i) ||
			   (made.len == kept.len && !memcmp(made.p, kept.p, made.len))), "%s is as it was", g->name);
		err.text[0] = 0;
		if (golden_is_packed(i))
			is_int(kv_exit_code(snap_verdict(made.p, made.len, NULL, NULL)), golden_exit(g), "%s, made anew", g->name);
		rc = snap_verdict(kept.p, kept.len, NULL, &err);
		is_int(kv_exit_code(rc), golden_exit(g), "%s (%s): %s", g->name, g->note, err.text);
	}
	kv_buf_free(&tiny);
	kv_buf_free(&made);
	kv_buf_free(&kept);
	return done_testing();
}
