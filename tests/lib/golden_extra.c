/* Frames that the worked example lacks; its geometry is one layer, one kv head of two query heads, entries 0, 3 and 4. */
#include "golden_extra.h"

#include <string.h>

#include "kvs/digest.h"
#include "util/half.h"
#include "util/le.h"

static const struct kvs_tag all = { KVS_ALL, KVS_ALL, 0 };

/* oBSP of the first n_cols entries, for both query heads. */
static struct forged *
attention(struct forge *f, uint32_t kind, uint32_t n_cols)
{
	uint8_t p[64 + 2 * 3 * 4] = { 0 };

	le32_put(p, n_cols);
	le32_put(p + 4, 2);
	le32_put(p + 8, 2);
	p[12] = (uint8_t)kind;
	p[15] = kind == 1;
	le32_put(p + 16, kind == 1 ? 5 : 3);
	le64_put(p + 24, kvs_hash64(forge_find(f, KVS_ENTS)->raw.p, 4 * (size_t)n_cols));
	le64_put(p + 32, kind == 1 ? 0x0123456789abcdef : 0);
	for (size_t i = 0; i < 2 * (size_t)n_cols; i++)
		lef32_put(p + 64 + 4 * i, 0.125f * (float)(i + 1));
	return forge_insert(f, forge_find(f, KVS_KEYS), KVS_OBSP, (struct kvs_tag){ 0, 0, kind }, p, 64 + 8 * (size_t)n_cols);
}

void
golden_round(struct forge *f)
{
	uint8_t round[64] = { 2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 16, 0, 0, 0, 3 };

	attention(f, 0, 1);
	attention(f, 1, 3);
	forge_insert(f, NULL, KVS_OBSR, all, round, sizeof round);
}

void golden_probe_kind(struct forge *f) { attention(f, 2, 3); }
void golden_probe_heads(struct forge *f) { attention(f, 1, 3)->raw.p[14] = 1; }

void
golden_codes(struct forge *f)
{
	static const uint8_t mask[24] = { 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0xd };
	static const uint8_t codes[] = { 0x24, 0x15, 0xff };	/* the uppermost two bits of a byte are nobody's */
	struct forged *values = forge_find(f, KVS_VALS);
	uint8_t scales[16 + 3 * 4 * 2] = { 1, 0, 0, 0, 3 };

	values->raw.p[8] = 1;
	values->raw.p[12] = 3;
	values->raw.p[14] = 1;
	memcpy(values->raw.p + 16, (const uint8_t[]){ 16, 2, 2, 1, 3 }, 5);
	memcpy(values->raw.p + 64, codes, sizeof codes);
	values->raw.len = 64 + sizeof codes;
	for (size_t i = 0; i < 3; i++) {
		lef32_put(scales + 16 + 4 * i, 0.5f);
		lef32_put(scales + 28 + 4 * i, -1);
	}
	forge_insert(f, values, KVS_QUNT, (struct kvs_tag){ 0, 0, 1u << 31 }, scales, sizeof scales);
	forge_insert(f, forge_find(f, KVS_KEYS), KVS_CMSK, (struct kvs_tag){ 0, 0, 1 }, mask, sizeof mask);
}

void
golden_alive(struct forge *f)
{
	static const uint32_t toks[] = { 5, 0, 3, 0, 0, 3, 4, 1, 9, 4 };	/* first, dense, sparse, zero; sources; ids */
	struct kv_buf *raw = &forge_find(f, KVS_TOKS)->raw;

	le64_put(forge_find(f, KVS_GEOM)->raw.p + 152, 5);
	raw->len = 0;
	for (size_t i = 0; i < sizeof toks / sizeof toks[0]; i++)
		le32_put(kv_buf_grow(raw, 4), toks[i]);
}

void
golden_sealed(struct forge *f)
{
	static const uint8_t zero[1000];
	struct forged *at = forge_insert(f, NULL, KVS_TYPE('a', 'B', 'C', 'd'), all, zero, sizeof zero);

	at->head.codec = 1;
	kv_buf_add(&at->enc, "no planes", 9);
}

void
golden_sealed_index(struct forge *f)
{
	struct kv_buf bytes = { 0 };
	struct forged *at;

	f->index = true;
	if (!forge_bytes(f, &bytes))
		return;
	f->index = false;
	at = forge_insert(f, NULL, KVS_INDX, all, bytes.p + bytes.len - 128 - 32 * f->n, 32 * f->n);
	at->head.codec = 200;
	kv_buf_add(&at->enc, "sealed", 6);
	kv_buf_free(&bytes);
}

void golden_hashes(struct forge *f) { forge_find(f, KVS_HIDN)->two_hashes = true; }

void
golden_sequence(struct forge *f)
{
	struct kv_buf second = { 0 };

	if (forge_bytes(f, &second))
		f->after = second;
}
