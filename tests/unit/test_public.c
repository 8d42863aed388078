/* lib/kvs/kvs.h: what other programs read must be what our own read. */
#include "tap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "kvs/kvs.h"
#include "small_cache.h"

static void
compare_rows(struct kvs_file *f, struct kv_cache *c)
{
	float row[8], rows[5 * 8];
	struct kv_err err;
	struct kvs_error e;
	int bad = 0;

	kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, &err);
	for (unsigned l = 0; l < 2; l++)
		for (unsigned h = 0; h < 2; h++)
			for (unsigned v = 0; v < 2; v++) {
				const struct kv_list *list = kv_cache_list(c, l, h);

				bad += kvs_entries(f, l, h) != 9;
				bad += (v ? kvs_values : kvs_keys)(f, l, h, 3, 5, rows, &e) != KVS_GOOD;
				for (uint32_t i = 0; i < 5; i++) {
					kv_rows_get(v ? &list->v : &list->k, 3 + i, row);
					bad += memcmp(row, rows + (size_t)i * 8, sizeof row) != 0;
				}
				bad += memcmp(kvs_sources(f, l, h), list->src, 9 * sizeof *list->src) != 0;
				bad += memcmp(kvs_positions(f, l, h), list->pos, 9 * sizeof *list->pos) != 0;
			}
	is_int(bad, 0, "rows, sources and positions");
}

static void
test_reading(const struct kv_buf *file, struct kv_cache *c)
{
	struct kvs_file *f = NULL;
	struct kvs_shape s;
	struct kvs_error e;
	char want[33], got[33];
	uint32_t id = 0, own = 0;
	float row[8];

	ok(kvs_open_memory(file->p, file->len, &f, &e) == KVS_GOOD && kvs_next(f, &e) == KVS_GOOD, "opened");
	kvs_describe(f, &s);
	ok(s.n_layers == 2 && s.n_heads == 4 && s.n_heads_kv == 2 && s.d_k == 8 && s.n_tokens == 9 && s.next_pos == 9, "its shape");
	is_str(kvs_print_digest(s.digest, got), small_digest(c, want), "its digest");
	compare_rows(f, c);
	ok(kvs_token(f, 8, &id) && kv_cache_token(c, 8, &own) && id == own, "a token");
	ok(!kvs_token(f, 9, &id), "and one that was not read");
	ok(kvs_hidden(f) && !memcmp(kvs_hidden(f), c->hidden, c->geom.n_embd * sizeof *c->hidden), "the hidden state");
	ok(kvs_keys(f, 0, 2, 0, 1, row, &e) == KVS_UNFIT && e.code == KVS_UNFIT, "a head that is not there: %s", e.text);
	ok(kvs_keys(f, 0, 0, 9, 1, row, NULL) == KVS_UNFIT, "a row that is not there");
	ok(kvs_keys(f, 0, 0, 9, 0, row, &e) == KVS_GOOD, "no rows");
	ok(!kvs_entries(f, 2, 0) && !kvs_sources(f, 2, 0), "a layer that is not there");
	is_int(kvs_next(f, &e), KVS_OVER, "one snapshot");
	kvs_close(f);
}

static void
test_failures(const struct kv_buf *file)
{
	struct kvs_file *f = NULL;
	struct kvs_error e = { 0, "" };
	int fd[2];

	is_int(kvs_open("/nowhere/x.kvs", &f, &e), KVS_TROUBLE, "a file that is not there");
	ok(!f && e.code == KVS_TROUBLE && strstr(e.text, "nowhere"), "and what is said of it: %s", e.text);
	kvs_open_memory(file->p, file->len - 64, &f, &e);
	is_int(kvs_next(f, &e), KVS_CORRUPT, "cut: %s", e.text);
	kvs_close(f);
	kvs_open_memory(file->p, 0, &f, NULL);
	is_int(kvs_next(f, NULL), KVS_CORRUPT, "empty, and nobody asks why");
	kvs_close(f);
	ok(!pipe(fd) && write(fd[1], file->p, 100) == 100 && !close(fd[1]), "a pipe");
	ok(kvs_open_fd(fd[0], &f, &e) == KVS_GOOD && kvs_next(f, &e) == KVS_CORRUPT, "with the beginning of a snapshot: %s", e.text);
	kvs_close(f);
	ok(fcntl(fd[0], F_GETFD) < 0, "is closed with the file");
	kvs_close(NULL);
}

int
main(void)
{
	struct kv_cache *c = small_cache(small_geom(2, 4, 2, 8));
	struct kv_buf file = { 0 };

	small_feed(c, 9);
	for (int packing = KVS_PACK_RAW; packing <= KVS_PACK_ZLIB; packing++) {
		file.len = 0;
		small_save(c, (enum kvs_packing)packing, &file);
		test_reading(&file, c);
	}
	test_failures(&file);
	kv_buf_free(&file);
	kv_cache_free(c);
	return done_testing();
}
