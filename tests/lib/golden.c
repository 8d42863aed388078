/* Golden files: each differs from the worked example in one way. */
#include "golden.h"

#include <string.h>

#include "forge.h"
#include "golden_extra.h"
#include "kvs/digest.h"
#include "util/le.h"

static const struct kvs_tag all = { KVS_ALL, KVS_ALL, 0 }, head0 = { 0, 0, 0 };

/* bytes at off of the first frame of a type (0: of the prologue; ENDS: xor-ed) become value, size bytes long. */
struct patch {
	uint32_t type, off;
	unsigned size;
	uint64_t value;
};

struct row {
	struct golden g;
	struct patch patch[2];
	void (*make)(struct forge *f);
};

static void
apply(struct forge *f, const struct patch *p)
{
	uint8_t v[8], *at = f->prologue;

	if (!p->size)
		return;
	if (p->type == KVS_ENDS)
		at = f->ends;
	else if (p->type)
		at = forge_find(f, p->type)->raw.p;
	le64_put(v, p->value);
	memcpy(at + p->off, v, p->size);
}

static void
add(struct forge *f, uint32_t type, struct kvs_tag tag)
{
	forge_insert(f, NULL, type, tag, "something", 9);
}

static void indexed(struct forge *f) { f->index = true; }
static void ancillary_safe(struct forge *f) { add(f, KVS_TYPE('a', 'B', 'C', 'd'), all); }
static void ancillary_unsafe(struct forge *f) { add(f, KVS_TYPE('a', 'B', 'C', 'D'), all); }
static void ancillary_private(struct forge *f) { add(f, KVS_TYPE('a', 'b', 'C', 'd'), head0); }
static void ancillary_third(struct forge *f) { add(f, KVS_TYPE('o', 'B', 's', 'Q'), all); }
static void critical_unknown(struct forge *f) { add(f, KVS_TYPE('X', 'Y', 'Z', 'W'), all); }
static void critical_private(struct forge *f) { add(f, KVS_TYPE('X', 'y', 'Z', 'W'), all); }
static void critical_third(struct forge *f) { forge_find(f, KVS_HIDN)->head.type = KVS_TYPE('H', 'I', 'd', 'N'); }
static void not_letters(struct forge *f) { forge_find(f, KVS_HIDN)->head.type = KVS_TYPE('H', 'I', '1', 'N'); }
static void flag_must(struct forge *f) { forge_find(f, KVS_HIDN)->head.flags = 0x01; }
static void flag_must_ancillary(struct forge *f) { forge_find(f, KVS_OBSN)->head.flags = 0x80; }
static void flag_may(struct forge *f) { forge_find(f, KVS_HIDN)->head.flags = 0x8100; }
static void pads(struct forge *f) { forge_insert(f, forge_find(f, KVS_ENTS), KVS_PADD, all, "\0\0\0", 3); }
static void pads_dirty(struct forge *f) { forge_insert(f, forge_find(f, KVS_ENTS), KVS_PADD, all, "\0x\0", 3); }
static void packed(struct forge *f) { forge_pack(forge_find(f, KVS_GEOM), 2); }
static void after_garbage(struct forge *f) { kv_buf_add(&f->after, "garbage", 7); }
static void after_magic(struct forge *f) { kv_buf_add(&f->after, kvs_magic, 8); }
static void seq_gap(struct forge *f) { f->seq_from = 5; }
static void ends_long(struct forge *f) { f->ends_grow = 64; }
static void no(struct forge *f, uint32_t type) { forge_remove(f, forge_find(f, type)); }
static void no_geom(struct forge *f) { no(f, KVS_GEOM); }
static void no_rope(struct forge *f) { no(f, KVS_ROPE); }
static void no_layr(struct forge *f) { no(f, KVS_LAYR); }
static void no_toks(struct forge *f) { no(f, KVS_TOKS); }
static void no_hidn(struct forge *f) { no(f, KVS_HIDN); }
static void no_ents(struct forge *f) { no(f, KVS_ENTS); }
static void no_keys(struct forge *f) { no(f, KVS_KEYS); }
static void no_vals(struct forge *f) { no(f, KVS_VALS); }

static void
no_frames(struct forge *f)
{
	while (f->n)
		forge_remove(f, &f->f[0]);
}

static void
twice(struct forge *f, uint32_t type)
{
	struct kv_buf copy = { 0 };
	struct forged *at = forge_find(f, type);
	struct kvs_tag tag = at->head.tag;

	kv_buf_add(&copy, at->raw.p, at->raw.len);
	forge_insert(f, at, type, tag, copy.p, copy.len);
	kv_buf_free(&copy);
}

static void geom_twice(struct forge *f) { twice(f, KVS_GEOM); }
static void ents_twice(struct forge *f) { twice(f, KVS_ENTS); }
static void keys_twice(struct forge *f) { twice(f, KVS_KEYS); }
static void obsa_twice(struct forge *f) { twice(f, KVS_OBSA); }
static void unknown_twice(struct forge *f) { ancillary_safe(f); ancillary_safe(f); }

/* A type gets these tags in place of its own. */
static void
retag(struct forge *f, uint32_t type, uint16_t layer, uint16_t head, uint32_t chunk)
{
	forge_find(f, type)->head.tag = (struct kvs_tag){ layer, head, chunk };
}

static void ents_layer(struct forge *f) { retag(f, KVS_ENTS, 0, KVS_ALL, 0); }
static void ents_head(struct forge *f) { retag(f, KVS_ENTS, 0, 0, 0); }
static void ents_all_h(struct forge *f) { retag(f, KVS_ENTS, KVS_ALL, 0, 0); }
static void ents_beyond(struct forge *f) { retag(f, KVS_ENTS, 1, 0, 0); }
static void keys_beyond(struct forge *f) { retag(f, KVS_KEYS, 0, 1, 0); }
static void keys_chunk(struct forge *f) { retag(f, KVS_KEYS, 0, 0, 1); }
static void geom_tag(struct forge *f) { retag(f, KVS_GEOM, 0, 0, 0); }
static void obsq_tag(struct forge *f) { retag(f, KVS_OBSQ, KVS_ALL, KVS_ALL, 0); }
static void prov_tag(struct forge *f) { retag(f, KVS_PROV, KVS_ALL, KVS_ALL, 256); }

/* A frame that is longer or shorter by some bytes. */
static void
resize(struct forge *f, uint32_t type, int by)
{
	struct forged *at = forge_find(f, type);

	if (by > 0)
		memset(kv_buf_grow(&at->raw, (size_t)by), 0, (size_t)by);
	else
		at->raw.len -= (size_t)-by;
}

static void geom_320(struct forge *f) { resize(f, KVS_GEOM, 64); }
static void rope_long(struct forge *f) { resize(f, KVS_ROPE, 4); }
static void layr_long(struct forge *f) { resize(f, KVS_LAYR, 16); }
static void toks_short(struct forge *f) { resize(f, KVS_TOKS, -4); }
static void ents_odd(struct forge *f) { resize(f, KVS_ENTS, 4); }
static void keys_short(struct forge *f) { resize(f, KVS_KEYS, -8); }
static void keys_tiny(struct forge *f) { resize(f, KVS_KEYS, -60); }
static void obsq_long(struct forge *f) { resize(f, KVS_OBSQ, 4); }

static void
empty_cache(struct forge *f)
{
	no(f, KVS_OBSA);
	no(f, KVS_KEYS);
	no(f, KVS_VALS);
	forge_find(f, KVS_ENTS)->raw.len = 0;
}

static void
private_text(struct forge *f)
{
	uint8_t *geom = forge_find(f, KVS_GEOM)->raw.p;

	le64_put(geom + 152, 5);
	le32_put(geom + 168, 0);
	no(f, KVS_TOKS);
}

static void
early_observation(struct forge *f)
{
	struct forged *at = forge_find(f, KVS_OBSA);
	struct kv_buf copy = { 0 };

	kv_buf_add(&copy, at->raw.p, at->raw.len);
	forge_remove(f, at);
	forge_insert(f, forge_find(f, KVS_ENTS), KVS_OBSA, head0, copy.p, copy.len);
	kv_buf_free(&copy);
}

static void
keys_after_vals(struct forge *f)
{
	forge_find(f, KVS_KEYS)->head.type = KVS_TYPE('V', 'A', 'L', 's');
	forge_find(f, KVS_VALS)->head.type = KVS_KEYS;
	forge_find(f, KVS_TYPE('V', 'A', 'L', 's'))->head.type = KVS_VALS;
}

/* One chunk of three rows as a chunk of two and a chunk of one. */
static void
split_keys(struct forge *f)
{
	struct forged *at = forge_find(f, KVS_KEYS);
	uint8_t second[72];

	memcpy(second, at->raw.p, 64);
	memcpy(second + 64, at->raw.p + 80, 8);
	le32_put(second, 2);
	le32_put(second + 4, 1);
	le32_put(at->raw.p + 4, 2);
	at->raw.len = 80;
	forge_insert(f, at + 1, KVS_KEYS, (struct kvs_tag){ 0, 0, 1 }, second, sizeof second);
}

/* The same, but the second one as f32: another segment. */
static void
two_segments(struct forge *f)
{
	uint8_t *p;

	split_keys(f);
	p = (forge_find(f, KVS_KEYS) + 1)->raw.p;
	le32_put(p + 8, 16);
	p[16] = 1;
	memset(kv_buf_grow(&(forge_find(f, KVS_KEYS) + 1)->raw, 8), 0, 8);
}

/* Keys cut to channels 0 and 1 (or 0 and 2), with their mask. */
static void
prune(struct forge *f, uint8_t bits, uint8_t flags, uint8_t rotated)
{
	struct forged *at = forge_find(f, KVS_KEYS);
	uint8_t mask[24] = { 4, 0, 0, 0, 2 };

	mask[8] = flags;
	mask[16] = bits;
	at->raw.p[8] = 4;
	at->raw.p[12] = 2;
	at->raw.p[14] = 1;
	at->raw.p[24] = rotated;
	at->raw.len = 64 + 12;
	forge_insert(f, at, KVS_CMSK, (struct kvs_tag){ 0, 0, 1 }, mask, sizeof mask);
}

static void mask_pairs(struct forge *f) { prune(f, 0x3, 1, 0); }
static void mask_broken(struct forge *f) { prune(f, 0x5, 0, 1); }
static void mask_wrong_bit(struct forge *f) { prune(f, 0x5, 1, 0); }
static void mask_rotated(struct forge *f) { prune(f, 0x3, 1, 1); }
static void mask_unrotated(struct forge *f) { prune(f, 0x5, 0, 0); }
static void mask_values(struct forge *f) { prune(f, 0x3, 2, 0); }
static void mask_count(struct forge *f) { prune(f, 0x7, 0, 1); }
static void mask_flag(struct forge *f) { prune(f, 0x3, 5, 0); }
static void mask_beyond(struct forge *f) { prune(f, 0x30, 1, 0); }
static void mask_gone(struct forge *f) { prune(f, 0x3, 1, 0); no(f, KVS_CMSK); }

/* The two channels that are gone from the two that are left: f16 factors and constants. */
static void
map(struct forge *f)
{
	uint8_t m[16 + 12] = { 2, 0, 0, 0, 2, 0, 0, 0, 2 };

	prune(f, 0x3, 1, 0);
	for (size_t i = 16; i < sizeof m; i += 2)
		le16_put(m + i, 0x3c00);
	forge_insert(f, forge_find(f, KVS_KEYS), KVS_CMAP, (struct kvs_tag){ 0, 0, 1 }, m, sizeof m);
}

static void map_gone(struct forge *f) { map(f); no(f, KVS_CMSK); }
static void map_late(struct forge *f) { map(f); retag(f, KVS_CMAP, 0, 0, 2); }
static void map_shape(struct forge *f) { map(f); forge_find(f, KVS_CMAP)->raw.p[4] = 1; }
static void map_nan(struct forge *f) { map(f); le16_put(forge_find(f, KVS_CMAP)->raw.p + 26, 0x7e00); }
static void map_type(struct forge *f) { map(f); forge_find(f, KVS_CMAP)->raw.p[8] = 3; }
static void map_twice(struct forge *f) { map(f); twice(f, KVS_CMAP); }

/* A mask that breaks pairs cannot have one. */
static void
map_broken(struct forge *f)
{
	map(f);
	forge_find(f, KVS_CMSK)->raw.p[8] = 0;
	forge_find(f, KVS_CMSK)->raw.p[16] = 5;
	forge_find(f, KVS_KEYS)->raw.p[24] = 1;
}

/* Keys as 2-bit codes with one group of three rows: 16 + 16 + 8 + 8 bytes of scales. */
static void
quantise(struct forge *f)
{
	struct forged *at = forge_find(f, KVS_KEYS);
	uint8_t q[48] = { 1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3 };

	for (size_t i = 32; i < 40; i += 2)
		le16_put(q + i, 0x3c00);
	at->raw.p[8] = 1;
	memcpy(at->raw.p + 16, (const uint8_t[]){ 16, 1, 2, 2, 32 }, 5);
	at->raw.len = 64 + 3;
	forge_insert(f, at, KVS_QUNT, head0, q, sizeof q);
}

static void quant_gone(struct forge *f) { quantise(f); no(f, KVS_QUNT); }
static void quant_alone(struct forge *f) { quantise(f); no(f, KVS_KEYS); }
static void quant_sum(struct forge *f) { quantise(f); forge_find(f, KVS_QUNT)->raw.p[16] = 2; }
static void quant_group(struct forge *f) { quantise(f); forge_find(f, KVS_KEYS)->raw.p[20] = 2; }
static void quant_nan(struct forge *f) { quantise(f); le16_put(forge_find(f, KVS_QUNT)->raw.p + 34, 0x7e00); }
static void quant_negative(struct forge *f) { quantise(f); le16_put(forge_find(f, KVS_QUNT)->raw.p + 34, 0xbc00); }
static void quant_padding(struct forge *f) { quantise(f); forge_find(f, KVS_QUNT)->raw.p[20] = 1; }
static void quant_scheme(struct forge *f) { quantise(f); forge_find(f, KVS_KEYS)->raw.p[17] = 3; }
static void quant_bits(struct forge *f) { quantise(f); forge_find(f, KVS_KEYS)->raw.p[18] = 3; }

/* A codec from a later version: half of the payload stands for all of it. */
static void
future_codec(struct forge *f, uint32_t type, uint8_t codec)
{
	struct forged *at = forge_find(f, type);

	at->head.codec = codec;
	kv_buf_add(&at->enc, at->raw.p, at->raw.len / 2);
}

static void codec2(struct forge *f) { future_codec(f, KVS_HIDN, 2); }
static void codec200(struct forge *f) { future_codec(f, KVS_KEYS, 200); }
static void codec2_ancillary(struct forge *f) { future_codec(f, KVS_OBSQ, 2); }
static void codec200_ancillary(struct forge *f) { future_codec(f, KVS_OBSA, 200); }
static void filter3(struct forge *f) { packed(f); forge_find(f, KVS_GEOM)->head.filter = 3; }
static void filter_raw(struct forge *f) { forge_find(f, KVS_HIDN)->head.filter = 1; }
static void plane_method(struct forge *f) { packed(f); forge_find(f, KVS_GEOM)->enc.p[0] = 2; }
static void plane_zero(struct forge *f) { packed(f); forge_find(f, KVS_GEOM)->enc.p[5] = 1; }
static void plane_len(struct forge *f) { packed(f); forge_find(f, KVS_GEOM)->enc.p[8]++; }

static void
grows(struct forge *f)
{
	packed(f);
	memset(kv_buf_grow(&forge_find(f, KVS_GEOM)->enc, 256), 0, 256);
}


static void
index_of(struct forge *f, unsigned off, uint8_t value, int by)
{
	static const uint8_t zero[12 * 32];
	struct forged *at = forge_insert(f, NULL, KVS_INDX, all, zero, sizeof zero);
	uint64_t where = 64;

	for (size_t i = 0; i + 1 < f->n && i < 12; i++) {
		uint8_t *e = at->raw.p + 32 * i;
		const struct kvs_head *h = &f->f[i].head;

		le32_put(e, h->type);
		le16_put(e + 8, h->tag.layer);
		le16_put(e + 10, h->tag.head);
		le32_put(e + 12, h->tag.chunk);
		le64_put(e + 16, where);
		le64_put(e + 24, f->f[i].raw.len);
		where += 64 + (f->f[i].raw.len + 63) / 64 * 64;
	}
	at->raw.p[off] ^= value;
	at->raw.len += (size_t)by;
}

static void index_off(struct forge *f) { index_of(f, 32 + 16, 64, 0); }
static void index_huge(struct forge *f) { index_of(f, 32 + 23, 0x7f, 0); }
static void index_empty(struct forge *f) { index_of(f, 0, 0, -12 * 32); }
static void index_short(struct forge *f) { index_of(f, 0, 0, -32); }

#define SAME GOLDEN_SAME
#define NONE { { 0 } }

static const struct row rows[] = {
	{ { "good-tiny", "the worked example of formats/kvs.md, section 22", SAME }, NONE, NULL },
	{ { "good-index", "with an index", SAME }, NONE, indexed },
	{ { "good-packed", "the geometry as four byte planes", SAME }, NONE, packed },
	{ { "good-padd", "a frame of padding", SAME }, NONE, pads },
	{ { "good-minor", "minor version 1", SAME }, { { 0, 10, 2, 1 } }, NULL },
	{ { "good-empty-cache", "a list without entries", SAME }, NONE, empty_cache },
	{ { "good-private-text", "no token ids", SAME }, NONE, private_text },
	{ { "good-no-hidden", "no hidden state", SAME }, NONE, no_hidn },
	{ { "good-ents-layer", "entries by layer: not canonical, but true", SAME }, NONE, ents_layer },
	{ { "good-ents-head", "entries by head", SAME }, NONE, ents_head },
	{ { "good-early-observation", "an observation before the entries it is about", SAME }, NONE, early_observation },
	{ { "good-two-segments", "keys of two types", SAME }, NONE, two_segments },
	{ { "good-mask-pairs", "keys without two channels, rotary pairs complete", SAME }, NONE, mask_pairs },
	{ { "good-mask-broken", "keys without two channels of different pairs, rotated", SAME }, NONE, mask_broken },
	{ { "good-mask-map", "keys without two channels, which can be rebuilt", SAME }, NONE, map },
	{ { "good-quant", "keys as codes of 2 bits", SAME }, NONE, quantise },
	{ { "good-codes-values", "values as codes by row under a mask, with spare bits set", SAME }, NONE, golden_codes },
	{ { "good-keys-nan", "a key that is not a number", SAME }, { { KVS_KEYS, 64, 2, 0x7e00 } }, NULL },
	{ { "good-toks-alive", "ids of the entries alone", SAME }, NONE, golden_alive },
	{ { "good-round", "attention of a chunk and of a probe, and the round", SAME }, NONE, golden_round },
	{ { "good-sequence", "two snapshots", SAME }, NONE, golden_sequence },
	{ { "good-unknown-sealed", "an unknown frame that cannot be unpacked", SAME }, NONE, golden_sealed },
	{ { "good-index-codec200", "a private codec on the index", SAME }, NONE, golden_sealed_index },
	{ { "good-unknown-safe", "an unknown ancillary frame, safe to copy", SAME }, NONE, ancillary_safe },
	{ { "good-unknown-unsafe", "an unknown ancillary frame, unsafe to copy", SAME }, NONE, ancillary_unsafe },
	{ { "good-unknown-private", "a private ancillary frame", SAME }, NONE, ancillary_private },
	{ { "good-unknown-third", "an ancillary frame whose third letter is lower case", SAME }, NONE, ancillary_third },
	{ { "good-flag-may", "flags that may be ignored", SAME }, NONE, flag_may },
	{ { "good-flag-must-ancillary", "a must-understand flag on an ancillary frame", SAME }, NONE, flag_must_ancillary },
	{ { "good-codec2-ancillary", "codec 2 on an ancillary frame", SAME }, NONE, codec2_ancillary },
	{ { "good-codec200-ancillary", "codec 200 on an ancillary frame", SAME }, NONE, codec200_ancillary },

	{ { "unsupported-major", "major version 2", SAME }, { { 0, 8, 2, 2 } }, NULL },
	{ { "unsupported-prologue-flag", "a flag in the prologue", SAME }, { { 0, 12, 1, 1 } }, NULL },
	{ { "unsupported-prologue-zero", "a reserved byte of the prologue", SAME }, { { 0, 40, 1, 1 } }, NULL },
	{ { "unsupported-max-raw", "frames beyond 1 GiB announced", SAME }, { { 0, 16, 8, ((uint64_t)1 << 30) + 1 } }, NULL },
	{ { "unsupported-critical", "an unknown critical frame", SAME }, NONE, critical_unknown },
	{ { "unsupported-critical-private", "a private critical frame", SAME }, NONE, critical_private },
	{ { "unsupported-critical-third", "a critical frame whose third letter is lower case", SAME }, NONE, critical_third },
	{ { "unsupported-flag-must", "a must-understand flag on a critical frame", SAME }, NONE, flag_must },
	{ { "unsupported-codec2", "codec 2 on a critical frame", SAME }, NONE, codec2 },
	{ { "unsupported-codec200", "a private codec on a critical frame", SAME }, NONE, codec200 },
	{ { "unsupported-filter3", "filter 3", SAME }, NONE, filter3 },
	{ { "unsupported-filter-raw", "a filter without a codec", SAME }, NONE, filter_raw },
	{ { "unsupported-plane-method", "plane method 2", SAME }, NONE, plane_method },
	{ { "unsupported-plane-zero", "a reserved byte in the table of planes", SAME }, NONE, plane_zero },
	{ { "unsupported-geom-320", "GEOM of 320 bytes", SAME }, NONE, geom_320 },
	{ { "unsupported-ends-128", "ENDS of 128 bytes", SAME }, NONE, ends_long },
	{ { "unsupported-attn-kind", "attn_kind 1", SAME }, { { KVS_GEOM, 32, 4, 1 } }, NULL },
	{ { "unsupported-k-basis", "k_basis 1", SAME }, { { KVS_GEOM, 36, 4, 1 } }, NULL },
	{ { "unsupported-fp-kind", "fp_kind 2", SAME }, { { KVS_GEOM, 60, 4, 2 } }, NULL },
	{ { "unsupported-geom-flag", "an unknown flag in GEOM", SAME }, { { KVS_GEOM, 168, 4, 3 } }, NULL },
	{ { "unsupported-geom-zero44", "GEOM byte 44", SAME }, { { KVS_GEOM, 44, 1, 1 } }, NULL },
	{ { "unsupported-geom-zero255", "GEOM byte 255", SAME }, { { KVS_GEOM, 255, 1, 1 } }, NULL },
	{ { "unsupported-layers", "1025 layers", SAME }, { { KVS_GEOM, 0, 4, 1025 } }, NULL },
	{ { "unsupported-rope-kind", "RoPE kind 3", SAME }, { { KVS_ROPE, 0, 4, 3 } }, NULL },
	{ { "unsupported-rope-scaling", "RoPE scaling 4", SAME }, { { KVS_ROPE, 12, 4, 4 } }, NULL },
	{ { "unsupported-rope-zero", "a reserved byte in ROPE", SAME }, { { KVS_ROPE, 63, 1, 1 } }, NULL },
	{ { "unsupported-layr-dtype", "element type 9 for new rows", SAME }, { { KVS_LAYR, 1, 1, 9 } }, NULL },
	{ { "unsupported-layr-zero", "a reserved byte in LAYR", SAME }, { { KVS_LAYR, 3, 1, 1 } }, NULL },
	{ { "unsupported-toks-zero", "a reserved field in TOKS", SAME }, { { KVS_TOKS, 12, 4, 1 } }, NULL },
	{ { "unsupported-hidn-zero", "a reserved field in HIDN", SAME }, { { KVS_HIDN, 20, 1, 1 } }, NULL },
	{ { "unsupported-dtype", "element type 9", SAME }, { { KVS_KEYS, 16, 1, 9 } }, NULL },
	{ { "unsupported-keys-zero", "a reserved byte in a chunk header", SAME }, { { KVS_KEYS, 63, 1, 1 } }, NULL },
	{ { "unsupported-scheme", "quantisation scheme 3", SAME }, NONE, quant_scheme },
	{ { "unsupported-bits", "codes of 3 bits", SAME }, NONE, quant_bits },
	{ { "unsupported-quant-padding", "padding after the row counts of a QUNT", SAME }, NONE, quant_padding },
	{ { "unsupported-map-type", "a map of element type 3", SAME }, NONE, map_type },
	{ { "unsupported-mask-flag", "an unknown flag in CMSK", SAME }, NONE, mask_flag },
	{ { "unsupported-nll-kind", "oBSn kind 2", 0 }, { { KVS_OBSN, 12, 4, 2 } }, NULL },
	{ { "unsupported-obsa-field", "a fourth field in oBSA", 0 }, { { KVS_OBSA, 4, 4, 15 } }, NULL },
	{ { "unsupported-obsp-kind", "oBSP kind 2", 0 }, NONE, golden_probe_kind },
	{ { "unsupported-obsq-zero", "a reserved field in oBSQ", 0 }, { { KVS_OBSQ, 12, 4, 1 } }, NULL },

	{ { "bad-magic", "the magic after a text-mode transfer", SAME }, { { 0, 4, 1, '\n' } }, NULL },
	{ { "bad-max-raw", "a frame longer than announced", SAME }, { { 0, 16, 8, 200 } }, NULL },
	{ { "bad-no-frames", "nothing but ENDS", SAME }, NONE, no_frames },
	{ { "bad-seq", "a gap in the sequence numbers", SAME }, NONE, seq_gap },
	{ { "bad-type", "a type that is not letters", SAME }, NONE, not_letters },
	{ { "bad-length-rule", "a packed frame that grew", SAME }, NONE, grows },
	{ { "bad-hashes", "a raw payload with two hashes", SAME }, NONE, golden_hashes },
	{ { "bad-plane-len", "planes that do not add up", SAME }, NONE, plane_len },
	{ { "bad-after-garbage", "bytes after ENDS", SAME }, NONE, after_garbage },
	{ { "bad-after-torn", "a torn prologue after ENDS", SAME }, NONE, after_magic },
	{ { "bad-ends-frames", "ENDS counts another number of frames", SAME }, { { KVS_ENDS, 0, 1, 1 } }, NULL },
	{ { "bad-ends-raw", "ENDS adds up other lengths", SAME }, { { KVS_ENDS, 8, 1, 1 } }, NULL },
	{ { "bad-ends-length", "ENDS knows another length", SAME }, { { KVS_ENDS, 16, 1, 64 } }, NULL },
	{ { "bad-ends-index", "ENDS points at an index that is not there", SAME }, { { KVS_ENDS, 24, 1, 64 } }, NULL },
	{ { "bad-ends-digest", "another content digest", SAME }, { { KVS_ENDS, 32, 1, 1 } }, NULL },
	{ { "bad-ends-heads", "another hash of the headers", SAME }, { { KVS_ENDS, 48, 1, 1 } }, NULL },
	{ { "bad-ends-magic", "another end magic", SAME }, { { KVS_ENDS, 63, 1, 1 } }, NULL },
	{ { "bad-index-off", "an index that is off by 64", SAME }, NONE, index_off },
	{ { "bad-index-huge", "an offset beyond everything", SAME }, NONE, index_huge },
	{ { "bad-index-empty", "an empty index", SAME }, NONE, index_empty },
	{ { "bad-index-short", "an index without its last entry", SAME }, NONE, index_short },
	{ { "bad-no-geom", "no GEOM", SAME }, NONE, no_geom },
	{ { "bad-no-rope", "no ROPE", SAME }, NONE, no_rope },
	{ { "bad-no-layr", "no LAYR", SAME }, NONE, no_layr },
	{ { "bad-no-toks", "no TOKS, although GEOM announces ids", SAME }, NONE, no_toks },
	{ { "bad-no-ents", "no ENTS", SAME }, NONE, no_ents },
	{ { "bad-no-keys", "no KEYS", SAME }, NONE, no_keys },
	{ { "bad-no-vals", "no VALS", SAME }, NONE, no_vals },
	{ { "bad-geom-twice", "GEOM twice", SAME }, NONE, geom_twice },
	{ { "bad-ents-twice", "ENTS twice", SAME }, NONE, ents_twice },
	{ { "bad-keys-twice", "KEYS twice", SAME }, NONE, keys_twice },
	{ { "bad-obsa-twice", "oBSA twice", SAME }, NONE, obsa_twice },
	{ { "bad-unknown-twice", "an unknown frame twice", SAME }, NONE, unknown_twice },
	{ { "bad-geom-tag", "GEOM bound to a head", SAME }, NONE, geom_tag },
	{ { "bad-ents-all-h", "ENTS of one head in all layers", SAME }, NONE, ents_all_h },
	{ { "bad-ents-beyond", "ENTS of a layer that is not there", SAME }, NONE, ents_beyond },
	{ { "bad-keys-beyond", "KEYS of a head that is not there", SAME }, NONE, keys_beyond },
	{ { "bad-keys-chunk", "KEYS chunk 1 without chunk 0", SAME }, NONE, keys_chunk },
	{ { "bad-keys-after-vals", "VALS before KEYS", SAME }, NONE, keys_after_vals },
	{ { "bad-prov-tag", "pROv number 256", SAME }, NONE, prov_tag },
	{ { "bad-heads", "3 query heads for 2 kv heads", SAME }, { { KVS_GEOM, 4, 8, 3 | (uint64_t)2 << 32 } }, NULL },
	{ { "bad-no-layers", "0 layers", SAME }, { { KVS_GEOM, 0, 4, 0 } }, NULL },
	{ { "bad-scale", "an attention scale that is not a number", SAME }, { { KVS_GEOM, 48, 4, 0x7fc00000 } }, NULL },
	{ { "bad-arch", "an upper case letter in the architecture", SAME }, { { KVS_GEOM, 112, 1, 'L' } }, NULL },
	{ { "bad-fp", "a fingerprint without a kind", SAME }, { { KVS_GEOM, 64, 1, 1 } }, NULL },
	{ { "bad-consumed", "fewer tokens read than the newest entry", SAME }, { { KVS_GEOM, 144, 8, 4 } }, NULL },
	{ { "bad-hist-first", "a history that begins after its end", SAME }, { { KVS_GEOM, 152, 8, 6 } }, NULL },
	{ { "bad-next-pos", "the next position below an entry's", SAME }, { { KVS_GEOM, 160, 4, 4 } }, NULL },
	{ { "bad-tail", "a tail longer than the text", SAME }, { { KVS_GEOM, 164, 4, 6 } }, NULL },
	{ { "bad-ids-flag", "ids that GEOM denies", SAME }, { { KVS_GEOM, 168, 4, 0 } }, NULL },
	{ { "bad-rope-odd", "3 rotated channels", SAME }, { { KVS_ROPE, 4, 4, 3 } }, NULL },
	{ { "bad-rope-nan", "a frequency that is not a number", SAME }, { { KVS_ROPE, 64, 4, 0x7fc00000 } }, NULL },
	{ { "bad-rope-long", "ROPE that is too long", SAME }, NONE, rope_long },
	{ { "bad-layr-set", "a RoPE set that is not there", SAME }, { { KVS_LAYR, 0, 1, 1 } }, NULL },
	{ { "bad-layr-long", "LAYR of two layers", SAME }, NONE, layr_long },
	{ { "bad-toks-short", "TOKS shorter than it says", SAME }, NONE, toks_short },
	{ { "bad-toks-vocab", "a token id beyond the vocabulary", SAME }, { { KVS_TOKS, 16, 4, 16 } }, NULL },
	{ { "bad-toks-first", "ids that do not begin with the history", SAME }, { { KVS_TOKS, 0, 4, 1 } }, NULL },
	{ { "bad-toks-alive", "an entry's token without an id", SAME },
		{ { KVS_GEOM, 152, 8, 1 }, { KVS_TOKS, 0, 8, 1 | (uint64_t)4 << 32 } }, toks_short },
	{ { "bad-hidn-token", "the hidden state of another token", SAME }, { { KVS_HIDN, 8, 8, 3 } }, NULL },
	{ { "bad-hidn-embd", "a hidden state of another size", SAME }, { { KVS_HIDN, 0, 4, 7 } }, NULL },
	{ { "bad-ents-odd", "half an entry", SAME }, NONE, ents_odd },
	{ { "bad-ents-src", "source indices that do not ascend", SAME }, { { KVS_ENTS, 4, 4, 0 } }, NULL },
	{ { "bad-ents-pos", "positions that do not ascend", SAME }, { { KVS_ENTS, 16, 4, 4 } }, NULL },
	{ { "bad-ents-negative", "a negative position", SAME }, { { KVS_ENTS, 12, 4, 0xffffffff } }, NULL },
	{ { "bad-rows-hole", "a row is missing at the front", SAME }, { { KVS_KEYS, 0, 4, 1 } }, NULL },
	{ { "bad-rows-short", "a row is missing at the end", SAME }, { { KVS_KEYS, 4, 4, 2 } }, keys_short },
	{ { "bad-rows-length", "fewer bytes than rows", SAME }, NONE, keys_short },
	{ { "bad-rows-header", "a chunk shorter than its header", SAME }, NONE, keys_tiny },
	{ { "bad-rows-none", "a chunk without rows", SAME }, { { KVS_KEYS, 4, 4, 0 } }, NULL },
	{ { "bad-rows-split", "a chunk that is not full in mid-list", SAME }, NONE, split_keys },
	{ { "bad-row-bytes", "row_bytes is not width times size", SAME }, { { KVS_KEYS, 8, 4, 16 } }, NULL },
	{ { "bad-width", "a full row that is too narrow", SAME }, { { KVS_KEYS, 12, 2, 3 } }, NULL },
	{ { "bad-rotated", "rotated keys without a mask", SAME }, { { KVS_KEYS, 24, 1, 1 } }, NULL },
	{ { "bad-residual", "a residual length without codes", SAME }, { { KVS_KEYS, 28, 4, 32 } }, NULL },
	{ { "bad-mask-gone", "a mask that is not there", SAME }, NONE, mask_gone },
	{ { "bad-mask-pairs", "a mask that calls broken pairs complete", SAME }, NONE, mask_wrong_bit },
	{ { "bad-mask-rotated", "rotated rows, complete pairs", SAME }, NONE, mask_rotated },
	{ { "bad-mask-unrotated", "rows not rotated, broken pairs", SAME }, NONE, mask_unrotated },
	{ { "bad-mask-values", "keys with a mask of values", SAME }, NONE, mask_values },
	{ { "bad-mask-count", "a mask that miscounts", SAME }, NONE, mask_count },
	{ { "bad-mask-beyond", "a mask of channels that are not there", SAME }, NONE, mask_beyond },
	{ { "bad-map-gone", "a map without a mask", SAME }, NONE, map_gone },
	{ { "bad-map-late", "a map of another mask", SAME }, NONE, map_late },
	{ { "bad-map-shape", "a map of other channels than its mask's", SAME }, NONE, map_shape },
	{ { "bad-map-nan", "a map with a number that is not finite", SAME }, NONE, map_nan },
	{ { "bad-map-twice", "two maps of one mask", SAME }, NONE, map_twice },
	{ { "bad-map-broken", "a map of a mask that breaks pairs", SAME }, NONE, map_broken },
	{ { "bad-quant-gone", "codes without scales", SAME }, NONE, quant_gone },
	{ { "bad-quant-alone", "scales without codes", SAME }, NONE, quant_alone },
	{ { "bad-quant-sum", "groups that do not add up", SAME }, NONE, quant_sum },
	{ { "bad-quant-group", "a group larger than its size", SAME }, NONE, quant_group },
	{ { "bad-quant-nan", "a scale that is not a number", SAME }, NONE, quant_nan },
	{ { "bad-quant-negative", "a negative scale", SAME }, NONE, quant_negative },
	{ { "bad-obsq-heads", "queries of another number of heads", 0 }, { { KVS_OBSQ, 4, 4, 3 } }, NULL },
	{ { "bad-obsq-src", "queries of a token that was not read", 0 }, { { KVS_OBSQ, 16, 4, 5 } }, NULL },
	{ { "bad-obsq-long", "oBSQ that is too long", 0 }, NONE, obsq_long },
	{ { "bad-obsq-tag", "queries bound to no layer", SAME }, NONE, obsq_tag },
	{ { "bad-obsp-heads", "two rows where heads were joined", 0 }, NONE, golden_probe_heads },
	{ { "bad-obsa-fields", "accumulated attention without a sum", 0 }, { { KVS_OBSA, 4, 4, 6 } }, NULL },
	{ { "bad-obsa-n", "observations of another number of entries", 0 }, { { KVS_OBSA, 0, 4, 2 } }, NULL },
	{ { "bad-obsa-src", "observations of other entries", 0 }, { { KVS_OBSA, 24, 1, 0 } }, NULL },
	{ { "bad-obsn-first", "values of tokens that were not read", 0 }, { { KVS_OBSN, 0, 4, 1 } }, NULL },
	{ { "bad-padd", "padding that is not zero", SAME }, NONE, pads_dirty },
	{ { "bad-prov-json", "provenance that is not JSON", 0 }, { { KVS_PROV, 0, 1, '[' } }, NULL },
};

size_t
golden_count(void)
{
	return sizeof rows / sizeof rows[0];
}

const struct golden *
golden_at(size_t i)
{
	return &rows[i].g;
}

int
golden_exit(const struct golden *g)
{
	return g->name[0] == 'g' ? 0 : g->name[0] == 'b' ? 3 : 4;
}

/* Other versions of zlib may deflate to other bytes. */
bool
golden_is_packed(size_t i)
{
	return rows[i].make == packed || rows[i].make == filter3 || rows[i].make == plane_method || rows[i].make == plane_zero ||
		rows[i].make == plane_len || rows[i].make == grows;
}

bool
golden_make(size_t i, const struct kv_buf *tiny, struct kv_buf *out)
{
	size_t start = out->len;
	struct forge f;
	bool good;

	forge_tiny(&f, tiny);
	if (rows[i].make)
		rows[i].make(&f);
	for (size_t k = 0; k < 2; k++)
		apply(&f, &rows[i].patch[k]);
	good = forge_bytes(&f, out) && out->len - start < 8192;
	forge_free(&f);
	return good;
}
