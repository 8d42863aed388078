/*
 * Makes system calls and allocations of a program fail: LD_PRELOAD=inject.so KV_INJECT="write:3:ENOSPC read:0:short" kv-evict …
 *
 * Each word is CALL:N:WHAT. CALL: read (and pread), write (and writev), fsync, close, rename, mmap (of files), malloc (and its relatives). N: the
 * N-th call fails, N+ that one and all after it, 0 every one. WHAT: an error's name, or short: one byte is moved. Standard error is
 * spared, so that messages arrive. KV_INJECT_FIRED names a file that is made when the first fault strikes that does not strike every call.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum call { READ, WRITE, FSYNC, CLOSE, RENAME, MMAP, MALLOC, N_CALLS };
enum { NOTHING = 0, SHORT = -1 };

static const char *const names[N_CALLS] = { "read", "write", "fsync", "close", "rename", "mmap", "malloc" };
static const struct { const char *name; int what; } outcomes[] = { { "short", SHORT }, { "EINTR", EINTR }, { "ENOSPC", ENOSPC }, { "EIO", EIO },
	{ "ENOMEM", ENOMEM }, { "EPIPE", EPIPE }, { "EACCES", EACCES } };

static struct {
	unsigned long at;	/* 0 = every call */
	bool onwards;
	int what;		/* NOTHING, SHORT or an errno */
	atomic_ulong calls;
} plan[N_CALLS];

static const char *fired;	/* file to make; NULL = none */

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static void
read_word(const char *w, size_t len)
{
	for (int c = 0; c < N_CALLS; c++) {
		size_t n = strlen(names[c]);
		char *end;

		if (len <= n || strncmp(w, names[c], n) || w[n] != ':')
			continue;
		plan[c].at = strtoul(w + n + 1, &end, 10);
		plan[c].onwards = *end == '+';
		end += plan[c].onwards;
		for (size_t k = 0; *end == ':' && k < sizeof outcomes / sizeof outcomes[0]; k++)
			if (!strncmp(end + 1, outcomes[k].name, strlen(outcomes[k].name)))
				plan[c].what = outcomes[k].what;
		if (plan[c].what != NOTHING)
			return;
	}
	/* A test whose fault is misspelt must not pass. */
	static const char bad[] = "inject: KV_INJECT is not understood\n";
	syscall(SYS_write, STDERR_FILENO, bad, sizeof bad - 1);
	_exit(99);
}

__attribute__((constructor)) static void
read_plan(void)
{
	const char *w = getenv("KV_INJECT");

	fired = getenv("KV_INJECT_FIRED");
	while (w && *w) {
		size_t len = strcspn(w, " ");

		if (len)
			read_word(w, len);
		w += len + (w[len] == ' ');
	}
}

/* What is to happen to this call. */
static int
outcome(enum call c)
{
	unsigned long n;

	if (plan[c].what == NOTHING)
		return NOTHING;
	n = atomic_fetch_add(&plan[c].calls, 1) + 1;
	if (plan[c].at && n != plan[c].at && !(plan[c].onwards && n > plan[c].at))
		return NOTHING;
	if (fired && plan[c].at) {
		long fd = syscall(SYS_openat, AT_FDCWD, fired, O_WRONLY | O_CREAT, 0666);

		syscall(SYS_close, fd);
		fired = NULL;
	}
	return plan[c].what;
}

/* True: the call fails; errno is set. */
static bool
fails(enum call c)
{
	int what = outcome(c);

	if (what > 0)
		errno = what;
	return what > 0;
}

ssize_t
read(int fd, void *buf, size_t n)
{
	int what = outcome(READ);

	if (what > 0) {
		errno = what;
		return -1;
	}
	return syscall(SYS_read, fd, buf, what == SHORT && n ? 1 : n);
}

ssize_t
pread(int fd, void *buf, size_t n, off_t at)
{
	int what = outcome(READ);

	if (what > 0) {
		errno = what;
		return -1;
	}
	return syscall(SYS_pread64, fd, buf, what == SHORT && n ? 1 : n, at);
}

/* Programs built with 64-bit offsets call it by this name. */
ssize_t pread64(int fd, void *buf, size_t n, off_t at) __attribute__((alias("pread")));

ssize_t
write(int fd, const void *buf, size_t n)
{
	int what = fd == STDERR_FILENO ? NOTHING : outcome(WRITE);

	if (what > 0) {
		errno = what;
		return -1;
	}
	return syscall(SYS_write, fd, buf, what == SHORT && n ? 1 : n);
}

ssize_t
writev(int fd, const struct iovec *v, int n)
{
	int what = fd == STDERR_FILENO ? NOTHING : outcome(WRITE);

	if (what > 0) {
		errno = what;
		return -1;
	}
	return what == SHORT && n && v[0].iov_len ? syscall(SYS_write, fd, v[0].iov_base, 1) : syscall(SYS_writev, fd, v, n);
}

int
fsync(int fd)
{
	return fails(FSYNC) ? -1 : (int)syscall(SYS_fsync, fd);
}

int
close(int fd)
{
	int rc = (int)syscall(SYS_close, fd);

	return fd > STDERR_FILENO && fails(CLOSE) ? -1 : rc;
}

int
rename(const char *from, const char *to)
{
	return fails(RENAME) ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to);
}

void *
mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	if (fd >= 0 && fails(MMAP))
		return MAP_FAILED;
	return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

void *mmap64(void *at, size_t n, int prot, int flags, int fd, off_t offset) __attribute__((alias("mmap")));

void *
malloc(size_t n)
{
	return fails(MALLOC) ? NULL : __libc_malloc(n);
}

void *
calloc(size_t n, size_t size)
{
	return fails(MALLOC) ? NULL : __libc_calloc(n, size);
}

void *
realloc(void *p, size_t n)
{
	return fails(MALLOC) ? NULL : __libc_realloc(p, n);
}

void *
aligned_alloc(size_t align, size_t n)
{
	return fails(MALLOC) ? NULL : __libc_memalign(align, n);
}

int
posix_memalign(void **p, size_t align, size_t n)
{
	void *q = fails(MALLOC) ? NULL : __libc_memalign(align, n);

	if (!q)
		return ENOMEM;
	*p = q;
	return 0;
}
