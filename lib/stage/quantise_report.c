/* What quantising did: lines for people, figures for the provenance. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "stage/quantise.h"

static size_t
n_items(const struct quantise_scene *s)
{
	return (size_t)s->cache->geom.n_layers * s->cache->geom.n_heads_kv * 2;
}

static double
ratio(double part, double whole)
{
	return whole > 0 ? part / whole : 0;
}

/* Of keys (0) or values (1) of the items from … to - 1. */
static struct quantise_plan
sum_of(const struct quantise_scene *s, size_t from, size_t to, size_t kind)
{
	struct quantise_plan sum = { 0 };

	for (size_t i = from + kind; i < to; i += 2) {
		const struct quantise_plan *p = &s->plan[i];

		sum.before += p->before;
		sum.after += p->after;
		sum.size += p->size;
		sum.error += p->error;
		sum.products += p->products;
		sum.off += p->off;
	}
	return sum;
}

static void
tell_errors(const struct quantise_scene *s, size_t from, size_t to, struct kv_buf *out)
{
	struct quantise_plan k = sum_of(s, from, to, 0), v = sum_of(s, from, to, 1);
	const char *gap = "";

	if (s->how->what & KV_LOAD_K) {
		kv_buf_printf(out, "keys %.4g", ratio(k.error, k.size));
		if (k.products > 0)
			kv_buf_printf(out, ", their products with the last queries %.4g", ratio(k.off, k.products));
		gap = ", ";
	}
	if (s->how->what & KV_LOAD_V)
		kv_buf_printf(out, "%svalues %.4g", gap, ratio(v.error, v.size));
	kv_buf_printf(out, "\n");
}

static void
put_figures(const struct quantise_scene *s, struct kv_buf *out)
{
	static const char *const keys[] = { "error_k", "error_products", "error_v" };
	size_t per_layer = (size_t)s->cache->geom.n_heads_kv * 2;

	kv_buf_printf(out, "{");
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		kv_buf_printf(out, "%s\"%s\":[", i ? "," : "", keys[i]);
		for (size_t at = 0; at < n_items(s); at += per_layer) {
			struct quantise_plan p = sum_of(s, at, at + per_layer, i == 2);

			kv_buf_printf(out, "%s%.5g", at ? "," : "", i == 1 ? ratio(p.off, p.products) : ratio(p.error, p.size));
		}
		kv_buf_printf(out, "]");
	}
	kv_buf_printf(out, "}");
}

static void
tell_idle(const struct quantise_scene *s, struct kv_buf *out)
{
	static const char *const names[] = { "keys", "values" };

	for (size_t kind = 0; kind < 2; kind++) {
		size_t idle = 0;

		if (!quantise_takes(s, kind))
			continue;
		for (size_t i = kind; i < n_items(s); i += 2)
			idle += s->plan[i].to == s->plan[i].from;
		if (idle && s->how->mode == QUANTISE_KIVI)
			kv_buf_printf(out, "%s of %zu of %zu heads: nothing to code, for %s\n", names[kind], idle, n_items(s) / 2,
				kind || !s->how->residual ? "no entry is older than the residual" : "the residual is no whole block");
		else if (idle == n_items(s) / 2)
			kv_buf_printf(out, "%s stay as they are: %s\n", names[kind],
				s->how->mode == QUANTISE_DTYPE ? "they are of this type" : "there are no codes");
	}
}

void
kv_quantise_tell(const struct quantise_scene *s, struct kv_notes *notes)
{
	size_t per_layer = (size_t)s->cache->geom.n_heads_kv * 2;
	uint64_t before = sum_of(s, 0, n_items(s), 0).before + sum_of(s, 0, n_items(s), 1).before;
	uint64_t after = sum_of(s, 0, n_items(s), 0).after + sum_of(s, 0, n_items(s), 1).after;
	struct kv_buf *out = s->how->report ? &notes->remarks : &notes->report;

	tell_idle(s, &notes->remarks);
	if (s->how->report) {
		for (size_t at = 0; at < n_items(s); at += per_layer) {
			kv_buf_printf(out, "layer %zu: relative squared error: ", at / per_layer);
			tell_errors(s, at, at + per_layer, out);
		}
		kv_buf_printf(out, "all layers: relative squared error: ");
		tell_errors(s, 0, n_items(s), out);
		put_figures(s, &notes->detail);
	}
	kv_buf_printf(out, "%" PRIu64 " of %" PRIu64 " bytes\n", after, before);
}
