/* JSON read and put together. */
#include "util/json.h"

#include <errno.h>

json_t *
kv_json_set(json_t *object, const char *key, json_t *value)
{
	if (!json_object_set_new(object, key, value))
		return object;
	json_decref(object);
	return NULL;
}

json_t *
kv_json_add(json_t *array, json_t *value)
{
	if (!json_array_append_new(array, value))
		return array;
	json_decref(array);
	return NULL;
}

json_t *
kv_json_parse(const void *text, size_t n, json_error_t *why, bool *no_memory)
{
	json_t *j;

	/* Where memory is short jansson 2.14 drops bytes of a string, or calls it a syntax error. Only errno tells. */
	errno = 0;
	j = json_loadb(text, n, JSON_REJECT_DUPLICATES, why);
	*no_memory = errno == ENOMEM;
	if (!*no_memory)
		return j;
	json_decref(j);
	return NULL;
}
