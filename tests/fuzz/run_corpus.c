/* Runs a fuzz target over files, so that what a fuzzer once found stays found: corpus_X FILE … */
#include "fuzz.h"
#include "snapfile.h"

int
main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct kv_buf file = { 0 };
		struct kv_err err;

		if (snap_load(argv[i], &file, &err) != KV_OK) {
			fprintf(stderr, "corpus: %s\n", err.text);
			return 1;
		}
		LLVMFuzzerTestOneInput(file.p, file.len);
		kv_buf_free(&file);
	}
	printf("%d files\n", argc - 1);
	return argc < 2;
}
