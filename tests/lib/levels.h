/* The levels of the processor that tests can go through. */
#ifndef KV_TESTS_LEVELS_H
#define KV_TESTS_LEVELS_H

#include "kernel/level.h"

/* out [KV_N_LEVELS]: the tables of the levels that this processor has, from the generic one up; their number. */
size_t levels_here(const struct kv_ops **out);

#endif
