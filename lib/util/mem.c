/* Checked sizes, growable bytes, large blocks. */
#define _GNU_SOURCE	/* madvise, sbrk */
#include "util/mem.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum {
	ALIGN = 64,		/* of a block */
	LARGE = 1 << 18,	/* from here on huge pages pay */
	HUGE_PAGE = 1 << 21,
	HEAP_STEP = 32 << 20,
};

static atomic_uint_fast64_t in_use;
static uint64_t limit;
static atomic_uintptr_t heap_end;	/* huge pages have been asked for up to here; 0 = the heap is left alone */

bool
kv_mul(size_t a, size_t b, size_t *out)
{
	return !__builtin_mul_overflow(a, b, out);
}

bool
kv_add(size_t a, size_t b, size_t *out)
{
	return !__builtin_add_overflow(a, b, out);
}

void *
kv_array_new(size_t n, size_t size)
{
	return calloc(n ? n : 1, size);
}

void *
kv_array_resize(void *p, size_t n, size_t size)
{
	size_t bytes;

	if (!kv_mul(n ? n : 1, size, &bytes))
		return NULL;
	return realloc(p, bytes);
}

void
kv_mem_limit_set(uint64_t bytes)
{
	limit = bytes;
}

bool
kv_mem_allows(uint64_t bytes)
{
	uint64_t used = atomic_load(&in_use);

	return !limit || (bytes <= limit && used <= limit - bytes);
}

/*
 * malloc maps and unmaps blocks of a megabyte one by one, and the first touch of each small page is a fault: for a snapshot that takes
 * longer than reading it from a pipe. So large blocks come from the heap, where freed ones are used again and huge pages fit.
 */
void
kv_mem_start(void)
{
#ifdef __GLIBC__
	if (mallopt(M_MMAP_THRESHOLD, HEAP_STEP) && mallopt(M_TOP_PAD, HEAP_STEP) && mallopt(M_TRIM_THRESHOLD, 2 * HEAP_STEP) &&
	    mallopt(M_ARENA_MAX, 1))	/* what one thread frees another can have */
		atomic_store(&heap_end, (uintptr_t)sbrk(0));
#endif
}

static void
ask_for_huge_pages(uint8_t *block, size_t n)
{
#ifdef MADV_HUGEPAGE
	uintptr_t was = atomic_load(&heap_end), end, first;

	if (!was)
		return;
	/* Only what has not been touched yet can have them: the heap is asked for as it grows, ahead of the blocks that it is for. */
	if ((end = (uintptr_t)sbrk(0)) != was) {
		atomic_store(&heap_end, end);
		first = was - was % HUGE_PAGE;
		if (end > was)
			madvise((void *)first, end - first, MADV_HUGEPAGE);
	}
	if (n >= HEAP_STEP) {	/* a mapping of its own */
		first = (uintptr_t)block + HUGE_PAGE - (uintptr_t)block % HUGE_PAGE;
		madvise((void *)first, n - (first - (uintptr_t)block), MADV_HUGEPAGE);
	}
#else
	(void)block;
	(void)n;
#endif
}

/* Right before a block. */
struct block_head {
	void *start;		/* as malloc gave it */
	size_t bytes;
};

void *
kv_block_new(size_t n, size_t size)
{
	struct block_head head;
	uint8_t *p;

	if (!kv_mul(n, size, &head.bytes) || !kv_add(head.bytes, 2 * ALIGN, &head.bytes))
		return NULL;
	/* aligned_alloc looks for more than it is asked for, so it does not use a freed block of the same size again. */
	if (!kv_mem_allows(head.bytes) || !(head.start = malloc(head.bytes)))
		return NULL;
	if (head.bytes >= LARGE)
		ask_for_huge_pages(head.start, head.bytes);
	atomic_fetch_add(&in_use, head.bytes);
	p = (uint8_t *)head.start + 2 * ALIGN - (uintptr_t)head.start % ALIGN;
	memcpy(p - sizeof head, &head, sizeof head);
	return p;
}

void
kv_block_free(void *p)
{
	struct block_head head;

	if (!p)
		return;
	memcpy(&head, (uint8_t *)p - sizeof head, sizeof head);
	atomic_fetch_sub(&in_use, head.bytes);
	free(head.start);
}

uint8_t *
kv_buf_grow(struct kv_buf *b, size_t n)
{
	size_t need, cap = b->cap ? b->cap : 256;
	uint8_t *p;

	if (b->failed || !kv_add(b->len, n, &need)) {
		b->failed = true;
		return NULL;
	}
	while (cap < need)
		if (!kv_mul(cap, 2, &cap))
			cap = need;
	if (cap != b->cap) {
		if (!(p = realloc(b->p, cap))) {
			b->failed = true;
			return NULL;
		}
		b->p = p;
		b->cap = cap;
	}
	p = b->p + b->len;
	b->len = need;
	return p;
}

void
kv_buf_add(struct kv_buf *b, const void *data, size_t n)
{
	uint8_t *p = kv_buf_grow(b, n);

	if (p && n)
		memcpy(p, data, n);
}

void
kv_buf_printf(struct kv_buf *b, const char *fmt, ...)
{
	va_list ap;
	uint8_t *p;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !(p = kv_buf_grow(b, (size_t)n + 1)))
		return;
	va_start(ap, fmt);
	vsnprintf((char *)p, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len--;	/* the terminating NUL stays behind the end, so p is a C string */
}

void
kv_buf_free(struct kv_buf *b)
{
	free(b->p);
	*b = (struct kv_buf){ 0 };
}
