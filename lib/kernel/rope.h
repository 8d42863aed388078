/*
 * Rotary positions (formats/kvs.md 7.2): phi = f32(f32(p) * inv_freq[i]); cos and sin of that f32 angle in double, rounded to f32,
 * times the magnitude. The same numbers in the forward pass, in policies and in CUDA.
 */
#ifndef KV_KERNEL_ROPE_H
#define KV_KERNEL_ROPE_H

#include <stddef.h>
#include <stdint.h>

/* Cosines and sines of positions, remembered: a cache of bounded size in front of the definition. Not for two threads at once. */
struct kv_angles;

/* inv_freq [n_rot/2] is copied. NULL: no memory. */
struct kv_angles *kv_angles_new(unsigned n_rot, const float *inv_freq, float magnitude);
void kv_angles_free(struct kv_angles *a);
/* out [n][n_rot/2][2] = (cos, sin) */
void kv_angles_get(struct kv_angles *a, const int32_t *pos, size_t n, float *out);

/* Turns x[0..n_rot) in place by cs [n_rot/2][2]; neox: pairs (i, i + n_rot/2), else (2i, 2i+1). */
void kv_rotate(float *x, unsigned n_rot, int neox, const float *cs);

#endif
