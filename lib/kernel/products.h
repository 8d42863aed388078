/* Products of a few vectors with many, in an order that is the same on every processor. */
#ifndef KV_KERNEL_PRODUCTS_H
#define KV_KERNEL_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * s [m][n], rows ld floats apart: s_ij = scale times the product of q_i with row j, for q [m][d] and rows [n][d]. Channels are added in
 * ascending order in f32, one after the other. False: no memory.
 */
bool kv_products(const float *q, size_t m, const float *rows, size_t n, size_t d, float scale, float *s, size_t ld);

/* The same of one vector, s [n]: sixteen sums over the channels, which are then joined in pairs. Nothing has to be turned for it. */
void kv_product(const float *q, const float *rows, size_t n, size_t d, float scale, float *s);

#endif
