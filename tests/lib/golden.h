/* The table of golden files: the worked example, and what is odd about each of its relatives. */
#ifndef KV_TESTS_GOLDEN_H
#define KV_TESTS_GOLDEN_H

#include "util/mem.h"

struct golden {
	const char *name;	/* without .kvs; begins with good, bad or unsupported */
	const char *note;
	int lenient;		/* what kvs-min says, if not the same: it does not read observations and JSON */
};

enum { GOLDEN_SAME = -1 };

size_t golden_count(void);
const struct golden *golden_at(size_t i);
int golden_exit(const struct golden *g);	/* 0, 3 or 4, by its name */
bool golden_is_packed(size_t i);	/* compare what it says, not its bytes */
/* Appends file i to out; tiny = the bytes of good-tiny.kvs. */
bool golden_make(size_t i, const struct kv_buf *tiny, struct kv_buf *out);

#endif
