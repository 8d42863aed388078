/* The table of rotation frequencies that a model's scaling rule stands for (formats/kvs.md, section 7.2). */
#ifndef KV_MODEL_FREQUENCIES_H
#define KV_MODEL_FREQUENCIES_H

#include "kvs/geom.h"

/*
 * Fills inv_freq and magnitude from the other fields of r, in double with one rounding at the end. factors [n_rot/2] divide the
 * frequencies; NULL: none. attn_factor is the part of the magnitude that the model file gives.
 */
void kv_frequencies(struct kvs_rope *r, const float *factors, double attn_factor);

#endif
