/*
 * A model file with one bit of its header wrong, in every byte in turn, and cut at every length. Whatever is accepted all the same must show: in the
 * fingerprint of the model or of the tokenizer, so that no snapshot of the one is taken for one of the other. What may change unseen is text
 * that nothing is derived from (general.name, the chat template: no part of the fingerprints), and version 3 becoming 2, which is read alike.
 */
#include "tap.h"

#include <stdlib.h>

#include "model/model.h"
#include "model/tokenizer.h"
#include "synth.h"
#include "util/le.h"
#include "util/mem.h"

enum { FINGERPRINTS = 32, VERSION = 4 };

/* Opens all of it, as kv-prefill does. */
static enum kv_status
use(const void *p, size_t n, uint8_t prints[FINGERPRINTS])
{
	struct kv_gguf *g;
	struct kv_tokenizer *t;
	struct kv_model *m;
	struct kv_err err;
	enum kv_status rc;

	if ((rc = kv_gguf_mem(p, n, &g, &err)) != KV_OK)
		return rc;
	if ((rc = kv_gguf_fingerprint(g, prints, prints + FINGERPRINTS / 2, &err)) != KV_OK || (rc = kv_tokenizer_new(g, &t, &err)) != KV_OK) {
		kv_gguf_close(g);
		return rc;
	}
	kv_tokenizer_free(t);
	if ((rc = kv_model_from(g, KVS_F16, &m, &err)) == KV_OK)
		kv_model_free(m);
	return rc;
}

/* Where it begins in the file; its length if nowhere. */
static size_t
find(const struct kv_buf *file, const char *what)
{
	size_t n = strlen(what), i = 0;

	while (i + n <= file->len && memcmp(file->p + i, what, n))
		i++;
	return i + n <= file->len ? i : file->len;
}

/* Version, or free text: a pair with its key and the length of its value, a string. Who damages the key makes it one that nobody asks for. */
static bool
is_harmless(const struct kv_buf *file, size_t i)
{
	static const char *const keys[] = { "general.name", "tokenizer.chat_template" };

	if (i == VERSION)
		return true;
	for (int k = 0; k < 2; k++) {
		size_t key = find(file, keys[k]), value = key + strlen(keys[k]) + 4;

		if (key < file->len && i >= key && i < value + 8 + le64_get(file->p + value))
			return true;
	}
	return false;
}

/* Where the description of the last tensor ends: its name, dimensions, type and offset. */
static size_t
header_end(const struct kv_buf *file)
{
	static const char last[] = "output_norm.weight";
	size_t dims = find(file, last) + sizeof last - 1;

	return dims + 4 + 8 * le32_get(file->p + dims) + 4 + 8;
}

static void
make(struct kv_buf *file, bool spm)
{
	struct synth s;

	synth_defaults(&s, "llama", 0, 5);
	s.layers = 1;
	s.n_ff = 32;
	s.spm = spm;
	if (!synth_make(&s, file))
		abort();
}

static void
test_bits(const struct kv_buf *file, size_t header, unsigned step, const char *what)
{
	uint8_t good[FINGERPRINTS], now[FINGERPRINTS];
	unsigned refused = 0, seen = 0, harmless = 0, unseen = 0, other = 0;

	ok(use(file->p, file->len, good) == KV_OK, "%s: as it is it opens", what);
	for (size_t i = 0; i < header; i++)
		for (unsigned bit = (unsigned)i % step; bit < 8; bit += step) {
			enum kv_status rc;

			file->p[i] ^= (uint8_t)(1u << bit);
			rc = use(file->p, file->len, now);
			file->p[i] ^= (uint8_t)(1u << bit);
			if (rc == KV_ECORRUPT || rc == KV_EUNSUP || rc == KV_EFIT) {
				refused++;
			} else if (rc != KV_OK) {
				printf("# byte %zu bit %u: status %d\n", i, bit, rc);
				other++;
			} else if (memcmp(good, now, sizeof good)) {
				seen++;
			} else if (is_harmless(file, i)) {
				harmless++;
			} else {
				printf("# byte %zu bit %u: nobody notices\n", i, bit);
				unseen++;
			}
		}
	ok(!other && refused > header / 2, "%s: %u bits are refused as damage or as unknown, none as something else", what, refused);
	ok(!unseen && seen && harmless, "%s: %u are another model by its fingerprint, %u are in free text or the version, %u go unseen", what, seen, harmless, unseen);
}

static void
test_cuts(const struct kv_buf *file, size_t header, const char *what)
{
	uint8_t prints[FINGERPRINTS];
	unsigned wrong = 0;

	for (size_t n = 0; n < file->len; n += n < header ? 1 : 97) {
		/* Of its own length, so that a sanitizer sees whoever reads on. */
		uint8_t *cut = malloc(n + !n);

		memcpy(cut, file->p, n);
		wrong += use(cut, n, prints) != KV_ECORRUPT;
		free(cut);
	}
	is_int(wrong, 0, "%s: cut anywhere it is truncated", what);
}

int
main(void)
{
	for (int spm = 0; spm < 2; spm++) {
		struct kv_buf file = { 0 };
		size_t header;

		make(&file, spm);
		header = header_end(&file);
		test_bits(&file, header, spm ? 8 : 1, spm ? "SPM" : "BPE");
		test_cuts(&file, header, spm ? "SPM" : "BPE");
		kv_buf_free(&file);
	}
	return done_testing();
}
