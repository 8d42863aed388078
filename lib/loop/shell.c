/*
 * A shell pipeline that runs as long as the job. A snapshot is larger than a pipe, so one thread writes it while the other reads the
 * answer; a pipe of its own tells the writer to give up when there is nothing left to wait for.
 */
#include "loop/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/snapshot.h"
#include "loop/sh_words.h"
#include "util/mem.h"

extern char **environ;

enum { PATIENCE = 10000 };		/* milliseconds */

struct kv_shell {
	pid_t *pid;			/* [n]; 0: not running any more */
	size_t n;
	int status;			/* of the last that ended in trouble */
	bool told;			/* that there has been no answer for long */
	int answers, stop;		/* descriptors; stop: the end that is closed to wake the writer */
	int stopped;			/* the end that the writer watches */
	struct kv_out *out;
	struct kv_in *in;
	struct kvs_writer *writer;
	struct kvs_reader *reader;
};

static const char pipeline[] = "the pipeline";

static enum kv_status
make_pipe(int fd[2], struct kv_err *err)
{
	if (pipe(fd) < 0)
		return kv_fail_errno(err, "a pipe");
	fcntl(fd[0], F_SETFD, FD_CLOEXEC);
	fcntl(fd[1], F_SETFD, FD_CLOEXEC);
	return KV_OK;
}

static void
close_pipe(int fd[2])
{
	for (int i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
	fd[0] = fd[1] = -1;
}

static enum kv_status
spawn(const char *command, int in, int out, pid_t *pid, struct kv_err *err)
{
	char sh[] = "sh", minus_c[] = "-c", *text = strdup(command), *argv[] = { sh, minus_c, text, NULL };
	posix_spawn_file_actions_t actions;
	int e = text ? posix_spawn_file_actions_init(&actions) : ENOMEM;

	if (!e) {
		posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
		posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
		e = posix_spawn(pid, "/bin/sh", &actions, NULL, argv, environ);
		posix_spawn_file_actions_destroy(&actions);
	}
	free(text);
	if (!e)
		return KV_OK;
	errno = e;
	return kv_fail_errno(err, "/bin/sh");
}

/* Streams over our ends of the pipes, which they take. */
static enum kv_status
open_streams(struct kv_shell *s, int to[2], int from[2], struct kv_err *err)
{
	enum kv_status rc;

	fcntl(to[1], F_SETFL, O_NONBLOCK);
	if ((rc = kv_out_adopt(to[1], s->stopped, pipeline, &s->out, err)) != KV_OK)
		return rc;
	to[1] = -1;
	if ((rc = kv_in_adopt(from[0], pipeline, &s->in, err)) != KV_OK)
		return rc;
	s->answers = from[0];
	from[0] = -1;
	if ((rc = kvs_writer_new(s->out, KVS_PACK_AUTO, NULL, &s->writer, err)) != KV_OK)
		return rc;
	return kvs_reader_new(s->in, &s->reader, err);
}

/* Spawns the pieces, each behind the one before; in and out are the ends of the whole. */
static enum kv_status
spawn_all(struct kv_shell *s, const char *command, int in, int out, struct kv_err *err)
{
	int before = in, between[2] = { -1, -1 };
	char **piece;
	size_t n;
	enum kv_status rc;

	if ((rc = kv_sh_pieces(command, &piece, &n, err)) != KV_OK)
		return rc;
	if (!(s->pid = kv_array_new(n, sizeof *s->pid)))
		rc = kv_fail_mem(err, pipeline);
	for (; s->n < n && rc == KV_OK; s->n += rc == KV_OK) {
		bool last = s->n + 1 == n;

		if (last || (rc = make_pipe(between, err)) == KV_OK)
			rc = spawn(piece[s->n], before, last ? out : between[1], &s->pid[s->n], err);
		if (before != in)
			close(before);
		before = between[0];
		if (between[1] >= 0)
			close(between[1]);
		between[0] = between[1] = -1;
	}
	if (before >= 0 && before != in)
		close(before);
	free(piece);
	return rc;
}

enum kv_status
kv_shell_start(const char *command, struct kv_shell **out, struct kv_err *err)
{
	struct kv_shell *s = kv_array_new(1, sizeof *s);
	int to[2] = { -1, -1 }, from[2] = { -1, -1 }, stop[2] = { -1, -1 };
	enum kv_status rc;

	if (!s)
		return kv_fail_mem(err, pipeline);
	s->answers = s->stop = s->stopped = -1;
	if ((rc = make_pipe(stop, err)) == KV_OK) {
		s->stopped = stop[0];
		s->stop = stop[1];
	}
	if (rc == KV_OK && (rc = make_pipe(to, err)) == KV_OK && (rc = make_pipe(from, err)) == KV_OK &&
		(rc = spawn_all(s, command, to[0], from[1], err)) == KV_OK)
		rc = open_streams(s, to, from, err);
	close_pipe(to);
	close_pipe(from);
	if (rc != KV_OK) {
		kv_shell_free(s);
		return rc;
	}
	*out = s;
	return KV_OK;
}

static void
close_streams(struct kv_shell *s)
{
	kvs_writer_free(s->writer);
	kvs_reader_free(s->reader);
	kv_out_abort(s->out);
	kv_in_close(s->in);
	s->writer = NULL;
	s->reader = NULL;
	s->out = NULL;
	s->in = NULL;
	s->answers = -1;
}

/* Waits for the ends; of those in trouble the last is remembered, since the others mostly lost their reader to it. */
static void
reap(struct kv_shell *s)
{
	for (size_t i = 0; i < s->n; i++) {
		int status = 0;

		while (s->pid[i] && waitpid(s->pid[i], &status, 0) < 0 && errno == EINTR)
			;
		s->pid[i] = 0;
		if (status)
			s->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	}
}

static enum kv_status
fail_ended(const struct kv_shell *s, struct kv_err *err)
{
	if (s->status > 128)
		return kv_fail(err, KV_EIO, "the pipeline was ended by signal %d", s->status - 128);
	return kv_fail(err, KV_EIO, "the pipeline ended with status %d", s->status);
}

static enum kv_status
fail_unasked(struct kv_err *err)
{
	return kv_fail(err, KV_ECORRUPT, "the pipeline wrote what no round had asked for");
}

/* What has come that has not been read? POLLHUP alone: its end. */
static short
waiting(const struct kv_shell *s)
{
	struct pollfd p = { s->answers, POLLIN, 0 };

	return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

struct sending {
	struct kv_shell *shell;
	const struct kv_cache *cache;
	struct kv_err err;
};

static void *
send_cache(void *arg)
{
	struct sending *s = arg;

	s->err.code = kv_cache_write(s->cache, s->shell->writer, &s->err);
	return NULL;
}

/* A command that reads and reads and never answers cannot be told from one that thinks, but by people. */
static void
wait_patiently(struct kv_shell *s, const struct kv_say *say)
{
	struct pollfd p = { s->answers, POLLIN, 0 };

	if (s->told || poll(&p, 1, PATIENCE))
		return;
	s->told = true;
	kv_say(say, 0, "no answer for 10 s, still waiting: every command must flush its output after each snapshot, and none may wait for the end "
		"of its input");
}

static enum kv_status
receive(struct kv_shell *s, struct kv_cache **answer, const struct kv_say *say, struct kv_err *err)
{
	enum kv_status rc;

	wait_patiently(s, say);
	rc = kvs_reader_begin(s->reader, err);

	if (rc == KV_END || (rc == KV_ECORRUPT && !kv_in_offset(s->in)))
		return kv_fail(err, KV_ECORRUPT, "the pipeline ended without a snapshot");
	if (rc == KV_OK)
		rc = kv_cache_read(s->reader, answer, err);
	return rc == KV_OK ? rc : kv_err_in(err, "what the pipeline wrote");
}

/* Of the same model and text? */
static enum kv_status
check_answer(const struct kv_cache *c, const struct kv_cache *answer, struct kv_err *err)
{
	enum kv_status rc;

	if ((rc = kvs_geom_same_model(&c->geom, &answer->geom, false, err)) != KV_OK ||
		(rc = kvs_geom_same_tokenizer(&c->geom, &answer->geom, false, err)) != KV_OK)
		return rc;
	if (answer->state.consumed != c->state.consumed)
		return kv_fail(err, KV_EFIT, "what came back has read %llu tokens, not %llu", (unsigned long long)answer->state.consumed,
			(unsigned long long)c->state.consumed);
	return KV_OK;
}

/* c takes over what the pipeline made of it; what the job knows of itself stays. */
static void
adopt(struct kv_cache *c, struct kv_cache *answer)
{
	struct kv_cache was = *c;

	*c = *answer;
	c->prov = was.prov;
	memcpy(c->digest, was.digest, sizeof c->digest);
	was.prov = answer->prov;
	*answer = was;
	kv_cache_free(answer);
}

/* Both directions at once. The first to fail is not always the one that knows why. */
static enum kv_status
exchange(struct kv_shell *s, const struct kv_cache *c, struct kv_cache **answer, const struct kv_say *say, struct kv_err *err)
{
	struct sending sending = { s, c, { .code = KV_OK } };
	sigset_t set, old;
	pthread_t thread;
	enum kv_status rc;
	int e;

	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	e = pthread_create(&thread, NULL, send_cache, &sending);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (e) {
		errno = e;
		return kv_fail_errno(err, "a thread");
	}
	rc = receive(s, answer, say, err);
	if (rc != KV_OK) {
		close(s->stop);
		s->stop = -1;
	}
	pthread_join(thread, NULL);
	if (rc == KV_OK && sending.err.code != KV_OK) {
		kv_cache_free(*answer);
		*err = sending.err;
		rc = sending.err.code;
	}
	return rc;
}

enum kv_status
kv_shell_round(struct kv_shell *s, struct kv_cache *c, const struct kv_say *say, struct kv_err *err)
{
	struct kv_cache *answer;
	enum kv_status rc;

	if (waiting(s) & POLLIN)
		return fail_unasked(err);
	if ((rc = exchange(s, c, &answer, say, err)) != KV_OK) {
		if (waiting(s) != POLLHUP)
			return rc;
		close_streams(s);
		reap(s);
		return s->status ? fail_ended(s, err) : rc;
	}
	if ((rc = check_answer(c, answer, err)) != KV_OK) {
		kv_cache_free(answer);
		return rc;
	}
	adopt(c, answer);
	return KV_OK;
}

enum kv_status
kv_shell_end(struct kv_shell *s, struct kv_err *err)
{
	enum kv_status rc;

	rc = kv_out_commit(s->out, err);
	s->out = NULL;
	if (rc == KV_OK && (rc = kvs_reader_begin(s->reader, err)) == KV_OK)
		return fail_unasked(err);
	close_streams(s);
	reap(s);
	if (s->status)
		return fail_ended(s, err);
	return rc == KV_END ? KV_OK : rc;
}

int
kv_shell_status(const struct kv_shell *s)
{
	return s->status;
}

void
kv_shell_free(struct kv_shell *s)
{
	if (!s)
		return;
	close_streams(s);
	for (size_t i = 0; i < s->n; i++)
		if (s->pid[i])
			kill(s->pid[i], SIGTERM);
	reap(s);
	free(s->pid);
	if (s->stop >= 0)
		close(s->stop);
	if (s->stopped >= 0)
		close(s->stopped);
	free(s);
}
