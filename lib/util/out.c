/* Output that appears whole or not at all. */
#define _GNU_SOURCE	/* F_SETPIPE_SZ, program_invocation_short_name */
#include "util/out.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "util/text.h"

enum {
	BUFFER = 1 << 18,	/* pipes want large writes */
	MAX_TEMP = 16,
	NAME_TRIES = 100,
};

struct kv_out {
	int fd, stop;		/* stop: ends a wait for the reader of an adopted pipe; -1 = none */
	char *path, *temp;	/* NULL for standard output and devices */
	int slot;		/* in temps[], -1 = none */
	bool pipe;
	size_t used;
	char name[160];
	uint8_t buf[BUFFER];
};

/* Names that a signal must remove. The handler may run at any moment: a slot is set whole or not at all. */
static char *volatile temps[MAX_TEMP];

static void
on_signal(int sig)
{
	for (int i = 0; i < MAX_TEMP; i++)
		if (temps[i])
			unlink(temps[i]);
	signal(sig, SIG_DFL);
	raise(sig);
}

/* A file that is mapped, a snapshot or a model, was made shorter by somebody: its pages behind the new end are gone. */
static void
on_bus_error(int sig)
{
	static const char text[] = ": a file that is being read has become shorter\n";
	ssize_t said;

	(void)sig;
	for (int i = 0; i < MAX_TEMP; i++)
		if (temps[i])
			unlink(temps[i]);
	said = write(STDERR_FILENO, program_invocation_short_name, strlen(program_invocation_short_name));
	said = write(STDERR_FILENO, text, sizeof text - 1);
	(void)said;
	_exit(1);	/* KV_EIO */
}

void
kv_out_catch_signals(void)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal }, old;

	signal(SIGPIPE, SIG_DFL);
	signal(SIGBUS, on_bus_error);
	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < sizeof sigs / sizeof sigs[0]; i++)
		/* What the caller ignores stays ignored (nohup). */
		if (sigaction(sigs[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(sigs[i], &sa, NULL);
}

/* EPIPE ends the process by SIGPIPE even where the caller had ignored it. */
static enum kv_status
write_failed(const char *name, struct kv_err *err)
{
	if (errno == EPIPE) {
		signal(SIGPIPE, SIG_DFL);
		raise(SIGPIPE);
	}
	return kv_fail_errno(err, "%s", name);
}

enum kv_status
kv_write_all(int fd, const char *name, const void *data, size_t n, struct kv_err *err)
{
	const char *p = data;

	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return write_failed(name, err);
		p += w;
		n -= (size_t)w;
	}
	return KV_OK;
}

/* False: the wait was ended by stop. */
static bool
wait_for_room(int fd, int stop)
{
	struct pollfd p[] = { { fd, POLLOUT, 0 }, { stop, POLLIN, 0 } };

	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	return !p[1].revents;
}

static enum kv_status
write_adopted(const struct kv_out *o, const uint8_t *p, size_t n, struct kv_err *err)
{
	while (n) {
		ssize_t w = write(o->fd, p, n);

		if (w >= 0) {
			p += w;
			n -= (size_t)w;
		} else if (errno == EAGAIN) {
			if (!wait_for_room(o->fd, o->stop))
				return kv_fail(err, KV_EIO, "%s: given up", o->name);
		} else if (errno != EINTR) {
			return kv_fail_errno(err, "%s", o->name);
		}
	}
	return KV_OK;
}

static enum kv_status
write_out(const struct kv_out *o, const void *data, size_t n, struct kv_err *err)
{
	return o->stop >= 0 ? write_adopted(o, data, n, err) : kv_write_all(o->fd, o->name, data, n, err);
}

static int
temp_remember(char *name)
{
	for (int i = 0; i < MAX_TEMP; i++)
		if (!temps[i]) {
			temps[i] = name;
			return i;
		}
	return -1;
}

/* Beside the target, so that rename never crosses a file system; O_EXCL, so that two writers never share one. */
static enum kv_status
open_temp(struct kv_out *o, struct kv_err *err)
{
	size_t len = strlen(o->path) + 40;

	if (!(o->temp = malloc(len)))
		return kv_fail_mem(err, "a file name");
	for (int i = 0; i < NAME_TRIES; i++) {
		snprintf(o->temp, len, "%s.%ld-%d.tmp", o->path, (long)getpid(), i);
		o->slot = temp_remember(o->temp);
		if ((o->fd = open(o->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) >= 0)
			return KV_OK;
		if (o->slot >= 0)
			temps[o->slot] = NULL;
		o->slot = -1;
		if (errno != EEXIST)
			break;
	}
	return kv_fail_errno(err, "%s", o->name);
}

static enum kv_status
open_path(struct kv_out *o, const char *path, bool force, struct kv_err *err)
{
	struct stat st;

	kv_quote(o->name, sizeof o->name, path, strlen(path));
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
		if (S_ISDIR(st.st_mode))
			return kv_fail(err, KV_EUSAGE, "%s: is a folder", o->name);
		if (!force)
			return kv_fail(err, KV_EUSAGE, "%s: is not a regular file; -f writes to it all the same", o->name);
		if ((o->fd = open(path, O_WRONLY | O_CLOEXEC)) < 0)
			return kv_fail_errno(err, "%s", o->name);
		return KV_OK;
	}
	/* A symbolic link stays one: what it points to is replaced. */
	if (!(o->path = realpath(path, NULL)) && !(o->path = strdup(path)))
		return kv_fail_mem(err, "a file name");
	return open_temp(o, err);
}

static enum kv_status
open_stdout(struct kv_out *o, bool binary, bool force, struct kv_err *err)
{
	snprintf(o->name, sizeof o->name, "standard output");
	if (!binary) {
		o->fd = STDOUT_FILENO;
		return KV_OK;
	}
	if (isatty(STDOUT_FILENO) && !force)
		return kv_fail(err, KV_EUSAGE, "a snapshot is not for a terminal: use a pipe or -o FILE (-f writes it all the same)");
	if ((o->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		return kv_fail_errno(err, "%s", o->name);
	return KV_OK;
}

enum kv_status
kv_out_open(const char *path, bool binary, bool force, struct kv_out **out, struct kv_err *err)
{
	struct kv_out *o = malloc(sizeof *o);
	enum kv_status rc;
	struct stat st;

	if (!o)
		return kv_fail_mem(err, "an output stream");
	memset(o, 0, offsetof(struct kv_out, buf));
	o->fd = o->stop = o->slot = -1;
	if (!path || !strcmp(path, "-"))
		rc = open_stdout(o, binary, force, err);
	else
		rc = open_path(o, path, force, err);
	if (rc != KV_OK) {
		kv_out_abort(o);
		return rc;
	}
	o->pipe = fstat(o->fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
#ifdef F_SETPIPE_SZ
	if (o->pipe)
		fcntl(o->fd, F_SETPIPE_SZ, 1 << 20);	/* fewer switches; refused is no harm */
#endif
	*out = o;
	return KV_OK;
}

enum kv_status
kv_out_adopt(int fd, int stop, const char *name, struct kv_out **out, struct kv_err *err)
{
	struct kv_out *o = malloc(sizeof *o);

	if (!o)
		return kv_fail_mem(err, "an output stream");
	memset(o, 0, offsetof(struct kv_out, buf));
	o->fd = fd;
	o->stop = stop;
	o->slot = -1;
	o->pipe = true;
	kv_quote(o->name, sizeof o->name, name, strlen(name));
	*out = o;
	return KV_OK;
}

bool
kv_out_is_pipe(const struct kv_out *o)
{
	return o->pipe;
}

enum kv_status
kv_out_flush(struct kv_out *o, struct kv_err *err)
{
	size_t n = o->used;

	o->used = 0;
	return write_out(o, o->buf, n, err);
}

/* The buffer and much data behind it, in one go: a pipe keeps the two together. */
static enum kv_status
write_through(struct kv_out *o, const uint8_t *data, size_t n, struct kv_err *err)
{
	struct iovec v[] = { { o->buf, o->used }, { (void *)(uintptr_t)data, n } };
	enum kv_status rc;
	ssize_t w;

	if (!o->used || o->stop >= 0)
		return (rc = kv_out_flush(o, err)) == KV_OK ? write_out(o, data, n, err) : rc;
	while ((w = writev(o->fd, v, 2)) < 0)
		if (errno != EINTR)
			return write_failed(o->name, err);
	if ((size_t)w < o->used) {
		memmove(o->buf, o->buf + w, o->used - (size_t)w);
		o->used -= (size_t)w;
		return (rc = kv_out_flush(o, err)) == KV_OK ? write_out(o, data, n, err) : rc;
	}
	w -= (ssize_t)o->used;
	o->used = 0;
	return write_out(o, data + w, n - (size_t)w, err);
}

enum kv_status
kv_out_write(struct kv_out *o, const void *data, size_t n, struct kv_err *err)
{
	enum kv_status rc;

	if (n >= BUFFER)
		return write_through(o, data, n, err);
	if (n > BUFFER - o->used && (rc = kv_out_flush(o, err)) != KV_OK)
		return rc;
	memcpy(o->buf + o->used, data, n);
	o->used += n;
	return KV_OK;
}

/* The rename itself must survive a crash, not only the data. A folder that cannot be synced is not worth a failure. */
static void
sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
	free(dir);
}

enum kv_status
kv_out_commit(struct kv_out *o, struct kv_err *err)
{
	enum kv_status rc;
	int fd;

	if ((rc = kv_out_flush(o, err)) != KV_OK)
		goto fail;
	if (o->temp && fsync(o->fd) < 0) {
		rc = kv_fail_errno(err, "%s: fsync", o->name);
		goto fail;
	}
	fd = o->fd;
	o->fd = -1;
	if (close(fd) < 0) {
		rc = kv_fail_errno(err, "%s: close", o->name);
		goto fail;
	}
	if (o->temp) {
		if (rename(o->temp, o->path) < 0) {
			rc = kv_fail_errno(err, "%s: rename", o->name);
			goto fail;
		}
		if (o->slot >= 0)
			temps[o->slot] = NULL;
		o->slot = -1;
		sync_folder(o->path);
		free(o->temp);
		o->temp = NULL;
	}
fail:
	kv_out_abort(o);
	return rc;
}

void
kv_out_abort(struct kv_out *o)
{
	if (!o)
		return;
	if (o->fd > STDERR_FILENO)
		close(o->fd);
	if (o->temp && (o->slot >= 0 || o->fd >= 0))
		unlink(o->temp);
	if (o->slot >= 0)
		temps[o->slot] = NULL;
	free(o->temp);
	free(o->path);
	free(o);
}
