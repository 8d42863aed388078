/* How many channels go: ratios as decimal strings, integers throughout. */
#include <string.h>

#include "policy/channels.h"
#include "util/text.h"

enum { MOST_DIGITS = 9 };

enum kv_status
kv_parse_ratio(const char *what, const char *s, struct kv_ratio *out, struct kv_err *err)
{
	struct kv_ratio r = { 0, 1 };
	unsigned digits = 0;
	bool point = false;
	const char *p = s;
	char q[60];

	for (; (*p >= '0' && *p <= '9') || (*p == '.' && !point); p++) {
		if (*p == '.') {
			point = true;
			continue;
		}
		r.num = r.num * 10 + (uint64_t)(*p - '0');
		r.den *= point ? 10 : 1;
		if (++digits > MOST_DIGITS)
			return kv_fail(err, KV_EUSAGE, "%s: '%s' has too many digits", what, kv_quote(q, sizeof q, s, strlen(s)));
	}
	if (*p || !digits)
		return kv_fail(err, KV_EUSAGE, "%s: '%s' is not a ratio such as 0.4", what, kv_quote(q, sizeof q, s, strlen(s)));
	if (r.num >= r.den)
		return kv_fail(err, KV_EUSAGE, "%s: '%s' is not below 1", what, kv_quote(q, sizeof q, s, strlen(s)));
	*out = r;
	return KV_OK;
}

bool
kv_ratio_above(struct kv_ratio r, struct kv_ratio limit)
{
	return r.num * limit.den > limit.num * r.den;
}

unsigned
kv_channels_to_drop(struct kv_ratio r, unsigned d, enum kv_rounding how)
{
	uint64_t n = how == KV_ROUND_CODE ? d * r.num / r.den : d - d * (r.den - r.num) / r.den;

	return n < d ? (unsigned)n : d - 1;
}
