/* UTF-8, strictly. */
#include "util/utf8.h"

static size_t
want(uint8_t c)
{
	return c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
}

/* The second byte carries all the exceptions: overlong forms, surrogates, the upper end. */
static int
second_ok(uint8_t first, uint8_t c)
{
	uint8_t lo = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
	uint8_t hi = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;

	return c >= lo && c <= hi;
}

size_t
kv_utf8_len(const uint8_t *p, size_t n)
{
	size_t len = n ? want(p[0]) : 0;

	if (len > n || (len > 1 && !second_ok(p[0], p[1])))
		return 0;
	for (size_t i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

size_t
kv_utf8_partial(const uint8_t *p, size_t n)
{
	for (size_t back = 1; back <= 3 && back <= n; back++) {
		const uint8_t *c = p + n - back;

		if ((*c & 0xc0) == 0x80)
			continue;
		if (want(*c) <= back || (back > 1 && !second_ok(c[0], c[1])))
			return 0;
		return back;
	}
	return 0;
}
