/* UTF-8, strictly: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef KV_UTIL_UTF8_H
#define KV_UTIL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length of the well-formed character at p[0..n), 1 to 4; 0 if there is none. */
size_t kv_utf8_len(const uint8_t *p, size_t n);
/* Bytes of p[0..n) to hold back because they begin a character that may still be completed: 0 to 3. */
size_t kv_utf8_partial(const uint8_t *p, size_t n);

#endif
