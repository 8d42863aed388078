/* What must hold for every policy in the table. */
#include "tap.h"

#include <stdlib.h>

#include "policy/policy.h"
#include "policy_cache.h"

static unsigned
takes(const struct kv_policy *p)
{
	return kv_policy_takes_all(p, &p->defaults);
}

/* Options with which a policy keeps exactly k everywhere and protects as little as it can: one entry where queries vote. */
static const char *
bare(const struct kv_policy *p)
{
	static char s[120];

	snprintf(s, sizeof s, "%s%s%s%s%s%s%s", p->defaults.sinks ? " --sinks 0" : "", p->defaults.recent > 0 ? " --recent 0" : "",
		takes(p) & KV_TAKES_LAST ? " --last 1" : "", takes(p) & KV_TAKES_CHUNK_LEN ? " --chunk-len 1" : "",
		takes(p) & KV_TAKES_ALPHA ? " --alpha 1" : "", takes(p) & KV_TAKES_BETA ? " --beta 1" : "",
		takes(p) & KV_TAKES_LAG ? " --lag 2" : "");
	return s;
}

static struct kv_cache *
battery_cache(uint32_t n)
{
	struct kv_cache *c = small_cache(small_geom(3, 4, 2, 8)), *read;

	small_feed(c, n);
	policy_probe(c);
	read = small_copy(c);
	policy_cache_free(c);
	policy_receive(read);
	return read;
}

/* All that a policy may ask for, about the entries that are there now. */
static void
observe(struct kv_cache *c)
{
	policy_receive(c);
	policy_probe(c);
}

static bool
ascends(const struct kv_list *l)
{
	for (uint32_t r = 1; r < l->n; r++)
		if (l->src[r] <= l->src[r - 1] || l->pos[r] <= l->pos[r - 1])
			return false;
	return true;
}

static void
test_counts(const struct kv_policy *p)
{
	unsigned wrong = 0;
	char line[160];

	for (uint32_t k = 1; k <= 13; k++) {
		struct kv_cache *c = battery_cache(12);

		snprintf(line, sizeof line, "--%s -k %u%s", p->name, k, bare(p));
		wrong += policy_evict(c, line) != KV_OK;
		for (size_t i = 0; i < 6; i++)
			wrong += c->list[i].n != (k < 12 ? k : 12) || c->list[i].changed != (k < 12) || !ascends(&c->list[i]);
		wrong += c->state.next_pos != 12;
		policy_cache_free(c);
	}
	is_int(wrong, 0, "%s: budgets 1 to 13 of 12 entries", p->name);
}

static void
test_threads(const struct kv_policy *p)
{
	char line[160], d[3][33];
	struct kv_err err;

	snprintf(line, sizeof line, "--%s -k 30%%%s", p->name, takes(p) & KV_TAKES_LAST ? " --last 4" : "");
	for (unsigned i = 0; i < 3; i++) {
		struct kv_cache *c = battery_cache(300);

		small_run(&kv_stage_evict, line, c, 1u << i, NULL, &err);
		small_digest(c, d[i]);
		policy_cache_free(c);
	}
	ok(!strcmp(d[0], d[1]) && !strcmp(d[0], d[2]), "%s: one, two and four threads", p->name);
}

static void
test_small(const struct kv_policy *p)
{
	struct kv_cache *c = small_cache(small_geom(3, 4, 2, 8));
	char line[160];

	snprintf(line, sizeof line, "--%s -k 1%s", p->name, bare(p));
	ok(policy_evict(c, line) == KV_OK && !kv_cache_edited(c), "%s: an empty cache", p->name);
	small_feed(c, 1);
	observe(c);
	ok(policy_evict(c, line) == KV_OK && kv_cache_longest(c) == 1, "%s: one entry", p->name);
	policy_cache_free(c);
	c = battery_cache(12);
	snprintf(line, sizeof line, "--%s -k 12%s", p->name, bare(p));
	policy_evict(c, line);
	for (int k = 9; k > 0; k -= 2) {
		snprintf(line, sizeof line, "--%s -k %d%s", p->name, k, bare(p));
		policy_evict(c, line);
		observe(c);
	}
	ok(kv_cache_longest(c) == 1 && c->list[5].n == 1, "%s: again and again", p->name);
	policy_cache_free(c);
}

static void
test_ragged(const struct kv_policy *p)
{
	static const uint32_t keep[] = { 0, 1, 4, 7, 8, 11 };
	struct kv_cache *c = battery_cache(12);
	struct kv_err err;
	char line[160];

	kv_list_keep(kv_cache_list(c, 1, 0), keep, 6, &err);
	kv_list_keep(kv_cache_list(c, 2, 1), keep, 0, &err);
	observe(c);
	snprintf(line, sizeof line, "--%s -k 5%s --scope head", p->name, bare(p));
	if (p->scopes & KV_SCOPES_HEAD)
		ok(policy_evict(c, line) == KV_OK && kv_cache_list(c, 1, 0)->n == 5 && kv_cache_list(c, 0, 0)->n == 5 &&
			!kv_cache_list(c, 2, 1)->n, "%s: ragged lists, head by head", p->name);
	else
		ok(small_run(&kv_stage_evict, line, c, 1, NULL, &err) == KV_EUSAGE, "%s: never head by head: %s", p->name, err.text);
	policy_cache_free(c);
	c = battery_cache(12);
	kv_list_keep(kv_cache_list(c, 1, 0), keep, 6, &err);
	observe(c);
	snprintf(line, sizeof line, "--%s -k 5%s --scope layer", p->name, bare(p));
	is_int(small_run(&kv_stage_evict, line, c, 1, NULL, &err), p->scopes & KV_SCOPES_LAYER ? KV_EFIT : KV_EUSAGE,
		"%s: not as a layer: %s", p->name, err.text);
	snprintf(line, sizeof line, "--%s -k 12%s --scope layer", p->name, bare(p));
	if (p->scopes & KV_SCOPES_LAYER)
		ok(policy_evict(c, line) == KV_OK, "%s: unless the budget suffices", p->name);
	policy_cache_free(c);
}

/* Without its observations a policy refuses, whether anything has to go or not, and names the option that records them. */
static void
test_observations(const struct kv_policy *p)
{
	unsigned needs = kv_policy_needs(kv_policy_scorer(p, &p->defaults), &p->defaults);
	struct kv_cache *c = small_cache(small_geom(3, 4, 2, 8));
	struct kv_err err = { 0 };
	char line[160];
	enum kv_status few, enough;

	small_feed(c, 12);
	for (unsigned l = 0; l < 3; l++)
		c->queries[l].w = 0;
	c->has_nll = false;
	snprintf(line, sizeof line, "--%s -k 12%s", p->name, bare(p));
	enough = small_run(&kv_stage_evict, line, c, 1, NULL, &err);
	snprintf(line, sizeof line, "--%s -k 5%s", p->name, bare(p));
	few = small_run(&kv_stage_evict, line, c, 1, NULL, &err);
	if (needs)
		ok(few == KV_EFIT && enough == KV_EFIT && strstr(err.text, "run kv-prefill with --"), "%s: %s", p->name, err.text);
	else
		ok(few == KV_OK && enough == KV_OK, "%s needs nothing", p->name);
	policy_cache_free(c);
}

/* Keys, values and queries that are not finite. By age and by what was recorded nobody looks at them. */
static void
test_not_finite(const struct kv_policy *p)
{
	const struct kv_policy *scorer = kv_policy_scorer(p, &p->defaults);
	struct kv_cache *c = battery_cache(12);
	struct kv_err err = { 0 };
	char line[160];
	float x[8] = { 0, NAN };
	enum kv_status rc;

	kv_cache_load(c, KV_LOAD_K | KV_LOAD_V, NULL, &err);
	kv_rows_put(&kv_cache_list(c, 1, 0)->k, 2, 1, x, 8, &err);
	snprintf(line, sizeof line, "--%s -k 5%s", p->name, bare(p));
	rc = small_run(&kv_stage_evict, line, c, 2, NULL, &err);
	if (kv_policy_reads(scorer, &p->defaults) & KV_READS_K)
		ok(rc == KV_EFIT && strstr(err.text, "layer 1 head 0") && !kv_cache_edited(c), "%s: %s", p->name, err.text);
	else
		ok(rc == KV_OK, "%s does not look at keys", p->name);
	policy_cache_free(c);
}

/* The scores that --dry-run prints lead to the same cache, where the best k by score are what stays. */
static void
test_dry_run(const struct kv_policy *p)
{
	struct kv_cache *c = battery_cache(40), *d = battery_cache(40);
	struct kv_buf text = { 0 };
	struct kv_err err;
	char line[160], a[33], b[33];
	unsigned kept = 0, rows = 0;

	snprintf(line, sizeof line, "--%s -k 17%s", p->name, bare(p));
	policy_evict(c, line);
	snprintf(line, sizeof line, "--%s -k 17%s --dry-run", p->name, bare(p));
	small_run(&kv_stage_evict, line, d, 1, &text, &err);
	small_digest(d, a);
	for (char *save, *row = strtok_r((char *)text.p, "\n", &save); (row = strtok_r(NULL, "\n", &save)); rows++) {
		unsigned layer, head, slot, src, stays;
		double score;
		bool found = false;

		if (sscanf(row, "%u\t%u\t%u\t%u\t%lf\t%u", &layer, &head, &slot, &src, &score, &stays) != 6)
			break;
		for (uint32_t i = 0; i < kv_cache_list(c, layer, head)->n; i++)
			found |= kv_cache_list(c, layer, head)->src[i] == src;
		kept += stays && found;
		kept += !stays && found ? 1000 : 0;
	}
	ok(rows == 240 && kept == 6 * 17, "%s: --dry-run says what stays", p->name);
	policy_cache_free(d);
	d = battery_cache(40);
	ok(!strcmp(a, small_digest(d, b)), "%s: --dry-run changes nothing", p->name);
	kv_buf_free(&text);
	policy_cache_free(c);
	policy_cache_free(d);
}

int
main(void)
{
	for (size_t i = 0; kv_policies[i]; i++) {
		const struct kv_policy *p = kv_policies[i];

		ok(kv_policy_find(p->name) == p, "%s is found", p->name);
		test_counts(p);
		test_threads(p);
		test_small(p);
		test_ragged(p);
		test_observations(p);
		test_not_finite(p);
		test_dry_run(p);
	}
	ok(!kv_policy_find("nonsense"), "nonsense is not");
	return done_testing();
}
