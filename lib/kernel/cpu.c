/* What the processor and the system say: CPUID, XGETBV, and an answer about tiles. Tests have a file in place of this one. */
#define _DEFAULT_SOURCE	/* syscall */
#include "kernel/level.h"

#if defined __x86_64__
#include <cpuid.h>
#endif
#if defined __x86_64__ && defined __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { OSXSAVE = 1 << 27 };	/* leaf 1 ecx */
enum { AMX_TILE = 1 << 24 };	/* leaf 7 edx */

/* Linux gives room for tiles only to processes that ask. */
static bool
ask_for_tiles(void)
{
#if defined __x86_64__ && defined __linux__
	enum { REQUEST = 0x1023, TILE_DATA = 18 };	/* ARCH_REQ_XCOMP_PERM, and the component */

	return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
	return false;
#endif
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
	c.tiles = (c.leaf7_edx & AMX_TILE) && ask_for_tiles();
#endif
	return c;
}
