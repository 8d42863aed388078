/* Versions, in one place. */
#ifndef KV_UTIL_VERSION_H
#define KV_UTIL_VERSION_H

#define KV_VERSION "0.1.0"

#endif
