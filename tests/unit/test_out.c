/* Output: pieces of every size arrive in order, however little of them one call takes. */
#define _GNU_SOURCE	/* syscall */
#include "tap.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "snapfile.h"
#include "util/mem.h"
#include "util/out.h"

static size_t most;		/* what one call of writev takes; 0 = it is interrupted once, then all */
static unsigned gathered;	/* calls */

/* In the place of libc's. */
ssize_t
writev(int fd, const struct iovec *v, int n)
{
	static bool interrupted;
	struct iovec part[2] = { v[0], v[1] };

	gathered++;
	if (!most && (interrupted = !interrupted)) {
		errno = EINTR;
		return -1;
	}
	if (most) {
		if (part[0].iov_len > most)
			part[0].iov_len = most;
		if (part[1].iov_len > most - part[0].iov_len)
			part[1].iov_len = most - part[0].iov_len;
	}
	return syscall(SYS_writev, fd, part, n);
}

static uint8_t
byte(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

static void
test_pieces(size_t takes)
{
	static const size_t sizes[] = { 64, 600000, 64, 1, 0, 300000, 262144, 262143, 5, 262144, 64, 1048640 };
	char path[] = "/tmp/kv-out-XXXXXX";
	int fd = mkstemp(path);
	struct kv_buf want = { 0 }, got = { 0 };
	struct kv_err err = { KV_OK, "" };
	struct kv_out *o;
	enum kv_status rc;

	close(fd);
	most = takes;
	gathered = 0;
	rc = kv_out_open(path, true, false, &o, &err);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && rc == KV_OK; i++) {
		uint8_t *p = kv_buf_grow(&want, sizes[i]);

		for (size_t k = 0; k < sizes[i]; k++)
			p[k] = byte(want.len - sizes[i] + k);
		rc = kv_out_write(o, p, sizes[i], &err);
	}
	ok(rc == KV_OK && kv_out_commit(o, &err) == KV_OK && snap_load(path, &got, &err) == KV_OK, "%zu bytes a call: written (%s)", takes, err.text);
	ok(got.len == want.len && !memcmp(got.p, want.p, want.len), "all of it, in order");
	ok(gathered > 0, "small pieces go out with large ones");
	kv_buf_free(&want);
	kv_buf_free(&got);
	unlink(path);
}

int
main(void)
{
	static const size_t takes[] = { 0, 1, 63, 64, 65, 100000, SIZE_MAX };

	for (size_t i = 0; i < sizeof takes / sizeof takes[0]; i++)
		test_pieces(takes[i]);
	return done_testing();
}
