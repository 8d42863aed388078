/* What both ways of attending share: what a query sees, keys made ready, pieces of a softmax. */
#ifndef KV_KERNEL_ATTEND_H
#define KV_KERNEL_ATTEND_H

#include "kernel/ops.h"

/* Entries [from, to) of a list. */
struct kv_span {
	size_t from, to;
};

/* What query i sees of a list: sources up to its own, positions inside the window. Both ascend. */
struct kv_span kv_attn_visible(const struct kv_attn *a, const struct kv_attn_list *l, size_t i);

/* Rows [from, to) of the keys as f32 [to - from][d_k], turned; of the values as f32 [to - from][d_v]. */
void kv_attn_keys(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span s, float *out);
void kv_attn_values(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span s, float *out);

/* s_j = cap tanh(s_j / cap) */
void kv_attn_soft_cap(float *s, size_t n, float cap);
float kv_attn_top(const float *s, size_t n);	/* the largest; -FLT_MAX at least */
/* s_j = e^(s_j - top); their sum */
double kv_attn_exp(float *s, size_t n, float top);

/* a [n] = the sum over the heads of share_h times w_h, rows of w being ld apart: shares hold 1 / (heads times the row's sum) */
void kv_attn_mean(const float *w, size_t ld, size_t heads, const float *share, size_t n, float *a);

/* One query for each head: the keys in chunks of fixed ranks, so that threads find work at any depth. */
bool kv_attend_one(struct kv_pool *pool, const struct kv_attn *a, const float *q, float *out);

#endif
