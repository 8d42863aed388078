/* Groups of rows that an eviction would split: refused, or quantised once more. */
#include "stage/evict_codes.h"

#include <stdlib.h>

#include "cache/segments.h"
#include "util/search.h"

/* Rows that were in codes, as they are numbered after the eviction. */
struct coded {
	struct kv_list *list;
	struct kv_rows *rows;
	uint32_t from, to;
	struct kv_coding code;
};

struct recoding {
	struct coded *coded;	/* an array [n] */
	size_t n, lists;
};

static size_t
n_lists(const struct kv_cache *c)
{
	return (size_t)c->geom.n_layers * c->geom.n_heads_kv;
}

static bool
has_groups(const struct kv_rows *r)
{
	bool any = false;

	for (size_t i = 0; i < r->n_seg; i++)
		any |= r->seg[i].code.scheme == KVS_PER_CHANNEL;
	return any;
}

/* *cut = groups of a list's rows that would be split. */
static enum kv_status
count_cut(const struct kv_choice *ch, struct kv_rows *r, uint32_t *cut, struct kv_err *err)
{
	enum kv_status rc;

	*cut = 0;
	if (!ch->keep || !has_groups(r))
		return KV_OK;
	if ((rc = kv_rows_load(r, err)) == KV_OK)
		*cut = kv_rows_groups_cut(r, ch->keep, ch->k);
	return rc;
}

/* Nominal rows of a group. */
static uint32_t
group_of(const struct kv_rows *r)
{
	size_t i = 0;

	while (r->seg[i].code.scheme != KVS_PER_CHANNEL)
		i++;
	return r->seg[i].code.group;
}

static enum kv_status
check_groups(const struct kv_plan *p, struct kv_cache *c, struct kv_err *err)
{
	unsigned heads = c->geom.n_heads_kv;

	for (size_t i = 0; i < n_lists(c); i++) {
		struct kv_rows *of[] = { &c->list[i].k, &c->list[i].v };

		for (unsigned w = 0; w < 2; w++) {
			uint32_t cut;
			enum kv_status rc = count_cut(kv_plan_choice(p, i), of[w], &cut, err);

			if (rc != KV_OK)
				return rc;
			if (cut)
				return kv_fail(err, KV_EFIT, "layer %zu head %zu: %u quantised groups of %u would be split; evict before kv-quant, "
					"or accept --requant", i / heads, i % heads, cut, group_of(of[w]));
		}
	}
	return KV_OK;
}

/* How many of keep[0..n) stand before a row. */
static uint32_t
kept_before(const struct kv_choice *ch, uint32_t row)
{
	return (uint32_t)kv_first_from(ch->keep, ch->k, row);
}

/* Remembers which rows are in codes that share scales; then they are no more. */
static enum kv_status
decode(struct recoding *re, const struct kv_choice *ch, struct kv_list *l, struct kv_rows *r, struct kv_err *err)
{
	size_t first = re->n;
	struct coded *p = kv_array_resize(re->coded, re->n + r->n_seg, sizeof *p);
	enum kv_status rc = KV_OK;

	if (!p)
		return kv_fail_mem(err, "rows of the cache");
	re->coded = p;
	for (size_t i = 0; i < r->n_seg; i++)
		if (r->seg[i].code.scheme == KVS_PER_CHANNEL)
			p[re->n++] = (struct coded){ l, r, r->seg[i].first, r->seg[i].first + r->seg[i].n, r->seg[i].code };
	for (size_t i = first; i < re->n && rc == KV_OK; i++) {
		rc = kv_rows_uncode(r, l->n, p[i].from, p[i].to, err);
		p[i].from = kept_before(ch, p[i].from);
		p[i].to = kept_before(ch, p[i].to);
	}
	return rc;
}

/* *lists = how many it concerned. */
static enum kv_status
apply_anew(const struct kv_plan *p, struct kv_cache *c, struct kv_pool *pool, size_t *lists, struct kv_err *err)
{
	struct recoding re = { 0 };
	enum kv_status rc = KV_OK;

	for (size_t i = 0; i < n_lists(c) && rc == KV_OK; i++) {
		struct kv_rows *of[] = { &c->list[i].k, &c->list[i].v };
		bool any = false;

		for (unsigned w = 0; w < 2 && rc == KV_OK; w++) {
			uint32_t cut;

			if ((rc = count_cut(kv_plan_choice(p, i), of[w], &cut, err)) != KV_OK || !cut)
				continue;
			any = true;
			rc = decode(&re, kv_plan_choice(p, i), &c->list[i], of[w], err);
		}
		re.lists += any;
	}
	if (rc == KV_OK)
		rc = kv_plan_apply(p, c, pool, err);
	for (size_t i = 0; i < re.n && rc == KV_OK; i++)
		rc = kv_rows_code(re.coded[i].rows, re.coded[i].list->n, re.coded[i].from, re.coded[i].to, &re.coded[i].code, err);
	free(re.coded);
	if (rc == KV_OK)
		*lists = re.lists;
	return rc;
}

enum kv_status
kv_evict_apply(const struct kv_plan *p, struct kv_cache *c, struct kv_pool *pool, bool requant, struct kv_buf *remarks, struct kv_err *err)
{
	size_t lists = 0;
	enum kv_status rc;

	if (!requant)
		return (rc = check_groups(p, c, err)) == KV_OK ? kv_plan_apply(p, c, pool, err) : rc;
	if ((rc = apply_anew(p, c, pool, &lists, err)) == KV_OK && lists)
		kv_buf_printf(remarks, "lossy: codes of %zu lists were made anew\n", lists);
	return rc;
}
