/* Caches for policies: attention that is known beforehand, and what entries are said to have received. */
#include "policy_cache.h"

#include <math.h>
#include <stdlib.h>

#include "kvs/digest.h"
#include "tap.h"
#include "util/mem.h"

void
policy_keys(struct kv_cache *c, unsigned layer, unsigned head, const float *keys, uint32_t n)
{
	struct kv_list *l = kv_cache_list(c, layer, head);
	struct kv_err err;

	kv_rows_put(&l->k, 0, n, keys, c->geom.d_k, &err);
	memset(l->v.data, 0, (size_t)n * c->geom.d_v * kvs_dtype_size(l->v.dtype));
}

struct kv_cache *
policy_rows(unsigned heads, unsigned heads_kv, uint32_t n, uint32_t w, const float *rows)
{
	struct kvs_geom *g = small_geom(1, heads, heads_kv, n);
	struct kv_cache *c;
	float *keys = calloc((size_t)n * n, sizeof *keys), *q = calloc((size_t)heads * w * n, sizeof *q);
	struct kv_err err;

	g->n_rope = 0;
	g->layer[0] = (struct kvs_layer){ KVS_NO_ROPE, KVS_F32, KVS_F32, 0 };
	g->attn_scale = 0.5f;
	c = small_cache(g);
	kv_cache_extend(c, n, &err);
	for (uint32_t i = 0; i < n; i++)
		keys[i * n + i] = 1;
	for (unsigned h = 0; h < heads_kv; h++)
		policy_keys(c, 0, h, keys, n);
	for (uint32_t t = 0; t < w; t++)
		for (unsigned h = 0; h < heads; h++)
			for (uint32_t i = 0; i < n; i++)
				q[((size_t)t * heads + h) * n + i] = 2 * logf(fmaxf(rows[((size_t)h * w + t) * n + i], 1e-30f));
	kv_queries_add(c, 0, w, w, n - w, (int32_t)(n - w), q, &err);
	free(keys);
	free(q);
	return c;
}

static void
received_free(struct kv_list *l)
{
	if (!l->received)
		return;
	free(l->received->sum);
	free(l->received->square);
	free(l->received->count);
	free(l->received);
	l->received = NULL;
}

struct kv_received *
policy_received(struct kv_cache *c, unsigned layer, unsigned head)
{
	struct kv_list *l = kv_cache_list(c, layer, head);
	struct kv_received *a = kv_array_new(1, sizeof *a);

	received_free(l);
	*a = (struct kv_received){ l->n, 0, (uint32_t)c->state.consumed, kv_array_new(l->n, sizeof *a->sum),
		kv_array_new(l->n, sizeof *a->square), kv_array_new(l->n, sizeof *a->count) };
	l->received = a;
	return a;
}

void
policy_receive(struct kv_cache *c)
{
	for (unsigned i = 0; i < c->geom.n_layers * c->geom.n_heads_kv; i++) {
		struct kv_received *a = policy_received(c, i / c->geom.n_heads_kv, i % c->geom.n_heads_kv);
		const struct kv_list *l = &c->list[i];

		for (uint32_t r = 0; r < l->n; r++) {
			uint32_t key[2] = { i, l->src[r] };
			float x = (float)(kvs_hash64(key, sizeof key) >> 40) * 0x1p-24f;

			a->count[r] = (uint32_t)c->state.consumed - l->src[r];
			a->sum[r] = x * (float)a->count[r];
			a->square[r] = x * x * (float)a->count[r] * (1 + x);
		}
	}
}

void
policy_sums(struct kv_cache *c, enum kv_sums_of which, uint32_t queries, unsigned layer, unsigned head, uint32_t cols, const float *sums)
{
	struct kv_sums *s = &c->sums[which];
	struct kv_sums_list *l;
	struct kv_err err;

	if (!s->there && kv_cache_new_sums(c, which, queries, 0, &err) != KV_OK)
		abort();
	l = &s->list[layer * c->geom.n_heads_kv + head];
	l->cols = cols;
	if (cols)
		memcpy(l->sum, sums, (size_t)s->rows * cols * sizeof *sums);
}

void
policy_probe(struct kv_cache *c)
{
	struct kv_err err;

	kv_cache_drop_sums(c);
	for (uint32_t which = 0; which < KV_SUMS_KINDS; which++) {
		if (kv_cache_new_sums(c, which, 3, 0, &err) != KV_OK)
			abort();
		c->sums[which].all = true;
		for (uint32_t i = 0; i < c->geom.n_layers * c->geom.n_heads_kv; i++)
			for (uint32_t j = 0; j < c->sums[which].rows * c->list[i].n; j++) {
				uint32_t key[3] = { which, i, j };

				c->sums[which].list[i].sum[j] = (float)(kvs_hash64(key, sizeof key) >> 40) * 0x1p-24f;
			}
	}
	c->state.tail = 0;
}

void
policy_cache_free(struct kv_cache *c)
{
	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv; i++)
		received_free(&c->list[i]);
	kv_cache_free(c);
}

enum kv_status
policy_evict(struct kv_cache *c, const char *line)
{
	struct kv_err err = { 0 };
	enum kv_status rc = small_run(&kv_stage_evict, line, c, 1, NULL, &err);

	if (rc != KV_OK)
		printf("# %s: %s\n", line, err.text);
	return rc;
}

void
policy_keeps(struct kv_cache *c, const char *line, const char *want, const char *what)
{
	char s[400];

	policy_evict(c, line);
	is_str(small_sources(c, 0, 0, s, sizeof s), want, "%s", what);
}

void
policy_keeps_two(struct kv_cache *c, const char *line, const char *want0, const char *want1)
{
	char s[400];

	policy_keeps(c, line, want0, line);
	is_str(small_sources(c, 0, 1, s, sizeof s), want1, "the other head");
	policy_cache_free(c);
}

double
policy_apart(const double *a, const double *b, uint32_t n)
{
	double worst = 0;

	for (uint32_t i = 0; i < n; i++)
		if (!(fabs(a[i] - b[i]) <= worst))
			worst = fabs(a[i] - b[i]);
	return worst;
}

void
policy_scores(struct kv_cache *c, const char *line, double *out)
{
	struct kv_buf text = { 0 };
	char all[200];
	struct kv_err err = { 0 };
	char *save, *row;

	snprintf(all, sizeof all, "%s -k 100%% --dry-run", line);
	if (small_run(&kv_stage_evict, all, c, 1, &text, &err) != KV_OK)
		printf("# %s: %s\n", all, err.text);
	row = text.len ? strtok_r((char *)text.p, "\n", &save) : NULL;	/* the header */
	for (uint32_t i = 0; row && i < c->list[0].n; i++) {
		unsigned slot, src;

		row = strtok_r(NULL, "\n", &save);
		if (!row || sscanf(row, "0\t0\t%u\t%u\t%lf", &slot, &src, &out[i]) != 3)
			break;
	}
	kv_buf_free(&text);
}
