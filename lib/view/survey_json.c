/* A survey as one JSON object. Names and order of the keys are fixed: programs read them. */
#include "view/view.h"

#include <string.h>

#include "kvs/digest.h"
#include "util/json.h"

static json_t *
count(uint64_t n)
{
	return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

static json_t *
hex(const uint8_t digest[16])
{
	char text[33];

	return json_string(kvs_hex128(digest, text));
}

static json_t *
model(const struct kv_survey *s)
{
	json_t *o = json_object();

	o = kv_json_set(o, "name", s->model ? json_string(s->model) : json_null());
	o = kv_json_set(o, "arch", json_string(s->geom.arch));
	o = kv_json_set(o, "fingerprint", s->geom.fp_kind ? hex(s->geom.fp_model) : json_null());
	return o;
}

static json_t *
rope(const struct kvs_geom *g)
{
	static const char *const scalings[] = { "none", "linear", "factors", "yarn" };
	const struct kvs_rope *r;
	json_t *o;

	if (g->layer[0].rope == KVS_NO_ROPE)
		return json_null();
	r = &g->rope[g->layer[0].rope];
	o = json_object();
	o = kv_json_set(o, "kind", json_string(r->kind == KVS_ROPE_NORM ? "norm" : "neox"));
	o = kv_json_set(o, "n_rot", count(r->n_rot));
	o = kv_json_set(o, "theta", json_real((double)r->theta));
	o = kv_json_set(o, "scaling", json_string(r->scaling <= KVS_SCALE_YARN ? scalings[r->scaling] : "unknown"));
	return o;
}

static json_t *
geometry(const struct kvs_geom *g)
{
	json_t *o = json_object();

	o = kv_json_set(o, "layers", count(g->n_layers));
	o = kv_json_set(o, "heads", count(g->n_heads));
	o = kv_json_set(o, "kv_heads", count(g->n_heads_kv));
	o = kv_json_set(o, "head_dim_k", count(g->d_k));
	o = kv_json_set(o, "head_dim_v", count(g->d_v));
	o = kv_json_set(o, "attn_scale", json_real((double)g->attn_scale));
	o = kv_json_set(o, "rope", rope(g));
	return o;
}

static json_t *
entries(const struct kv_survey *s)
{
	json_t *o = json_object(), *per_layer = json_array(), *per_head = json_array();

	for (unsigned l = 0; l < s->geom.n_layers; l++) {
		json_t *heads = json_array();
		uint32_t longest = 0;

		for (unsigned h = 0; h < s->geom.n_heads_kv; h++) {
			uint32_t n = s->n[(size_t)l * s->geom.n_heads_kv + h];

			heads = kv_json_add(heads, count(n));
			longest = n > longest ? n : longest;
		}
		per_layer = kv_json_add(per_layer, count(longest));
		per_head = kv_json_add(per_head, heads);
	}
	o = kv_json_set(o, "total", count(s->rows));
	o = kv_json_set(o, "min", count(s->shortest));
	o = kv_json_set(o, "max", count(s->longest));
	o = kv_json_set(o, "per_layer", per_layer);
	o = kv_json_set(o, "per_head", per_head);
	return o;
}

static json_t *
bytes(const struct kv_survey *s)
{
	static const char *const names[KV_N_KINDS] = { "keys", "values", "masks", "scales", "observations", "meta" };
	json_t *o = json_object();

	for (int kind = 0; kind < KV_N_KINDS; kind++)
		o = kv_json_set(o, names[kind], count(s->bytes[kind]));
	o = kv_json_set(o, "total", count(s->total));
	o = kv_json_set(o, "full", count(s->full_k > UINT64_MAX - s->full_v ? UINT64_MAX : s->full_k + s->full_v));
	return o;
}

static json_t *
dtype(const struct kvs_layer *l)
{
	if (l->k_dtype == l->v_dtype)
		return json_string(kvs_dtype_name(l->k_dtype));
	return json_sprintf("%s,%s", kvs_dtype_name(l->k_dtype), kvs_dtype_name(l->v_dtype));
}

static json_t *
masks(const struct kv_survey *s)
{
	json_t *o;

	if (!s->n_masks)
		return json_null();
	o = json_object();
	o = kv_json_set(o, "rows_pruned", count(s->rows_pruned));
	o = kv_json_set(o, "rows_baked", count(s->rows_baked));
	o = kv_json_set(o, "kept_min", count(s->kept_min));
	o = kv_json_set(o, "kept_max", count(s->kept_max));
	o = kv_json_set(o, "pairs", json_boolean(s->pairs));
	return o;
}

static json_t *
quant(const struct kv_survey *s)
{
	json_t *o;

	if (!s->rows_k && !s->rows_v)
		return json_null();
	o = json_object();
	o = kv_json_set(o, "bits_k", s->rows_k ? count(s->bits_k) : json_null());
	o = kv_json_set(o, "bits_v", s->rows_v ? count(s->bits_v) : json_null());
	o = kv_json_set(o, "group", count(s->group));
	o = kv_json_set(o, "residual", count(s->residual));
	o = kv_json_set(o, "rows_k", count(s->rows_k));
	o = kv_json_set(o, "rows_v", count(s->rows_v));
	return o;
}

static json_t *
observations(const struct kv_survey *s)
{
	json_t *all = json_array();

	for (int what = 0; what < KV_N_SEEN; what++) {
		json_t *o;

		if (!s->seen[what].present)
			continue;
		o = json_object();
		o = kv_json_set(o, "name", json_string(kv_seen_name((enum kv_seen)what)));
		o = kv_json_set(o, "queries", count(s->seen[what].queries));
		o = kv_json_set(o, "fresh", json_boolean(s->seen[what].fresh));
		all = kv_json_add(all, o);
	}
	return all;
}

/* The records are JSON that the format has already checked. */
static json_t *
provenance(const struct kv_survey *s)
{
	json_t *all = json_array();
	bool no_memory;

	for (size_t i = 0; i < s->prov.n; i++)
		all = kv_json_add(all, kv_json_parse(s->prov.record[i], strlen(s->prov.record[i]), NULL, &no_memory));
	return all;
}

static int
gather(const char *text, size_t n, void *buf)
{
	kv_buf_add(buf, text, n);
	return 0;
}

enum kv_status
kv_survey_json(const struct kv_survey *s, struct kv_print *p, struct kv_err *err)
{
	json_t *o = json_object();
	bool bad;

	o = kv_json_set(o, "format", json_sprintf("kvs %u.%u", (unsigned)s->major, (unsigned)s->minor));
	o = kv_json_set(o, "digest", hex(s->digest));
	o = kv_json_set(o, "observation_digest", hex(s->observation_digest));
	o = kv_json_set(o, "model", model(s));
	o = kv_json_set(o, "geometry", geometry(&s->geom));
	o = kv_json_set(o, "tokens", count(s->state.consumed));
	o = kv_json_set(o, "next_pos", json_integer(s->state.next_pos));
	o = kv_json_set(o, "tail", count(s->state.tail));
	o = kv_json_set(o, "entries", entries(s));
	o = kv_json_set(o, "bytes", bytes(s));
	o = kv_json_set(o, "dtype", dtype(&s->geom.layer[0]));
	o = kv_json_set(o, "masks", masks(s));
	o = kv_json_set(o, "quant", quant(s));
	o = kv_json_set(o, "observations", observations(s));
	o = kv_json_set(o, "provenance", provenance(s));
	o = kv_json_set(o, "snapshot_bytes", count(s->stored));
	/* Nine digits bring back every f32. */
	bad = !o || json_dump_callback(o, gather, &p->buf, JSON_COMPACT | JSON_REAL_PRECISION(9));
	json_decref(o);
	kv_buf_add(&p->buf, "\n", 1);
	return bad || p->buf.failed ? kv_fail_mem(err, "JSON") : KV_OK;
}
