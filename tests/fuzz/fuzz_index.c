/* A file that is read from its end: ENDS, the index, and the frames that it points at. */
#define _GNU_SOURCE	/* memfd_create */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "util/out.h"
#include "view/view.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	int fd = memfd_create("it", MFD_CLOEXEC);
	struct kv_err err;

	MUST(fd >= 0 && kv_write_all(fd, "it", data, n, &err) == KV_OK);
	MUST(kv_quick(fd, &err) != KV_END);
	close(fd);
	return 0;
}
