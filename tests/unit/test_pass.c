/* Snapshots that go through while they are read: the same bytes as read, moved and written, in little memory. */
#include "tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "small_cache.h"
#include "snapfile.h"
#include "util/in.h"
#include "util/mem.h"
#include "util/out.h"

struct going {
	const struct kv_buf *in;
	const char *line;	/* of kv-reposition */
	bool whole;		/* the digest was there at the end */
};

static enum kv_status
move(void *arg, struct kv_cache *c, struct kv_err *err)
{
	return small_run(&kv_stage_reposition, ((struct going *)arg)->line, c, 1, NULL, err);
}

static enum kv_status
done(void *arg, struct kv_cache *c, struct kv_err *err)
{
	static const uint8_t none[16];

	(void)err;
	((struct going *)arg)->whole = memcmp(c->digest, none, sizeof none);
	return KV_OK;
}

static enum kv_status
go(struct kvs_writer *w, void *arg, struct kv_err *err)
{
	struct going *g = arg;
	struct kv_in *in;
	struct kvs_reader *r;
	enum kv_status rc;

	if ((rc = kv_in_mem("bytes", g->in->p, g->in->len, &in, err)) != KV_OK)
		return rc;
	if ((rc = kvs_reader_new(in, &r, err)) == KV_OK && (rc = kvs_reader_begin(r, err)) == KV_OK)
		rc = kv_cache_pass(r, &(struct kv_pass){ move, done, g }, w, err);
	kvs_reader_free(r);
	kv_in_close(in);
	return rc;
}

static enum kv_status
pass(const struct kv_buf *in, const char *line, enum kvs_packing packing, struct kv_buf *out, struct kv_err *err)
{
	struct going g = { .in = in, .line = line };
	enum kv_status rc = snap_bytes(go, &g, packing, NULL, out, err);

	if (rc == KV_OK && !g.whole)
		return kv_fail(err, KV_EIO, "the digest was not there");
	return rc;
}

static struct kv_cache *
fed(uint32_t m)
{
	struct kv_cache *c = small_cache(small_geom(3, 4, 2, 8)), *copy;
	struct kv_err err;

	small_feed(c, m);
	kv_cache_set_info(c, "{\"title\":\"x\"}", 13, &err);
	copy = small_copy(c);
	kv_cache_free(c);
	return copy;
}

static void
test_same_bytes(void)
{
	static const char *const lines[] = { "--shift 7", "--compact", "--original --next 999", "--shift 0" };
	static const enum kvs_packing packings[] = { KVS_PACK_RAW, KVS_PACK_ZLIB };
	struct kv_err err = { KV_OK, "" };

	for (size_t i = 0; i < 4; i++)
		for (size_t k = 0; k < 2; k++)
			for (uint32_t m = 0; m <= 900; m += 450) {
				struct kv_cache *c = fed(m);
				struct kv_buf in = { 0 }, want = { 0 }, got = { 0 };
				enum kv_status rc;

				if (m)
					small_run(&kv_stage_evict, "--window --scope head -k 300", c, 1, NULL, &err);
				small_save(c, packings[k], &in);
				small_run(&kv_stage_reposition, lines[i], c, 1, NULL, &err);
				small_save(c, packings[k], &want);
				rc = pass(&in, lines[i], packings[k], &got, &err);
				ok(rc == KV_OK && got.len == want.len && !memcmp(got.p, want.p, want.len), "%s of %u tokens, packing %d: %s", lines[i], m,
					(int)packings[k], rc == KV_OK ? "the same bytes" : err.text);
				kv_buf_free(&in);
				kv_buf_free(&want);
				kv_buf_free(&got);
				kv_cache_free(c);
			}
}

static void
test_refusals(void)
{
	struct kv_cache *c = fed(100);
	struct kv_buf in = { 0 }, out = { 0 };
	struct kv_err err;
	unsigned bad = 0;
	size_t whole;

	small_save(c, KVS_PACK_RAW, &in);
	is_int(pass(&in, "--shift -1", KVS_PACK_RAW, &out, &err), KV_EFIT, "a move that is none is refused");
	whole = in.len;
	for (in.len = 0; in.len < whole; in.len += 32)
		bad += pass(&in, "--shift 1", KVS_PACK_RAW, &out, &err) != KV_ECORRUPT;
	is_int(bad, 0, "cut anywhere it is truncated");
	in.len = whole;
	for (size_t i = 0; i < whole; i += 501) {
		in.p[i] ^= 1;
		bad += pass(&in, "--shift 1", KVS_PACK_RAW, &out, &err) != KV_ECORRUPT;
		in.p[i] ^= 1;
	}
	is_int(bad, 0, "a bit that is wrong is found");
	kv_buf_free(&in);
	kv_buf_free(&out);
	kv_cache_free(c);
}

static void
test_memory(void)
{
	struct kv_cache *c = small_cache(small_geom(4, 2, 2, 64)), *read = NULL;
	struct kv_buf in = { 0 }, out = { 0 };
	struct kv_err err = { KV_OK, "" };

	small_feed(c, 4096);
	small_save(c, KVS_PACK_RAW, &in);
	kv_cache_free(c);
	ok(in.len > 8 << 20, "16 chunks of half a megabyte");
	kv_mem_limit_set(5 << 19);
	is_int(small_load(&in, &read, &err), KV_ENOMEM, "do not fit");
	is_int(pass(&in, "--shift 1", KVS_PACK_RAW, &out, &err), KV_OK, "and go through");
	kv_mem_limit_set(0);
	ok(out.len == in.len, "all of them");
	kv_buf_free(&in);
	kv_buf_free(&out);
}

/* Bytes of mapped files that this process has in memory; negative: the system does not say. */
static long
mapped_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long pages = -1;

	if (f && fscanf(f, "%*d %*d %ld", &pages) != 1)
		pages = -1;
	if (f)
		fclose(f);
	return pages < 0 ? -1 : pages * sysconf(_SC_PAGESIZE);
}

/* A file that is read in place: what was looked at does not stay in memory, and is found again. */
static void
test_mapped(void)
{
	struct kv_cache *c = small_cache(small_geom(4, 2, 2, 64)), *read = NULL;
	char path[] = "/tmp/kv-test-pass-XXXXXX", here[33], there[33];
	int fd = mkstemp(path);
	long before, held, kept;
	struct kv_buf file = { 0 };
	struct kvs_reader *r;
	struct kv_in *in;
	struct kv_err err;
	uint32_t keep[3000];

	small_feed(c, 4096);
	small_save(c, KVS_PACK_RAW, &file);
	if (fd < 0 || kv_write_all(fd, path, file.p, file.len, &err) != KV_OK || kv_in_open(path, &in, &err) != KV_OK)
		exit(1);
	kv_in_map(in);
	before = mapped_bytes();
	if (kvs_reader_new(in, &r, &err) != KV_OK || kvs_reader_begin(r, &err) != KV_OK || kv_cache_read(r, &read, &err) != KV_OK)
		exit(1);
	held = mapped_bytes();
	for (uint32_t i = 0; i < 3000; i++)
		keep[i] = i > 200 ? i + 1000 : i;
	for (size_t i = 0; i < 8; i++)
		if (kv_list_keep(&c->list[i], keep, 3000, &err) != KV_OK || kv_list_keep(&read->list[i], keep, 3000, &err) != KV_OK)
			exit(1);
	is_str(small_digest(read, there), small_digest(c, here), "rows are found in the file again");
	kept = mapped_bytes();
	if (before >= 0) {
		ok(held - before < 2 << 20, "8 MiB were looked at, %ld KiB of them are in memory", (held - before) >> 10);
		ok(kept - before < 2 << 20, "…and %ld KiB after most was copied", (kept - before) >> 10);
	}
	kv_cache_free(read);
	kv_cache_free(c);
	kvs_reader_free(r);
	kv_in_close(in);
	close(fd);
	unlink(path);
	kv_buf_free(&file);
}

int
main(void)
{
	test_same_bytes();
	test_refusals();
	test_memory();
	test_mapped();
	return done_testing();
}
