/* What differs between two caches: model, state, kept sets, rows. */
#include <math.h>
#include <string.h>

#include "view/view.h"

/* Of all kv heads of a layer. */
struct layer_diff {
	uint64_t only_a, only_b, common, moved;	/* entries; moved: at another position */
	double max[2], sum[2];			/* K, V: largest difference, and their squares */
	uint64_t values[2];
};

static void
differ(struct kv_print *p, bool *different, const char *what, uint64_t a, uint64_t b)
{
	if (a == b)
		return;
	*different = true;
	kv_buf_printf(&p->buf, "%s: %llu and %llu\n", what, (unsigned long long)a, (unsigned long long)b);
}

static void
compare_tokens(const struct kv_cache *a, const struct kv_cache *b, struct kv_print *p, bool *different)
{
	uint64_t n = a->state.consumed < b->state.consumed ? a->state.consumed : b->state.consumed;
	uint32_t x, y;

	for (uint64_t i = 0; i < n; i++)
		if (kv_cache_token(a, (uint32_t)i, &x) && kv_cache_token(b, (uint32_t)i, &y) && x != y) {
			*different = true;
			kv_buf_printf(&p->buf, "tokens: from source %llu on, ids %u and %u\n", (unsigned long long)i, x, y);
			return;
		}
}

static void
compare_hidden(const struct kv_cache *a, const struct kv_cache *b, struct kv_print *p, bool *different)
{
	double max = 0;

	if (!a->hidden || !b->hidden) {
		differ(p, different, "hidden states", a->hidden != NULL, b->hidden != NULL);
		return;
	}
	for (uint32_t i = 0; i < a->geom.n_embd; i++) {
		double d = fabs((double)a->hidden[i] - (double)b->hidden[i]);

		if (!(d <= max))
			max = d;
	}
	if (!(max <= 0)) {
		*different = true;
		kv_buf_printf(&p->buf, "hidden state: largest difference %.3g\n", max);
	}
}

/* A row of K (which 0) or of V (1) against another. */
static void
compare_row(const struct kv_rows *a, uint32_t i, const struct kv_rows *b, uint32_t k, unsigned which, struct layer_diff *d)
{
	float x[KVS_MAX_DIM], y[KVS_MAX_DIM];

	kv_rows_get(a, i, x);
	kv_rows_get(b, k, y);
	for (uint32_t c = 0; c < a->width; c++) {
		double e = fabs((double)x[c] - (double)y[c]);

		if (!(e <= d->max[which]))	/* NaN counts */
			d->max[which] = e;
		d->sum[which] += e * e;
	}
	d->values[which] += a->width;
}

static enum kv_status
compare_lists(struct kv_list *a, struct kv_list *b, struct layer_diff *d, struct kv_err *err)
{
	uint32_t i = 0, k = 0;
	enum kv_status rc;

	if ((rc = kv_rows_load(&a->k, err)) != KV_OK || (rc = kv_rows_load(&a->v, err)) != KV_OK || (rc = kv_rows_load(&b->k, err)) != KV_OK ||
		(rc = kv_rows_load(&b->v, err)) != KV_OK)
		return rc;
	while (i < a->n || k < b->n) {
		if (k == b->n || (i < a->n && a->src[i] < b->src[k])) {
			d->only_a++;
			i++;
		} else if (i == a->n || b->src[k] < a->src[i]) {
			d->only_b++;
			k++;
		} else {
			d->common++;
			d->moved += a->pos[i] != b->pos[k];
			compare_row(&a->k, i, &b->k, k, 0, d);
			compare_row(&a->v, i++, &b->v, k++, 1, d);
		}
	}
	return KV_OK;
}

static void
print_layer(struct kv_print *p, unsigned layer, const struct layer_diff *d)
{
	kv_buf_printf(&p->buf, "%u\t%llu\t%llu\t%llu\t%llu", layer, (unsigned long long)d->only_a, (unsigned long long)d->only_b,
		(unsigned long long)d->common, (unsigned long long)d->moved);
	for (int w = 0; w < 2; w++)
		kv_buf_printf(&p->buf, "\t%.3g\t%.3g", d->max[w], d->values[w] ? sqrt(d->sum[w] / (double)d->values[w]) : 0);
	kv_buf_printf(&p->buf, "\n");
}

static enum kv_status
compare_layers(struct kv_cache *a, struct kv_cache *b, struct kv_print *p, bool *different, struct kv_err *err)
{
	bool header = false;
	enum kv_status rc;

	for (unsigned l = 0; l < a->geom.n_layers; l++) {
		struct layer_diff d = { 0 };

		for (unsigned h = 0; h < a->geom.n_heads_kv; h++)
			if ((rc = compare_lists(kv_cache_list(a, l, h), kv_cache_list(b, l, h), &d, err)) != KV_OK)
				return rc;
		if (!d.only_a && !d.only_b && !d.moved && d.max[0] <= 0 && d.max[1] <= 0)
			continue;
		*different = true;
		if (!header)
			kv_buf_printf(&p->buf, "layer\tonly_a\tonly_b\tcommon\tmoved\tk_max\tk_rms\tv_max\tv_rms\n");
		header = true;
		print_layer(p, l, &d);
	}
	return KV_OK;
}

enum kv_status
kv_diff(struct kv_cache *a, struct kv_cache *b, struct kv_print *p, bool *different, struct kv_err *err)
{
	struct kv_err why;

	*different = false;
	if (kvs_geom_same_model(&a->geom, &b->geom, true, &why) != KV_OK) {
		*different = true;
		kv_buf_printf(&p->buf, "%s\n", why.text);
		return KV_OK;
	}
	differ(p, different, "tokens read", a->state.consumed, b->state.consumed);
	differ(p, different, "next position", (uint64_t)a->state.next_pos, (uint64_t)b->state.next_pos);
	differ(p, different, "tail", a->state.tail, b->state.tail);
	compare_tokens(a, b, p, different);
	compare_hidden(a, b, p, different);
	return compare_layers(a, b, p, different, err);
}
