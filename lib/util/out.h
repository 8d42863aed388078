/*
 * Output that appears whole or not at all. A file is written beside its target under a temporary name, then fsync,
 * rename, fsync of the folder; a signal or a failure removes it and leaves the target as it was. Standard output is
 * written forward; whether it is whole only its content can say.
 */
#ifndef KV_UTIL_OUT_H
#define KV_UTIL_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

struct kv_out;

/*
 * path NULL or "-": standard output. Refuses (KV_EUSAGE) a binary stream on a terminal, and a target that is a folder or a
 * device, unless force. A binary stream takes file descriptor 1 aside and points 1 at standard error, so that no library
 * can print into it.
 */
enum kv_status kv_out_open(const char *path, bool binary, bool force, struct kv_out **out, struct kv_err *err);

/*
 * Writes to a pipe that is open already, O_NONBLOCK, and closes it at the end. Whoever reads it may hang up without ending this process:
 * that is KV_EIO, as it is when `stop` becomes readable or hangs up while the pipe is full. Threads that write must block SIGPIPE.
 */
enum kv_status kv_out_adopt(int fd, int stop, const char *name, struct kv_out **out, struct kv_err *err);

bool kv_out_is_pipe(const struct kv_out *o);	/* FIFO or socket */

enum kv_status kv_out_write(struct kv_out *o, const void *data, size_t n, struct kv_err *err);	/* buffered */
enum kv_status kv_out_flush(struct kv_out *o, struct kv_err *err);

/* The only way to succeed: flush, and for a file fsync and rename. Frees o either way. */
enum kv_status kv_out_commit(struct kv_out *o, struct kv_err *err);
/* Removes the temporary file. What was buffered for standard output is dropped. Takes NULL. */
void kv_out_abort(struct kv_out *o);

/*
 * At the start of every tool: SIGINT, SIGTERM and SIGHUP remove temporary files and then end the process as they would have; SIGBUS, which
 * says that a mapped file has become shorter, ends it with a message and status 1.
 */
void kv_out_catch_signals(void);

/* Writes all or fails; EPIPE ends the process by SIGPIPE even where the caller had ignored it. */
enum kv_status kv_write_all(int fd, const char *name, const void *data, size_t n, struct kv_err *err);

#endif
