/* What went wrong, where, and what the process exits with. */
#ifndef KV_UTIL_ERR_H
#define KV_UTIL_ERR_H

/* The exit status of each is in kv(7). KV_END is no error: a stream came to its proper end. */
enum kv_status {
	KV_OK,
	KV_END,
	KV_EIO,		/* 1: input, output */
	KV_ENOMEM,	/* 1: memory, or over --mem-limit */
	KV_EDEV,	/* 1: accelerator */
	KV_EUSAGE,	/* 2 */
	KV_ECORRUPT,	/* 3: damaged or truncated input */
	KV_EUNSUP,	/* 4: valid, but not known to this version */
	KV_EFIT,	/* 5: does not fit: another model, an illegal composition */
};

/* One sentence without a full stop or newline, names from outside already quoted. */
struct kv_err {
	enum kv_status code;
	char text[480];
};

/* Fills err (which may be NULL) and returns code, so that a caller can `return kv_fail(…)`. */
enum kv_status kv_fail(struct kv_err *err, enum kv_status code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The same with KV_EIO and ": " strerror(errno) appended. */
enum kv_status kv_fail_errno(struct kv_err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Out of memory; what = the thing that did not fit. */
enum kv_status kv_fail_mem(struct kv_err *err, const char *what);

/* Puts "where: " in front of the text; returns err->code. */
enum kv_status kv_err_in(struct kv_err *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

int kv_exit_code(enum kv_status code);

#endif
