/* JSON of a snapshot: the rules, a record of provenance, and the next record after it. */
#include <string.h>

#include "fuzz.h"
#include "kvs/prov.h"
#include "view/view.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct kvs_prov p = { 0 };
	struct kv_err err;
	char *line = malloc(n + 1);

	MUST(line);
	if (n)
		memcpy(line, data, n);
	line[n] = 0;
	MUST((kvs_json_check(data, n, &err) == KV_OK) == (kvs_prov_add_json(&p, data, n, &err) == KV_OK));
	MUST(kvs_prov_add_run(&p, &(struct kvs_run){ .tool = line, .argc = 1, .argv = &line }, &err) == KV_OK || n > 1 << 16);
	for (size_t i = 0; i < p.n; i++)
		MUST(kvs_json_check((const uint8_t *)p.record[i], strlen(p.record[i]), &err) == KV_OK);
	kvs_prov_free(&p);
	free(line);
	return 0;
}
