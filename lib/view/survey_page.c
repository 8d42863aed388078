/* A survey as a page for people: what was read, what is kept, what it costs, where it came from. */
#include "view/view.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kvs/digest.h"
#include "util/json.h"
#include "util/text.h"

enum {
	LABEL = 13,		/* the left column */
	BARS = 48,		/* most layers in a row of bars; beyond, several share one */
	BAR = 16,		/* cells of a full horizontal bar */
	SHOWN = 8,		/* runs of a long history */
};

/* Of ISO 6429. */
#define BOLD "\033[1m"
#define DIM "\033[2m"
#define YELLOW "\033[33m"
#define CYAN "\033[36m"
#define PLAIN "\033[0m"

static void
styled(struct kv_print *p, const char *style, const char *text)
{
	if (p->colour && *text)
		kv_buf_printf(&p->buf, "%s%s" PLAIN, style, text);
	else
		kv_buf_printf(&p->buf, "%s", text);
}

/* Begins a line. An empty label goes on below the one before. */
static void
label(struct kv_print *p, const char *name)
{
	styled(p, BOLD, name);
	kv_buf_printf(&p->buf, "%*s", LABEL - (int)strlen(name), "");
}

/* "4,096" */
static const char *
grouped(char buf[32], uint64_t n)
{
	char digit[24];
	int len = snprintf(digit, sizeof digit, "%llu", (unsigned long long)n), o = 0;

	for (int i = 0; i < len; i++) {
		if (i && (len - i) % 3 == 0)
			buf[o++] = ',';
		buf[o++] = digit[i];
	}
	buf[o] = 0;
	return buf;
}

/* "11.3 MiB"; below a KiB bytes exactly */
static const char *
sized(char buf[32], uint64_t n)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double v = (double)n;
	int u = 0;

	while (v >= 1023.95 && u < 6) {
		v /= 1024;
		u++;
	}
	snprintf(buf, 32, "%.*f %s", u && v < 999.95 ? 1 : 0, v, units[u]);
	return buf;
}

static const char *
percent(char buf[32], uint64_t part, uint64_t whole)
{
	double v = whole ? 100 * (double)part / (double)whole : 0;

	snprintf(buf, 32, "%.*f %%", part == whole ? 0 : v < 9.995 ? 2 : 1, v);
	return buf;
}

/* A share of the whole as cells of eighths. */
static void
bar(struct kv_print *p, uint64_t part, uint64_t whole)
{
	static const char *const eighth[] = { "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
	double share = whole ? fmin((double)part / (double)whole, 1) : 0;
	unsigned n = (unsigned)(share * BAR * 8 + 0.5);
	char cells[3 * BAR + 4] = "";

	if (!n && part)
		n = 1;
	for (unsigned i = 0; i < n / 8; i++)
		strcat(cells, "█");
	strcat(cells, eighth[n % 8]);
	styled(p, CYAN, cells);
}

static void
print_headline(const struct kv_survey *s, const char *name, struct kv_print *p)
{
	char digest[33];

	styled(p, BOLD, name);
	kv_buf_printf(&p->buf, "\n");
	label(p, "snapshot");
	kv_buf_printf(&p->buf, "kvs %u.%u  digest %s\n", (unsigned)s->major, (unsigned)s->minor, kvs_hex128(s->digest, digest));
}

static void
print_model(const struct kv_survey *s, struct kv_print *p)
{
	const struct kvs_geom *g = &s->geom;
	const char *k = kvs_dtype_name(g->layer[0].k_dtype), *v = kvs_dtype_name(g->layer[0].v_dtype);
	char q[120], hex[33];

	label(p, "model");
	if (s->model)
		kv_buf_printf(&p->buf, "%s  ", kv_quote(q, sizeof q, s->model, strlen(s->model)));
	kv_buf_printf(&p->buf, "%s", g->arch);
	if (g->fp_kind)
		kv_buf_printf(&p->buf, "  fingerprint %s\n", kvs_hex128(g->fp_model, hex));
	else
		kv_buf_printf(&p->buf, "  fingerprint unknown\n");
	label(p, "geometry");
	kv_buf_printf(&p->buf, "%u layers  %u query heads  %u KV heads  ", g->n_layers, g->n_heads, g->n_heads_kv);
	if (g->d_k == g->d_v)
		kv_buf_printf(&p->buf, "%u channels  %s", g->d_k, k);
	else
		kv_buf_printf(&p->buf, "%u + %u channels  %s", g->d_k, g->d_v, k);
	kv_buf_printf(&p->buf, "%s%s\n", k == v ? "" : ", V ", k == v ? "" : v);
}

static void
print_rope(const struct kvs_geom *g, struct kv_print *p)
{
	static const char *const scalings[] = { "", "  linear", "  scaled by frequency", "  YaRN" };
	unsigned windows = 0, still = 0;

	label(p, "RoPE");
	for (unsigned i = 0; i < g->n_rope; i++) {
		const struct kvs_rope *r = &g->rope[i];

		kv_buf_printf(&p->buf, "%s%s  %u of %u channels  theta %g%s", i ? "; " : "", r->kind == KVS_ROPE_NORM ? "adjacent pairs" :
			"half-split pairs", r->n_rot, g->d_k, (double)r->theta, r->scaling <= KVS_SCALE_YARN ? scalings[r->scaling] : "");
	}
	for (unsigned l = 0; l < g->n_layers; l++) {
		windows += g->layer[l].window != 0;
		still += g->layer[l].rope == KVS_NO_ROPE;
	}
	if (windows)
		kv_buf_printf(&p->buf, "  %u layers with a window", windows);
	if (still)
		kv_buf_printf(&p->buf, "%s%u layers do not rotate", g->n_rope ? "  " : "", still);
	kv_buf_printf(&p->buf, "\n");
}

/* Longest list of each layer against the longest of all. */
static void
print_layers(const struct kv_survey *s, struct kv_print *p)
{
	static const char *const height[] = { "·", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
	unsigned n = s->geom.n_layers, per_bar = (n + BARS - 1) / BARS;
	char cells[3 * BARS + 1] = "", g[32];

	for (unsigned l = 0; l < n; l += per_bar) {
		uint32_t most = 0;

		for (unsigned i = l; i < n && i < l + per_bar; i++)
			for (unsigned h = 0; h < s->geom.n_heads_kv; h++)
				if (s->n[(size_t)i * s->geom.n_heads_kv + h] > most)
					most = s->n[(size_t)i * s->geom.n_heads_kv + h];
		strcat(cells, height[((uint64_t)most * 8 + s->longest - 1) / s->longest]);
	}
	label(p, "");
	styled(p, CYAN, cells);
	kv_buf_printf(&p->buf, "  █ = %s", grouped(g, s->longest));
	if (per_bar > 1)
		kv_buf_printf(&p->buf, ", %u layers each", per_bar);
	kv_buf_printf(&p->buf, "\n");
}

static void
print_tokens(const struct kv_survey *s, struct kv_print *p)
{
	uint64_t lists = (uint64_t)s->geom.n_layers * s->geom.n_heads_kv;
	char a[32], b[32];

	label(p, "tokens");
	kv_buf_printf(&p->buf, "%s read", grouped(a, s->state.consumed));
	if (s->state.tail != s->state.consumed)
		kv_buf_printf(&p->buf, ", the last %s in one round", grouped(b, s->state.tail));
	if (!s->state.ids && s->state.consumed)
		kv_buf_printf(&p->buf, "; ids not kept");
	else if (s->state.hist_first)
		kv_buf_printf(&p->buf, "; ids of all from %s on", grouped(a, s->state.hist_first));
	kv_buf_printf(&p->buf, "\n");
	label(p, "entries");
	if (!s->rows) {
		kv_buf_printf(&p->buf, "none\n");
		return;
	}
	if (s->shortest == s->longest)
		kv_buf_printf(&p->buf, "%s per head", grouped(a, s->longest));
	else
		kv_buf_printf(&p->buf, "%s to %s per head, mean %.1f", grouped(a, s->shortest), grouped(b, s->longest),
			(double)s->rows / (double)lists);
	kv_buf_printf(&p->buf, ", %s of what was read\n", percent(a, s->rows, lists * s->state.consumed));
	print_layers(s, p);
	label(p, "positions");
	kv_buf_printf(&p->buf, "%s to %s, the next token at ", grouped(a, (uint64_t)s->first_pos), grouped(b, (uint64_t)s->last_pos));
	kv_buf_printf(&p->buf, "%s\n", grouped(a, (uint64_t)s->state.next_pos));
}

static void
print_bytes_row(struct kv_print *p, const char *name, uint64_t held, uint64_t full, uint64_t whole)
{
	char a[32], b[32], c[32];

	label(p, "");
	kv_buf_printf(&p->buf, "%-13s %10s", name, sized(a, held));
	if (full)
		kv_buf_printf(&p->buf, " %10s %8s  ", sized(b, full), percent(c, held, full));
	else
		kv_buf_printf(&p->buf, " %10s %8s  ", "", "");
	bar(p, held, whole);
	kv_buf_printf(&p->buf, "\n");
}

/* The bars are shares of the full cache, or of what there is where that is more. */
static void
print_bytes(const struct kv_survey *s, struct kv_print *p)
{
	uint64_t full = s->full_k > UINT64_MAX - s->full_v ? UINT64_MAX : s->full_k + s->full_v, whole = full > s->total ? full : s->total;
	char a[32], b[32], head[64];

	label(p, "bytes");
	snprintf(head, sizeof head, "%-13s %10s %10s %8s", "", "held", "full", "share");
	styled(p, DIM, head);
	kv_buf_printf(&p->buf, "\n");
	print_bytes_row(p, "keys", s->bytes[KV_BYTES_KEYS], s->full_k, whole);
	print_bytes_row(p, "values", s->bytes[KV_BYTES_VALUES], s->full_v, whole);
	if (s->bytes[KV_BYTES_MASKS])
		print_bytes_row(p, "masks", s->bytes[KV_BYTES_MASKS], 0, whole);
	if (s->bytes[KV_BYTES_SCALES])
		print_bytes_row(p, "scales", s->bytes[KV_BYTES_SCALES], 0, whole);
	if (s->bytes[KV_BYTES_OBSERVATIONS])
		print_bytes_row(p, "observations", s->bytes[KV_BYTES_OBSERVATIONS], 0, whole);
	print_bytes_row(p, "the rest", s->bytes[KV_BYTES_META], 0, whole);
	print_bytes_row(p, "together", s->total, full, whole);
	label(p, "");
	kv_buf_printf(&p->buf, "%-13s %10s", "as stored", sized(a, s->stored));
	if (s->stored != s->total)
		kv_buf_printf(&p->buf, "  packed to %s", percent(b, s->stored, s->total));
	kv_buf_printf(&p->buf, "\n");
}

/* "K 4 bits in 512 rows, ", or nothing. */
static void
print_codes(const char *what, unsigned bits, uint64_t rows, struct kv_print *p)
{
	char a[32];

	if (rows)
		kv_buf_printf(&p->buf, "%s %u bits in %s rows, ", what, bits, grouped(a, rows));
}

static void
print_channels(const struct kv_survey *s, struct kv_print *p)
{
	char a[32];

	if (s->n_masks) {
		label(p, "channels");
		if (s->kept_min < s->kept_max)
			kv_buf_printf(&p->buf, "%u to ", s->kept_min);
		kv_buf_printf(&p->buf, "%u kept in %s rows; %s\n", s->kept_max, grouped(a, s->rows_pruned),
			s->pairs ? s->n_maps ? "pairs whole, the others rebuilt" : "pairs whole, positions can move" : "positions baked in");
	}
	if (s->rows_k || s->rows_v) {
		label(p, "codes");
		print_codes("K", s->bits_k, s->rows_k, p);
		print_codes("V", s->bits_v, s->rows_v, p);
		kv_buf_printf(&p->buf, "groups of %u\n", s->group);
	}
	if (s->odd_rows) {
		label(p, "warning");
		styled(p, YELLOW, grouped(a, s->odd_rows));
		kv_buf_printf(&p->buf, " rows of K or V hold NaN or infinity\n");
	}
}

static void
print_observations(const struct kv_survey *s, struct kv_print *p)
{
	bool any = false;
	char a[32];

	for (int what = 0; what < KV_N_SEEN; what++) {
		uint64_t n = s->seen[what].queries;

		if (!s->seen[what].present)
			continue;
		label(p, any ? "" : "observed");
		any = true;
		kv_buf_printf(&p->buf, "%-6s %s %s", kv_seen_name((enum kv_seen)what), grouped(a, n), what == KV_SEEN_NLL ? "tokens" : "queries");
		if (what == KV_SEEN_NLL && n && !s->nll_kind)
			kv_buf_printf(&p->buf, ", mean %.4f nats, perplexity %.3f", s->nll_sum / (double)n, exp(s->nll_sum / (double)n));
		if (!s->seen[what].fresh) {
			kv_buf_printf(&p->buf, "  ");
			styled(p, YELLOW, "stale: not of the newest tokens");
		}
		kv_buf_printf(&p->buf, "\n");
	}
	if (!any) {
		label(p, "observed");
		kv_buf_printf(&p->buf, "nothing\n");
	}
}

/* A record as the command line that was run; words quoted for sh, what cannot be shown escaped. */
static void
print_run(const char *record, struct kv_print *p)
{
	bool no_memory;
	json_t *o = kv_json_parse(record, strlen(record), NULL, &no_memory), *argv = json_object_get(o, "argv"), *word;
	const char *tool = json_string_value(json_object_get(o, "tool"));
	json_int_t folded = json_integer_value(json_object_get(o, "folded"));
	struct kv_buf line = { 0 };
	size_t i;

	p->buf.failed |= !o;	/* the format has checked that it is JSON */
	if (folded)
		kv_buf_printf(&line, "(%lld more runs)", (long long)folded);
	else
		kv_buf_printf(&line, "%s", tool ? tool : "?");
	json_array_foreach(argv, i, word) {
		kv_buf_add(&line, " ", 1);
		kv_print_word(&line, json_string_value(word) ? json_string_value(word) : "?", json_string_length(word));
	}
	kv_print_field(p, line.p, line.len);
	p->buf.failed |= line.failed;
	kv_buf_add(&p->buf, "\n", 1);
	kv_buf_free(&line);
	json_decref(o);
}

/* Oldest first. Of many the first and the last ones. */
static void
print_history(const struct kv_survey *s, struct kv_print *p)
{
	size_t n = s->prov.n;

	if (!n) {
		label(p, "history");
		kv_buf_printf(&p->buf, "none\n");
	}
	for (size_t i = 0; i < n; i++) {
		label(p, i ? "" : "history");
		if (n > SHOWN && i == 1) {
			i = n - SHOWN + 1;
			kv_buf_printf(&p->buf, "… %zu more: --tsv prov …\n", i);
			continue;
		}
		print_run(s->prov.record[i], p);
	}
}

enum kv_status
kv_survey_page(const struct kv_survey *s, const char *name, struct kv_print *p, struct kv_err *err)
{
	print_headline(s, name, p);
	print_model(s, p);
	print_rope(&s->geom, p);
	print_tokens(s, p);
	print_bytes(s, p);
	print_channels(s, p);
	print_observations(s, p);
	print_history(s, p);
	return p->buf.failed ? kv_fail_mem(err, "the page") : KV_OK;
}
