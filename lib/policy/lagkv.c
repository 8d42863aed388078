/* LagKV: entries whose keys and values vary much when measured by the block behind them (Liang et al. 2504.04704). On turned keys. */
#include <math.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "util/mem.h"

/* Of every channel of a block. */
struct range {
	float *low, *high;	/* [d] */
	double *size;		/* [d] */
	double *scaled;		/* [d] a row measured by it */
};

static void
range_of(const float *x, uint32_t lag, uint32_t d, struct range *out)
{
	for (uint32_t i = 0; i < d; i++)
		out->low[i] = out->high[i] = x[i];
	for (uint32_t r = 1; r < lag; r++)
		for (uint32_t i = 0; i < d; i++) {
			float v = x[r * (size_t)d + i];

			out->low[i] = v < out->low[i] ? v : out->low[i];
			out->high[i] = v > out->high[i] ? v : out->high[i];
		}
	for (uint32_t i = 0; i < d; i++)
		out->size[i] = (double)out->high[i] - (double)out->low[i];
}

/*
 * spread [lag] = deviation over the channels (divisor d - 1) of the rows x [lag][d], each channel scaled to the range it has in the next
 * block, ref [lag][d]; then its softmax, which puts keys and values on one scale. A channel without a range says nothing.
 */
static void
spread_of(const float *x, const float *ref, uint32_t lag, uint32_t d, struct range *range, double *spread)
{
	double most = -INFINITY, sum = 0, *z = range->scaled;

	range_of(ref, lag, d, range);
	for (uint32_t r = 0; r < lag; r++) {
		double mean = 0, squares = 0;

		for (uint32_t i = 0; i < d; i++)
			z[i] = range->size[i] > 0 ? ((double)x[r * (size_t)d + i] - (double)range->low[i]) / range->size[i] : 0;
		for (uint32_t i = 0; i < d; i++)
			mean += z[i];
		mean /= d;
		for (uint32_t i = 0; i < d; i++)
			squares += (z[i] - mean) * (z[i] - mean);
		spread[r] = d > 1 ? sqrt(squares / (d - 1)) : 0;
		most = fmax(most, spread[r]);
	}
	for (uint32_t r = 0; r < lag; r++)
		sum += spread[r] = exp(spread[r] - most);
	for (uint32_t r = 0; r < lag; r++)
		spread[r] /= sum;
}

struct item {
	float score;
	uint32_t at;
};

static int
by_score(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	return x->score != y->score ? (x->score > y->score) - (x->score < y->score) : (x->at > y->at) - (x->at < y->at);
}

struct scratch {
	struct range range;		/* d: the larger of d_k and d_v */
	double *of_keys, *of_values;	/* [lag] */
	struct item *item;		/* [lag] */
	float *values;			/* a block [n][d_v] */
};

/* out [lag] = rank inside the block by (score, position), over lag; NaN if it has one. */
static void
rank_block(struct scratch *x, uint32_t lag, double *out)
{
	for (uint32_t r = 0; r < lag; r++) {
		x->item[r] = (struct item){ (float)((x->of_keys[r] + x->of_values[r]) / 2), r };
		if (isnan(x->item[r].score)) {
			out[0] = NAN;
			return;
		}
	}
	qsort(x->item, lag, sizeof *x->item, by_score);
	for (uint32_t r = 0; r < lag; r++)
		out[x->item[r].at] = (double)r / lag;
}

static void
score_blocks(const struct kv_cache *c, const float *keys, struct scratch *x, uint32_t sinks, uint32_t lag, uint32_t blocks, double *out)
{
	for (uint32_t b = 0; b + 1 < blocks; b++) {
		size_t here = sinks + (size_t)b * lag, next = here + lag;
		uint32_t d_k = c->geom.d_k, d_v = c->geom.d_v;

		spread_of(keys + here * d_k, keys + next * d_k, lag, d_k, &x->range, x->of_keys);
		spread_of(x->values + here * d_v, x->values + next * d_v, lag, d_v, &x->range, x->of_values);
		rank_block(x, lag, out + here);
	}
}

static enum kv_status
score(const struct kv_scene *s, unsigned layer, unsigned head, double *out, struct kv_err *err)
{
	const struct kv_cache *c = s->cache;
	const struct kv_list *l = kv_cache_list(c, layer, head);
	uint64_t sinks = (uint64_t)s->opts->sinks, lag = (uint64_t)s->opts->lag;
	uint32_t d = c->geom.d_k > c->geom.d_v ? c->geom.d_k : c->geom.d_v;
	struct scratch x = { 0 };
	float *keys = NULL;
	enum kv_status rc;

	for (uint32_t i = 0; i < l->n; i++)
		out[i] = 1;
	if (l->n < sinks + 2 * lag) {	/* too short to compare blocks: the newer the better */
		for (uint32_t i = (uint32_t)sinks; i < l->n; i++)
			out[i] = (double)(i - sinks) / (double)(l->n - sinks);
		return KV_OK;
	}
	x.range = (struct range){ kv_array_new(d, sizeof *x.range.low), kv_array_new(d, sizeof *x.range.high),
		kv_array_new(d, sizeof *x.range.size), kv_array_new(d, sizeof *x.range.scaled) };
	x = (struct scratch){ x.range, kv_array_new(lag, sizeof *x.of_keys), kv_array_new(lag, sizeof *x.of_values), kv_array_new(lag, sizeof *x.item),
		kv_block_new(l->n, c->geom.d_v * sizeof *x.values) };
	if (!x.range.low || !x.range.high || !x.range.size || !x.range.scaled || !x.of_keys || !x.of_values || !x.item || !x.values) {
		rc = kv_fail_mem(err, "blocks");
		goto out;
	}
	if ((rc = kv_keys_turned(c, s->turns, layer, head, &keys, err)) != KV_OK)
		goto out;
	for (uint32_t r = 0; r < l->n; r++)
		kv_rows_get(&l->v, r, x.values + (size_t)r * c->geom.d_v);
	score_blocks(c, keys, &x, (uint32_t)sinks, (uint32_t)lag, (uint32_t)((l->n - sinks) / lag), out);
out:
	kv_block_free(keys);
	free(x.range.low);
	free(x.range.high);
	free(x.range.size);
	free(x.range.scaled);
	free(x.of_keys);
	free(x.of_values);
	free(x.item);
	kv_block_free(x.values);
	return rc;
}

const struct kv_policy kv_policy_lagkv = {
	.name = "lagkv",
	.cite = "Liang et al. 2025, arXiv:2504.04704",
	.scopes = KV_SCOPES_HEAD | KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_ENDS | KV_TAKES_LAG,
	.reads = KV_READS_K | KV_READS_V | KV_READS_TURNS,
	.defaults = { .scope = KV_SCOPE_HEAD, .sinks = 4, .lag = 128 },
	.score = score,
};
