/* JSON read and put together so that a failed allocation spoils the whole: the result is then NULL, never a value with a hole in it. */
#ifndef KV_UTIL_JSON_H
#define KV_UTIL_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Both take what they are given, and return the first; NULL if one of the two is NULL or memory is short. */
json_t *kv_json_set(json_t *object, const char *key, json_t *value);
json_t *kv_json_add(json_t *array, json_t *value);

/* No key twice. NULL: no JSON, as *why (may be NULL) tells, or *no_memory. */
json_t *kv_json_parse(const void *text, size_t n, json_error_t *why, bool *no_memory);

#endif
