/* Levels of the processor, from what it and the system say. */
#include "kernel/level.h"

#include <string.h>

#include "util/text.h"

/* Feature bits, by leaf and register. */
enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29 };			/* 1 ecx */
enum { AVX2 = 1 << 5, BMI2 = 1 << 8, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 };	/* 7 ebx */
#define AVX512VL 0x80000000u									/* 7 ebx */
enum { AVX512_VBMI = 1 << 1, AVX512_VNNI = 1 << 11 };						/* 7 ecx */
enum { AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };						/* 7 edx */
enum { AVX512_BF16 = 1 << 5 };									/* 7.1 eax */
enum { SAVE_YMM = 0x6, SAVE_ZMM = 0xe6, SAVE_TILES = 0x60000 };					/* XCR0 */

static bool
has(uint32_t word, uint32_t bits)
{
	return (word & bits) == bits;
}

enum kv_level
kv_cpu_level(const struct kv_cpu *c)
{
	if (!has(c->leaf1_ecx, FMA | OSXSAVE | AVX | F16C) || !has(c->leaf7_ebx, AVX2 | BMI2) || (c->xcr0 & SAVE_YMM) != SAVE_YMM)
		return KV_GENERIC;
	if (!has(c->leaf7_ebx, AVX512F | AVX512DQ | AVX512BW | AVX512VL) || !has(c->leaf7_ecx, AVX512_VBMI | AVX512_VNNI) ||
		(c->xcr0 & SAVE_ZMM) != SAVE_ZMM)
		return KV_AVX2;
	if (!has(c->leaf7_edx, AMX_BF16 | AMX_TILE) || !has(c->leaf7_1_eax, AVX512_BF16) || (c->xcr0 & SAVE_TILES) != SAVE_TILES ||
		!c->tiles)
		return KV_AVX512;
	return KV_AMX;
}

enum kv_status
kv_level_choose(const struct kv_cpu *cpu, const char *cap, enum kv_level *out, struct kv_err *err)
{
	static const char *const names[KV_N_LEVELS] = { "generic", "avx2", "avx512", "amx" };
	enum kv_level level = kv_cpu_level(cpu), most = KV_AVX512;
	char q[40];

	if (cap && *cap)
		for (most = 0; strcmp(cap, names[most]);)
			if (++most == KV_N_LEVELS)
				return kv_fail(err, KV_EUSAGE, "KV_ISA: '%s' is not one of generic, avx2, avx512, amx",
					kv_quote(q, sizeof q, cap, strlen(cap)));
	*out = level < most ? level : most;
	return KV_OK;
}

enum kv_status
kv_ops_choose(const char *cap, const struct kv_ops **out, struct kv_err *err)
{
	static const struct kv_ops *const tables[KV_N_LEVELS] = {
		&kv_ops_generic,
#if defined __x86_64__
		&kv_ops_avx2, &kv_ops_avx512, &kv_ops_amx,
#endif
	};
	const struct kv_cpu cpu = kv_cpu_read();
	enum kv_level level = KV_GENERIC;
	enum kv_status rc;

	if ((rc = kv_level_choose(&cpu, cap, &level, err)) == KV_OK)
		*out = tables[level];
	return rc;
}
