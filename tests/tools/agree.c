/*
 * How far the fast path is from the reference: both read the same tokens of a text, and what they say of each next one is compared.
 *
 *	agree MODEL.gguf TOKENS TEXT …
 *
 * For every text: mean NLL by the reference and by the level that KV_ISA allows, their difference in per cent, and of how many tokens both
 * find the same one the likeliest.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/level.h"
#include "model/forward_parts.h"	/* the states of all tokens of a batch, which nobody else needs */
#include "model/sample.h"
#include "model/tokenizer.h"
#include "util/mem.h"

enum { PANEL = 64 };

struct said {
	double nll;		/* of all tokens */
	uint32_t *likeliest;	/* [tokens] */
};

static void
must(enum kv_status rc, const struct kv_err *err)
{
	if (rc != KV_OK) {
		fprintf(stderr, "agree: %s\n", err->text);
		exit(1);
	}
}

static void *
alloc(size_t n, size_t size)
{
	void *p = kv_array_new(n, size);

	if (!p)
		must(KV_ENOMEM, &(struct kv_err){ .text = "no memory" });
	return p;
}

/* What e->h [m][E] says of the tokens that follow; the last one's is not known yet, unless next is. */
static void
ask(struct kv_engine *e, size_t m, const uint32_t *next, size_t known, float *logits, struct said *out, size_t at)
{
	size_t vocab = e->m->geom.n_vocab;

	for (size_t first = 0; first < m; first += PANEL) {
		size_t n = m - first < PANEL ? m - first : PANEL;

		if (!kv_unembed(e, e->h + first * e->m->geom.n_embd, n, logits))
			must(KV_ENOMEM, &(struct kv_err){ .text = "no memory" });
		for (size_t i = 0; i < n; i++) {
			const float *z = logits + i * vocab;
			uint32_t best = 0;

			for (uint32_t k = 1; k < vocab; k++)
				best = z[k] > z[best] ? k : best;
			out->likeliest[at + first + i] = best;
			if (first + i < known)
				out->nll -= kv_logprob(z, vocab, next[first + i]);
		}
	}
}

static struct said
listen(const struct kv_model *m, const struct kv_ops *ops, const uint32_t *ids, size_t n)
{
	struct said out = { 0, alloc(n, sizeof *out.likeliest) };
	float *logits = alloc(PANEL * m->geom.n_vocab, sizeof *logits);
	struct kv_engine *e = NULL;
	struct kv_cache *c = NULL;
	struct kv_err err = { 0 };

	must(kv_engine_new(m, ops, NULL, &e, &err), &err);
	must(kv_cache_new(&m->geom, &c, &err), &err);
	for (size_t at = 0; at < n; at += ops->batch) {
		size_t here = n - at < ops->batch ? n - at : ops->batch;

		must(kv_forward(e, c, ids + at, here, &(struct kv_observe){ .nll = true }, &err), &err);
		ask(e, here, ids + at + 1, n - at - 1, logits, &out, at);
	}
	kv_cache_free(c);
	kv_engine_free(e);
	free(logits);
	return out;
}

static struct kv_ids
tokens_of(struct kv_tokenizer *t, const char *path)
{
	FILE *f = fopen(path, "rb");
	struct kv_buf text = { 0 };
	struct kv_ids ids = { 0 };
	struct kv_err err = { 0 };
	char part[4096];
	size_t n;

	while (f && (n = fread(part, 1, sizeof part, f)))
		kv_buf_add(&text, part, n);
	if (!f || fclose(f))
		must(KV_EIO, &(struct kv_err){ .text = "cannot read a text" });
	must(kv_encode(t, (const char *)text.p, text.len, &(struct kv_encode){ .begins = true }, &ids, NULL, &err), &err);
	kv_buf_free(&text);
	return ids;
}

int
main(int argc, char **argv)
{
	const struct kv_ops *ops;
	struct kv_model *m = NULL;
	struct kv_tokenizer *t = NULL;
	struct kv_err err = { 0 };
	size_t most = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;

	if (argc < 4 || !most) {
		fprintf(stderr, "usage: agree MODEL.gguf TOKENS TEXT …\n");
		return 2;
	}
	must(kv_ops_choose(getenv("KV_ISA"), &ops, &err), &err);
	must(kv_model_open(argv[1], KVS_F16, &m, &err), &err);
	must(kv_tokenizer_new(m->gguf, &t, &err), &err);
	for (int i = 3; i < argc; i++) {
		struct kv_ids ids = tokens_of(t, argv[i]);
		size_t n = ids.n < most ? ids.n : most, same = 0;
		struct said exact = listen(m, &kv_ops_generic, ids.id, n), fast = listen(m, ops, ids.id, n);

		for (size_t k = 0; k < n; k++)
			same += exact.likeliest[k] == fast.likeliest[k];
		printf("%s: %zu tokens, NLL %.4f, %s %.4f (%+.2f %%), same likeliest %.1f %%\n", argv[i], n, exact.nll / (double)(n - 1), ops->level,
			fast.nll / (double)(n - 1), 100 * (fast.nll / exact.nll - 1), 100 * (double)same / (double)n);
		fflush(stdout);
		free(exact.likeliest);
		free(fast.likeliest);
		kv_ids_free(&ids);
	}
	kv_tokenizer_free(t);
	kv_model_free(m);
	return 0;
}
