/* Words of the command line that the tools with a model share. */
#include "loop/words.h"

#include <stdio.h>
#include <string.h>

#include "util/text.h"

static enum kv_status
unknown(const char *what, const char *arg, size_t n, const char *words, struct kv_err *err)
{
	char q[60];

	return kv_fail(err, KV_EUSAGE, "%s: '%s' is not one of %s", what, kv_quote(q, sizeof q, arg, n), words);
}

enum kv_status
kv_parse_observe(const char *arg, struct kv_observe *out, struct kv_err *err)
{
	struct kv_observe o = { .last = KV_LAST_DEFAULT };
	enum kv_status rc;
	int64_t n;

	for (const char *p = arg, *end; ; p = end + 1) {
		char word[32];
		size_t len;

		end = p + strcspn(p, ",");
		len = (size_t)(end - p);
		snprintf(word, sizeof word, "%.*s", (int)(len < sizeof word ? len : sizeof word - 1), p);
		if (!strcmp(word, "none") && p == arg && !*end)
			o = (struct kv_observe){ 0 };
		else if (!strcmp(word, "nll"))
			o.nll = true;
		else if (!strcmp(word, "acc"))
			o.received = true;
		else if (!strcmp(word, "chunk"))
			o.chunk = true;
		else if (!strncmp(word, "last=", 5)) {
			if ((rc = kv_parse_int("--observe last", word + 5, 1, 1 << 20, &n, err)) != KV_OK)
				return rc;
			o.last = (uint32_t)n;
		} else
			return unknown("--observe", p, len, "last=N, acc, nll, chunk, none", err);
		if (!*end)
			break;
	}
	*out = o;
	return KV_OK;
}

enum kv_status
kv_parse_dtype(const char *arg, enum kvs_dtype *out, struct kv_err *err)
{
	static const enum kvs_dtype types[] = { KVS_F16, KVS_BF16, KVS_F32 };

	for (int i = 0; i < 3; i++)
		if (!strcmp(arg, kvs_dtype_name(types[i]))) {
			*out = types[i];
			return KV_OK;
		}
	return unknown("--dtype", arg, strlen(arg), "f16, bf16, f32", err);
}

enum kv_status
kv_parse_history(const char *arg, enum kv_history *out, struct kv_err *err)
{
	static const char *const words[] = { [KV_HISTORY_ALL] = "all", [KV_HISTORY_ALIVE] = "alive", [KV_HISTORY_NONE] = "none" };

	for (enum kv_history h = KV_HISTORY_ALL; h <= KV_HISTORY_NONE; h++)
		if (!strcmp(arg, words[h])) {
			*out = h;
			return KV_OK;
		}
	return unknown("--history", arg, strlen(arg), "all, alive, none", err);
}

enum kv_status
kv_parse_precision(const char *arg, enum kv_precision *out, struct kv_err *err)
{
	if (strcmp(arg, "fast") && strcmp(arg, "f32"))
		return unknown("--precision", arg, strlen(arg), "fast, f32", err);
	*out = !strcmp(arg, "f32") ? KV_EXACT : KV_FAST;
	return KV_OK;
}

struct kv_observe
kv_observe_on(const struct kv_observe *asked, const struct kv_cache *c)
{
	struct kv_observe o = *asked;
	unsigned lists = c->geom.n_layers * c->geom.n_heads_kv;

	if (!o.last && !o.nll && !o.received && !o.chunk)
		return o;
	o.nll |= c->has_nll;
	for (unsigned i = 0; i < lists && !o.received; i++)
		o.received = c->list[i].received != NULL;
	return o;
}
