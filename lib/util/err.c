/* Error values: made by the library, printed only by bin/. */
#include "util/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 0))) static void
fill(struct kv_err *err, enum kv_status code, const char *fmt, va_list ap)
{
	if (!err)
		return;
	err->code = code;
	vsnprintf(err->text, sizeof err->text, fmt, ap);
}

enum kv_status
kv_fail(struct kv_err *err, enum kv_status code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fill(err, code, fmt, ap);
	va_end(ap);
	return code;
}

enum kv_status
kv_fail_errno(struct kv_err *err, const char *fmt, ...)
{
	int sys = errno;
	va_list ap;

	va_start(ap, fmt);
	fill(err, KV_EIO, fmt, ap);
	va_end(ap);
	if (err) {
		size_t n = strlen(err->text);
		snprintf(err->text + n, sizeof err->text - n, ": %s", strerror(sys));
	}
	return KV_EIO;
}

enum kv_status
kv_fail_mem(struct kv_err *err, const char *what)
{
	return kv_fail(err, KV_ENOMEM, "out of memory for %s", what);
}

enum kv_status
kv_err_in(struct kv_err *err, const char *fmt, ...)
{
	char where[sizeof err->text], old[sizeof err->text];
	va_list ap;
	size_t n;

	memcpy(old, err->text, sizeof old);
	va_start(ap, fmt);
	vsnprintf(where, sizeof where, fmt, ap);
	va_end(ap);
	n = (size_t)snprintf(err->text, sizeof err->text, "%.200s: ", where);
	snprintf(err->text + n, sizeof err->text - n, "%.*s", (int)(sizeof err->text - n - 1), old);
	return err->code;
}

int
kv_exit_code(enum kv_status code)
{
	switch (code) {
	case KV_OK:
	case KV_END:
		return 0;
	case KV_EIO:
	case KV_ENOMEM:
	case KV_EDEV:
		return 1;
	case KV_EUSAGE:
		return 2;
	case KV_ECORRUPT:
		return 3;
	case KV_EUNSUP:
		return 4;
	case KV_EFIT:
		return 5;
	}
	return 1;
}
