/* What the fuzz targets share. Each reads bytes as a program might and stops by abort() where something is wrong. */
#ifndef KV_TESTS_FUZZ_H
#define KV_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Of libFuzzer; run_corpus.c calls it for files. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MUST(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what); \
			abort(); \
		} \
	} while (0)

#endif
