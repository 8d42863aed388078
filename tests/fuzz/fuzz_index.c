/* A file that is read from its end, then header by header: what is good when all of it is read is good so as well. */
#define _GNU_SOURCE	/* memfd_create */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "util/out.h"
#include "view/view.h"

static enum kv_status
walk(struct kv_in *in, bool skim)
{
	struct kvs_reader *r;
	struct kv_err err;
	enum kv_status rc;

	MUST(kvs_reader_new(in, &r, &err) == KV_OK);
	if (skim)
		kvs_reader_skim(r);
	while ((rc = kvs_reader_begin(r, &err)) == KV_OK && (rc = kv_walk(r, &err)) == KV_OK)
		;
	kvs_reader_free(r);
	kv_in_close(in);
	return rc == KV_END ? KV_OK : rc;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	int fd = memfd_create("it", MFD_CLOEXEC);
	enum kv_status ends, heads, all;
	struct kv_in *in, *file;
	struct kv_err err;

	MUST(fd >= 0 && kv_write_all(fd, "it", data, n, &err) == KV_OK);
	MUST((ends = kv_quick(fd, &err)) != KV_END);
	MUST(kv_in_adopt(fd, "it", &file, &err) == KV_OK && kv_in_mem("it", data, n, &in, &err) == KV_OK);
	kv_in_map(file);
	heads = walk(file, true);
	all = walk(in, false);
	MUST(all != KV_OK || (ends == KV_OK && heads == KV_OK));
	return 0;
}
