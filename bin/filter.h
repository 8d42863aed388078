/* The main of every filter: a stage, mapped over the snapshots of a sequence. */
#ifndef KV_BIN_FILTER_H
#define KV_BIN_FILTER_H

#include "stage/stage.h"

int kv_filter_main(const struct kv_stage *stage, int argc, char **argv);

#endif
