/* Input, read forward only: a file, standard input, or memory. Never seeks, never reads ahead of what was asked for. */
#ifndef KV_UTIL_IN_H
#define KV_UTIL_IN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/err.h"
#include "util/mem.h"

struct kv_in;
struct kv_map;	/* a mapped file; it stays as long as somebody shares it */

/* path NULL or "-": standard input. */
enum kv_status kv_in_open(const char *path, struct kv_in **out, struct kv_err *err);
/* Reads data[0..n), which must outlive it. */
enum kv_status kv_in_mem(const char *name, const void *data, size_t n, struct kv_in **out, struct kv_err *err);
/* Reads a descriptor that is open already, and closes it at the end. */
enum kv_status kv_in_adopt(int fd, const char *name, struct kv_in **out, struct kv_err *err);
void kv_in_close(struct kv_in *in);

const char *kv_in_name(const struct kv_in *in);	/* for messages, already quoted */
bool kv_in_is_tty(const struct kv_in *in);
int kv_in_fd(const struct kv_in *in);		/* -1 for memory */
uint64_t kv_in_offset(const struct kv_in *in);	/* bytes read so far */

/* Reads until n bytes are there or the input ends; *got says how many. Only a failing read() is an error. */
enum kv_status kv_in_read(struct kv_in *in, void *dst, size_t n, size_t *got, struct kv_err *err);
/*
 * From here on a regular file that was opened by its path is read in place: kv_in_view gives its bytes without a copy. Does nothing where
 * that cannot be. A file that shrinks meanwhile ends the process with SIGBUS (kv_out_catch_signals has it explained).
 */
void kv_in_map(struct kv_in *in);
/* Little of what is mapped will be looked at: nothing is read ahead. False: nothing is mapped. */
bool kv_in_skim(const struct kv_in *in);
/* The next n bytes, valid while the input is open; NULL: read them. */
const uint8_t *kv_in_view(struct kv_in *in, size_t n);
/* Keeps what kv_in_view gives valid until it is dropped, by any thread; NULL: not a mapped file. */
struct kv_map *kv_in_share(const struct kv_in *in);
struct kv_map *kv_map_share(struct kv_map *m);
void kv_map_drop(struct kv_map *m);	/* takes NULL */
/* The n bytes at p, of what was mapped, need no memory for now: who looks at them again has them from the file again. m NULL: nothing. */
void kv_map_forget(struct kv_map *m, const uint8_t *p, size_t n);
void kv_in_forget(const struct kv_in *in, const uint8_t *p, size_t n);

/* Appends all that is left. */
enum kv_status kv_in_rest(struct kv_in *in, struct kv_buf *out, struct kv_err *err);

/* A TEXT argument: "@FILE" is the file's content as it is, "@@x" is "@x", all else itself. Appends to out. */
enum kv_status kv_text_arg(const char *arg, struct kv_buf *out, struct kv_err *err);

#endif
