/*
 * Attention of one token over rows in segments: keys narrow in f16, or in codes with scales for groups of rows (KIVI); values narrow in f16, or
 * in codes with scales for groups of channels. Rows are unpacked four at a time, and no further than to the channels that they have. For files
 * of a level alone.
 */
#ifndef KV_KERNEL_DECODE_SEGMENTS_H
#define KV_KERNEL_DECODE_SEGMENTS_H

#if defined __AVX2__
#include <string.h>

#include "kernel/decode_parts.h"

enum { CODES = 16, BY_ROWS = 1, BY_CHANNELS = 2 };

/* KV_LANES numbers of which n are there, the rows ending at `end`; zeros behind them. */
KV_INLINE kv_vec
some_halves(const uint8_t *p, size_t n, const uint8_t *end)
{
#if defined __AVX512F__
	(void)end;
	return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p));
#else
	uint16_t x[8] = { 0 };

	if (end - p >= 16) {
		__m128i lane = _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7), here = _mm_cmpgt_epi16(_mm_set1_epi16((short)n), lane);

		return _mm256_cvtph_ps(_mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)p), here));
	}
	memcpy(x, p, n * sizeof *x);
	return widen(x);
#endif
}

/* KV_LANES codes, of which fewer may be left before the rows end. */
KV_INLINE kv_vec
some_codes(const uint8_t *p, unsigned bits, const uint8_t *end)
{
	uint8_t bytes[KV_LANES] = { 0 };

	if (end - p >= (ptrdiff_t)(bits * KV_LANES / 8))
		return codes(p, bits);
	memcpy(bytes, p, (size_t)(end - p));
	return codes(bytes, bits);
}

/* What the keys of a segment are made ready with; arrays of `width` columns are padded to whole vectors, n of them. */
struct ready {
	const struct kv_attn_segment *seg;
	const uint8_t *end;	/* of its rows */
	const float *angles;	/* of the list's first entry; NULL: these keys do not turn */
	size_t n_rot, pairs;	/* pairs that these keys have */
	bool neox, in_vectors;	/* in_vectors: pairs fill whole vectors, or none */
	bool whole, parted;	/* there is a kernel for four rows of codes; it wants q, scale and min PARTED */
	size_t padded;
	float *q;		/* [heads][padded] the columns that the keys have */
	float *keys;		/* [KEYS][padded] */
	float *few;		/* [heads][KEYS] scores of fewer rows */
	float *scale, *min;	/* [padded] of group … */
	size_t group;		/* … this */
	uint16_t *pair;		/* [pairs], and zeros, which of all pairs these are; NULL: the first ones */
};

/* n scales or minima, from the at-th on. */
static void
get_scales(unsigned dtype, const uint8_t *p, size_t at, size_t n, float *out)
{
	size_t i = 0;

	for (; dtype == F16 && i + KV_LANES <= n; i += KV_LANES) {
		_mm_prefetch((const char *)p + 2 * (at + i + n), _MM_HINT_T0);	/* those that come next */
		kv_store(out + i, widen((const uint16_t *)(const void *)(p + 2 * (at + i))));
	}
	if (i < n)
		kv_attn_numbers(dtype, p, at + i, n - i, out + i);
}

/* The columns that turn come apart. */
static void
part_columns(const struct ready *r, float *x)
{
	for (size_t i = 0; r->parted && i < r->n_rot; i += 2 * KV_LANES) {
		kv_vec first, second;

		take_apart(kv_load(x + i), kv_load(x + i + KV_LANES), &first, &second);
		kv_store(x + i, first);
		kv_store(x + i + KV_LANES, second);
	}
}

/* Makes the group of row j ready, one row being asked for after the other. */
static void
use_row(struct ready *r, size_t j)
{
	const struct kv_attn_segment *s = r->seg;

	if (s->dtype != CODES || (r->group != SIZE_MAX && j < s->group_end[r->group]))
		return;
	r->group = r->group == SIZE_MAX ? kv_attn_group(s, j) : r->group + 1;
	get_scales(s->scale_dtype, s->scales, r->group * s->width, s->width, r->scale);
	get_scales(s->scale_dtype, s->minima, r->group * s->width, s->width, r->min);
	part_columns(r, r->scale);
	part_columns(r, r->min);
}

KV_INLINE __m256
four_angles(const float *cs, const uint16_t *pair)
{
	__m128d x = _mm_load_sd((const double *)(const void *)(cs + 2 * pair[0])), y = _mm_load_sd((const double *)(const void *)(cs + 2 * pair[2]));

	x = _mm_loadh_pd(x, (const double *)(const void *)(cs + 2 * pair[1]));
	y = _mm_loadh_pd(y, (const double *)(const void *)(cs + 2 * pair[3]));
	return _mm256_castpd_ps(_mm256_set_m128d(y, x));
}

/* Cosines and sines of KV_LANES / 2 pairs, from the i-th that the keys have. cs [n_rot/2][2] */
KV_INLINE kv_vec
some_angles(const struct ready *r, bool picked, const float *cs, size_t i)
{
	if (!picked)
		return kv_load(cs + 2 * i);
#if defined __AVX512F__
	return _mm512_insertf32x8(_mm512_castps256_ps512(four_angles(cs, r->pair + i)), four_angles(cs, r->pair + i + 4), 1);
#else
	return four_angles(cs, r->pair + i);
#endif
}

/* Columns i … i + KV_LANES - 1 of a row; bits 0: f16. */
KV_INLINE kv_vec
columns(const struct ready *r, const uint8_t *row, unsigned bits, size_t i)
{
	if (!bits)
		return widen((const uint16_t *)(const void *)(row + 2 * i));
	return kv_fma(codes(row + i * bits / 8, bits), kv_load(r->scale + i), kv_load(r->min + i));
}

/* Those from i on, fewer, and zeros. */
KV_INLINE kv_vec
last_columns(const struct ready *r, const uint8_t *row, unsigned bits, size_t i)
{
	if (!bits)
		return some_halves(row + 2 * i, r->seg->width - i, r->end);
	return kv_fma(some_codes(row + i * bits / 8, bits, r->end), kv_load(r->scale + i), kv_load(r->min + i));
}

/* Columns from i on as they are. */
KV_INLINE void
copy_columns(const struct ready *r, const uint8_t *row, unsigned bits, size_t i, float *out)
{
	for (; i + KV_LANES <= r->seg->width; i += KV_LANES)
		kv_store(out + i, columns(r, row, bits, i));
	if (i < r->seg->width)
		kv_store(out + i, last_columns(r, row, bits, i));
}

/* A row [padded], turned at once: neighbours, where no vector holds columns that turn beside others that do not. */
KV_INLINE void
neighbours(const struct ready *r, const uint8_t *row, unsigned bits, bool picked, const float *cs, float *out)
{
	size_t i = 0;

	for (; i + KV_LANES <= 2 * r->pairs; i += KV_LANES)
		kv_store(out + i, turn_pairs(columns(r, row, bits, i), some_angles(r, picked, cs, i / 2)));
	if (i < 2 * r->pairs)
		kv_store(out + i, turn_pairs(last_columns(r, row, bits, i), some_angles(r, picked, cs, i / 2)));
	else
		copy_columns(r, row, bits, i, out);
}

/* As many pairs as there are lanes that stand apart, at out + i and out + pairs + i. */
KV_INLINE void
turn_apart(const struct ready *r, bool picked, const float *cs, size_t i, kv_vec a, kv_vec b, float *out)
{
	kv_vec c, s;

	split(some_angles(r, picked, cs, i), some_angles(r, picked, cs, i + KV_LANES / 2), &c, &s);
	kv_store(out + i, KV_SIMD(fmsub_ps)(a, c, b * s));
	kv_store(out + r->pairs + i, kv_fma(a, s, b * c));
}

/* The same; pairs that stand apart, whole vectors of them. */
KV_INLINE void
halves(const struct ready *r, const uint8_t *row, unsigned bits, bool picked, const float *cs, float *out)
{
	for (size_t i = 0; i < r->pairs; i += KV_LANES)
		turn_apart(r, picked, cs, i, columns(r, row, bits, i), columns(r, row, bits, r->pairs + i), out);
	copy_columns(r, row, bits, 2 * r->pairs, out);
}

/* The same for any pairs, once the row is unpacked. */
KV_INLINE void
any_pairs(const struct ready *r, const uint8_t *row, unsigned bits, const float *cs, float *out)
{
	size_t apart = r->neox ? r->pairs : 1, step = r->neox ? 1 : 2, i = 0;

	copy_columns(r, row, bits, 0, out);
	for (; r->neox && r->pair && i + KV_LANES <= r->pairs; i += KV_LANES)
		turn_apart(r, true, cs, i, kv_load(out + i), kv_load(out + r->pairs + i), out);
	for (; i < r->pairs; i++) {
		const float *z = cs + 2 * (r->pair ? r->pair[i] : i);
		float *a = out + i * step, *b = a + apart, x = *a, y = *b;

		*a = x * z[0] - y * z[1];
		*b = x * z[1] + y * z[0];
	}
}

/* Row j of the segment -> out [padded], turned if it must be. */
KV_INLINE void
unpack(const struct ready *r, size_t j, unsigned bits, float *out)
{
	const uint8_t *row = r->seg->data + j * r->seg->row_bytes;
	const float *cs = r->angles ? r->angles + (r->seg->from + j) * r->n_rot : NULL;

	if (!r->in_vectors)
		any_pairs(r, row, bits, cs, out);
	else if (r->neox && r->pair)
		halves(r, row, bits, true, cs, out);
	else if (r->neox)
		halves(r, row, bits, false, cs, out);
	else if (r->pair)
		neighbours(r, row, bits, true, cs, out);
	else
		neighbours(r, row, bits, false, cs, out);
}

static void
unpack_row(struct ready *r, size_t j, float *out)
{
	use_row(r, j);
	switch (r->seg->bits) {
	case 0: unpack(r, j, 0, out); break;
	case 2: unpack(r, j, 2, out); break;
	case 4: unpack(r, j, 4, out); break;
	default: unpack(r, j, 8, out); break;
	}
}

/* Pairs among the columns, and which they are. */
static void
find_pairs(struct ready *r, uint16_t *pair)
{
	const uint16_t *channel = r->seg->channel;
	size_t kept = 0;

	r->pairs = r->n_rot / 2;
	if (!channel)
		return;
	while (kept < r->seg->width && channel[kept] < r->n_rot)
		kept++;
	r->pairs = kept / 2;
	for (size_t i = 0; i < r->pairs; i++)
		pair[i] = r->neox ? channel[i] : (uint16_t)(channel[2 * i] / 2);
	r->pair = pair;
}

/* Are rows whole vectors of codes, and of all channels? */
static void
find_kernel(struct ready *r)
{
	const struct kv_attn_segment *s = r->seg;

	if (r->neox || !r->pair)
		r->in_vectors = 2 * r->pairs % (r->neox ? 2 * KV_LANES : KV_LANES) == 0;
	else
		r->in_vectors = 2 * r->pairs % KV_LANES == 0 || 2 * r->pairs == s->width;
	r->whole = s->dtype == CODES && !s->channel && s->width % KV_LANES == 0 && r->in_vectors && (r->neox || r->n_rot % (2 * KV_LANES) == 0);
	r->parted = r->whole && r->angles && !r->neox;
}

/* Lays everything out in scratch space of heads + KEYS + 3 padded rows, and of `few`. */
static void
get_ready(struct ready *r, const struct kv_attn *a, const struct kv_attn_list *l, const float *q, size_t heads, float *scratch)
{
	const struct kv_attn_segment *s = r->seg;

	r->end = s->data + (s->to - s->from) * s->row_bytes;
	r->group = SIZE_MAX;
	r->q = scratch;
	r->keys = r->q + heads * r->padded;
	r->scale = r->keys + KEYS * r->padded;
	r->min = r->scale + r->padded;
	r->few = scratch + (heads + KEYS + 3) * r->padded;
	memset(scratch, 0, (heads + KEYS + 3) * r->padded * sizeof *scratch);
	if (!s->turned && l->angles) {
		r->angles = l->angles;
		r->n_rot = a->n_rot;
		r->neox = a->neox;
		find_pairs(r, (uint16_t *)(void *)(r->min + r->padded));
	}
	find_kernel(r);
	for (size_t h = 0; h < heads; h++, q += a->d_k) {
		float *to = r->q + h * r->padded;

		for (size_t i = 0; s->channel && i < s->width; i++)
			to[i] = q[s->channel[i]];
		if (!s->channel)
			memcpy(to, q, s->width * sizeof *to);
		part_columns(r, to);
	}
}

/* The scores of n rows, fewer than KEYS, go where they belong. */
static void
put_few(const struct ready *r, const struct four *f, size_t n, size_t heads)
{
	for (size_t h = 0; h < heads; h++)
		memcpy(f->s + h * f->ld, r->few + h * KEYS, n * sizeof *f->s);
}

/* Of n rows from row j on as many as are whole fours of a group, or row j alone: four times the same. How many are done. */
static size_t
score_coded(struct ready *r, const struct four *to, size_t j, size_t n, size_t heads)
{
	struct four f = *to;
	size_t left, times;

	use_row(r, j);
	left = r->seg->group_end[r->group] - j;
	times = (left < n ? left : n) / KEYS;
	f.k = r->seg->data + j * r->seg->row_bytes;
	f.row_bytes = times ? r->seg->row_bytes : 0;
	f.step = r->scale;
	f.min = r->min;
	f.n_rot = r->angles ? r->n_rot : 0;
	f.cs = r->angles ? r->angles + (r->seg->from + j) * r->n_rot : r->q;	/* is not read then */
	f.cs_step = times ? f.n_rot : 0;
	if (!times) {
		f.s = r->few;
		f.ld = KEYS;
	}
	switch (r->seg->bits) {
	case 2: (r->parted ? four_2_parted : four_2_apart)(&f, times ? times : 1, heads); break;
	case 4: (r->parted ? four_4_parted : four_4_apart)(&f, times ? times : 1, heads); break;
	default: (r->parted ? four_8_parted : four_8_apart)(&f, times ? times : 1, heads); break;
	}
	if (!times)
		put_few(r, to, 1, heads);
	return times ? times * KEYS : 1;
}

/* Any rows, unpacked and turned before they are multiplied: of n up to KEYS. How many are done. */
static size_t
score_unpacked(struct ready *r, const struct four *to, size_t j, size_t n, size_t heads)
{
	struct four f = *to;

	fetch(r->seg->data + j * r->seg->row_bytes, KEYS * r->seg->row_bytes);
	if (r->angles)
		fetch(r->angles + (r->seg->from + j) * r->n_rot, KEYS * r->n_rot * sizeof *r->angles);
	n = n < KEYS ? n : KEYS;
	for (size_t i = 0; i < n; i++)
		unpack_row(r, j + i, r->keys + i * r->padded);
	if (n < KEYS) {
		f.s = r->few;
		f.ld = KEYS;
	}
	of_turned(f, heads);
	if (n < KEYS)
		put_few(r, to, n, heads);
	return n;
}

/* False, and nothing done: there is no kernel for rows of this kind. */
static bool
segment_scores(const struct kv_attn *a, const struct kv_attn_list *l, const struct kv_attn_segment *seg, struct kv_span v, const float *q,
	size_t heads, float *rows, float *s, size_t ld)
{
	struct ready r = { .seg = seg, .padded = (seg->width + KV_LANES - 1) / KV_LANES * KV_LANES };
	size_t scratch = (heads + KEYS + 3) * r.padded;

	if (scratch + heads * KEYS > KV_ATTN_CHUNK * a->d_k || (seg->dtype != F16 && (seg->dtype != CODES || seg->scheme != BY_ROWS)))
		return false;
	get_ready(&r, a, l, q, heads, rows);
	for (size_t j = v.from, n; j < v.to; j += n, s += n) {
		struct four to = { .d = r.padded, .turned = r.keys, .q = r.q, .scale = a->scale, .s = s, .ld = ld };

		n = (r.whole ? score_coded : score_unpacked)(&r, &to, j - seg->from, v.to - j, heads);
	}
	return true;
}

/* Values in the making. */
struct sum_of {
	const struct kv_attn_segment *seg;
	size_t first, n;		/* rows of the segment */
	const float *scale, *min;	/* [n][groups], of codes */
	size_t groups;
	const float *p;			/* [heads] rows of n weights … */
	size_t ld;			/* … so far apart */
	float *o;			/* [heads] likewise */
	size_t ld_o;
};

/* `vectors` of columns from i on; of those of a single one `left` are there. */
KV_INLINE void
add_columns(const struct sum_of *t, unsigned bits, size_t i, size_t vectors, size_t heads, size_t left)
{
	const struct kv_attn_segment *s = t->seg;
	const uint8_t *row = s->data + t->first * s->row_bytes + (bits ? i * bits / 8 : 2 * i), *end = s->data + (s->to - s->from) * s->row_bytes;
	const float *scale = t->scale, *min = t->min;
	kv_vec sum[HEADS][4];
	size_t group[4];

	for (size_t k = 0; k < vectors; k++)
		group[k] = bits ? (i + k * KV_LANES) / s->group : 0;
	for (size_t h = 0; h < heads; h++)
		for (size_t k = 0; k < vectors; k++)
			sum[h][k] = kv_load(t->o + h * t->ld_o + i + k * KV_LANES);
	for (size_t j = 0; j < t->n; j++, row += s->row_bytes, scale += t->groups, min += t->groups)
		for (size_t k = 0; k < vectors; k++) {
			kv_vec x;

			if (bits)
				x = kv_fma(codes(row + k * KV_LANES * bits / 8, bits), kv_splat(scale[group[k]]), kv_splat(min[group[k]]));
			else
				x = left >= KV_LANES ? widen((const uint16_t *)(const void *)row + k * KV_LANES) : some_halves(row, left, end);
			for (size_t h = 0; h < heads; h++)
				sum[h][k] = kv_fma(x, kv_splat(t->p[h * t->ld + j]), sum[h][k]);
		}
	for (size_t h = 0; h < heads; h++)
		for (size_t k = 0; k < vectors; k++)
			kv_store(t->o + h * t->ld_o + i + k * KV_LANES, sum[h][k]);
}

KV_INLINE void
add_heads(struct sum_of t, unsigned bits, size_t i, size_t vectors, size_t heads, size_t left)
{
	for (; heads; heads -= heads < HEADS ? heads : HEADS, t.p += HEADS * t.ld, t.o += HEADS * t.ld_o)
		switch (heads) {
		case 1: add_columns(&t, bits, i, vectors, 1, left); break;
		case 2: add_columns(&t, bits, i, vectors, 2, left); break;
#if defined __AVX512F__
		case 3: add_columns(&t, bits, i, vectors, 3, left); break;
#endif
		default: add_columns(&t, bits, i, vectors, HEADS, left); break;
		}
}

/* All columns, four vectors at a time; of f16 the last few may be no whole vector. */
KV_INLINE void
add_rows(const struct sum_of *t, unsigned bits, size_t heads)
{
	size_t width = t->seg->width, i = 0;

	for (; i + WIDTH <= width; i += WIDTH)
		add_heads(*t, bits, i, 4, heads, WIDTH);
	for (; i + KV_LANES <= width; i += KV_LANES)
		add_heads(*t, bits, i, 1, heads, KV_LANES);
	if (i < width)
		add_heads(*t, bits, i, 1, heads, width - i);
}

/* Are there whole vectors in each group? */
static bool
has_sums(const struct kv_attn_segment *s)
{
	return s->dtype == CODES ? s->scheme == BY_CHANNELS && s->group % KV_LANES == 0 : s->dtype == F16;
}

/* False, and nothing done: there is no kernel for rows of this kind. */
static bool
segment_weigh(const struct kv_attn *a, const struct kv_attn_segment *seg, struct kv_span v, const float *p, size_t ld, size_t heads,
	float *rows, float *o, size_t ld_o)
{
	size_t padded = (seg->width + KV_LANES - 1) / KV_LANES * KV_LANES, n = v.to - v.from;
	bool coded = seg->dtype == CODES;
	struct sum_of t = { .seg = seg, .first = v.from - seg->from, .n = n, .p = p, .ld = ld, .o = rows, .ld_o = padded };
	float *scale = rows + heads * padded;

	if (!has_sums(seg))
		return false;
	t.groups = coded ? seg->width / seg->group : 0;
	if (heads * padded + 2 * KV_ATTN_CHUNK * t.groups > KV_ATTN_CHUNK * a->d_v)
		return false;
	memset(t.o, 0, heads * padded * sizeof *t.o);
	if (coded) {
		get_scales(seg->scale_dtype, seg->scales, t.first * t.groups, n * t.groups, scale);
		get_scales(seg->scale_dtype, seg->minima, t.first * t.groups, n * t.groups, scale + n * t.groups);
		t.scale = scale;
		t.min = scale + n * t.groups;
	}
	switch (seg->bits) {
	case 0: add_rows(&t, 0, heads); break;
	case 2: add_rows(&t, 2, heads); break;
	case 4: add_rows(&t, 4, heads); break;
	default: add_rows(&t, 8, heads); break;
	}
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < seg->width; i++)
			o[h * ld_o + (seg->channel ? seg->channel[i] : i)] += t.o[h * padded + i];
	return true;
}

#endif
#endif
