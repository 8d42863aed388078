/*
 * The operations a forward pass is made of, on plain buffers. A table per level of the processor; the generic one (C and
 * OpenBLAS, f32 throughout) is the definition of each. Work is split over output rows, heads and tokens, never over a sum:
 * results do not depend on the number of threads. All f32 matrices are row-major, [tokens][features].
 */
#ifndef KV_KERNEL_OPS_H
#define KV_KERNEL_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/pool.h"

/* A weight matrix in the mapped file: n_out rows of n_in values. */
struct kv_weight {
	const uint8_t *data;
	uint32_t type;		/* enum kv_wtype */
	size_t n_out, n_in, row_bytes;
};

enum kv_activation { KV_SILU, KV_GELU };

/*
 * Rows of keys or values that are not plain (formats/kvs.md, section 10): the entries from … to - 1 of a list, narrowed to some channels, in
 * codes, or both.
 */
struct kv_attn_segment {
	size_t from, to;
	size_t width, row_bytes;
	const uint8_t *data;	/* [to - from][row_bytes] */
	uint8_t dtype;		/* 1 f32, 2 f16, 3 bf16, 16 codes */
	bool turned;		/* keys: after RoPE */
	const uint16_t *channel;	/* [width] ascending: which channels the columns are, the others being 0; NULL: all */
	uint8_t scheme, bits;	/* codes: groups of 1 rows, 2 channels; of 2, 4 or 8 bits */
	uint8_t scale_dtype;	/* 1 f32, 2 f16 */
	uint32_t group;		/* channels of a group, with scheme 2 */
	const uint32_t *group_end;	/* [n_groups] with scheme 1: one past the last row of each, counted from `from` */
	size_t n_groups;
	const uint8_t *scales, *minima;	/* scheme 1 [n_groups][width], 2 [to - from][width / group]: x = code * scale + minimum */
};

/* What one kv head offers to be attended: n entries, in time order. Plain rows stand behind those in segments, if there are any. */
struct kv_attn_list {
	size_t n;
	const void *k, *v;	/* plain rows [][d_k], [][d_v] of the types below; k before RoPE */
	uint8_t k_dtype, v_dtype;	/* 1 f32, 2 f16, 3 bf16 */
	const uint32_t *src;
	const int32_t *pos;
	const float *angles;	/* [n][n_rot/2][2]; NULL: this layer does not rotate */
	const struct kv_attn_segment *k_seg, *v_seg;	/* [n_k_seg], [n_v_seg], joining from entry 0 on */
	size_t n_k_seg, n_v_seg;
};

/*
 * The attention that the entries of a list receive. To sum is added, query by query, the mean over the group's heads of the weights that an
 * entry gets, to square the square of that mean; to by_head the weights themselves, query head by query head.
 */
struct kv_attn_sums {
	double *sum, *square;	/* [n]; NULL: not asked for */
	double *by_head;	/* [heads of the group][n]; NULL: not asked for */
};

struct kv_attn {
	size_t heads, kv_heads, d_k, d_v;
	float scale, softcap;	/* softcap 0 = none */
	uint32_t window;	/* 0 = global; else visible iff pos_q - pos_k < window */
	unsigned n_rot;
	bool neox;
	const struct kv_attn_list *list;	/* [kv_heads] */
	const uint32_t *q_src;	/* [m] key j is visible to query i iff src_j <= q_src_i */
	const int32_t *q_pos;	/* [m] */
	const struct kv_attn_sums *received;	/* [kv_heads]; NULL: not asked for */
};

struct kv_ops {
	const char *level;
	size_t batch;		/* tokens a forward is best done with */

	/* out [m][n_in] = rows ids[0..m) of w */
	void (*embed)(struct kv_pool *, const struct kv_weight *w, const uint32_t *ids, size_t m, float *out);
	/* y_i = x_i / sqrt(mean(x^2) + eps) * gain_i over m rows of n, ld floats apart; y may be x */
	void (*rmsnorm)(struct kv_pool *, const float *x, const float *gain, float eps, size_t m, size_t n, size_t ld, float *y);
	/* y [m][n_out] = x [m][n_in] times w transposed, or added to what y holds */
	bool (*matmul)(struct kv_pool *, const struct kv_weight *w, const float *x, size_t m, float *y, bool add);
	void (*add_bias)(float *y, const float *bias, size_t m, size_t n);
	/* turns `heads` vectors of d at every row of x [m][heads * d]; angles [m][n_rot/2][2] */
	void (*rope)(struct kv_pool *, float *x, size_t m, size_t heads, size_t d, unsigned n_rot, bool neox, const float *angles);
	/* out [m][heads * d_v] = softmax attention of the turned queries q [m][heads * d_k] */
	bool (*attend)(struct kv_pool *, const struct kv_attn *, const float *q, size_t m, float *out);
	/* gate_i = act(gate_i) * up_i */
	void (*activate)(struct kv_pool *, enum kv_activation, float *gate, const float *up, size_t n);
};
/* bool operations: false when scratch memory cannot be had. */

extern const struct kv_ops kv_ops_generic;
extern const struct kv_ops kv_ops_avx2, kv_ops_avx512, kv_ops_amx;	/* made for x86-64 alone; run only where kernel/level.h says so */

#endif
