/*
 * KV_CLONES before a static function of plain loops: compiled for several levels of the processor, the right one taken at load
 * time. Results are the same at each, since products and sums are never contracted (-ffp-contract=off). Not under sanitizers,
 * which run before the choice is made. (Static, because clang 14 gives the name of an external one to nobody.)
 */
#ifndef KV_KERNEL_CLONES_H
#define KV_KERNEL_CLONES_H

#include <stddef.h>	/* brings __GLIBC__'s features.h on every libc that has it */
#include <limits.h>

#if defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define KV_SANITIZED 1
#endif
#endif
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define KV_SANITIZED 1
#endif

#if defined __x86_64__ && defined __ELF__ && defined __GLIBC__ && defined __OPTIMIZE__ && !defined KV_SANITIZED && \
	((defined __clang__ && __clang_major__ >= 14) || (!defined __clang__ && defined __GNUC__ && __GNUC__ >= 12))
#define KV_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define KV_CLONES
#endif

#endif
