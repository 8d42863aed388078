/* --version: this program, the format, the libraries it runs with. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>
#include <zlib.h>

#include "kernel/blas.h"
#include "kernel/level.h"
#include "tool.h"
#include "util/version.h"

void
kv_tool_version(const char *tool)
{
	unsigned x = XXH_versionNumber();
	const struct kv_ops *ops = &kv_ops_generic;
	struct kv_err err = { KV_OK, "" };
	char pcre[32];

	pcre2_config(PCRE2_CONFIG_VERSION, pcre);
	printf("%s %s\n", tool, KV_VERSION);
	printf("format     kvs 1.0 written, 1.x read\n");
	printf("libraries  zlib %s, xxHash %u.%u.%u, jansson %s, PCRE2 %s\n", zlibVersion(), x / 10000, x / 100 % 100, x % 100,
		jansson_version_str(), pcre);
	kv_ops_choose(getenv("KV_ISA"), &ops, &err);
	printf("kernels    %s%s%s\n", ops->level, *err.text ? "; " : "", err.text);
	printf("BLAS       %s\n", kv_blas_load(&err) == KV_OK ? kv_blas_name() : err.text);
	printf("CUDA       none\n");
}
