/* The generation loop: from the hidden state of a cache to tokens, and back into the cache. */
#ifndef KV_LOOP_GENERATE_H
#define KV_LOOP_GENERATE_H

#include "loop/each.h"
#include "loop/session.h"
#include "model/sample.h"

struct kv_generation {
	uint64_t max_tokens;		/* UINT64_MAX = until a stop token */
	struct kv_sampling sampling;
	uint64_t seed;
	const char *const *stop;	/* [n_stop] texts that end it */
	size_t n_stop;
	bool ignore_eos, special;
	bool keep;			/* feed every token, the last and the stop token too: the cache will be saved */
	bool logprobs;			/* fill logprob */
	unsigned n_top;			/* alternatives to report, at most as many as the vocabulary has */
	struct kv_observe observe;
	struct kv_each *each;		/* run on the cache … */
	uint64_t every;			/* … after every so many tokens fed; NULL: never */
	struct kv_pool *pool;		/* for it … */
	struct kv_say say;		/* … and what it has to say */
};

struct kv_alternative {
	uint32_t id;
	double logprob;
};

/* A token handed out once no stop text can take its letters back. */
struct kv_token_out {
	uint32_t id;
	double logprob;
	const char *text;		/* [n] whole characters; may be empty while one is incomplete */
	size_t n;
	const struct kv_alternative *top;	/* [n_top], most likely first */
};

enum kv_finish { KV_FINISH_LENGTH, KV_FINISH_EOS, KV_FINISH_STOP };

struct kv_generated {
	uint64_t n;			/* tokens made, the stop token not counted */
	enum kv_finish finish;
	double first, seconds;		/* kv_now() at the first token, 0 = there was none; seconds in all */
};

typedef enum kv_status kv_sink(void *arg, const struct kv_token_out *t, struct kv_err *err);

/* The cache must have a hidden state (else KV_EFIT). The session must have its tokenizer. */
enum kv_status kv_generate(struct kv_session *s, struct kv_cache *c, const struct kv_generation *g, kv_sink *sink, void *arg,
	struct kv_generated *out, struct kv_err *err);

#endif
