/* A survey as one JSON object. Names and order of the keys are fixed: programs read them. */
#include "view/view.h"

#include <jansson.h>
#include <string.h>

#include "kvs/digest.h"

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

	json_object_set_new(o, "name", s->model ? json_string(s->model) : json_null());
	json_object_set_new(o, "arch", json_string(s->geom.arch));
	json_object_set_new(o, "fingerprint", s->geom.fp_kind ? hex(s->geom.fp_model) : json_null());
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
	json_object_set_new(o, "kind", json_string(r->kind == KVS_ROPE_NORM ? "norm" : "neox"));
	json_object_set_new(o, "n_rot", count(r->n_rot));
	json_object_set_new(o, "theta", json_real((double)r->theta));
	json_object_set_new(o, "scaling", json_string(r->scaling <= KVS_SCALE_YARN ? scalings[r->scaling] : "unknown"));
	return o;
}

static json_t *
geometry(const struct kvs_geom *g)
{
	json_t *o = json_object();

	json_object_set_new(o, "layers", count(g->n_layers));
	json_object_set_new(o, "heads", count(g->n_heads));
	json_object_set_new(o, "kv_heads", count(g->n_heads_kv));
	json_object_set_new(o, "head_dim_k", count(g->d_k));
	json_object_set_new(o, "head_dim_v", count(g->d_v));
	json_object_set_new(o, "attn_scale", json_real((double)g->attn_scale));
	json_object_set_new(o, "rope", rope(g));
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

			json_array_append_new(heads, count(n));
			longest = n > longest ? n : longest;
		}
		json_array_append_new(per_layer, count(longest));
		json_array_append_new(per_head, heads);
	}
	json_object_set_new(o, "total", count(s->rows));
	json_object_set_new(o, "min", count(s->shortest));
	json_object_set_new(o, "max", count(s->longest));
	json_object_set_new(o, "per_layer", per_layer);
	json_object_set_new(o, "per_head", per_head);
	return o;
}

static json_t *
bytes(const struct kv_survey *s)
{
	static const char *const names[KV_N_KINDS] = { "keys", "values", "masks", "scales", "observations", "meta" };
	json_t *o = json_object();

	for (int kind = 0; kind < KV_N_KINDS; kind++)
		json_object_set_new(o, names[kind], count(s->bytes[kind]));
	json_object_set_new(o, "total", count(s->total));
	json_object_set_new(o, "full", count(s->full_k > UINT64_MAX - s->full_v ? UINT64_MAX : s->full_k + s->full_v));
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
	json_object_set_new(o, "rows_pruned", count(s->rows_pruned));
	json_object_set_new(o, "rows_baked", count(s->rows_baked));
	json_object_set_new(o, "kept_min", count(s->kept_min));
	json_object_set_new(o, "kept_max", count(s->kept_max));
	json_object_set_new(o, "pairs", json_boolean(s->pairs));
	return o;
}

static json_t *
quant(const struct kv_survey *s)
{
	json_t *o;

	if (!s->rows_k && !s->rows_v)
		return json_null();
	o = json_object();
	json_object_set_new(o, "bits_k", s->rows_k ? count(s->bits_k) : json_null());
	json_object_set_new(o, "bits_v", s->rows_v ? count(s->bits_v) : json_null());
	json_object_set_new(o, "group", count(s->group));
	json_object_set_new(o, "residual", count(s->residual));
	json_object_set_new(o, "rows_k", count(s->rows_k));
	json_object_set_new(o, "rows_v", count(s->rows_v));
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
		json_object_set_new(o, "name", json_string(kv_seen_name((enum kv_seen)what)));
		json_object_set_new(o, "queries", count(s->seen[what].queries));
		json_object_set_new(o, "fresh", json_boolean(s->seen[what].fresh));
		json_array_append_new(all, o);
	}
	return all;
}

/* The records are JSON that the format has already checked. */
static json_t *
provenance(const struct kv_survey *s)
{
	json_t *all = json_array();

	for (size_t i = 0; i < s->prov.n; i++)
		json_array_append_new(all, json_loadb(s->prov.record[i], strlen(s->prov.record[i]), 0, NULL));
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
	int bad = 0;

	bad |= json_object_set_new(o, "format", json_sprintf("kvs %u.%u", (unsigned)s->major, (unsigned)s->minor));
	bad |= json_object_set_new(o, "digest", hex(s->digest));
	bad |= json_object_set_new(o, "observation_digest", hex(s->observation_digest));
	bad |= json_object_set_new(o, "model", model(s));
	bad |= json_object_set_new(o, "geometry", geometry(&s->geom));
	bad |= json_object_set_new(o, "tokens", count(s->state.consumed));
	bad |= json_object_set_new(o, "next_pos", json_integer(s->state.next_pos));
	bad |= json_object_set_new(o, "tail", count(s->state.tail));
	bad |= json_object_set_new(o, "entries", entries(s));
	bad |= json_object_set_new(o, "bytes", bytes(s));
	bad |= json_object_set_new(o, "dtype", dtype(&s->geom.layer[0]));
	bad |= json_object_set_new(o, "masks", masks(s));
	bad |= json_object_set_new(o, "quant", quant(s));
	bad |= json_object_set_new(o, "observations", observations(s));
	bad |= json_object_set_new(o, "provenance", provenance(s));
	bad |= json_object_set_new(o, "snapshot_bytes", count(s->stored));
	/* Nine digits bring back every f32. */
	bad |= json_dump_callback(o, gather, &p->buf, JSON_COMPACT | JSON_REAL_PRECISION(9));
	json_decref(o);
	kv_buf_add(&p->buf, "\n", 1);
	return bad || p->buf.failed ? kv_fail_mem(err, "JSON") : KV_OK;
}
