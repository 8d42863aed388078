/* ChunkKV: neighbours stay or go together, by the mean of another policy's scores (Liu et al. 2502.00299). */
#include <math.h>
#include <stdlib.h>

#include "policy/policy.h"
#include "policy/select.h"
#include "util/mem.h"

/* What the base protects counts as one more than all that it scored in any head, as in kvpress; chunks are then judged whole. */
static void
score_ends(struct kv_choice *c)
{
	for (uint32_t i = 0; i < c->n; i++)
		if (i < c->sinks || i >= c->n - c->newest)
			c->score[i] = c->top + 1;
	c->sinks = c->newest = 0;
}

static float
mean_of(const float *score, uint32_t from, uint32_t to)
{
	double sum = 0;

	for (uint32_t i = from; i < to; i++)
		sum += (double)score[i];
	return (float)(sum / (to - from));
}

/* The number of entries kept may miss k by less than a chunk; lists shorter than one chunk are cut as the base would. */
static enum kv_status
keep(const struct kv_scene *s, unsigned layer, unsigned head, struct kv_choice *c, struct kv_err *err)
{
	uint32_t length = s->opts->chunk_len < c->n ? (uint32_t)s->opts->chunk_len : c->n;
	uint32_t chunks = c->n / length + (c->n % length != 0), k = (uint32_t)((uint64_t)chunks * c->k / c->n), kept = 0;
	float *mean = kv_array_new(chunks, sizeof *mean);
	uint32_t *best = kv_array_new(chunks, sizeof *best);
	enum kv_status rc;

	(void)layer;
	(void)head;
	if (!mean || !best) {
		rc = kv_fail_mem(err, "chunks");
		goto out;
	}
	if (s->opts->chunk_len > c->n) {
		rc = kv_select(c->score, c->n, c->k, c->sinks, c->newest, c->keep, err);
		goto out;
	}
	score_ends(c);
	for (uint32_t i = 0; i < chunks; i++)
		mean[i] = mean_of(c->score, i * length, i + 1 < chunks ? (i + 1) * length : c->n);
	k = k ? k : 1;
	if (k < chunks && (rc = kv_select(mean, chunks, k, 0, 0, best, err)) != KV_OK)
		goto out;
	rc = KV_OK;
	for (uint32_t j = 0; j < k; j++) {
		uint32_t i = k < chunks ? best[j] : j, to = i + 1 < chunks ? (i + 1) * length : c->n;

		for (uint32_t e = i * length; e < to; e++)
			c->keep[kept++] = e;
	}
	c->k = kept;
out:
	free(mean);
	free(best);
	return rc;
}

const struct kv_policy kv_policy_chunkkv = {
	.name = "chunkkv",
	.cite = "Liu et al. 2025, arXiv:2502.00299",
	.scopes = KV_SCOPES_LAYER,
	.takes = KV_TAKES_SCOPE | KV_TAKES_CHUNK_LEN | KV_TAKES_BASE,
	.defaults = { .scope = KV_SCOPE_LAYER, .chunk_len = 20, .base = &kv_policy_snapkv },
	.keep = keep,
};
