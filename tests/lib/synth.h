/*
 * Small models made from a seed: every architecture, weight type and scaling rule that the program runs, in a few hundred kilobytes.
 * Their weights are random but sized so that attention is neither flat nor a spike and the best tokens stand apart.
 */
#ifndef KV_TESTS_SYNTH_H
#define KV_TESTS_SYNTH_H

#include <stdbool.h>
#include <stdint.h>

#include "ggufbuild.h"
#include "util/mem.h"

enum synth_rope { SYNTH_PLAIN, SYNTH_LINEAR, SYNTH_LLAMA3, SYNTH_YARN };
enum { SYNTH_MIXED = 1000 };	/* a type for each tensor in turn */

struct synth {
	const char *arch;	/* llama, qwen2, qwen3; others are written as they are, to be refused */
	uint32_t type;		/* enum kv_wtype, or SYNTH_MIXED */
	uint64_t seed;
	bool spm;		/* an SPM vocabulary; else byte-level BPE with chatml's tokens and template */
	uint32_t layers, heads, heads_kv, d_head, n_embd, n_ff;
	bool tied, bias, qk_norm, fused_qkv, half_norms;	/* half_norms: norm vectors in F16 */
	uint32_t window;
	float softcap, final_softcap;
	enum synth_rope rope;
	float theta;
	/* For tests of refusals; NULL: nothing. */
	const char *without;			/* a key (after "arch.") or tensor that is not written */
	void (*more)(struct ggufbuild *b);	/* writes more keys and tensors */
};

/* Whatever suits the architecture and the type. */
void synth_defaults(struct synth *s, const char *arch, uint32_t type, uint64_t seed);
/* Appends the GGUF file to out. False: no memory. */
bool synth_make(const struct synth *s, struct kv_buf *out);

/* Divisors of the frequencies as Llama 3's converter makes them: n_rot/2 of them. */
void synth_llama3_factors(double base, uint32_t n_rot, double factor, double low, double high, double n_ctx_orig, float *out);

#endif
