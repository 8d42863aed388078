/* Levels of the processor, from CPUID and XGETBV. */
#include "kernel/level.h"

#include <string.h>

#if defined __x86_64__
#include <cpuid.h>
#endif

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
	if (!has(c->leaf7_edx, AMX_BF16 | AMX_TILE) || !has(c->leaf7_1_eax, AVX512_BF16) || (c->xcr0 & SAVE_TILES) != SAVE_TILES)
		return KV_AVX512;
	return KV_AMX;
}

struct kv_cpu
kv_cpu_read(void)
{
	struct kv_cpu c = { 0 };
#if defined __x86_64__
	unsigned a, b, cx, d, low, high;

	if (!__get_cpuid(1, &a, &b, &c.leaf1_ecx, &d))
		return c;
	if (__get_cpuid_count(7, 0, &a, &c.leaf7_ebx, &c.leaf7_ecx, &c.leaf7_edx) && a >= 1)
		__get_cpuid_count(7, 1, &c.leaf7_1_eax, &b, &cx, &d);
	if (c.leaf1_ecx & OSXSAVE) {
		__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
		c.xcr0 = (uint64_t)high << 32 | low;
	}
#endif
	return c;
}

enum kv_status
kv_ops_choose(const char *cap, const struct kv_ops **out, struct kv_err *err)
{
	static const char *const names[KV_N_LEVELS] = { "generic", "avx2", "avx512", "amx" };
	const struct kv_cpu cpu = kv_cpu_read();
	unsigned level = kv_cpu_level(&cpu), most = 0;
	char q[40];

	if (!cap || !*cap)
		most = KV_N_LEVELS - 1;
	else
		while (strcmp(cap, names[most]))
			if (++most == KV_N_LEVELS)
				return kv_fail(err, KV_EUSAGE, "KV_ISA: '%s' is not one of generic, avx2, avx512, amx",
					kv_quote(q, sizeof q, cap, strlen(cap)));
	level = level < most ? level : most;
	*out = &kv_ops_generic;
#if defined __x86_64__
	if (level >= KV_AVX2)
		*out = level >= KV_AVX512 ? &kv_ops_avx512 : &kv_ops_avx2;
#endif
	return KV_OK;
}
