/* The table of policies, and what all of them ask of options and of a cache. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policy/policy.h"
#include "util/half.h"

#define ROW(id, name, arg, help) &kv_policy_##id,
const struct kv_policy *const kv_policies[] = { KV_POLICY_LIST(ROW) NULL };

const struct kv_policy *
kv_policy_find(const char *name)
{
	for (size_t i = 0; kv_policies[i]; i++)
		if (!strcmp(kv_policies[i]->name, name))
			return kv_policies[i];
	return NULL;
}

const struct kv_policy *
kv_policy_scorer(const struct kv_policy *p, const struct kv_policy_opts *o)
{
	if (!(p->takes & KV_TAKES_BASE))
		return p;
	return o->base ? o->base : p->defaults.base;
}

unsigned
kv_policy_takes_all(const struct kv_policy *p, const struct kv_policy_opts *o)
{
	return p->takes | kv_policy_scorer(p, o)->takes;
}

static unsigned
asked(const struct kv_policy *p, const struct kv_policy_opts *o, bool reads)
{
	unsigned what[2] = { p->needs, p->reads };

	if (p->spare)
		p->spare(o, &what[0], &what[1]);
	return what[reads];
}

unsigned
kv_policy_needs(const struct kv_policy *p, const struct kv_policy_opts *o)
{
	return asked(p, o, false);
}

unsigned
kv_policy_reads(const struct kv_policy *p, const struct kv_policy_opts *o)
{
	return asked(p, o, true);
}

enum kv_status
kv_policy_settle(const struct kv_policy *p, struct kv_policy_opts *o, struct kv_err *err)
{
	const struct kv_policy *scorer = kv_policy_scorer(p, o);
	struct kv_policy_opts settled = scorer->defaults;

	for (enum kv_policy_option i = 0; i < KV_POLICY_OPTIONS; i++) {
		if (p->takes >> i & 1)
			kv_policy_option_copy(i, &settled, &p->defaults);
		if (!(o->given >> i & 1))
			continue;
		if (!(kv_policy_takes_all(p, o) >> i & 1))
			return kv_fail(err, KV_EUSAGE, "--%s does not go with --%s", kv_policy_option_name(i), p->name);
		kv_policy_option_copy(i, &settled, o);
	}
	if (o->given & KV_TAKES_SCOPE && !(p->scopes >> o->scope & 1))
		return kv_fail(err, KV_EUSAGE, "--scope %s does not go with --%s", kv_scope_name(o->scope), p->name);
	if (o->given & KV_TAKES_BY && !(p->by >> o->by & 1))
		return kv_fail(err, KV_EUSAGE, "--%s goes not by the attention of %s", p->name, kv_by_name(o->by));
	settled.budget = o->budget;
	settled.given = o->given;
	*o = settled;
	return KV_OK;
}

static enum kv_status
lacks(const struct kv_policy *p, const char *what, const char *option, struct kv_err *err)
{
	return kv_fail(err, KV_EFIT, "no %s in the snapshot, --%s needs it: run kv-prefill with --%s", what, p->name, option);
}

uint64_t
kv_policy_wants_queries(const struct kv_policy *p, const struct kv_policy_opts *o)
{
	if (!(kv_policy_needs(p, o) & KV_NEEDS_LAST))
		return 0;
	if (o->last != KV_LAST_ALL)
		return (uint64_t)o->last;
	return p->record ? p->record : 1;
}

static enum kv_status
fits_received(const struct kv_policy *p, const struct kv_policy_opts *o, const struct kv_cache *c, struct kv_err *err)
{
	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv; i++) {
		const struct kv_list *l = &c->list[i];

		if (!l->n)
			continue;
		if (!l->received)
			return lacks(p, "accumulated attention", "observe acc", err);
		if (l->received->to < c->state.consumed && !o->allow_stale)
			return kv_fail(err, KV_EFIT, "accumulated attention missed the last %" PRIu64 " tokens: record them with --observe acc, "
				"or say --allow-stale", c->state.consumed - l->received->to);
	}
	return KV_OK;
}

/* Nothing was there to be seen, or nothing was seen: only the first leaves a record. */
static bool
has_sums(const struct kv_cache *c, enum kv_sums_of which)
{
	const struct kv_sums *s = &c->sums[which];
	bool all = s->there;

	for (size_t i = 0; i < (size_t)c->geom.n_layers * c->geom.n_heads_kv && all; i++)
		all = !s->list[i].missing || !c->list[i].n;
	return all;
}

enum kv_status
kv_policy_fits(const struct kv_policy *p, const struct kv_policy_opts *o, const struct kv_cache *c, struct kv_err *err)
{
	const struct kv_policy *scorer = kv_policy_scorer(p, o);
	unsigned needs = kv_policy_needs(scorer, o);
	char item[40];

	/* Of a text without tokens nothing can have been recorded. */
	if (!c->state.consumed)
		return KV_OK;
	snprintf(item, sizeof item, "observe last=%" PRIu64, kv_policy_wants_queries(scorer, o));
	for (unsigned l = 0; l < c->geom.n_layers && needs & KV_NEEDS_LAST; l++)
		if (!c->queries[l].w)
			return lacks(p, "queries", item, err);
	if (needs & KV_NEEDS_NLL && !c->has_nll)
		return lacks(p, "surprisal", "observe nll", err);
	if (needs & KV_NEEDS_CHUNK && !has_sums(c, KV_SUMS_CHUNK))
		return lacks(p, "chunk's attention", "observe chunk", err);
	if (needs & KV_NEEDS_PROBE && !has_sums(c, KV_SUMS_PROBE))
		return lacks(p, "probe's attention", "probe", err);
	return needs & KV_NEEDS_RECEIVED ? fits_received(p, o, c, err) : KV_OK;
}

enum kv_status
kv_policy_fits_queries(const struct kv_policy *p, const struct kv_policy_opts *o, const struct kv_cache *c, struct kv_err *err)
{
	uint64_t want = o->last == KV_LAST_ALL ? 1 : (uint64_t)o->last;

	if (!(kv_policy_needs(kv_policy_scorer(p, o), o) & KV_NEEDS_LAST))
		return KV_OK;
	if (want > c->state.consumed)
		want = c->state.consumed;
	for (unsigned l = 0; l < c->geom.n_layers; l++)
		if (c->queries[l].w < want)
			return kv_fail(err, KV_EFIT, "%u queries of layer %u in the snapshot, --%s needs %" PRIu64 ": run kv-prefill with "
				"--observe last=%" PRIu64, c->queries[l].w, l, p->name, want, kv_policy_wants_queries(kv_policy_scorer(p, o), o));
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

uint32_t
kv_voters(const struct kv_policy_opts *o, const struct kv_queries *q)
{
	return o->last == KV_LAST_ALL || o->last > q->w ? q->w : (uint32_t)o->last;
}

float
kv_score_round(const struct kv_policy_opts *o, double x)
{
	switch (o->score_dtype) {
	case KV_SCORE_F16:
		return f16_to_f32(f32_to_f16((float)x));
	case KV_SCORE_BF16:
		return bf16_to_f32(f32_to_bf16((float)x));
	default:
		return (float)x;
	}
}

void
kv_score_round_rows(const struct kv_policy_opts *o, float *x, size_t n)
{
	for (size_t i = 0; i < n && o->score_dtype != KV_SCORE_F32; i++)
		x[i] = kv_score_round(o, (double)x[i]);
}

uint32_t
kv_share_of(double share, uint32_t n)
{
	/* Far more than the product's rounding error, far less than the last decimal that anybody writes. */
	return (uint32_t)floor(share * n + 1e-6);
}
