/*
 * Puts a snapshot into a state that no tool makes: mkstate STATE IN.kvs OUT.kvs
 *	rows	keys in codes of 8 bits, a scale for 8 channels of an entry, as imports from other programs have them
 *	nan inf	keys of layer 1 head 0, entry 3: a number that is none, or is not finite
 *	flat	all keys and values are 0.5
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/segments.h"
#include "cache/snapshot.h"
#include "util/in.h"
#include "util/out.h"

static struct kv_err err;

static void
must(enum kv_status rc)
{
	if (rc == KV_OK)
		return;
	fprintf(stderr, "mkstate: %s\n", err.text);
	exit(kv_exit_code(rc));
}

static struct kv_cache *
load(const char *path)
{
	struct kv_cache *c = NULL;
	struct kvs_reader *r;
	struct kv_in *in;

	must(kv_in_open(path, &in, &err));
	must(kvs_reader_new(in, &r, &err));
	must(kvs_reader_begin(r, &err));
	must(kv_cache_read(r, &c, &err));
	kvs_reader_free(r);
	kv_in_close(in);
	must(kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, &err));
	return c;
}

static void
save(const struct kv_cache *c, const char *path)
{
	struct kvs_writer *w;
	struct kv_out *o;

	must(kv_out_open(path, true, false, &o, &err));
	must(kvs_writer_new(o, KVS_PACK_RAW, NULL, &w, &err));
	must(kv_cache_write(c, w, &err));
	kvs_writer_free(w);
	must(kv_out_commit(o, &err));
}

static void
put_all(struct kv_list *l, float x)
{
	float row[KVS_MAX_DIM];

	for (size_t j = 0; j < KVS_MAX_DIM; j++)
		row[j] = x;
	for (uint32_t r = 0; r < l->n; r++) {
		must(kv_rows_put(&l->k, r, 1, row, l->k.width, &err));
		must(kv_rows_put(&l->v, r, 1, row, l->v.width, &err));
	}
}

static void
put_one(struct kv_cache *c, float x)
{
	struct kv_list *l = kv_cache_list(c, 1, 0);
	float row[KVS_MAX_DIM];

	kv_rows_get(&l->k, 3, row);
	row[2] = x;
	must(kv_rows_put(&l->k, 3, 1, row, l->k.width, &err));
}

int
main(int argc, char **argv)
{
	const struct kv_coding rows = { .scheme = KVS_PER_ROW, .bits = 8, .scale_dtype = KVS_F16, .group = 8 };
	const char *state = argc == 4 ? argv[1] : "";
	struct kv_cache *c;
	size_t lists;

	if (!strstr(" rows nan inf flat ", state) || !*state) {
		fprintf(stderr, "usage: mkstate rows|nan|inf|flat IN.kvs OUT.kvs\n");
		return 2;
	}
	c = load(argv[2]);
	lists = (size_t)c->geom.n_layers * c->geom.n_heads_kv;
	for (size_t i = 0; i < lists; i++)
		if (*state == 'r')
			must(kv_rows_code(&c->list[i].k, c->list[i].n, 0, c->list[i].n, &rows, &err));
		else if (*state == 'f')
			put_all(&c->list[i], 0.5f);
	if (*state == 'n' || *state == 'i')
		put_one(c, *state == 'n' ? NAN : INFINITY);
	c->edited = true;
	save(c, argv[3]);
	kv_cache_free(c);
	return 0;
}
