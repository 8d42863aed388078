/* Provenance: one JSON object per tool run, oldest first (formats/kvs.md, section 12). */
#ifndef KV_KVS_PROV_H
#define KV_KVS_PROV_H

#include <stddef.h>
#include <stdint.h>

#include "util/err.h"
#include "util/mem.h"

enum { KVS_MAX_PROV = 256, KVS_MAX_JSON = 1 << 20 };

/* What a tool says of its own run. Strings are the caller's; NULL = left out. */
struct kvs_run {
	const char *tool, *version;
	int argc;
	char **argv;			/* without the tool's name and without what cannot change the content: kv_args_words */
	const uint8_t *in_digest;	/* [16] */
	uint64_t kept, of;		/* entries; of = 0: left out */
	const char *detail;		/* figures of the run, a JSON object */
	const char *device, *precision, *level, *blas;	/* tools with a model */
};

/* One record per element, as UTF-8 JSON. Appends run to records (folding the second oldest when there would be more than 256). */
struct kvs_prov {
	char **record;
	size_t n;
};

/* One JSON object as a snapshot may hold it: UTF-8, at most 1 MiB, 16 deep, no key twice, integers within 2^53. */
enum kv_status kvs_json_check(const uint8_t *json, size_t n, struct kv_err *err);

enum kv_status kvs_prov_add_json(struct kvs_prov *p, const uint8_t *json, size_t n, struct kv_err *err);	/* checked: UTF-8, depth, size, keys */
enum kv_status kvs_prov_add_run(struct kvs_prov *p, const struct kvs_run *run, struct kv_err *err);
void kvs_prov_free(struct kvs_prov *p);

#endif
