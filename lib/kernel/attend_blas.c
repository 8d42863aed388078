/* Attention by OpenBLAS: a whole tile against a block at a time. Keys and values are rows as they come. */
#include "kernel/attend_batch.h"

#include <string.h>

#include "kernel/blas.h"
#include "kernel/clones.h"
#include "kernel/expf.h"
#include "kernel/generic.h"

enum { LD = KV_ATTN_LD, FOLD = 4 };	/* FOLD: tokens whose weights are added in f32, before they go into a sum in f64 */

static void
pack(const struct kv_attn_group *g, struct kv_span s, float *scratch)
{
	(void)scratch;
	kv_attn_keys(g->a, g->l, s, g->k + (s.from - g->all.from) * g->a->d_k);
	kv_attn_values(g->a, g->l, s, g->v + (s.from - g->all.from) * g->a->d_v);
}

KV_CLONES static void
rescale(float *o, size_t n, float by)
{
	for (size_t i = 0; i < n; i++)
		o[i] *= by;
}

/* Scores s [n] of one row become weights; those outside [from, to) become 0. What was summed before is brought to the new maximum. */
static void
soften(const struct kv_attn *a, float *s, size_t n, size_t from, size_t to, float *top, double *sum, float *o)
{
	float highest;

	if (from >= to) {
		memset(s, 0, n * sizeof *s);
		return;
	}
	memset(s, 0, from * sizeof *s);
	memset(s + to, 0, (n - to) * sizeof *s);
	if (a->softcap > 0)
		kv_attn_soft_cap(s + from, to - from, a->softcap);
	highest = kv_attn_top(s + from, to - from);
	if (highest > *top) {
		float by = kv_expf(*top - highest);

		*sum *= (double)by;
		rescale(o, a->d_v, by);
		*top = highest;
	}
	*sum += kv_attn_exp(s + from, to - from, *top);
}

static void
attend(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x)
{
	const struct kv_attn *a = g->a;
	size_t rows = t->tokens * g->heads;
	const float *k = g->k + (x.at - g->all.from) * a->d_k, *v = g->v + (x.at - g->all.from) * a->d_v;
	float *s = t->s + x.b % t->blocks * t->rows * LD;

	kv_blas_multiply(rows, x.n, a->d_k, 1, t->q, a->d_k, k, true, a->d_k, 0, s, LD);
	for (size_t r = 0; r < rows; r++) {
		struct kv_span see = g->see[t->first + r / g->heads];

		soften(a, s + r * LD, x.n, kv_attn_clip(see.from, x.at, x.n), kv_attn_clip(see.to, x.at, x.n), &t->top[r], &t->sum[r],
			t->o + r * a->d_v);
		t->then[x.b % t->blocks * t->rows + r] = t->top[r];
	}
	kv_blas_multiply(rows, a->d_v, x.n, 1, s, LD, v, false, a->d_v, 1, t->o, a->d_v);
}

/* sum and square [n] take FOLD tokens' weights, mean [FOLD][LD]. */
KV_CLONES static void
fold(const float *mean, size_t n, double *sum, double *square)
{
	const float *a = mean, *b = mean + LD, *c = mean + 2 * LD, *d = mean + 3 * LD;

	for (size_t j = 0; j < n; j++) {
		sum[j] += (double)((a[j] + b[j]) + (c[j] + d[j]));
		square[j] += (double)((a[j] * a[j] + b[j] * b[j]) + (c[j] * c[j] + d[j] * d[j]));
	}
}

/* sum [n] += share_i w_i over so many tokens, whose rows stand ld apart; FOLD of them in f32. */
KV_CLONES static void
add_head(const float *w, size_t ld, const float *share, size_t apart, size_t tokens, size_t n, double *sum)
{
	for (size_t i = 0; i < tokens; i += FOLD) {
		const float *a = w + i * ld, *b = i + 1 < tokens ? a + ld : a, *c = i + 2 < tokens ? a + 2 * ld : a, *d = i + 3 < tokens ? a + 3 * ld : a;
		float sa = share[i * apart], sb = b == a ? 0 : share[(i + 1) * apart], sc = c == a ? 0 : share[(i + 2) * apart];
		float sd = d == a ? 0 : share[(i + 3) * apart];

		for (size_t j = 0; j < n; j++)
			sum[j] += (double)((sa * a[j] + sb * b[j]) + (sc * c[j] + sd * d[j]));
	}
}

static void
add_row(const double *x, size_t n, double *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
}

static void
receive(const struct kv_attn_group *g, struct kv_attn_tile *t, struct kv_attn_block x, const struct kv_attn_sums *to)
{
	struct kv_span who = kv_attn_who(g, t, x.at, x.n);
	size_t heads = g->heads, tokens = who.to - who.from;
	const float *s = t->s + (x.b * t->rows + who.from * heads) * LD, *share = t->share + who.from * heads;
	double sum[KV_ATTN_BLOCK], square[KV_ATTN_BLOCK] = { 0 };
	float mean[FOLD][LD];

	_Static_assert(FOLD == 4, "fold and add_head take four");
	kv_attn_shares(g, t, who, x.b);
	for (size_t h = 0; to->by_head && h < heads; h++) {
		memset(sum, 0, sizeof sum);
		add_head(s + h * LD, heads * LD, share + h, heads, tokens, x.n, sum);
		add_row(sum, x.n, to->by_head + h * g->l->n + x.at);
	}
	memset(sum, 0, sizeof sum);
	for (size_t i = 0; to->sum && i < tokens; i += FOLD) {
		for (size_t k = 0; k < FOLD; k++)
			if (i + k < tokens)
				kv_attn_mean(s + (i + k) * heads * LD, LD, heads, share + (i + k) * heads, x.n, mean[k]);
			else
				memset(mean[k], 0, x.n * sizeof *mean[k]);
		fold(mean[0], x.n, sum, square);
	}
	if (to->sum) {
		add_row(sum, x.n, to->sum + x.at);
		add_row(square, x.n, to->square + x.at);
	}
}

bool
kv_generic_attend(struct kv_pool *pool, const struct kv_attn *a, const float *q, size_t m, float *out)
{
	static const struct kv_attn_level blas = { 1, 1, 1, pack, attend, receive };

	if (m == 1)
		return kv_attend_one(pool, a, &kv_attn_generic, q, out);
	return kv_blas_load(NULL) == KV_OK && kv_attend_batch(pool, a, &blas, q, m, out);
}
