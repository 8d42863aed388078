/* Makes the golden files: mkfiles DIR reads DIR/good-tiny.kvs and writes the others and README beside it. */
#include <stdio.h>
#include <stdlib.h>

#include "golden.h"
#include "snapfile.h"

static void
save(const char *dir, const char *name, const void *data, size_t n)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	if (!(f = fopen(path, "wb")) || fwrite(data, 1, n, f) != n || fclose(f)) {
		perror(path);
		exit(1);
	}
}

int
main(int argc, char **argv)
{
	struct kv_buf tiny = { 0 }, readme = { 0 }, file = { 0 };
	struct kv_err err;
	char path[512];

	if (argc != 2) {
		fprintf(stderr, "usage: mkfiles DIR\n");
		return 2;
	}
	snprintf(path, sizeof path, "%s/good-tiny.kvs", argv[1]);
	if (snap_load(path, &tiny, &err) != KV_OK) {
		fprintf(stderr, "mkfiles: %s\n", err.text);
		return 1;
	}
	kv_buf_printf(&readme, "Golden files, made by tests/tools/mkfiles.c. A reader ends with 0 on good-*, 3 on bad-*, 4 on unsupported-*.\n\n");
	for (size_t i = 0; i < golden_count(); i++) {
		const struct golden *g = golden_at(i);

		file.len = 0;
		if (!golden_make(i, &tiny, &file)) {
			fprintf(stderr, "mkfiles: %s cannot be made\n", g->name);
			return 1;
		}
		snprintf(path, sizeof path, "%s.kvs", g->name);
		save(argv[1], path, file.p, file.len);
		kv_buf_printf(&readme, "%s: %s\n", path, g->note);
	}
	save(argv[1], "README", readme.p, readme.len);
	kv_buf_free(&tiny);
	kv_buf_free(&readme);
	kv_buf_free(&file);
	return 0;
}
