/*
 * What a change to a cache costs. kldiv [-m MODEL] [-n TOKENS] -t TEXTFILE FULL.kvs OTHER.kvs … reads on in the text from where FULL stopped,
 * behind each of the snapshots, and prints a line for each: name, bytes of keys and values, mean NLL of those tokens, and the mean
 * Kullback-Leibler distance of the next token's distribution from that behind FULL, in nats.
 */
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache/segments.h"
#include "cache/snapshot.h"
#include "loop/session.h"
#include "model/forward_parts.h"
#include "util/in.h"
#include "util/text.h"

enum { BATCH = 64 };

static struct kv_err err;

static void
must(enum kv_status rc, const char *what)
{
	if (rc == KV_OK)
		return;
	fprintf(stderr, "kldiv: %s: %s\n", what, err.text);
	exit(kv_exit_code(rc));
}

static struct kv_cache *
load(const char *path)
{
	struct kv_cache *c = NULL;
	struct kvs_reader *r;
	struct kv_in *in;

	must(kv_in_open(path, &in, &err), path);
	must(kvs_reader_new(in, &r, &err), path);
	must(kvs_reader_begin(r, &err), path);
	must(kv_cache_read(r, &c, &err), path);
	kvs_reader_free(r);
	kv_in_close(in);
	return c;
}

static uint64_t
bytes_of(const struct kv_cache *c)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv; i++)
		for (int v = 0; v < 2; v++) {
			struct kv_rows_bytes b = kv_rows_bytes(v ? &c->list[i].v : &c->list[i].k, c->list[i].n);

			sum += b.rows + b.masks + b.scales;
		}
	return sum;
}

/* x [n] becomes log probabilities. */
static void
log_softmax(float *x, size_t n)
{
	double sum = 0;
	float top = x[0];

	for (size_t i = 1; i < n; i++)
		top = fmaxf(top, x[i]);
	for (size_t i = 0; i < n; i++)
		sum += exp((double)x[i] - (double)top);
	for (size_t i = 0; i < n; i++)
		x[i] = (float)((double)x[i] - (double)top - log(sum));
}

/* out [n][vocab]: log probabilities of what comes in the place of ids[0..n), read behind the cache. */
static void
predict(struct kv_session *s, struct kv_cache *c, const uint32_t *ids, size_t n, float *out)
{
	size_t vocab = c->geom.n_vocab;
	static const struct kv_observe scored = { .nll = true };	/* only then are all states of a batch normed */

	if (!c->hidden) {
		fprintf(stderr, "kldiv: a snapshot without a hidden state\n");
		exit(5);
	}
	kv_unembed(s->engine, c->hidden, 1, out);
	for (size_t at = 0; at < n; at += BATCH) {
		size_t m = n - at < BATCH ? n - at : BATCH;

		must(kv_forward(s->engine, c, ids + at, m, &scored, &err), "forward");
		kv_unembed(s->engine, s->engine->h, at + m < n ? m : m - 1, out + (at + 1) * vocab);
	}
	for (size_t i = 0; i < n; i++)
		log_softmax(out + i * vocab, vocab);
}

static double
distance(const float *p, const float *q, size_t n)
{
	double kl = 0;

	for (size_t i = 0; i < n; i++)
		kl += exp((double)p[i]) * ((double)p[i] - (double)q[i]);
	return kl;
}

/* The tokens of the text. */
static struct kv_ids
read_ids(struct kv_session *s, const char *path)
{
	const struct kv_encode how = { .begins = true };
	struct kv_ids ids = { 0 };
	struct kv_buf text = { 0 };
	struct kv_in *in;

	must(kv_in_open(path, &in, &err), path);
	must(kv_in_rest(in, &text, &err), path);
	kv_in_close(in);
	must(kv_session_tokenizer(s, &err), "model");
	if (kv_token_wants_bos(s->tokenizer))
		must(kv_ids_add(&ids, kv_token_bos(s->tokenizer), &err), path);
	must(kv_encode(s->tokenizer, (const char *)text.p, text.len, &how, &ids, NULL, &err), path);
	kv_buf_free(&text);
	return ids;
}

static void
compare(struct kv_session *s, char **path, int n_paths, const struct kv_ids *text, size_t most)
{
	size_t vocab = s->model->geom.n_vocab, n = 0;
	float *full = NULL, *other = NULL;

	printf("snapshot\tbytes\tnll\tkl\n");
	for (int i = 0; i < n_paths; i++) {
		struct kv_cache *c = load(path[i]);
		uint64_t bytes = bytes_of(c), at = c->state.consumed;
		double nll = 0, kl = 0;

		if (!i) {
			n = at < text->n ? text->n - at : 0;
			n = n < most ? n : most;
			full = kv_block_new(n, vocab * sizeof *full);
			other = kv_block_new(n, vocab * sizeof *other);
			must(full && other ? KV_OK : kv_fail_mem(&err, "probabilities"), path[i]);
		}
		must(n && at <= text->n - n ? KV_OK : kv_fail(&err, KV_EUSAGE, "no text is left behind it"), path[i]);
		predict(s, c, text->id + at, n, i ? other : full);
		for (size_t t = 0; t < n; t++) {
			const float *now = (i ? other : full) + t * vocab;

			nll -= (double)now[text->id[at + t]];
			kl += distance(full + t * vocab, now, vocab);
		}
		printf("%s\t%" PRIu64 "\t%.6f\t%.6f\n", path[i], bytes, nll / (double)n, kl / (double)n);
		fflush(stdout);
		kv_cache_free(c);
	}
	kv_block_free(full);
	kv_block_free(other);
}

int
main(int argc, char **argv)
{
	const char *model = NULL, *text = NULL;
	struct kv_session s = { 0 };
	struct kv_ids ids;
	int64_t most = INT64_MAX;
	int o;

	while ((o = getopt(argc, argv, "m:n:t:")) != -1)
		switch (o) {
		case 'm':
			model = optarg;
			break;
		case 'n':
			must(kv_parse_int("-n", optarg, 1, INT64_MAX, &most, &err), "usage");
			break;
		case 't':
			text = optarg;
			break;
		default:
			return 2;
		}
	if (!text || optind == argc) {
		fprintf(stderr, "usage: kldiv [-m MODEL] [-n TOKENS] -t TEXTFILE FULL.kvs OTHER.kvs …\n");
		return 2;
	}
	must(kv_session_open(model, KVS_F32, KV_EXACT, NULL, &s, &err), "model");
	ids = read_ids(&s, text);
	compare(&s, argv + optind, argc - optind, &ids, (size_t)most);
	kv_ids_free(&ids);
	kv_session_close(&s);
	return 0;
}
