/*
 * Attention of one token over rows in segments: keys narrow in f16, or in codes with scales for groups of rows (KIVI); values narrow in f16, or
 * in codes with scales for groups of channels. Rows are unpacked four at a time, and no further than to the channels that they have.
 */
#include "kernel/ops.h"

#if defined __AVX2__
#include <string.h>

#include "kernel/avx2_attend.h"
#include "util/half.h"

enum { F32 = 1, F16 = 2, CODES = 16, BY_ROWS = 1, BY_CHANNELS = 2 };

/* 8 numbers of which n are there, the rows ending at `end`; zeros behind them. */
static inline __m256
some_halves(const uint8_t *p, size_t n, const uint8_t *end)
{
	uint16_t x[8] = { 0 };

	if (end - p >= 16) {
		__m128i lane = _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7), here = _mm_cmpgt_epi16(_mm_set1_epi16((short)n), lane);

		return _mm256_cvtph_ps(_mm_and_si128(_mm_loadu_si128((const __m128i *)(const void *)p), here));
	}
	memcpy(x, p, n * sizeof *x);
	return kv_avx2_widen(x);
}

/* 8 codes that begin a byte. */
static inline __attribute__((always_inline)) __m256
eight_codes(const uint8_t *p, unsigned bits)
{
	uint32_t four;
	int16_t two;
	__m256i x;

	if (bits == 8) {
		x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
	} else if (bits == 4) {
		memcpy(&four, p, sizeof four);
		x = _mm256_srlv_epi32(_mm256_set1_epi32((int)four), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
	} else {
		memcpy(&two, p, sizeof two);
		x = _mm256_srlv_epi32(_mm256_set1_epi16(two), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
	}
	return _mm256_cvtepi32_ps(bits == 8 ? x : _mm256_and_si256(x, _mm256_set1_epi32((1 << bits) - 1)));
}

/* The same where fewer may be left before the rows end. */
static inline __attribute__((always_inline)) __m256
some_codes(const uint8_t *p, unsigned bits, const uint8_t *end)
{
	uint8_t bytes[8] = { 0 };

	if (end - p >= (ptrdiff_t)bits)
		return eight_codes(p, bits);
	memcpy(bytes, p, (size_t)(end - p));
	return eight_codes(bytes, bits);
}

/* What the keys of a segment are made ready with; arrays of `width` columns are padded to whole vectors, n of them. */
struct ready {
	const struct kv_attn_segment *seg;
	const uint8_t *end;	/* of its rows */
	const float *angles;	/* of the list's first entry; NULL: these keys do not turn */
	size_t n_rot, pairs;	/* pairs that these keys have */
	bool neox, in_vectors;	/* in_vectors: pairs fill whole vectors, or none */
	size_t padded;
	float *q;		/* [heads][padded] the columns that the keys have */
	float *keys;		/* [KV_AVX2_KEYS][padded] */
	float *scale, *min;	/* [padded] of group … */
	size_t group;		/* … this */
	uint16_t *pair;		/* [pairs], and zeros, which of all pairs these are; NULL: the first ones */
};

static void
use_group(struct ready *r, size_t group)
{
	size_t width = r->seg->width;

	if (group == r->group)
		return;
	kv_attn_numbers(r->seg->scale_dtype, r->seg->scales, group * width, width, r->scale);
	kv_attn_numbers(r->seg->scale_dtype, r->seg->minima, group * width, width, r->min);
	r->group = group;
}

static inline __m128
two_angles(const float *cs, const uint16_t *pair)
{
	__m128d first = _mm_load_sd((const double *)(const void *)(cs + 2 * pair[0]));

	return _mm_castpd_ps(_mm_loadh_pd(first, (const double *)(const void *)(cs + 2 * pair[1])));
}

/* Cosines and sines of pairs i … i + 3 that the keys have. cs [n_rot/2][2] */
static inline __attribute__((always_inline)) __m256
four_angles(const struct ready *r, bool picked, const float *cs, size_t i)
{
	if (!picked)
		return _mm256_loadu_ps(cs + 2 * i);
	return _mm256_set_m128(two_angles(cs, r->pair + i + 2), two_angles(cs, r->pair + i));
}

/* Columns i … i + 7 of a row; bits 0: f16. */
static inline __attribute__((always_inline)) __m256
eight_columns(const struct ready *r, const uint8_t *row, unsigned bits, size_t i)
{
	if (!bits)
		return kv_avx2_widen((const uint16_t *)(const void *)(row + 2 * i));
	return _mm256_fmadd_ps(eight_codes(row + i * bits / 8, bits), _mm256_loadu_ps(r->scale + i), _mm256_loadu_ps(r->min + i));
}

/* Those from i on, fewer than eight, and zeros. */
static inline __attribute__((always_inline)) __m256
last_columns(const struct ready *r, const uint8_t *row, unsigned bits, size_t i)
{
	if (!bits)
		return some_halves(row + 2 * i, r->seg->width - i, r->end);
	return _mm256_fmadd_ps(some_codes(row + i * bits / 8, bits, r->end), _mm256_loadu_ps(r->scale + i), _mm256_loadu_ps(r->min + i));
}

/* Columns from i on as they are. */
static inline __attribute__((always_inline)) void
copy_columns(const struct ready *r, const uint8_t *row, unsigned bits, size_t i, float *out)
{
	for (; i + 8 <= r->seg->width; i += 8)
		_mm256_storeu_ps(out + i, eight_columns(r, row, bits, i));
	if (i < r->seg->width)
		_mm256_storeu_ps(out + i, last_columns(r, row, bits, i));
}

static inline __m256
turn_four(__m256 x, __m256 z)
{
	return _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(z), _mm256_mul_ps(_mm256_permute_ps(x, 0xb1), _mm256_movehdup_ps(z)));
}

/* A row [padded], turned at once: neighbours, where no vector holds columns that turn beside others that do not. */
static inline __attribute__((always_inline)) void
neighbours(const struct ready *r, const uint8_t *row, unsigned bits, bool picked, const float *cs, float *out)
{
	size_t i = 0;

	for (; i + 8 <= 2 * r->pairs; i += 8)
		_mm256_storeu_ps(out + i, turn_four(eight_columns(r, row, bits, i), four_angles(r, picked, cs, i / 2)));
	if (i < 2 * r->pairs)
		_mm256_storeu_ps(out + i, turn_four(last_columns(r, row, bits, i), four_angles(r, picked, cs, i / 2)));
	else
		copy_columns(r, row, bits, i, out);
}

/* Eight pairs that stand apart, at out + i and out + pairs + i. */
static inline __attribute__((always_inline)) void
turn_eight(const struct ready *r, bool picked, const float *cs, size_t i, __m256 a, __m256 b, float *out)
{
	__m256 y = four_angles(r, picked, cs, i), z = four_angles(r, picked, cs, i + 4);
	__m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0x88)), 0xd8));
	__m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0xdd)), 0xd8));

	_mm256_storeu_ps(out + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
	_mm256_storeu_ps(out + r->pairs + i, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
}

/* The same; pairs that stand apart, whole vectors of them. */
static inline __attribute__((always_inline)) void
halves(const struct ready *r, const uint8_t *row, unsigned bits, bool picked, const float *cs, float *out)
{
	for (size_t i = 0; i < r->pairs; i += 8)
		turn_eight(r, picked, cs, i, eight_columns(r, row, bits, i), eight_columns(r, row, bits, r->pairs + i), out);
	copy_columns(r, row, bits, 2 * r->pairs, out);
}

/* The same for any pairs, once the row is unpacked. */
static inline __attribute__((always_inline)) void
any_pairs(const struct ready *r, const uint8_t *row, unsigned bits, const float *cs, float *out)
{
	size_t apart = r->neox ? r->pairs : 1, step = r->neox ? 1 : 2, i = 0;

	copy_columns(r, row, bits, 0, out);
	for (; r->neox && r->pair && i + 8 <= r->pairs; i += 8)
		turn_eight(r, true, cs, i, _mm256_loadu_ps(out + i), _mm256_loadu_ps(out + r->pairs + i), out);
	for (; i < r->pairs; i++) {
		const float *z = cs + 2 * (r->pair ? r->pair[i] : i);
		float *a = out + i * step, *b = a + apart, x = *a, y = *b;

		*a = x * z[0] - y * z[1];
		*b = x * z[1] + y * z[0];
	}
}

/* Row j of the segment -> out [padded], turned if it must be. */
static inline __attribute__((always_inline)) void
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
	const struct kv_attn_segment *s = r->seg;

	if (s->dtype == CODES && (r->group == SIZE_MAX || j >= s->group_end[r->group]))
		use_group(r, r->group == SIZE_MAX ? kv_attn_group(s, j) : r->group + 1);
	switch (s->bits) {
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

static bool
has_scores(const struct kv_attn_segment *s, size_t heads)
{
	return 2 * heads + KV_AVX2_KEYS + 3 <= KV_ATTN_CHUNK && (s->dtype == F16 || (s->dtype == CODES && s->scheme == BY_ROWS));
}

/* Lays everything out in scratch space of heads + KV_AVX2_KEYS + 3 padded rows. */
static void
get_ready(struct ready *r, const struct kv_attn *a, const struct kv_attn_list *l, const float *q, size_t heads, float *scratch)
{
	const struct kv_attn_segment *s = r->seg;

	r->end = s->data + (s->to - s->from) * s->row_bytes;
	r->padded = (s->width + 7) / 8 * 8;
	r->group = SIZE_MAX;
	r->q = scratch;
	r->keys = r->q + heads * r->padded;
	r->scale = r->keys + KV_AVX2_KEYS * r->padded;
	r->min = r->scale + r->padded;
	memset(scratch, 0, (heads + KV_AVX2_KEYS + 3) * r->padded * sizeof *scratch);
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < s->width; i++)
			r->q[h * r->padded + i] = q[h * a->d_k + (s->channel ? s->channel[i] : i)];
	if (!s->turned && l->angles) {
		r->angles = l->angles;
		r->n_rot = a->n_rot;
		r->neox = a->neox;
		find_pairs(r, (uint16_t *)(void *)(r->min + r->padded));
	}
	r->in_vectors = r->pairs % (r->neox ? 8 : 4) == 0 || (!r->neox && 2 * r->pairs == s->width);
}

bool
kv_avx2_segment_scores(const struct kv_attn *a, const struct kv_attn_list *l, const struct kv_attn_segment *seg, struct kv_span v,
	const float *q, size_t heads, float *rows, float *s, size_t ld)
{
	struct ready r = { .seg = seg };
	float *few;

	if (!has_scores(seg, heads))
		return false;
	get_ready(&r, a, l, q, heads, rows);
	few = rows + (heads + KV_AVX2_KEYS + 3) * r.padded;
	for (size_t j = v.from, n; j < v.to; j += n, s += n) {
		n = v.to - j < KV_AVX2_KEYS ? v.to - j : KV_AVX2_KEYS;
		for (size_t i = 0; i < n; i++)
			unpack_row(&r, j + i - seg->from, r.keys + i * r.padded);
		if (n == KV_AVX2_KEYS) {
			kv_avx2_products(r.keys, r.q, r.padded, heads, a->scale, s, ld);
			continue;
		}
		kv_avx2_products(r.keys, r.q, r.padded, heads, a->scale, few, KV_AVX2_KEYS);
		for (size_t h = 0; h < heads; h++)
			memcpy(s + h * ld, few + h * KV_AVX2_KEYS, n * sizeof *s);
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

/* vectors of 8 columns from i on, all of one group, of which `left` are there */
static inline __attribute__((always_inline)) void
add_columns(const struct sum_of *t, unsigned bits, size_t i, size_t vectors, size_t heads, size_t left)
{
	const struct kv_attn_segment *s = t->seg;
	const uint8_t *row = s->data + t->first * s->row_bytes + (bits ? i * bits / 8 : 2 * i);
	const float *scale = t->scale, *min = t->min;
	__m256 sum[KV_AVX2_HEADS][4];

	if (bits) {
		scale += i / s->group;
		min += i / s->group;
	}
	for (size_t h = 0; h < heads; h++)
		for (size_t k = 0; k < vectors; k++)
			sum[h][k] = _mm256_loadu_ps(t->o + h * t->ld_o + i + 8 * k);
	for (size_t j = 0; j < t->n; j++, row += s->row_bytes)
		for (size_t k = 0; k < vectors; k++) {
			__m256 x;

			if (bits)
				x = _mm256_fmadd_ps(eight_codes(row + k * bits, bits), _mm256_broadcast_ss(scale + j * t->groups),
					_mm256_broadcast_ss(min + j * t->groups));
			else
				x = left >= 8 ? kv_avx2_widen((const uint16_t *)(const void *)(row + 16 * k)) : some_halves(row, left, s->data + (s->to - s->from) * s->row_bytes);
			for (size_t h = 0; h < heads; h++)
				sum[h][k] = _mm256_fmadd_ps(x, _mm256_broadcast_ss(t->p + h * t->ld + j), sum[h][k]);
		}
	for (size_t h = 0; h < heads; h++)
		for (size_t k = 0; k < vectors; k++)
			_mm256_storeu_ps(t->o + h * t->ld_o + i + 8 * k, sum[h][k]);
}

static inline __attribute__((always_inline)) void
add_heads(struct sum_of t, unsigned bits, size_t i, size_t vectors, size_t heads, size_t left)
{
	for (; heads; heads -= heads < KV_AVX2_HEADS ? heads : KV_AVX2_HEADS, t.p += KV_AVX2_HEADS * t.ld, t.o += KV_AVX2_HEADS * t.ld_o)
		switch (heads) {
		case 1: add_columns(&t, bits, i, vectors, 1, left); break;
		case 2: add_columns(&t, bits, i, vectors, 2, left); break;
		default: add_columns(&t, bits, i, vectors, 3, left); break;
		}
}

/* All columns: four vectors at a time where a group holds so many; of f16 the last few may be no whole vector. */
static inline __attribute__((always_inline)) void
add_rows(const struct sum_of *t, unsigned bits, size_t heads)
{
	size_t width = t->seg->width, i = 0;

	if (!bits || t->seg->group % 32 == 0)
		for (; i + 32 <= width; i += 32)
			add_heads(*t, bits, i, 4, heads, 32);
	for (; i + 8 <= width; i += 8)
		add_heads(*t, bits, i, 1, heads, 8);
	if (i < width)
		add_heads(*t, bits, i, 1, heads, width - i);
}

/* n scales or minima, from the at-th on. */
static void
get_scales(unsigned dtype, const uint8_t *p, size_t at, size_t n, float *out)
{
	size_t i = 0;

	for (; dtype == F16 && i + 8 <= n; i += 8)
		_mm256_storeu_ps(out + i, kv_avx2_widen((const uint16_t *)(const void *)(p + 2 * (at + i))));
	kv_attn_numbers(dtype, p, at + i, n - i, out + i);
}

bool
kv_avx2_segment_weigh(const struct kv_attn *a, const struct kv_attn_segment *seg, struct kv_span v, const float *p, size_t ld, size_t heads,
	float *rows, float *o, size_t ld_o)
{
	size_t padded = (seg->width + 7) / 8 * 8, n = v.to - v.from, width = a->d_k > a->d_v ? a->d_k : a->d_v;
	bool codes = seg->dtype == CODES;
	struct sum_of t = { .seg = seg, .first = v.from - seg->from, .n = n, .p = p, .ld = ld, .o = rows, .ld_o = padded };
	float *scale = rows + heads * padded;

	if (codes ? seg->scheme != BY_CHANNELS || seg->group % 8 : seg->dtype != F16)
		return false;
	t.groups = codes ? seg->width / seg->group : 0;
	if (heads * padded + 2 * KV_ATTN_CHUNK * t.groups > KV_ATTN_CHUNK * width)
		return false;
	memset(t.o, 0, heads * padded * sizeof *t.o);
	if (codes) {
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
