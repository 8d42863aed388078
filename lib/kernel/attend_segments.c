/* Rows in segments, narrowed or in codes, as f32 (formats/kvs.md, section 10.3). */
#include <string.h>

#include "kernel/attend.h"
#include "kernel/quant.h"
#include "util/search.h"

enum { F32 = 1, F16 = 2, BF16 = 3, CODES = 16, BY_ROWS = 1 };

const struct kv_attn_segment *
kv_attn_part(const struct kv_attn_segment *seg, size_t n, struct kv_span *rest, struct kv_span *part)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (seg[mid].to <= rest->from)
			lo = mid + 1;
		else
			hi = mid;
	}
	*part = *rest;
	if (lo < n && seg[lo].to < rest->to)
		part->to = seg[lo].to;
	rest->from = part->to;
	return lo < n ? &seg[lo] : NULL;
}

size_t
kv_attn_group(const struct kv_attn_segment *s, size_t row)
{
	return kv_first_from(s->group_end, s->n_groups, (uint64_t)row + 1);
}

void
kv_attn_numbers(unsigned dtype, const void *rows, size_t at, size_t n, float *out)
{
	static const struct { uint32_t type; size_t bytes; } of[] = { { 0, 0 }, { KV_W_F32, 4 }, { KV_W_F16, 2 }, { KV_W_BF16, 2 } };

	kv_dequant(of[dtype].type, (const uint8_t *)rows + at * of[dtype].bytes, n, out);
}

/* Codes of a row as they are. */
static void
codes(const uint8_t *row, unsigned bits, size_t n, float *out)
{
	unsigned most = (1u << bits) - 1;

	for (size_t i = 0; i < n; i++)
		out[i] = (float)((unsigned)row[i * bits / 8] >> i * bits % 8 & most);
}

void
kv_attn_unpack(const struct kv_attn_segment *s, struct kv_span v, float *out, float *scratch)
{
	float *scale = scratch, *min = scratch + s->width;
	size_t group = s->n_groups, cells, each;

	if (s->dtype != CODES) {
		kv_attn_numbers(s->dtype, s->data, (v.from - s->from) * s->width, (v.to - v.from) * s->width, out);
		return;
	}
	cells = s->scheme == BY_ROWS ? s->width : s->width / s->group;
	each = s->width / cells;
	for (size_t j = v.from - s->from; j < v.to - s->from; j++, out += s->width) {
		size_t at = s->scheme == BY_ROWS ? kv_attn_group(s, j) : j;

		if (at != group || s->scheme != BY_ROWS) {
			kv_attn_numbers(s->scale_dtype, s->scales, at * cells, cells, scale);
			kv_attn_numbers(s->scale_dtype, s->minima, at * cells, cells, min);
			group = at;
		}
		codes(s->data + j * s->row_bytes, s->bits, s->width, out);
		for (size_t i = 0; i < s->width; i++)
			out[i] = out[i] * scale[i / each] + min[i / each];
	}
}

/* Rows of `width` columns, at the front of rows of d, spread to their channels; from the last to the first, so that none is run over. */
static void
spread(const uint16_t *channel, size_t width, size_t n, size_t d, float *rows)
{
	for (size_t j = n; j-- > 0;) {
		float *to = rows + j * d;
		size_t next = d;

		memmove(to, rows + j * width, width * sizeof *to);
		for (size_t c = width; c-- > 0;) {
			float x = to[c];

			for (; next > channel[c] + (size_t)1; next--)
				to[next - 1] = 0;
			to[--next] = x;
		}
		memset(to, 0, next * sizeof *to);
	}
}

void
kv_attn_widened(const struct kv_attn_segment *s, struct kv_span v, size_t d, float *out)
{
	float scratch[2 * 1024];

	kv_attn_unpack(s, v, out, scratch);
	if (s->channel)
		spread(s->channel, s->width, v.to - v.from, d, out);
}
