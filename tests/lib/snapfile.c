/* Snapshots to and from memory, and a verdict on them. */
#include "snapfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvs/check.h"
#include "kvs/codec.h"
#include "kvs/reader.h"
#include "util/in.h"

enum kv_status
snap_load(const char *path, struct kv_buf *out, struct kv_err *err)
{
	struct kv_in *in;
	enum kv_status rc = kv_in_open(path, &in, err);

	if (rc != KV_OK)
		return rc;
	rc = kv_in_rest(in, out, err);
	kv_in_close(in);
	return rc;
}

enum kv_status
snap_bytes(enum kv_status (*write)(struct kvs_writer *, void *, struct kv_err *), void *arg, enum kvs_packing packing, struct kv_pool *pool,
	struct kv_buf *out, struct kv_err *err)
{
	const char *dir = getenv("TMPDIR");
	struct kv_out *o = NULL;
	struct kvs_writer *w = NULL;
	char path[256];
	enum kv_status rc;
	int fd;

	snprintf(path, sizeof path, "%s/kvs-test-XXXXXX", dir ? dir : "/tmp");
	if ((fd = mkstemp(path)) < 0)
		return kv_fail_errno(err, "%s", path);
	close(fd);
	if ((rc = kv_out_open(path, true, false, &o, err)) != KV_OK || (rc = kvs_writer_new(o, packing, pool, &w, err)) != KV_OK)
		goto out;
	if ((rc = write(w, arg, err)) != KV_OK)
		goto out;
	rc = kv_out_commit(o, err);
	o = NULL;
	if (rc == KV_OK)
		rc = snap_load(path, out, err);
out:
	kvs_writer_free(w);
	kv_out_abort(o);
	unlink(path);
	return rc;
}

static enum kv_status
check_frame(struct kvs_check *c, const struct kvs_frame *f, struct kv_err *err)
{
	bool readable = kvs_is_known(f->head.type) && kvs_frame_readable(&f->head, NULL) == KV_OK;
	uint8_t *raw = NULL;
	enum kv_status rc = KV_OK;

	if (readable) {
		if (!(raw = malloc((size_t)f->head.raw_len + 1)))
			return kv_fail_mem(err, "a frame");
		rc = kvs_decode(f, raw, err);
	}
	if (rc == KV_OK)
		rc = kvs_check_frame(c, &f->head, raw, raw ? (size_t)f->head.raw_len : 0, err);
	free(raw);
	return rc;
}

static enum kv_status
check_snapshot(struct kvs_reader *r, struct kv_err *err)
{
	struct kvs_check *c = kvs_check_new();
	struct kvs_frame f;
	enum kv_status rc, end;

	if (!c)
		return kv_fail_mem(err, "a check");
	while ((rc = kvs_reader_next(r, &f, err)) == KV_OK)
		if ((rc = check_frame(c, &f, err)) != KV_OK)
			break;
	if (rc == KV_END && (end = kvs_check_end(c, err)) != KV_OK)
		rc = end;
	kvs_check_free(c);
	return rc;
}

enum kv_status
snap_verdict(const void *data, size_t n, uint8_t digest[16], struct kv_err *err)
{
	struct kv_in *in = NULL;
	struct kvs_reader *r = NULL;
	enum kv_status rc;

	if ((rc = kv_in_mem("test", data, n, &in, err)) != KV_OK || (rc = kvs_reader_new(in, &r, err)) != KV_OK)
		goto out;
	while ((rc = kvs_reader_begin(r, err)) == KV_OK)
		if ((rc = check_snapshot(r, err)) != KV_END)
			goto out;
	if (rc == KV_END) {
		rc = KV_OK;
		if (digest)
			memcpy(digest, kvs_reader_digest(r), 16);
	}
out:
	kvs_reader_free(r);
	kv_in_close(in);
	return rc;
}
