/* From logits to a token. */
#ifndef KV_MODEL_SAMPLE_H
#define KV_MODEL_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

struct kv_sampling {
	double temp;		/* 0 = greedy */
	uint32_t top_k;		/* 0 = all */
	double top_p, min_p;	/* 1, 0 = off */
};

struct kv_rng { uint64_t s[4]; };	/* xoshiro256** */

void kv_rng_seed(struct kv_rng *r, uint64_t seed);
double kv_rng_next(struct kv_rng *r);	/* [0, 1) */

/* The largest logit, the lowest id among equals. */
uint32_t kv_argmax(const float *logits, size_t n);
/* scratch [n] is overwritten. Order: top-k, softmax at temp, top-p, min-p, draw. */
struct kv_candidate { uint32_t id; float p; };
uint32_t kv_sample(const float *logits, size_t n, const struct kv_sampling *how, struct kv_rng *rng, struct kv_candidate *scratch);
/* ln P(id): log-softmax in f64. */
double kv_logprob(const float *logits, size_t n, uint32_t id);
double kv_log_sum_exp(const float *logits, size_t n);

#endif
