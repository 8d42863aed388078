/* Checked sizes, growable bytes, and large blocks under --mem-limit. */
#ifndef KV_UTIL_MEM_H
#define KV_UTIL_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False when the result does not fit; *out is then untouched. */
bool kv_mul(size_t a, size_t b, size_t *out);
bool kv_add(size_t a, size_t b, size_t *out);

/* calloc, realloc of n elements; NULL when n * size overflows or memory is short. n = 0 gives one byte. */
void *kv_array_new(size_t n, size_t size);
void *kv_array_resize(void *p, size_t n, size_t size);

/*
 * Large blocks (rows, frames, scratch), 64-byte aligned, not cleared. They count against the limit;
 * kv_block_new gives NULL when it would be passed. kv_block_free takes NULL.
 */
void *kv_block_new(size_t n, size_t size);
void kv_block_free(void *p);
void kv_mem_limit_set(uint64_t bytes);	/* 0 = none */
bool kv_mem_allows(uint64_t bytes);	/* would a block of this size pass now? */
/* At the start of a program: sets its heap up for many large blocks. Without it they are as malloc has them. */
void kv_mem_start(void);

/* Bytes that grow. A failed growth is remembered and leaves the contents as they were. */
struct kv_buf {
	uint8_t *p;
	size_t len, cap;
	bool failed;
};

uint8_t *kv_buf_grow(struct kv_buf *b, size_t n);	/* room for n more, counted in len; NULL on failure */
void kv_buf_add(struct kv_buf *b, const void *data, size_t n);
void kv_buf_printf(struct kv_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void kv_buf_free(struct kv_buf *b);	/* leaves an empty buffer */

#endif
