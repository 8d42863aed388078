/* lib/view: what is printed about a small cache, in memory and as a snapshot. */
#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>
#include <fcntl.h>

#include "tap.h"
#include "cache/snapshot.h"
#include "ggufbuild.h"
#include "small_cache.h"
#include "util/half.h"
#include "view/view.h"

enum { LAYERS = 2, HEADS = 4, KV_HEADS = 2, D = 4, TOKENS = 5 };

static struct kv_err err;
static struct kvs_geom geom;
static char path[] = "/tmp/test_view.XXXXXX";

/* What was printed, as a string; the next print starts anew. */
static const char *
printed(struct kv_print *p)
{
	kv_buf_add(&p->buf, "", 1);
	p->buf.len = 0;
	return (const char *)p->buf.p;
}

static void
make_geometry(void)
{
	geom.n_layers = LAYERS;
	geom.n_heads = HEADS;
	geom.n_heads_kv = KV_HEADS;
	geom.d_k = geom.d_v = D;
	geom.n_embd = 8;
	geom.n_vocab = 16;
	geom.n_ctx_train = 2048;
	geom.n_rope = 1;
	geom.attn_scale = 0.5f;
	strcpy(geom.arch, "llama");
	geom.rope[0] = (struct kvs_rope){ .kind = KVS_ROPE_NEOX, .n_rot = D, .theta = 10000, .factor = 1, .magnitude = 1,
		.inv_freq = { 1, 0.01f } };
	for (unsigned l = 0; l < LAYERS; l++)
		geom.layer[l] = (struct kvs_layer){ .rope = 0, .k_dtype = KVS_F16, .v_dtype = KVS_F16 };
}

/* Five tokens read; head 1 of layer 1 has lost tokens 1 and 3. odd: a NaN among the values. */
static struct kv_cache *
make_cache(bool odd)
{
	static const uint32_t ids[TOKENS] = { 1, 7, 3, 9, 4 }, keep[] = { 0, 2, 4 };
	static const float nll[TOKENS] = { -1, 2.5f, 0.75f, 3.125f, 0.5f };
	static char *argv[] = { "--tova", "-k", "60%", "a b\n.kvs" };
	struct kvs_run run = { .tool = "kv-evict", .version = "0.1.0", .argc = 4, .argv = argv };
	float x[TOKENS * D], q[HEADS * D] = { 1, 0, 0.5f, -1 };
	struct kv_cache *c;

	if (kv_cache_new(&geom, &c, &err) != KV_OK)
		exit(1);
	kv_cache_extend(c, TOKENS, &err);
	kv_cache_add_tokens(c, ids, TOKENS, &err);
	kv_cache_add_nll(c, nll, TOKENS, &err);
	for (unsigned i = 0; i < TOKENS * D; i++)
		x[i] = (float)i / 8;
	for (unsigned l = 0; l < LAYERS; l++) {
		for (unsigned h = 0; h < KV_HEADS; h++) {
			kv_rows_put(&kv_cache_list(c, l, h)->k, 0, TOKENS, x, D, &err);
			kv_rows_put(&kv_cache_list(c, l, h)->v, 0, TOKENS, x, D, &err);
		}
		kv_queries_add(c, l, 1, 1, TOKENS - 1, TOKENS - 1, q, &err);
	}
	if (odd)
		((uint16_t *)(void *)kv_cache_list(c, 0, 0)->v.data)[5] = 0x7e00;
	kv_list_keep(kv_cache_list(c, 1, 1), keep, 3, &err);
	c->hidden = calloc(geom.n_embd, sizeof *c->hidden);
	kvs_prov_add_run(&c->prov, &run, &err);
	return c;
}

static void
write_snapshot(const struct kv_cache *c, unsigned copies)
{
	struct kvs_writer *w;
	struct kv_out *out;

	ok(kv_out_open(path, true, false, &out, &err) == KV_OK && kvs_writer_new(out, KVS_PACK_RAW, NULL, &w, &err) == KV_OK, "a file");
	for (unsigned i = 0; i < copies; i++)
		ok(kv_cache_write(c, w, &err) == KV_OK, "snapshot %u is written", i);
	kvs_writer_free(w);
	ok(kv_out_commit(out, &err) == KV_OK, "and appears");
}

static void
spoil(off_t offset, uint8_t flip)
{
	int fd = open(path, O_RDWR);
	uint8_t b;

	ok(pread(fd, &b, 1, offset) == 1, "a byte to spoil");
	b ^= flip;
	ok(pwrite(fd, &b, 1, offset) == 1, "spoilt");
	close(fd);
}

static enum kv_status
survey(struct kv_survey **s)
{
	struct kvs_reader *r;
	struct kv_in *in;
	enum kv_status rc;

	if (kv_in_open(path, &in, &err) != KV_OK || kvs_reader_new(in, &r, &err) != KV_OK)
		exit(1);
	if ((rc = kvs_reader_begin(r, &err)) == KV_OK)
		rc = kv_survey_read(r, NULL, s, &err);
	kvs_reader_free(r);
	kv_in_close(in);
	return rc;
}

static enum kv_status
table(enum kv_frame_table which, struct kv_print *p)
{
	struct kvs_reader *r;
	struct kv_in *in;
	enum kv_status rc;

	if (kv_in_open(path, &in, &err) != KV_OK || kvs_reader_new(in, &r, &err) != KV_OK)
		exit(1);
	if ((rc = kvs_reader_begin(r, &err)) == KV_OK)
		rc = kv_frame_table(r, which, true, p, &err);
	kvs_reader_free(r);
	kv_in_close(in);
	return rc;
}

static enum kv_status
quick(void)
{
	int fd = open(path, O_RDONLY);
	enum kv_status rc = kv_quick(fd, &err);

	close(fd);
	return rc;
}

static void
test_print(struct kv_print *p)
{
	static const char nasty[] = "a\tb\nc\r\\\033[1m\0\xff\xc3\xa9\xc2\x9b\x7f";
	struct kv_buf b = { 0 };

	kv_print_field(p, nasty, sizeof nasty - 1);
	is_str(printed(p), "a\\tb\\nc\\r\\\\\\x1b[1m\\x00\\xff\xc3\xa9\\xc2\\x9b\\x7f", "what a field escapes");
	kv_print_uint(p, 0);
	kv_print_uint(p, UINT64_MAX);
	is_str(printed(p), "018446744073709551615", "numbers");
	kv_print_word(&b, "-k", 2);
	kv_print_word(&b, "", 0);
	kv_print_word(&b, "it's $x", 7);
	kv_buf_add(&b, "", 1);
	is_str((char *)b.p, "-k'''it'\\''s $x'", "words for sh");
	kv_buf_free(&b);
}

static void
test_tables(const struct kv_cache *c, struct kv_print *p)
{
	ok(kv_cache_table(c, KV_TABLE_ENTRIES, NULL, true, p, &err) == KV_OK, "entries");
	is_str(printed(p), "layer\thead\tslot\tsource\tposition\ttoken\n"
		"0\t0\t0\t0\t0\t1\n0\t0\t1\t1\t1\t7\n0\t0\t2\t2\t2\t3\n0\t0\t3\t3\t3\t9\n0\t0\t4\t4\t4\t4\n"
		"0\t1\t0\t0\t0\t1\n0\t1\t1\t1\t1\t7\n0\t1\t2\t2\t2\t3\n0\t1\t3\t3\t3\t9\n0\t1\t4\t4\t4\t4\n"
		"1\t0\t0\t0\t0\t1\n1\t0\t1\t1\t1\t7\n1\t0\t2\t2\t2\t3\n1\t0\t3\t3\t3\t9\n1\t0\t4\t4\t4\t4\n"
		"1\t1\t0\t0\t0\t1\n1\t1\t1\t2\t2\t3\n1\t1\t2\t4\t4\t4\n", "every entry has a row");
	kv_cache_table(c, KV_TABLE_TOKENS, NULL, false, p, &err);
	is_str(printed(p), "0\t1\t\n1\t7\t\n2\t3\t\n3\t9\t\n4\t4\t\n", "tokens without a model");
	kv_cache_table(c, KV_TABLE_NLL, NULL, true, p, &err);
	is_str(printed(p), "source\ttoken\tnll\n1\t7\t2.5\n2\t3\t0.75\n3\t9\t3.125\n4\t4\t0.5\n", "the first token has no NLL");
	ok(kv_perplexity(c, p, &err) == KV_OK, "perplexity");
	is_str(printed(p), "4\t1.718750\t5.577552\n", "exp(6.875 / 4)");
}

static void
test_scores(struct kv_print *p)
{
	struct kv_cache *c = make_cache(false);
	const char *text;

	is_int(kv_score_table(c, "window", NULL, true, p, &err), KV_EFIT, "one set for lists that differ");
	is_str(printed(p), "", "nothing is printed");
	ok(kv_score_table(c, "random", NULL, true, p, &err) == KV_OK, "scores");
	text = printed(p);
	ok(strstr(text, "layer\thead\tslot\tsource\tscore\n0\t0\t0\t0\t0.") == text, "a header and the first entry");
	ok(kv_score_table(c, "knorm", NULL, false, p, &err) == KV_OK, "knorm");
	/* Key 4 of the list is 2, 2.125, 2.25, 2.375, its norm sqrt(19.21875); slot 2 where two entries are gone. */
	ok(strstr(printed(p), "1\t1\t2\t4\t-4.3839"), "the norm of the last key");
	is_int(kv_score_table_check("no such", &err), KV_EUSAGE, "an unknown policy");
	kv_cache_free(c);
}

/* A vocabulary of bytes and pieces: 0xe2 0x82 0xac is the euro sign, in two tokens. */
static void
make_vocabulary(struct kv_buf *file)
{
	static const char *const token[16] = { "<s>", "a", "b", "c", "\xc3\xa2", "\xc4\xa4\xc2\xac", "\xc4\x8a", "Ġthe", "Ġfox", "\\", "\xc4\x9b", "ab",
		"e", "f", "g", "h" };
	static const int32_t type[16] = { 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
	struct ggufbuild b;

	gb_begin(&b);
	gb_str(&b, "general.architecture", "llama");
	gb_str(&b, "tokenizer.ggml.model", "gpt2");
	gb_str(&b, "tokenizer.ggml.pre", "smollm");
	gb_strs(&b, "tokenizer.ggml.tokens", token, 16);
	gb_i32s(&b, "tokenizer.ggml.token_type", type, 16);
	gb_strs(&b, "tokenizer.ggml.merges", (const char *const[]){ "a b" }, 1);
	gb_u32(&b, "tokenizer.ggml.bos_token_id", 0);
	if (!gb_finish(&b, file))
		exit(1);
}

/* <s> a the € (in two) \n fox; which = what each of two heads keeps. */
static struct kv_cache *
make_text(const uint32_t *keep0, uint32_t n0, const uint32_t *keep1, uint32_t n1)
{
	static const uint32_t ids[] = { 0, 1, 7, 4, 5, 6, 8 };
	struct kvs_geom g = geom;
	struct kv_cache *c;

	g.n_layers = 1;
	if (kv_cache_new(&g, &c, &err) != KV_OK)
		exit(1);
	kv_cache_extend(c, 7, &err);
	kv_cache_add_tokens(c, ids, 7, &err);
	kv_list_keep(kv_cache_list(c, 0, 0), keep0, n0, &err);
	kv_list_keep(kv_cache_list(c, 0, 1), keep1, n1, &err);
	return c;
}

static void
test_survivors(struct kv_print *p)
{
	static const uint32_t all[] = { 0, 1, 2, 3, 4, 5, 6 }, some[] = { 0, 4, 5 };
	struct kv_which any = { -1, -1 }, head1 = { 0, 1 }, beyond = { 0, 2 };
	struct kv_cache *whole = make_text(all, 7, all, 7), *cut = make_text(all, 7, some, 3), *gone = make_text(some, 3, some, 3);
	struct kv_buf file = { 0 };
	struct kv_survival n;
	struct kv_tokenizer *tok;
	struct kv_gguf *g;

	make_vocabulary(&file);
	if (!ok(kv_gguf_mem(file.p, file.len, &g, &err) == KV_OK && kv_tokenizer_new(g, &tok, &err) == KV_OK, "a vocabulary")) {
		printf("# %s\n", err.text);
		return;
	}
	ok(kv_survivors(whole, tok, &any, p, &n, &err) == KV_OK, "text");
	is_str(printed(p), "a the€\n fox\n", "the whole text, without BOS");
	ok(n.lists == 2 && n.tokens == 7 && n.many == 7, "all of it is held");
	kv_survivors(cut, tok, &any, p, &n, &err);
	is_str(printed(p), "a the€\n fox\n", "held by one head is held");
	kv_survivors(cut, tok, &head1, p, &n, &err);
	is_str(printed(p), "[…3…]\\x82\\xac\n[…1…]\n", "a head that holds half a character");
	ok(n.none == 4 && n.few == 0 && n.many == 3, "and its count");
	is_int(kv_survivors(cut, tok, &beyond, p, &n, &err), KV_EFIT, "no such head");
	p->colour = true;
	kv_survivors(gone, tok, &any, p, &n, &err);
	is_str(printed(p), "\033[0m\033[2ma the\033[0m€\n\033[0m\033[2m fox\033[0m\n", "dropped is dim");
	p->colour = false;
	kv_cache_table(whole, KV_TABLE_TOKENS, tok, false, p, &err);
	is_str(printed(p), "0\t0\t<s>\n1\t1\ta\n2\t7\t the\n3\t4\t\\xe2\n4\t5\t\\x82\\xac\n5\t6\t\\n\n6\t8\t fox\n", "tokens with text");
	kv_tokenizer_free(tok);
	kv_gguf_close(g);
	kv_buf_free(&file);
	kv_cache_free(whole);
	kv_cache_free(cut);
	kv_cache_free(gone);
}

static void
test_missing(struct kv_print *p)
{
	struct kv_cache *c;

	kv_cache_new(&geom, &c, &err);
	ok(kv_cache_table(c, KV_TABLE_TOKENS, NULL, false, p, &err) == KV_OK, "an empty cache has an empty table");
	kv_cache_extend(c, 1, &err);
	c->state.ids = false;
	is_int(kv_perplexity(c, p, &err), KV_EFIT, "no NLL: no perplexity");
	is_int(kv_cache_table(c, KV_TABLE_TOKENS, NULL, true, p, &err), KV_EFIT, "no ids: no tokens");
	is_str(printed(p), "", "nothing is printed");
	kv_cache_free(c);
}

/* Everything but what hashes decide. */
static const char want[] =
	"{\"format\":\"kvs 1.0\",\"model\":{\"name\":null,\"arch\":\"llama\",\"fingerprint\":null},"
	"\"geometry\":{\"layers\":2,\"heads\":4,\"kv_heads\":2,\"head_dim_k\":4,\"head_dim_v\":4,\"attn_scale\":0.5,"
	"\"rope\":{\"kind\":\"neox\",\"n_rot\":4,\"theta\":10000.0,\"scaling\":\"none\"}},"
	"\"tokens\":5,\"next_pos\":5,\"tail\":5,"
	"\"entries\":{\"total\":18,\"min\":3,\"max\":5,\"per_layer\":[5,5],\"per_head\":[[5,5],[5,3]]},"
	"\"dtype\":\"f16\",\"masks\":null,\"quant\":null,"
	"\"observations\":[{\"name\":\"last\",\"queries\":1,\"fresh\":true},{\"name\":\"nll\",\"queries\":4,\"fresh\":true}]}";

static void
test_json(const struct kv_survey *s, struct kv_print *p)
{
	static const char *const keys[] = { "format", "digest", "observation_digest", "model", "geometry", "tokens", "next_pos", "tail", "entries",
		"bytes", "dtype", "masks", "quant", "observations", "provenance", "snapshot_bytes" };
	static const char *const taken[] = { "digest", "observation_digest", "bytes", "provenance", "snapshot_bytes" };
	json_t *o, *bytes, *w = json_loads(want, 0, NULL);
	const char *text, *key;
	json_int_t sum = 0;
	json_t *v;
	size_t i = 0;

	ok(kv_survey_json(s, p, &err) == KV_OK, "JSON");
	text = printed(p);
	ok(strchr(text, '\n') == text + strlen(text) - 1, "one line");
	o = json_loads(text, 0, NULL);
	json_object_foreach(o, key, v) {
		is_str(key, i < sizeof keys / sizeof keys[0] ? keys[i] : "", "key %zu", i);
		i++;
	}
	is_int(i, sizeof keys / sizeof keys[0], "no key more or less");
	is_int(json_integer_value(json_object_get(o, "snapshot_bytes")), s->stored, "its length");
	is_int(strlen(json_string_value(json_object_get(o, "digest"))), 32, "its digest");
	is_str(json_string_value(json_array_get(json_object_get(json_array_get(json_object_get(o, "provenance"), 0), "argv"), 3)), "a b\n.kvs",
		"provenance as it was given");
	bytes = json_object_get(o, "bytes");
	is_int(json_integer_value(json_object_get(bytes, "keys")), 18 * D * 2, "bytes of keys");
	is_int(json_integer_value(json_object_get(bytes, "full")), TOKENS * LAYERS * KV_HEADS * 2 * D * 2, "bytes of the full cache");
	json_object_foreach(bytes, key, v)
		sum += strcmp(key, "total") && strcmp(key, "full") ? json_integer_value(v) : 0;
	is_int(sum, json_integer_value(json_object_get(bytes, "total")), "the kinds add up");
	is_int(sum, s->stored, "to the length of a raw snapshot");
	for (i = 0; i < sizeof taken / sizeof taken[0]; i++)
		json_object_del(o, taken[i]);
	ok(json_equal(o, w), "all the rest");
	json_decref(o);
	json_decref(w);
}

static void
test_page(const struct kv_survey *s, struct kv_print *p)
{
	const char *text;
	unsigned lines = 0;

	ok(kv_survey_page(s, "x.kvs", p, &err) == KV_OK, "the page");
	text = printed(p);
	for (const char *at = text; *at; at++)
		lines += *at == '\n';
	ok(lines <= 25, "fits a screen: %u lines", lines);
	ok(!strchr(text, '\033'), "no colour unless asked for");
	ok(strstr(text, "3 to 5 per head, mean 4.5"), "entries");
	ok(strstr(text, "0 to 4, the next token at 5"), "positions");
	ok(strstr(text, "mean 1.7188 nats, perplexity 5.578"), "perplexity");
	ok(strstr(text, "kv-evict --tova -k 60% 'a b\\n.kvs'"), "history, quoted and escaped");
	ok(!s->odd_rows || strstr(text, " rows of K or V hold NaN"), "NaN is told");
	p->colour = true;
	kv_survey_page(s, "x.kvs", p, &err);
	ok(strstr(printed(p), "\033[1m"), "colour");
	p->colour = false;
}

static void
test_frames(struct kv_print *p)
{
	const char *text;

	ok(table(KV_TABLE_FRAMES, p) == KV_OK, "frames");
	text = printed(p);
	ok(strstr(text, "seq\ttype\tcodec\tfilter\tlayer\thead\tchunk\toffset\tstored\traw\n0\tGEOM\traw\t0\t*\t*\t0\t64\t256\t256\n") == text,
		"GEOM comes first");
	ok(strstr(text, "\tKEYS\traw\t0\t1\t1\t0\t") && strstr(text, "\tENDS\traw\t0\t*\t*\t0\t"), "rows and the end");
	ok(table(KV_TABLE_PROV, p) == KV_OK, "provenance");
	is_str(printed(p), "id\ttool\tversion\targv\n1\tkv-evict\t0.1.0\t--tova -k 60% 'a b\\n.kvs'\n", "a run");
	ok(table(KV_TABLE_MASKS, p) == KV_OK, "masks");
	is_str(printed(p), "layer\thead\tchannel\tkept\tmask\twhat\n", "there are none");
}

static void
test_damage(struct kv_print *p, uint64_t length)
{
	struct kv_survey *s;

	is_int(quick(), KV_OK, "quick: good");
	spoil(1024, 4);
	is_int(survey(&s), KV_ECORRUPT, "a flipped bit is found");
	is_int(quick(), KV_OK, "though not by quick");
	ok(table(KV_TABLE_FRAMES, p) == KV_ECORRUPT && strstr(printed(p), "\tGEOM\t"), "frames up to the damage");
	spoil(1024, 4);
	spoil((off_t)length - 100, 1);
	is_int(quick(), KV_ECORRUPT, "quick: a header at the end");
	spoil((off_t)length - 100, 1);
	spoil(20, 1);
	is_int(quick(), KV_ECORRUPT, "quick: the prologue");
	spoil(20, 1);
	ok(truncate(path, (off_t)length - 64) == 0, "cut");
	is_int(quick(), KV_ECORRUPT, "quick: truncated");
	ok(truncate(path, 0) == 0, "emptied");
	is_int(quick(), KV_ECORRUPT, "quick: empty");
}

static uint64_t
odd_rows(const struct kv_cache *c)
{
	struct kv_survey *s = NULL;
	struct kv_buf b = { 0 };
	struct kvs_reader *r;
	struct kv_in *in;
	uint64_t n = UINT64_MAX;

	small_save(c, KVS_PACK_RAW, &b);
	if (kv_in_mem("it", b.p, b.len, &in, &err) != KV_OK || kvs_reader_new(in, &r, &err) != KV_OK)
		exit(1);
	if (kvs_reader_begin(r, &err) == KV_OK && kv_survey_read(r, NULL, &s, &err) == KV_OK)
		n = s->odd_rows;
	kv_survey_free(s);
	kvs_reader_free(r);
	kv_in_close(in);
	kv_buf_free(&b);
	return n;
}

/* An infinity is found wherever it stands in a row, and the largest numbers are none. */
static void
test_odd_values(void)
{
	static const uint16_t largest[] = { [KVS_F16] = 0xfbff, [KVS_BF16] = 0x7f7f }, infinite[] = { [KVS_F16] = 0x7c00, [KVS_BF16] = 0xff80 };
	int bad = 0;

	for (unsigned dtype = KVS_F16; dtype <= KVS_BF16; dtype++) {
		struct kvs_geom *g = small_geom(1, 1, 1, 6);
		struct kv_cache *c;
		uint16_t *v;

		g->layer[0].k_dtype = g->layer[0].v_dtype = (uint8_t)dtype;
		c = small_cache(g);
		small_feed(c, 3);
		v = (uint16_t *)(void *)kv_cache_list(c, 0, 0)->v.data;
		for (unsigned i = 0; i < 18; i++)
			v[i] = largest[dtype];
		bad += odd_rows(c) != 0;
		for (unsigned i = 0; i < 18; i++) {
			v[i] = infinite[dtype];
			bad += odd_rows(c) != 1;
			v[i] = largest[dtype];
		}
		kv_cache_free(c);
	}
	is_int(bad, 0, "infinities and the largest numbers in every place");
}

static void
test_snapshot(struct kv_print *p, bool odd)
{
	struct kv_cache *c = make_cache(odd);
	struct kv_survey *s = NULL;

	write_snapshot(c, 1);
	if (!ok(survey(&s) == KV_OK, "the survey%s", odd ? " of odd rows" : ""))
		printf("# %s\n", err.text);
	else {
		is_int(s->odd_rows, odd, "rows with a NaN");
		test_json(s, p);
		test_page(s, p);
		test_frames(p);
		test_damage(p, s->stored);
	}
	kv_survey_free(s);
	kv_cache_free(c);
}

static void
test_two(void)
{
	struct kv_cache *c = make_cache(false);

	write_snapshot(c, 2);
	is_int(quick(), KV_OK, "quick looks at the last of two");
	kv_cache_free(c);
}

int
main(void)
{
	struct kv_print p = { 0 };
	struct kv_cache *c;
	int fd = mkstemp(path);

	close(fd);
	make_geometry();
	c = make_cache(false);
	test_print(&p);
	test_tables(c, &p);
	test_scores(&p);
	test_survivors(&p);
	test_missing(&p);
	test_snapshot(&p, false);
	test_snapshot(&p, true);
	test_two();
	kv_cache_free(c);
	kv_buf_free(&p.buf);
	unlink(path);
	test_odd_values();
	return done_testing();
}
