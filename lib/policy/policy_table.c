/* The table of policies, and what all of them ask of a cache. */
#include <string.h>

#include "policy/policy.h"

#define ROW(id, name, help) &kv_policy_##id,
const struct kv_policy *const kv_policies[] = { KV_POLICY_LIST(ROW) NULL };

static const char *const scopes[] = {
	[KV_SCOPE_DEFAULT] = "default",
	[KV_SCOPE_HEAD] = "head",
	[KV_SCOPE_LAYER] = "layer",
	[KV_SCOPE_MODEL] = "model",
};

const struct kv_policy *
kv_policy_find(const char *name)
{
	for (size_t i = 0; kv_policies[i]; i++)
		if (!strcmp(kv_policies[i]->name, name))
			return kv_policies[i];
	return NULL;
}

const char *
kv_scope_name(enum kv_scope s)
{
	return scopes[s];
}

enum kv_status
kv_scope_parse(const char *what, const char *s, enum kv_scope *out, struct kv_err *err)
{
	char q[60];

	for (enum kv_scope i = KV_SCOPE_HEAD; i <= KV_SCOPE_MODEL; i++)
		if (!strcmp(s, scopes[i])) {
			*out = i;
			return KV_OK;
		}
	return kv_fail(err, KV_EUSAGE, "%s: '%s' is none of head, layer, model", what, kv_quote(q, sizeof q, s, strlen(s)));
}

enum kv_status
kv_policy_fits(const struct kv_policy *p, const struct kv_cache *c, struct kv_err *err)
{
	/* Of a text without tokens nothing can have been recorded. */
	if (!c->state.consumed || !(p->needs & KV_NEEDS_LAST))
		return KV_OK;
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		if (!c->queries[l].w)
			return kv_fail(err, KV_EFIT, "no queries of layer %u in the snapshot, --%s needs the last one: run kv-prefill with --observe last=1",
				l, p->name);
	return KV_OK;
}

uint64_t
kv_queries_stale(const struct kv_cache *c)
{
	uint64_t stale = 0;

	for (unsigned l = 0; l < c->geom.n_layers; l++) {
		const struct kv_queries *q = &c->queries[l];
		uint64_t behind = q->w ? c->state.consumed - 1 - q->src[q->w - 1] : 0;

		if (behind > stale)
			stale = behind;
	}
	return stale;
}
