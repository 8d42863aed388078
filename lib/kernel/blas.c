/* OpenBLAS behind dlopen. */
#include "kernel/blas.h"

#include <assert.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, AS_IT_IS = 111, TURNED = 112 };	/* of CBLAS */

typedef void sgemm_fn(int order, int a_turned, int b_turned, int m, int n, int k, float alpha, const float *a, int lda, const float *b,
	int ldb, float beta, float *c, int ldc);
typedef char *config_fn(void);

static struct {
	sgemm_fn *sgemm;
	config_fn *config;
	char why[160];		/* it could not be loaded */
} blas;

/* ISO C knows no way from an object's pointer to a function's; POSIX promises that it is one. */
static bool
find(void *lib, const char *name, void *fn, size_t size)
{
	void *p = dlsym(lib, name);

	memcpy(fn, &p, size);
	return p;
}

static void
load(void)
{
	static const char variable[] = "OPENBLAS_NUM_THREADS";
	const char *was = getenv(variable);
	char *kept = was ? strdup(was) : NULL;
	void *lib;

	/* Our pool splits the work, and sums must not depend on how many share it. Programs that we start are not meant. */
	setenv(variable, "1", 1);
	lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
	if (kept)
		setenv(variable, kept, 1);
	else
		unsetenv(variable);
	free(kept);
	if (!lib || !find(lib, "openblas_get_config", &blas.config, sizeof blas.config) ||
		!find(lib, "cblas_sgemm", &blas.sgemm, sizeof blas.sgemm)) {
		const char *why = dlerror();

		snprintf(blas.why, sizeof blas.why, "%s", why ? why : "libopenblas.so.0 is not what it says");
	}
}

enum kv_status
kv_blas_load(struct kv_err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, load);
	return blas.sgemm ? KV_OK : kv_fail(err, KV_EIO, "OpenBLAS, which the generic kernels need: %s", blas.why);
}

const char *
kv_blas_name(void)
{
	return blas.sgemm ? blas.config() : NULL;
}

void
kv_blas_multiply(size_t m, size_t n, size_t k, float alpha, const float *a, size_t lda, const float *b, bool b_turned, size_t ldb, float beta,
	float *c, size_t ldc)
{
	assert(m <= INT32_MAX && n <= INT32_MAX && k <= INT32_MAX && lda <= INT32_MAX && ldb <= INT32_MAX && ldc <= INT32_MAX);
	blas.sgemm(ROW_MAJOR, AS_IT_IS, b_turned ? TURNED : AS_IT_IS, (int)m, (int)n, (int)k, alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}
