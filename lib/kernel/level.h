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
	bool tiles;			/* asked for its tile registers, it lets this process use them */
};

/* Asks for tiles where the processor has any. */
struct kv_cpu kv_cpu_read(void);
/* The best level whose instructions there are, and whose registers are saved. */
enum kv_level kv_cpu_level(const struct kv_cpu *cpu);

/*
 * The best level that a processor has and that is not above cap: "generic", "avx2", "avx512" or "amx". NULL or "": the best that is taken
 * unasked, which is avx512, since amx has not run on a processor that has it. Another word: KV_EUSAGE.
 */
enum kv_status kv_level_choose(const struct kv_cpu *cpu, const char *cap, enum kv_level *out, struct kv_err *err);
/* The table of the level so chosen for this processor. */
enum kv_status kv_ops_choose(const char *cap, const struct kv_ops **out, struct kv_err *err);

#endif
