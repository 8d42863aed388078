/* Numbers and names at the command line: whole-string parsing, quoting of what comes from outside. */
#ifndef KV_UTIL_TEXT_H
#define KV_UTIL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "util/err.h"

/* Each takes the whole string or fails with KV_EUSAGE, naming what (an option such as "-k"). */
enum kv_status kv_parse_int(const char *what, const char *s, int64_t min, int64_t max, int64_t *out, struct kv_err *err);
enum kv_status kv_parse_size(const char *what, const char *s, uint64_t *out, struct kv_err *err);	/* 64M: K, M, G are 1024-based */
enum kv_status kv_parse_real(const char *what, const char *s, double min, double max, double *out, struct kv_err *err);

/* A count or a share: "512", "25%", "12.5%". The share is kept as a fraction of integers, never as a float. */
struct kv_amount {
	uint64_t num, den;	/* den = 0: num is a count; else the share num/den of a whole */
};

enum kv_status kv_parse_amount(const char *what, const char *s, struct kv_amount *out, struct kv_err *err);
/* The count itself, or floor(n * num / den), at least 1; n < 2^32. */
uint64_t kv_amount_of(struct kv_amount a, uint64_t n);

/* s[0..n) for a message: control characters, quotes and bytes that are not UTF-8 as \xNN, long text cut with "…". Returns buf. */
char *kv_quote(char *buf, size_t size, const char *s, size_t n);

#endif
