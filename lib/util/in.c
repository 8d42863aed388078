/* Input, read forward only. */
#define _GNU_SOURCE	/* F_SETPIPE_SZ */
#include "util/in.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/text.h"

struct kv_map {
	uint8_t *p;
	size_t n;
	atomic_uint sharers;
};

struct kv_in {
	int fd;			/* -1: memory */
	bool own;		/* close fd at the end */
	struct kv_map *map;	/* what mem is, if it is a file */
	const uint8_t *mem;	/* NULL: read fd */
	size_t mem_len;
	uint64_t offset;
	char name[160];
};

static enum kv_status
make(const char *name, int fd, struct kv_in **out, struct kv_err *err)
{
	struct kv_in *in = calloc(1, sizeof *in);

	if (!in)
		return kv_fail_mem(err, "an input stream");
	in->fd = fd;
#ifdef F_SETPIPE_SZ
	if (fd >= 0)
		fcntl(fd, F_SETPIPE_SZ, 1 << 20);	/* fewer switches; refused, as by what is no pipe, is no harm */
#endif
	kv_quote(in->name, sizeof in->name, name, strlen(name));
	*out = in;
	return KV_OK;
}

enum kv_status
kv_in_open(const char *path, struct kv_in **out, struct kv_err *err)
{
	char q[160];
	struct stat st;
	enum kv_status rc;
	int fd;

	if (!path || !strcmp(path, "-"))
		return make("standard input", STDIN_FILENO, out, err);
	kv_quote(q, sizeof q, path, strlen(path));
	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
		return kv_fail_errno(err, "%s", q);
	if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
		rc = kv_fail(err, KV_EIO, "%s: is a folder", q);
	else
		rc = make(path, fd, out, err);
	if (rc != KV_OK)
		close(fd);
	else
		(*out)->own = true;
	return rc;
}

enum kv_status
kv_in_mem(const char *name, const void *data, size_t n, struct kv_in **out, struct kv_err *err)
{
	enum kv_status rc = make(name, -1, out, err);

	if (rc == KV_OK) {
		(*out)->mem = n ? data : (const void *)"";
		(*out)->mem_len = n;
	}
	return rc;
}

enum kv_status
kv_in_adopt(int fd, const char *name, struct kv_in **out, struct kv_err *err)
{
	enum kv_status rc = make(name, fd, out, err);

	if (rc == KV_OK)
		(*out)->own = true;
	return rc;
}

void
kv_in_close(struct kv_in *in)
{
	if (!in)
		return;
	kv_map_drop(in->map);
	if (in->own)
		close(in->fd);
	free(in);
}

void
kv_in_map(struct kv_in *in)
{
	struct kv_map *m;
	struct stat st;
	void *p;

	/* What others may read on from, such as standard input, must be read. */
	if (!in->own || in->mem || in->offset || fstat(in->fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
	    (uintmax_t)st.st_size > SIZE_MAX || !(m = malloc(sizeof *m)))
		return;
	if ((p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, in->fd, 0)) == MAP_FAILED) {
		free(m);
		return;
	}
	madvise(p, (size_t)st.st_size, MADV_SEQUENTIAL);
	m->p = p;
	m->n = (size_t)st.st_size;
	atomic_init(&m->sharers, 1);
	in->map = m;
	in->mem = m->p;
	in->mem_len = m->n;
}

bool
kv_in_skim(const struct kv_in *in)
{
	if (!in->map)
		return false;
	madvise(in->map->p, in->map->n, MADV_RANDOM);
	return true;
}

struct kv_map *
kv_map_share(struct kv_map *m)
{
	atomic_fetch_add(&m->sharers, 1);
	return m;
}

struct kv_map *
kv_in_share(const struct kv_in *in)
{
	return in->map ? kv_map_share(in->map) : NULL;
}

void
kv_map_drop(struct kv_map *m)
{
	if (!m || atomic_fetch_sub(&m->sharers, 1) > 1)
		return;
	munmap(m->p, m->n);
	free(m);
}

void
kv_map_forget(struct kv_map *m, const uint8_t *p, size_t n)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), before;

	if (!m)
		return;
	before = (uintptr_t)p % page;	/* what shares a page with it comes back as well */
	madvise((void *)((uintptr_t)p - before), before + n, MADV_DONTNEED);
}

void
kv_in_forget(const struct kv_in *in, const uint8_t *p, size_t n)
{
	kv_map_forget(in->map, p, n);
}

const uint8_t *
kv_in_view(struct kv_in *in, size_t n)
{
	const uint8_t *p = in->mem;

	if (!p || n > in->mem_len - (size_t)in->offset)
		return NULL;
	p += in->offset;
	in->offset += n;
	return p;
}

const char *
kv_in_name(const struct kv_in *in)
{
	return in->name;
}

bool
kv_in_is_tty(const struct kv_in *in)
{
	return in->fd >= 0 && isatty(in->fd);
}

int
kv_in_fd(const struct kv_in *in)
{
	return in->fd;
}

uint64_t
kv_in_offset(const struct kv_in *in)
{
	return in->offset;
}

static enum kv_status
read_mem(struct kv_in *in, void *dst, size_t n, size_t *got)
{
	size_t left = in->mem_len - (size_t)in->offset;

	*got = n < left ? n : left;
	if (*got)
		memcpy(dst, in->mem + in->offset, *got);
	in->offset += *got;
	return KV_OK;
}

enum kv_status
kv_in_read(struct kv_in *in, void *dst, size_t n, size_t *got, struct kv_err *err)
{
	size_t have = 0;

	if (in->mem)
		return read_mem(in, dst, n, got);
	while (have < n) {
		ssize_t r = read(in->fd, (char *)dst + have, n - have);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return kv_fail_errno(err, "%s", in->name);
		if (r == 0)
			break;
		have += (size_t)r;
		in->offset += (size_t)r;
	}
	*got = have;
	return KV_OK;
}

enum kv_status
kv_in_rest(struct kv_in *in, struct kv_buf *out, struct kv_err *err)
{
	enum { STEP = 1 << 16 };
	enum kv_status rc;
	size_t got;

	do {
		uint8_t *p = kv_buf_grow(out, STEP);

		if (!p)
			return kv_fail_mem(err, in->name);
		if ((rc = kv_in_read(in, p, STEP, &got, err)) != KV_OK)
			return rc;
		out->len -= STEP - got;
	} while (got == STEP);
	return KV_OK;
}

enum kv_status
kv_text_arg(const char *arg, struct kv_buf *out, struct kv_err *err)
{
	struct kv_in *in;
	enum kv_status rc;

	if (arg[0] != '@' || arg[1] == '@') {
		arg += arg[0] == '@';
		kv_buf_add(out, arg, strlen(arg));
		return out->failed ? kv_fail_mem(err, "a text") : KV_OK;
	}
	if ((rc = kv_in_open(arg + 1, &in, err)) != KV_OK)
		return rc;
	rc = kv_in_rest(in, out, err);
	kv_in_close(in);
	return rc;
}
