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

/* Rows [from, to) of the keys as f32 [to - from][d_k], turned; of the values as f32 [to - from][d_v]. Channels that were dropped are 0. */
void kv_attn_keys(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span s, float *out);
void kv_attn_values(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span s, float *out);

/*
 * The part at the front of a span whose rows are kept in one way: in the segment returned, or plain if that is NULL; *rest loses it.
 * seg [n]: those of the keys, or of the values.
 */
const struct kv_attn_segment *kv_attn_part(const struct kv_attn_segment *seg, size_t n, struct kv_span *rest, struct kv_span *part);
/* Codes in groups of rows: the group of a row, counted from the segment's first. */
size_t kv_attn_group(const struct kv_attn_segment *s, size_t row);
/* n numbers of an element type, from the at-th on. */
void kv_attn_numbers(unsigned dtype, const void *rows, size_t at, size_t n, float *out);
/* Rows of a segment as f32 [v.to - v.from][width]; scratch [2 * width]. At full width [v.to - v.from][d], what was dropped being 0. */
void kv_attn_unpack(const struct kv_attn_segment *s, struct kv_span v, float *out, float *scratch);
void kv_attn_widened(const struct kv_attn_segment *s, struct kv_span v, size_t d, float *out);

/* s_j = cap tanh(s_j / cap) */
void kv_attn_soft_cap(float *s, size_t n, float cap);
float kv_attn_top(const float *s, size_t n);	/* the largest; -FLT_MAX at least */
/* s_j = e^(s_j - top); their sum */
double kv_attn_exp(float *s, size_t n, float top);

/* a [n] = the mean over the heads of share_h times w_h, rows of w being ld apart: shares hold 1 / the row's sum */
void kv_attn_mean(const float *w, size_t ld, size_t heads, const float *share, size_t n, float *a);

enum { KV_ATTN_CHUNK = 256 };	/* entries that one query is attended to at a time, at most */

/*
 * What attending one token is made of, for a few query heads of one kv head and the entries v of its list; a level may have its own.
 * A span has at most KV_ATTN_CHUNK entries, rows is scratch space for as many, [max(d_k, d_v)] each; s and p have a row a head, ld floats apart.
 */
struct kv_attn_parts {
	/* s [heads][ld]: scale times the products of q [heads][d_k] with the turned keys */
	void (*scores)(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *q, size_t heads, float *rows,
		float *s, size_t ld);
	/* o [heads], ld_o floats apart, += the sum of p_j times value j, in order of j */
	void (*weigh)(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span v, const float *p, size_t ld, size_t heads,
		float *rows, float *o, size_t ld_o);
	/* s_j [n] = e^(s_j - *top), *top being the largest of them; their sum */
	double (*soften)(float *s, size_t n, float *top);
};

extern const struct kv_attn_parts kv_attn_generic;

/* One query for each head: the keys in chunks of fixed ranks, so that threads find work at any depth. */
bool kv_attend_one(struct kv_pool *pool, const struct kv_attn *a, const struct kv_attn_parts *parts, const float *q, float *out);

#endif
