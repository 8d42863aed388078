/* Options of single policies: what each may say and where it is kept. */
#include "policy/policy_options.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "policy/policy.h"

enum kind { WHOLE, REAL, WORD, POOLING, AMOUNT, POLICY, FLAG };

struct row {
	enum kind kind;
	size_t at, size;
	double min, max;	/* of a word: the first number that may be said */
	const char *const *words;	/* by number, NULL behind the last */
};

static const char *const scopes[] = { "default", "head", "layer", "model", NULL };
static const char *const joins[] = { "mean", "max", NULL };
static const char *const dtypes[] = { "f32", "f16", "bf16", NULL };
static const char *const allocs[] = { "official", "kvpress", NULL };
static const char *const firsts[] = { "inf", "0", NULL };
static const char *const bys[] = { "probe", "chunk", "last", NULL };
static const char *const carries[] = { "sticky", "recompute", NULL };
static const char *const refills[] = { "full", "exact", NULL };
static const char *const readings[] = { "a", "b", NULL };
static const char *const pools[] = { "none", "max", "avg", NULL };

#define FIELD(name) offsetof(struct kv_policy_opts, name), sizeof ((struct kv_policy_opts *)0)->name

static const struct row rows[KV_POLICY_OPTIONS] = {
	[KV_OPTION_SCOPE] = { WORD, FIELD(scope), KV_SCOPE_HEAD, 0, scopes },
	[KV_OPTION_SINKS] = { WHOLE, FIELD(sinks), 0, UINT32_MAX, NULL },
	[KV_OPTION_RECENT] = { WHOLE, FIELD(recent), 0, UINT32_MAX, NULL },
	[KV_OPTION_PROTECT] = { WHOLE, FIELD(protect_last), 0, UINT32_MAX, NULL },
	[KV_OPTION_LAST] = { WHOLE, FIELD(last), 1, UINT32_MAX, NULL },
	[KV_OPTION_POOL] = { POOLING, FIELD(pool), 1, 65535, pools },
	[KV_OPTION_GQA] = { WORD, FIELD(gqa), 0, 0, joins },
	[KV_OPTION_SCORE_DTYPE] = { WORD, FIELD(score_dtype), 0, 0, dtypes },
	[KV_OPTION_ALLOC] = { WORD, FIELD(alloc), 0, 0, allocs },
	[KV_OPTION_BETA] = { WHOLE, FIELD(beta), 1, UINT32_MAX, NULL },
	[KV_OPTION_ALPHA] = { REAL, FIELD(alpha), 0, 1, NULL },
	[KV_OPTION_RHO] = { REAL, FIELD(rho), 0, 1, NULL },
	[KV_OPTION_DECAY] = { REAL, FIELD(decay), 0, 1, NULL },
	[KV_OPTION_FIRST_NLL] = { WORD, FIELD(first_nll), 0, 0, firsts },
	[KV_OPTION_BY] = { WORD, FIELD(by), 0, 0, bys },
	[KV_OPTION_NUC] = { AMOUNT, FIELD(nuc), 0, 0, NULL },
	[KV_OPTION_NUC_CARRY] = { WORD, FIELD(nuc_carry), 0, 0, carries },
	[KV_OPTION_LAST_REFILL] = { WORD, FIELD(last_refill), 0, 0, refills },
	[KV_OPTION_READING] = { WORD, FIELD(reading), 0, 0, readings },
	[KV_OPTION_FUTURE] = { WHOLE, FIELD(future), 1, 1048576, NULL },
	[KV_OPTION_EPS] = { REAL, FIELD(eps), 0, 1e30, NULL },
	[KV_OPTION_CHUNK_LEN] = { WHOLE, FIELD(chunk_len), 1, UINT32_MAX, NULL },
	[KV_OPTION_BASE] = { POLICY, FIELD(base), 0, 0, NULL },
	[KV_OPTION_LAG] = { WHOLE, FIELD(lag), 1, UINT32_MAX, NULL },
	[KV_OPTION_SEED] = { WHOLE, FIELD(seed), 0, 9e18, NULL },
	[KV_OPTION_STALE] = { FLAG, FIELD(allow_stale), 0, 0, NULL },
};

const char *
kv_scope_name(int scope)
{
	return scopes[scope];
}

const char *
kv_by_name(int by)
{
	return bys[by];
}

const char *
kv_policy_option_name(enum kv_policy_option which)
{
#define NAME(id, name, arg, help) name,
	static const char *const names[] = { KV_POLICY_OPTION_LIST(NAME) };
#undef NAME
	return names[which];
}

static enum kv_status
unknown(const char *what, const char *arg, const char *wanted, struct kv_err *err)
{
	char q[60];

	return kv_fail(err, KV_EUSAGE, "%s: '%s' is %s", what, kv_quote(q, sizeof q, arg, strlen(arg)), wanted);
}

static enum kv_status
parse_word(const struct row *r, const char *what, const char *arg, int *out, struct kv_err *err)
{
	struct kv_buf all = { 0 };
	enum kv_status rc;

	for (int i = (int)r->min; r->words[i]; i++)
		if (!strcmp(arg, r->words[i])) {
			*out = i;
			return KV_OK;
		}
	for (int i = (int)r->min; r->words[i]; i++)
		kv_buf_printf(&all, "%s%s", i > r->min ? ", " : "none of ", r->words[i]);
	kv_buf_add(&all, "", 1);
	rc = unknown(what, arg, all.failed ? "known" : (const char *)all.p, err);
	kv_buf_free(&all);
	return rc;
}

/* none, max:7, avg:5 */
static enum kv_status
parse_pooling(const struct row *r, const char *what, const char *arg, struct kv_pooling *out, struct kv_err *err)
{
	static const char wanted[] = "not none, or max or avg with an odd width (max:7)";
	int64_t width = 0;

	if (!strcmp(arg, pools[KV_POOL_NONE])) {
		*out = (struct kv_pooling){ KV_POOL_NONE, 1 };
		return KV_OK;
	}
	for (enum kv_pool_kind kind = KV_POOL_MAX; kind <= KV_POOL_AVG; kind++)
		if (!strncmp(arg, pools[kind], 3) && arg[3] == ':') {
			if (kv_parse_int(what, arg + 4, (int64_t)r->min, (int64_t)r->max, &width, err) != KV_OK || width % 2 == 0)
				break;
			*out = (struct kv_pooling){ kind, (uint32_t)width };
			return KV_OK;
		}
	return unknown(what, arg, wanted, err);
}

/* As a budget, but nothing is an amount as well. */
static enum kv_status
parse_amount(const char *what, const char *arg, struct kv_amount *out, struct kv_err *err)
{
	if (strcmp(arg, "0") && strcmp(arg, "0%"))
		return kv_parse_amount(what, arg, out, err);
	*out = (struct kv_amount){ 0, 0 };
	return KV_OK;
}

static enum kv_status
parse_policy(const char *what, const char *arg, const struct kv_policy **out, struct kv_err *err)
{
	const struct kv_policy *p = kv_policy_find(arg);

	if (!p || !p->score || p->keep || p->allot || p->budget)
		return unknown(what, arg, "not a policy that chooses by score alone", err);
	*out = p;
	return KV_OK;
}

enum kv_status
kv_policy_option_parse(enum kv_policy_option which, const char *arg, struct kv_policy_opts *o, struct kv_err *err)
{
	const struct row *r = &rows[which];
	void *field = (char *)o + r->at;
	enum kv_status rc = KV_OK;
	char what[24];

	snprintf(what, sizeof what, "--%s", kv_policy_option_name(which));
	switch (r->kind) {
	case WHOLE:
		rc = kv_parse_int(what, arg, (int64_t)r->min, (int64_t)r->max, field, err);
		break;
	case REAL:
		rc = kv_parse_real(what, arg, r->min, r->max, field, err);
		break;
	case WORD:
		rc = parse_word(r, what, arg, field, err);
		break;
	case POOLING:
		rc = parse_pooling(r, what, arg, field, err);
		break;
	case AMOUNT:
		rc = parse_amount(what, arg, field, err);
		break;
	case POLICY:
		rc = parse_policy(what, arg, field, err);
		break;
	case FLAG:
		*(bool *)field = true;
	}
	if (rc == KV_OK && o->nuc_carry == KV_NUC_RECOMPUTE)
		rc = kv_fail(err, KV_EUNSUP, "--nuc-carry recompute: survivors would have to be read again by the model; this version keeps what "
			"was measured when they were read");
	if (rc == KV_OK)
		o->given |= 1u << which;
	return rc;
}

void
kv_policy_option_copy(enum kv_policy_option which, struct kv_policy_opts *to, const struct kv_policy_opts *from)
{
	memcpy((char *)to + rows[which].at, (const char *)from + rows[which].at, rows[which].size);
}

static void
print_whole(enum kv_policy_option which, int64_t v, struct kv_buf *out)
{
	if (which == KV_OPTION_RECENT && v == KV_RECENT_HALF)
		kv_buf_printf(out, " k/2");
	else if (which == KV_OPTION_LAST && v == KV_LAST_ALL)
		kv_buf_printf(out, " all");
	else
		kv_buf_printf(out, " %" PRId64, v);
}

static void
print_amount(struct kv_amount a, struct kv_buf *out)
{
	if (a.den)
		kv_buf_printf(out, " %g%%", 100 * (double)a.num / (double)a.den);
	else
		kv_buf_printf(out, " %" PRIu64, a.num);
}

void
kv_policy_option_print(enum kv_policy_option which, const struct kv_policy_opts *o, struct kv_buf *out)
{
	const struct row *r = &rows[which];
	const void *field = (const char *)o + r->at;

	kv_buf_printf(out, "--%s", kv_policy_option_name(which));
	switch (r->kind) {
	case WHOLE:
		print_whole(which, *(const int64_t *)field, out);
		break;
	case REAL:
		kv_buf_printf(out, " %g", *(const double *)field);
		break;
	case WORD:
		kv_buf_printf(out, " %s", r->words[*(const int *)field]);
		break;
	case POOLING:
		kv_buf_printf(out, " %s", pools[o->pool.kind]);
		if (o->pool.kind != KV_POOL_NONE)
			kv_buf_printf(out, ":%u", o->pool.width);
		break;
	case AMOUNT:
		print_amount(*(const struct kv_amount *)field, out);
		break;
	case POLICY:
		kv_buf_printf(out, " %s", o->base->name);
		break;
	case FLAG:
		break;
	}
}
