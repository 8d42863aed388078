/* A first look at a large file: its two ends. */
#include "view/view.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvs/digest.h"
#include "util/le.h"

enum { ENDS_BYTES = 64, TAIL = KVS_HEADER + ENDS_BYTES };

static enum kv_status
read_at(int fd, uint64_t offset, uint8_t *dst, size_t n, struct kv_err *err)
{
	while (n) {
		ssize_t got = pread(fd, dst, n, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return kv_fail_errno(err, "reading");
		if (!got)
			return kv_fail(err, KV_ECORRUPT, "truncated");
		dst += got;
		offset += (uint64_t)got;
		n -= (size_t)got;
	}
	return KV_OK;
}

static enum kv_status
check_prologue(int fd, uint64_t offset, struct kv_err *err)
{
	uint8_t raw[KVS_PROLOGUE];
	struct kvs_prologue prologue;
	enum kv_status rc;

	if ((rc = read_at(fd, offset, raw, sizeof raw, err)) != KV_OK)
		return rc;
	return kvs_prologue_get(raw, &prologue, err);
}

/* The END frame that the file must close with; *length = of the snapshot that it ends. */
static enum kv_status
check_end(int fd, uint64_t size, uint64_t *length, struct kv_err *err)
{
	static const uint8_t magic[8] = { 0x0a, 0x1a, 0x0a, 0x0d, 0x53, 0x56, 0x4b, 0x8b };
	uint8_t tail[TAIL], *ends = tail + KVS_HEADER;
	struct kvs_head h;
	enum kv_status rc;

	if ((rc = read_at(fd, size - TAIL, tail, sizeof tail, err)) != KV_OK)
		return rc;
	if (kvs_head_get(tail, &h, NULL) != KV_OK || h.type != KVS_ENDS || h.enc_len != ENDS_BYTES || memcmp(ends + 56, magic, 8))
		return kv_fail(err, KV_ECORRUPT, "truncated: the END frame is not where the file ends");
	if (!kvs_hash_is(kvs_hash64(ends, ENDS_BYTES), h.enc_hash))
		return kv_fail(err, KV_ECORRUPT, "ENDS: payload hash mismatch");
	*length = le64_get(ends + 16);
	if (*length > size || *length < KVS_PROLOGUE + TAIL || *length % KVS_ALIGN)
		return kv_fail(err, KV_ECORRUPT, "ENDS: a snapshot of %llu bytes in a file of %llu", (unsigned long long)*length,
			(unsigned long long)size);
	return KV_OK;
}

enum kv_status
kv_quick(int fd, struct kv_err *err)
{
	uint64_t size, length = 0;
	struct stat st;
	enum kv_status rc;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
		return KV_END;
	size = (uint64_t)st.st_size;
	if (!size)
		return kv_fail(err, KV_ECORRUPT, "empty input");
	if ((rc = check_prologue(fd, 0, err)) != KV_OK)
		return rc;
	if (size < KVS_PROLOGUE + TAIL)
		return kv_fail(err, KV_ECORRUPT, "truncated: %llu bytes", (unsigned long long)size);
	if ((rc = check_end(fd, size, &length, err)) != KV_OK)
		return rc;
	return length == size ? KV_OK : check_prologue(fd, size - length, err);
}
