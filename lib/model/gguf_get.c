/* Values of a GGUF file by key: typed, in range, or a message that names the key. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "model/gguf_int.h"
#include "util/le.h"
#include "util/text.h"

static enum kv_status
wrong(const struct kv_gguf *g, const char *key, const char *why, struct kv_err *err)
{
	return kv_fail(err, KV_ECORRUPT, "%s: key '%s' %s", g->name, key, why);
}

/* False: no integer, or a negative one. */
static bool
get_unsigned(uint32_t type, const uint8_t *p, uint64_t *v)
{
	switch (type) {
	case KV_GGUF_U8:
	case KV_GGUF_I8:
		*v = *p;
		return type == KV_GGUF_U8 || *v <= INT8_MAX;
	case KV_GGUF_U16:
	case KV_GGUF_I16:
		*v = le16_get(p);
		return type == KV_GGUF_U16 || *v <= INT16_MAX;
	case KV_GGUF_U32:
	case KV_GGUF_I32:
		*v = le32_get(p);
		return type == KV_GGUF_U32 || *v <= INT32_MAX;
	case KV_GGUF_U64:
	case KV_GGUF_I64:
		*v = le64_get(p);
		return type == KV_GGUF_U64 || *v <= INT64_MAX;
	default:
		return false;
	}
}

enum kv_status
kv_gguf_u64(const struct kv_gguf *g, const char *key, uint64_t max, uint64_t *out, struct kv_err *err)
{
	const struct kv_gguf_pair *p = kv_gguf_pair(g, key);
	uint64_t v;

	if (!p)
		return KV_END;
	if (!get_unsigned(p->type, p->value, &v))
		return wrong(g, key, "is no whole number from 0 on", err);
	if (v > max)
		return kv_fail(err, KV_ECORRUPT, "%s: key '%s' is %" PRIu64 ", more than %" PRIu64, g->name, key, v, max);
	*out = v;
	return KV_OK;
}

enum kv_status
kv_gguf_f32(const struct kv_gguf *g, const char *key, float *out, struct kv_err *err)
{
	const struct kv_gguf_pair *p = kv_gguf_pair(g, key);
	float v;

	if (!p)
		return KV_END;
	if (p->type != KV_GGUF_F32 && p->type != KV_GGUF_F64)
		return wrong(g, key, "is no floating-point number", err);
	v = p->type == KV_GGUF_F32 ? lef32_get(p->value) : (float)lef64_get(p->value);
	if (!isfinite(v))
		return wrong(g, key, "is not finite", err);
	*out = v;
	return KV_OK;
}

enum kv_status
kv_gguf_bool(const struct kv_gguf *g, const char *key, bool *out, struct kv_err *err)
{
	const struct kv_gguf_pair *p = kv_gguf_pair(g, key);

	if (!p)
		return KV_END;
	if (p->type != KV_GGUF_BOOL)
		return wrong(g, key, "is no truth value", err);
	*out = *p->value != 0;
	return KV_OK;
}

enum kv_status
kv_gguf_str(const struct kv_gguf *g, const char *key, struct kv_str *out, struct kv_err *err)
{
	const struct kv_gguf_pair *p = kv_gguf_pair(g, key);

	if (!p)
		return KV_END;
	if (p->type != KV_GGUF_STR)
		return wrong(g, key, "is no text", err);
	*out = (struct kv_str){ (const char *)p->value + 8, p->n - 8 };
	return KV_OK;
}

enum kv_status
kv_gguf_array(const struct kv_gguf *g, const char *key, struct kv_gguf_array *out, struct kv_err *err)
{
	const struct kv_gguf_pair *p = kv_gguf_pair(g, key);

	if (!p)
		return KV_END;
	if (p->type != KV_GGUF_ARRAY)
		return wrong(g, key, "is no array", err);
	*out = (struct kv_gguf_array){ le32_get(p->value), le64_get(p->value + 4), p->value + 12, p->n - 12 };
	return KV_OK;
}

bool
kv_gguf_is_array(const struct kv_gguf *g, const char *key)
{
	const struct kv_gguf_pair *p = kv_gguf_pair(g, key);

	return p && p->type == KV_GGUF_ARRAY;
}

/* NULL when there is no element i. */
static const uint8_t *
elem(const struct kv_gguf_array *a, uint64_t i)
{
	return a->type != KV_GGUF_STR && i < a->n ? a->p + i * (a->bytes / a->n) : NULL;
}

enum kv_status
kv_gguf_elem_u64(const struct kv_gguf_array *a, uint64_t i, uint64_t max, uint64_t *out)
{
	const uint8_t *p = elem(a, i);
	uint64_t v;

	if (!p)
		return KV_ECORRUPT;
	if (a->type == KV_GGUF_BOOL)
		v = *p != 0;
	else if (!get_unsigned(a->type, p, &v))
		return KV_ECORRUPT;
	if (v > max)
		return KV_ECORRUPT;
	*out = v;
	return KV_OK;
}

enum kv_status
kv_gguf_elem_f32(const struct kv_gguf_array *a, uint64_t i, float *out)
{
	const uint8_t *p = elem(a, i);

	if (!p || (a->type != KV_GGUF_F32 && a->type != KV_GGUF_I32))
		return KV_ECORRUPT;
	*out = a->type == KV_GGUF_F32 ? lef32_get(p) : (float)(int32_t)le32_get(p);
	return KV_OK;
}

enum kv_status
kv_gguf_next_str(const struct kv_gguf_array *a, const uint8_t **at, struct kv_str *out)
{
	if (a->type != KV_GGUF_STR)
		return KV_ECORRUPT;
	if (*at >= a->p + a->bytes)
		return KV_END;
	out->n = (size_t)le64_get(*at);
	out->p = (const char *)*at + 8;
	*at += 8 + out->n;
	return KV_OK;
}
