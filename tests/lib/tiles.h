/*
 * The tile registers of AMX in plain C, so that kernels made of them run anywhere: eight tiles a thread, palette 1, products of bf16 as the
 * processor makes them. A use that a processor would refuse ends the program.
 */
#ifndef KV_TESTS_TILES_H
#define KV_TESTS_TILES_H

#include <stddef.h>

void tiles_config(const void *config);	/* 64 bytes */
void tiles_release(void);
void tiles_load(unsigned tile, const void *p, size_t stride);
void tiles_store(unsigned tile, void *p, size_t stride);
void tiles_zero(unsigned tile);
void tiles_products(unsigned sum, unsigned left, unsigned right);

#endif
