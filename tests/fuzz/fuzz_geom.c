/* Geometry: GEOM, the ROPE sets that it names, LAYR, one after the other. What is accepted is written back byte for byte. */
#include <string.h>

#include "fuzz.h"
#include "kvs/geom.h"

enum { ROPE_HEAD = 64, LAYER = 16 };

/* The bytes taken, 0 when they are not a set. */
static size_t
take_rope(const uint8_t *p, size_t n, struct kvs_geom *g, uint32_t set)
{
	struct kv_buf back = { 0 };
	struct kv_err err;
	uint32_t n_rot;
	size_t len;

	if (n < ROPE_HEAD)
		return 0;
	memcpy(&n_rot, p + 4, sizeof n_rot);
	len = ROPE_HEAD + 2 * (size_t)(n_rot % 4096);
	if (len > n || kvs_rope_get(p, len, g, &g->rope[set], &err) != KV_OK)
		return 0;
	kvs_rope_put(&back, &g->rope[set]);
	MUST(back.len == len && !memcmp(back.p, p, len));
	kv_buf_free(&back);
	return len;
}

static void
take(struct kvs_geom *g, const uint8_t *p, size_t n)
{
	struct kvs_state s;
	struct kv_buf back = { 0 };
	struct kv_err err;
	size_t at = KVS_GEOM_BYTES, len;

	if (n < KVS_GEOM_BYTES || kvs_geom_get(p, KVS_GEOM_BYTES, g, &s, &err) != KV_OK)
		return;
	kvs_geom_put(&back, g, &s);
	MUST(back.len == KVS_GEOM_BYTES && !memcmp(back.p, p, KVS_GEOM_BYTES));
	back.len = 0;
	for (uint32_t i = 0; i < g->n_rope; i++, at += len)
		if (!(len = take_rope(p + at, n - at, g, i)))
			goto out;
	if (kvs_layers_get(p + at, n - at, g, &err) == KV_OK) {
		kvs_layers_put(&back, g);
		MUST(back.len == n - at && back.len == (size_t)LAYER * g->n_layers && !memcmp(back.p, p + at, back.len));
		MUST(kvs_geom_same_model(g, g, true, &err) == KV_OK);
	}
out:
	kv_buf_free(&back);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct kvs_geom *g = calloc(1, sizeof *g);

	MUST(g);
	take(g, data, n);
	free(g);
	return 0;
}
