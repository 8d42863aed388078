/* Tables over the frames themselves, printed as they go by. */
#include "view/view.h"

#include <string.h>

#include "kvs/codec.h"
#include "kvs/prov.h"
#include "util/json.h"
#include "util/le.h"

enum { MASK_HEADER = 16 };

static const char *const headers[] = {
	"seq\ttype\tcodec\tfilter\tlayer\thead\tchunk\toffset\tstored\traw\n",
	"layer\thead\tchannel\tkept\tmask\twhat\n",
	"id\ttool\tversion\targv\n",
};

/* Layers and heads that a frame is not bound to are "*", as in the tables that kv-evict reads. */
static void
print_bound(struct kv_print *p, uint16_t v)
{
	if (v == KVS_ALL)
		kv_buf_add(&p->buf, "*", 1);
	else
		kv_print_uint(p, v);
	kv_buf_add(&p->buf, "\t", 1);
}

static void
print_frame(struct kv_print *p, const struct kvs_head *h, uint64_t offset)
{
	static const char *const codecs[] = { "raw", "zlib" };
	char type[4];

	for (int i = 0; i < 4; i++)
		type[i] = (char)(h->type >> 8 * i);
	kv_print_uint(p, h->seq);
	kv_buf_printf(&p->buf, "\t%.4s\t", type);
	if (h->codec <= KVS_CODEC_ZLIB)
		kv_buf_printf(&p->buf, "%s", codecs[h->codec]);
	else
		kv_print_uint(p, h->codec);
	kv_buf_printf(&p->buf, "\t%u\t", (unsigned)h->filter);
	print_bound(p, h->tag.layer);
	print_bound(p, h->tag.head);
	kv_buf_printf(&p->buf, "%lu\t%llu\t%llu\t%llu\n", (unsigned long)h->tag.chunk, (unsigned long long)offset,
		(unsigned long long)h->enc_len, (unsigned long long)h->raw_len);
}

static void
print_mask(struct kv_print *p, const struct kvs_head *h, const uint8_t *raw, size_t n)
{
	uint32_t d = le32_get(raw);
	const char *what = raw[8] & 2 ? "v" : "k";

	for (uint32_t j = 0; j < d && MASK_HEADER + j / 8 < n; j++)
		kv_buf_printf(&p->buf, "%u\t%u\t%lu\t%d\t%lu\t%s\n", (unsigned)h->tag.layer, (unsigned)h->tag.head, (unsigned long)j,
			raw[MASK_HEADER + j / 8] >> j % 8 & 1, (unsigned long)h->tag.chunk, what);
}

static void
print_string(struct kv_print *p, const json_t *o)
{
	if (json_is_string(o))
		kv_print_field(p, json_string_value(o), json_string_length(o));
}

static enum kv_status
print_record(struct kv_print *p, const uint8_t *raw, size_t n, struct kv_err *err)
{
	enum kv_status rc = kvs_json_check(raw, n, err);
	bool no_memory;
	json_t *o = rc == KV_OK ? kv_json_parse(raw, n, NULL, &no_memory) : NULL, *word;
	struct kv_buf line = { 0 };
	size_t i;

	if (!o)
		return rc == KV_OK ? kv_fail_mem(err, "JSON") : rc;
	kv_buf_printf(&p->buf, "%lld\t", (long long)json_integer_value(json_object_get(o, "id")));
	print_string(p, json_object_get(o, "tool"));
	kv_buf_add(&p->buf, "\t", 1);
	print_string(p, json_object_get(o, "version"));
	kv_buf_add(&p->buf, "\t", 1);
	json_array_foreach(json_object_get(o, "argv"), i, word) {
		if (i)
			kv_buf_add(&line, " ", 1);
		if (json_is_string(word))
			kv_print_word(&line, json_string_value(word), json_string_length(word));
	}
	kv_print_field(p, line.p, line.len);
	kv_buf_add(&p->buf, "\n", 1);
	p->buf.failed |= line.failed;
	kv_buf_free(&line);
	json_decref(o);
	return KV_OK;
}

/* Frames whose payload a table shows. */
static enum kv_status
print_decoded(struct kv_print *p, const struct kvs_frame *f, struct kv_err *err)
{
	size_t n = (size_t)f->head.raw_len;
	uint8_t *raw = kv_block_new(n, 1);
	char name[80];
	enum kv_status rc;

	if (!raw)
		return kv_fail_mem(err, "a frame");
	if ((rc = kvs_decode(f, raw, err)) != KV_OK)
		goto out;
	if (f->head.type == KVS_PROV)
		rc = print_record(p, raw, n, err);
	else if (n < MASK_HEADER)
		rc = kv_fail(err, KV_ECORRUPT, "%s: too short", kvs_frame_name(name, sizeof name, &f->head));
	else
		print_mask(p, &f->head, raw, n);
out:
	kv_block_free(raw);
	return rc;
}

enum kv_status
kv_frame_table(struct kvs_reader *r, enum kv_frame_table which, bool header, struct kv_print *p, struct kv_err *err)
{
	uint32_t wanted = which == KV_TABLE_MASKS ? KVS_CMSK : KVS_PROV;
	uint64_t offset = KVS_PROLOGUE;
	struct kvs_frame f;
	enum kv_status rc, flushed;

	if (header)
		kv_buf_printf(&p->buf, "%s", headers[which]);
	while ((rc = kvs_reader_next(r, &f, err)) == KV_OK) {
		if (which == KV_TABLE_FRAMES)
			print_frame(p, &f.head, offset);
		else if (f.head.type == wanted && (rc = print_decoded(p, &f, err)) != KV_OK)
			return rc;
		offset += KVS_HEADER + (f.head.enc_len + KVS_ALIGN - 1) / KVS_ALIGN * KVS_ALIGN;
		if ((rc = kv_print_flush(p, false, err)) != KV_OK)
			return rc;
	}
	if (rc == KV_END && which == KV_TABLE_FRAMES)
		print_frame(p, &(struct kvs_head){ .type = KVS_ENDS, .seq = kvs_reader_n_frames(r) - 1, .enc_len = 64, .raw_len = 64,
			.tag = { KVS_ALL, KVS_ALL, 0 } }, offset);
	/* What was whole before the damage is worth seeing. */
	flushed = kv_print_flush(p, true, rc == KV_END ? err : NULL);
	return rc == KV_END ? flushed : rc;
}

enum kv_status
kv_walk(struct kvs_reader *r, struct kv_err *err)
{
	struct kvs_frame f;
	enum kv_status rc;

	while ((rc = kvs_reader_next(r, &f, err)) == KV_OK)
		;
	return rc == KV_END ? KV_OK : rc;
}
