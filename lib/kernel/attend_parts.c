/* Visibility, keys made ready, and the pieces of a softmax. */
#include "kernel/attend.h"

#include <float.h>

#include "kernel/clones.h"
#include "kernel/expf.h"
#include "kernel/rope.h"

/* First entry whose source is beyond src. */
static size_t
first_after(const uint32_t *v, size_t n, uint32_t src)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (v[mid] <= src)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* First entry whose position is inside the window of a query at pos. */
static size_t
first_inside(const int32_t *v, size_t n, int32_t pos, uint32_t window)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if ((int64_t)pos - v[mid] >= (int64_t)window)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct kv_span
kv_attn_visible(const struct kv_attn *a, const struct kv_attn_list *l, size_t i)
{
	struct kv_span s = { 0, first_after(l->src, l->n, a->q_src[i]) };

	if (a->window)
		s.from = first_inside(l->pos, s.to, a->q_pos[i], a->window);
	return s;
}

static size_t
front(const struct kv_attn_segment *seg, size_t n)
{
	return n ? seg[n - 1].to : 0;
}

static void
turn_keys(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span s, float *k)
{
	for (size_t j = s.from; l->angles && j < s.to; j++)
		kv_rotate(k + (j - s.from) * a->d_k, a->n_rot, a->neox, l->angles + j * a->n_rot);
}

void
kv_attn_keys(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span s, float *out)
{
	struct kv_span part;

	for (; s.from < s.to; out += (part.to - part.from) * a->d_k) {
		const struct kv_attn_segment *seg = kv_attn_part(l->k_seg, l->n_k_seg, &s, &part);

		if (seg)
			kv_attn_widened(seg, part, a->d_k, out);
		else
			kv_attn_numbers(l->k_dtype, l->k, (part.from - front(l->k_seg, l->n_k_seg)) * a->d_k, (part.to - part.from) * a->d_k, out);
		if (!seg || !seg->turned)
			turn_keys(a, l, part, out);
	}
}

void
kv_attn_values(const struct kv_attn *a, const struct kv_attn_list *l, struct kv_span s, float *out)
{
	struct kv_span part;

	for (; s.from < s.to; out += (part.to - part.from) * a->d_v) {
		const struct kv_attn_segment *seg = kv_attn_part(l->v_seg, l->n_v_seg, &s, &part);

		if (seg)
			kv_attn_widened(seg, part, a->d_v, out);
		else
			kv_attn_numbers(l->v_dtype, l->v, (part.from - front(l->v_seg, l->n_v_seg)) * a->d_v, (part.to - part.from) * a->d_v, out);
	}
}

/* tanh u = 1 - 2 / (e^2u + 1) */
KV_CLONES static void
soft_cap(float *s, size_t n, float cap)
{
	for (size_t j = 0; j < n; j++)
		s[j] = cap * (1 - 2 / (kv_expf(2 * (s[j] / cap)) + 1));
}

KV_CLONES static float
largest(const float *s, size_t n)
{
	float part[16], top = -FLT_MAX;
	size_t j = 0;

	for (size_t i = 0; i < 16; i++)
		part[i] = -FLT_MAX;
	for (; j + 16 <= n; j += 16)
		for (size_t i = 0; i < 16; i++)
			part[i] = s[j + i] > part[i] ? s[j + i] : part[i];
	for (; j < n; j++)
		top = s[j] > top ? s[j] : top;
	for (size_t i = 0; i < 16; i++)
		top = part[i] > top ? part[i] : top;
	return top;
}

KV_CLONES static double
exp_and_sum(float *s, size_t n, float top)
{
	double part[16] = { 0 }, sum = 0;
	size_t j = 0;

	for (size_t i = 0; i < n; i++)
		s[i] = kv_expf(s[i] - top);
	for (; j + 16 <= n; j += 16)
		for (size_t i = 0; i < 16; i++)
			part[i] += (double)s[j + i];
	for (; j < n; j++)
		sum += (double)s[j];
	for (size_t i = 0; i < 16; i++)
		sum += part[i];
	return sum;
}

void
kv_attn_soft_cap(float *s, size_t n, float cap)
{
	soft_cap(s, n, cap);
}

float
kv_attn_top(const float *s, size_t n)
{
	return largest(s, n);
}

double
kv_attn_exp(float *s, size_t n, float top)
{
	return exp_and_sum(s, n, top);
}

KV_CLONES static void
mean(const float *w, size_t ld, size_t heads, const float *share, size_t n, float *a)
{
	float each = 1 / (float)heads;

	for (size_t j = 0; j < n; j++)
		a[j] = share[0] * each * w[j];
	for (size_t h = 1; h < heads; h++)
		for (size_t j = 0; j < n; j++)
			a[j] += share[h] * each * w[h * ld + j];
}

void
kv_attn_mean(const float *w, size_t ld, size_t heads, const float *share, size_t n, float *a)
{
	mean(w, ld, heads, share, n, a);
}
