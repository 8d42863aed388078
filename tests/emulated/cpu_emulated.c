/*
 * In place of lib/kernel/cpu.c in programs whose kernels of the levels avx512 and amx are emulated: a processor that has all levels. What does
 * not run even so ends as a test that was skipped.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernel/level.h"

struct kv_cpu
kv_cpu_read(void)
{
	return (struct kv_cpu){ 0x38001000, 0xc0030120, 0x802, 0x1400000, 0x20, 0x600e7, true };
}

__attribute__((constructor)) static void
skip(void)
{
	const char *why = NULL;

#if !defined __x86_64__
	why = "levels are x86-64's";
#elif !defined __AVX512F__
	why = "SIMDe is not there (libsimde-dev)";
#else
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
		why = "no AVX2";
#endif
	if (why) {
		printf("1..0 # SKIP %s\n", why);
		exit(0);
	}
}
