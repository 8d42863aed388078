/* What a job was asked to do. */
#include "loop/job.h"

#include <stdio.h>
#include <stdlib.h>

#include "kvs/digest.h"
#include "util/le.h"
#include "util/mem.h"

/* "14 tokens, 5b1d…": the probe need not be told, only be told from others. */
static json_t *
describe_probe(const struct kv_rounds *r)
{
	uint8_t *bytes = kv_array_new(r->n_probe, 4), digest[16];
	char text[80], hex[33];

	if (!bytes)
		return NULL;
	for (size_t i = 0; i < r->n_probe; i++)
		le32_put(bytes + 4 * i, r->probe[i]);
	kvs_hash128(bytes, 4 * r->n_probe, digest);
	free(bytes);
	snprintf(text, sizeof text, "%zu tokens, %s", r->n_probe, kvs_hex128(digest, hex));
	return json_string(text);
}

static json_t *
describe_observe(const struct kv_observe *o)
{
	char text[80];

	snprintf(text, sizeof text, "last=%u%s%s%s", o->last, o->received ? ",acc" : "", o->nll ? ",nll" : "", o->chunk ? ",chunk" : "");
	return json_string(text);
}

json_t *
kv_job_describe(const struct kv_rounds *r, const struct kv_observe *observe, const struct kv_session *s, const struct kv_cache *c)
{
	static const char *const history[] = { [KV_HISTORY_ALL] = "all", [KV_HISTORY_ALIVE] = "alive", [KV_HISTORY_NONE] = "none" };
	char from[33];

	return json_pack("{s:I, s:I, s:I, s:I, s:o, s:s?, s:s, s:s?, s:s?, s:o, s:s, s:s, s:s}",
		"--chunk", (json_int_t)r->chunk, "--fill", (json_int_t)r->fill, "--reserve", (json_int_t)r->reserve,
		"--batch", (json_int_t)(r->feed.batch ? r->feed.batch : s->ops->batch),
		"--observe", describe_observe(observe), "--history", history[r->history],
		"--probe-at", r->probe_all ? "all" : "old", "--each", kv_each_text(r->each), "--twin-each", kv_each_text(r->twin_each),
		"--probe", describe_probe(r), "--from", kvs_hex128(c->digest, from),
		"--dtype", kvs_dtype_name(c->list[0].k.dtype), "level", s->ops->level);
}
