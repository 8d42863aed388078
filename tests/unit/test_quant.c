/* The block types of GGUF, bit for bit: checksums of ggml's own output. */
#include "kernel/quant.h"

#include <stdlib.h>
#include <zlib.h>

#include "tap.h"
#include "util/le.h"

struct vector {
	uint32_t type;
	int d, m;		/* where the two halves stand in a block; -1: none */
	uint32_t crc_in, crc_out;
	int i[3];		/* some values, for the eye */
	float v[3];
};

static const struct vector vectors[] = {
	{ KV_W_Q8_0, 0, -1, 0x34c3d236, 0xf448cb85, { 0, 2, 31 }, { 2.79931641f, -6.04852295f, 3.74908447f } },
	{ KV_W_Q4_0, 0, -1, 0xa1fc5cd5, 0x0926aca8, { 0, 1, 31 }, { 0, 0.199951172f, -0.249938965f } },
	{ KV_W_Q4_1, 0, 2, 0x5599d7e3, 0x63503f18, { 0, 2, 31 }, { 0.174865723f, -0.0750732422f, 0.0748901367f } },
	{ KV_W_Q5_0, 0, -1, 0x0fa65837, 0xb840c63a, { 0, 16, 31 }, { -0.699829102f, 0.749816895f, 0.449890137f } },
	{ KV_W_Q5_1, 0, 2, 0xc171d0e1, 0x5efa31af, { 0, 17, 31 }, { 1.074646f, 1.22460938f, 0.524780273f } },
	{ KV_W_Q4_K, 0, 2, 0xe44cccf6, 0x41231f6a, { 0, 100, 255 }, { 14.5266724f, 37.2960205f, 12.9484863f } },
	{ KV_W_Q5_K, 0, 2, 0xbf5a9487, 0xe764cf9f, { 0, 100, 255 }, { 20.1253052f, 69.7880859f, 17.84729f } },
	{ KV_W_Q6_K, 208, -1, 0x13930bb7, 0xc017893e, { 0, 1, 255 }, { 14.8463745f, -36.4411011f, -27.4932861f } },
};

static uint32_t
crc_of(const float *y, size_t n)
{
	uint8_t bytes[4 * 256];

	for (size_t i = 0; i < n; i++)
		lef32_put(bytes + 4 * i, y[i]);
	return (uint32_t)crc32(0, bytes, (uInt)(4 * n));
}

static void
make_block(const struct vector *t, size_t bytes, uint8_t *b)
{
	for (size_t i = 0; i < bytes; i++)
		b[i] = (uint8_t)((i * i * 7 + i * 37 + 11) >> 1);
	le16_put(b + t->d, 0x2a66);
	if (t->m >= 0)
		le16_put(b + t->m, 0xb19a);
}

static void
test_vectors(void)
{
	for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++) {
		const struct vector *t = &vectors[k];
		const struct kv_wtype_info *w = kv_wtype_info(t->type);
		uint8_t b[256 + 1];
		float y[256];

		make_block(t, w->bytes, b);
		is_int(crc32(0, b, w->bytes), t->crc_in, "%s: the input block is the agreed one", w->name);
		kv_dequant(t->type, b, w->values, y);
		is_int(crc_of(y, w->values), t->crc_out, "%s: the values are ggml's", w->name);
		for (int j = 0; j < 3; j++)
			is_near(y[t->i[j]], t->v[j], 1e-6 * fabs((double)t->v[j]), "%s: value %d", w->name, t->i[j]);
		memmove(b + 1, b, w->bytes);
		memset(y, 0, sizeof y);
		kv_dequant(t->type, b + 1, w->values, y);
		is_int(crc_of(y, w->values), t->crc_out, "%s: the same from an odd address", w->name);
	}
}

/* Several blocks in a row are the blocks one by one. */
static void
test_runs(void)
{
	for (uint32_t type = 0; type < 31; type++) {
		const struct kv_wtype_info *w = kv_wtype_info(type);
		enum { BLOCKS = 5 };
		uint8_t src[BLOCKS * 256];
		float one[256], all[BLOCKS * 256];
		int bad = 0;

		if (!w->values)
			continue;
		for (size_t i = 0; i < sizeof src; i++)
			src[i] = (uint8_t)(i * 2654435761u >> 13 & 0x3b);	/* no exponent of a half becomes 31 */
		kv_dequant(type, src, BLOCKS * w->values, all);
		for (size_t k = 0; k < BLOCKS; k++) {
			kv_dequant(type, src + k * w->bytes, w->values, one);
			bad += memcmp(one, all + k * w->values, w->values * sizeof *one) != 0;
		}
		is_int(bad, 0, "%s: %d blocks at once are %d blocks", w->name, BLOCKS, BLOCKS);
	}
}

static void
test_plain(void)
{
	const uint8_t half[] = { 0x00, 0x3c, 0x01, 0x00, 0xff, 0x83, 0xff, 0x7b, 0x00, 0x80 };
	const uint8_t brain[] = { 0x80, 0x3f, 0xcd, 0xbd };
	float y[5];

	kv_dequant(KV_W_F16, half, 5, y);
	ok(y[0] == 1 && y[1] == 0x1p-24f && y[2] == -0x3ffp-24f && y[3] == 65504 && y[4] == 0 && signbit(y[4]),
		"F16: one, subnormals, the largest, minus zero");
	kv_dequant(KV_W_BF16, brain, 2, y);
	ok(y[0] == 1 && y[1] == -0.10009765625f, "BF16");
	kv_dequant(KV_W_F32, "\0\0\200\277", 1, y);
	ok(y[0] == -1, "F32");
}

static void
test_names(void)
{
	is_str(kv_wtype_name(KV_W_Q4_1), "Q4_1", "a type that we read");
	is_str(kv_wtype_name(23), "IQ4_XS", "a type that we do not read");
	is_str(kv_wtype_name(77), "type 77", "a type that nobody knows");
	ok(kv_wtype_info(23)->values == 0 && kv_wtype_info(23)->bytes == 0, "no size for what we do not read");
	ok(!kv_wtype_info(77) && !kv_wtype_info(UINT32_MAX), "no entry for what nobody knows");
}

int
main(void)
{
	test_vectors();
	test_runs();
	test_plain();
	test_names();
	return done_testing();
}
