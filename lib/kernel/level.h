/* Which table of operations this processor can run. */
#ifndef KV_KERNEL_LEVEL_H
#define KV_KERNEL_LEVEL_H

#include "kernel/ops.h"
#include "util/err.h"

enum kv_level { KV_GENERIC, KV_AVX2, KV_AVX512, KV_AMX, KV_N_LEVELS };

/* What the processor and the system say, raw. Models are never looked at: virtual machines make them up. */
struct kv_cpu {
	uint32_t leaf1_ecx, leaf7_ebx, leaf7_ecx, leaf7_edx, leaf7_1_eax;	/* CPUID; 0 where a leaf is missing */
	uint64_t xcr0;			/* registers that the system saves; 0 without XGETBV */
};

struct kv_cpu kv_cpu_read(void);
/* The best level whose instructions there are, and whose registers are saved. */
enum kv_level kv_cpu_level(const struct kv_cpu *cpu);

/*
 * The table of the best level that this processor has, that we have kernels for, and that is not above cap: "generic", "avx2", "avx512"
 * or "amx"; NULL or "" = no cap. Another word: KV_EUSAGE.
 */
enum kv_status kv_ops_choose(const char *cap, const struct kv_ops **out, struct kv_err *err);

#endif
