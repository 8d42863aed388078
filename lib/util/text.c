/* Numbers and names at the command line. */
#include "util/text.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/utf8.h"

static enum kv_status
bad(const char *what, const char *s, const char *why, struct kv_err *err)
{
	char q[80];

	return kv_fail(err, KV_EUSAGE, "%s: '%s' %s", what, kv_quote(q, sizeof q, s, strlen(s)), why);
}

static bool
starts_as_number(const char *s)
{
	s += *s == '-';
	return *s >= '0' && *s <= '9';
}

enum kv_status
kv_parse_int(const char *what, const char *s, int64_t min, int64_t max, int64_t *out, struct kv_err *err)
{
	char *end, why[80];
	long long v;

	if (!starts_as_number(s))
		return bad(what, s, "is not a whole number", err);
	errno = 0;
	v = strtoll(s, &end, 10);
	if (*end)
		return bad(what, s, "is not a whole number", err);
	if (errno || v < min || v > max) {
		snprintf(why, sizeof why, "is not in %lld to %lld", (long long)min, (long long)max);
		return bad(what, s, why, err);
	}
	*out = v;
	return KV_OK;
}

enum kv_status
kv_parse_size(const char *what, const char *s, uint64_t *out, struct kv_err *err)
{
	static const char units[] = "KMG";
	unsigned long long v;
	const char *u;
	char *end;

	if (*s == '-' || !starts_as_number(s))
		return bad(what, s, "is not a size", err);
	errno = 0;
	v = strtoull(s, &end, 10);
	if (*end && (u = strchr(units, *end))) {
		unsigned shift = 10 * (unsigned)(u - units + 1);

		if (v > UINT64_MAX >> shift)
			errno = ERANGE;
		v <<= shift;
		end++;
	}
	if (*end)
		return bad(what, s, "is not a size (a number, then K, M or G)", err);
	if (errno)
		return bad(what, s, "is too large", err);
	*out = v;
	return KV_OK;
}

enum kv_status
kv_parse_real(const char *what, const char *s, double min, double max, double *out, struct kv_err *err)
{
	char *end, why[80];
	double v = strtod(s, &end);

	if (end == s || *end || !isfinite(v) || strpbrk(s, "xXnN \t\n"))
		return bad(what, s, "is not a number", err);
	if (v < min || v > max) {
		snprintf(why, sizeof why, "is not in %g to %g", min, max);
		return bad(what, s, why, err);
	}
	*out = v;
	return KV_OK;
}

enum kv_status
kv_parse_amount(const char *what, const char *s, struct kv_amount *out, struct kv_err *err)
{
	struct kv_amount a = { 0, 0 };
	const char *p = s;
	uint64_t den = 1;
	bool point = false;

	if (!starts_as_number(s) || *s == '-')
		return bad(what, s, "is not a number of entries (512) or a share (25%)", err);
	for (; (*p >= '0' && *p <= '9') || (*p == '.' && !point); p++) {
		if (*p == '.') {
			point = true;
			continue;
		}
		if (a.num > 1000000000000u || den > 1000000u)
			return bad(what, s, "has too many digits", err);
		a.num = a.num * 10 + (uint64_t)(*p - '0');
		den *= point ? 10 : 1;
	}
	if (*p == '%' && !p[1])
		a.den = den * 100;
	else if (*p || point)
		return bad(what, s, "is not a number of entries (512) or a share (25%)", err);
	if (!a.num)
		return bad(what, s, "is nothing; at least 1 entry is kept", err);
	if (a.den && a.num > a.den)
		return bad(what, s, "is more than the whole", err);
	*out = a;
	return KV_OK;
}

uint64_t
kv_amount_of(struct kv_amount a, uint64_t n)
{
	uint64_t k;

	if (!a.den)
		return a.num;
	k = n * a.num / a.den;	/* below 2^32 times 10^9 */
	return k ? k : 1;
}

char *
kv_quote(char *buf, size_t size, const char *s, size_t n)
{
	size_t o = 0, i = 0;

	/* 8 bytes are kept back: four of an escape or a character, three of "…", the NUL. */
	while (i < n && o + 8 < size) {
		size_t len = kv_utf8_len((const uint8_t *)s + i, n - i);
		unsigned char c = (unsigned char)s[i];

		if (!len || c < 0x20 || c == 0x7f || c == '\'' || (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0)) {
			o += (size_t)snprintf(buf + o, size - o, "\\x%02x", c);
			i++;
		} else {
			memcpy(buf + o, s + i, len);
			o += len;
			i += len;
		}
	}
	if (i < n && o + 4 <= size) {
		memcpy(buf + o, "…", 3);
		o += 3;
	}
	buf[o] = 0;
	return buf;
}
