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

/* Up to n of 8 numbers; zeros behind them. */
static inline __m256
some_halves(const uint8_t *p, size_t n)
{
	uint16_t x[8] = { 0 };

	memcpy(x, p, (n < 8 ? n : 8) * sizeof *x);
	return kv_avx2_widen(x);
}

/* 8 codes that begin a byte, the row having so many bytes left. */
static inline __attribute__((always_inline)) __m256
eight_codes(const uint8_t *p, unsigned bits, size_t left)
{
	uint64_t word = 0;
	__m256i x;

	if (left >= bits)
		memcpy(&word, p, bits);
	else
		memcpy(&word, p, left);
	if (bits == 8)
		x = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)word));
	else if (bits == 4)
		x = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)word), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)),
			_mm256_set1_epi32(15));
	else
		x = _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)word), _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14)),
			_mm256_set1_epi32(3));
	return _mm256_cvtepi32_ps(x);
}

/* What the keys of a segment are made ready with; arrays of `width` columns are padded to whole vectors, n of them. */
struct ready {
	const struct kv_attn_segment *seg;
	const float *angles;	/* of the list's first entry; NULL: these keys do not turn */
	size_t n_rot, pairs;	/* pairs that these keys have */
	bool neox;
	size_t padded;
	float *q;		/* [heads][padded] the columns that the keys have */
	float *raw, *keys;	/* [KV_AVX2_KEYS][padded] */
	float *scale, *min;	/* [padded] of group … */
	size_t group;		/* … this */
	int32_t *pair;		/* [pairs] which of all pairs these are; NULL: the first ones */
};

static inline __attribute__((always_inline)) void
unpack_codes(const struct ready *r, const uint8_t *row, unsigned bits, float *out)
{
	for (size_t i = 0; i < r->seg->width; i += 8) {
		__m256 x = eight_codes(row + i * bits / 8, bits, r->seg->row_bytes - i * bits / 8);

		_mm256_storeu_ps(out + i, _mm256_add_ps(_mm256_mul_ps(x, _mm256_loadu_ps(r->scale + i)), _mm256_loadu_ps(r->min + i)));
	}
}

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

/* Row j of the segment -> out [padded] */
static inline void
unpack(struct ready *r, size_t j, float *out)
{
	const struct kv_attn_segment *s = r->seg;
	const uint8_t *row = s->data + j * s->row_bytes;
	size_t i = 0;

	if (s->dtype == F16) {
		for (; i + 8 <= s->width; i += 8)
			_mm256_storeu_ps(out + i, kv_avx2_widen((const uint16_t *)(const void *)(row + 2 * i)));
		if (i < s->width)
			_mm256_storeu_ps(out + i, some_halves(row + 2 * i, s->width - i));
		return;
	}
	if (r->group == SIZE_MAX || j >= s->group_end[r->group])
		use_group(r, r->group == SIZE_MAX ? kv_attn_group(s, j) : r->group + 1);
	switch (s->bits) {
	case 2: unpack_codes(r, row, 2, out); break;
	case 4: unpack_codes(r, row, 4, out); break;
	default: unpack_codes(r, row, 8, out); break;
	}
}

/* Cosines and sines of four pairs. cs [n_rot/2][2] */
static inline __m256
four_angles(const float *cs, const int32_t *pair, size_t i)
{
	if (!pair)
		return _mm256_loadu_ps(cs + 2 * i);
	return _mm256_castpd_ps(_mm256_i32gather_pd((const double *)(const void *)cs, _mm_loadu_si128((const __m128i *)(const void *)(pair + i)), 8));
}

static inline void
turn_one(const struct ready *r, const float *cs, size_t i, size_t u, size_t v, const float *x, float *out)
{
	const float *z = cs + 2 * (r->pair ? (size_t)r->pair[i] : i);
	float a = x[u], b = x[v];

	out[u] = a * z[0] - b * z[1];
	out[v] = a * z[1] + b * z[0];
}

/* x [padded] -> out, turned by the angles of its entry. */
static void
turn(const struct ready *r, const float *cs, const float *x, float *out)
{
	size_t pairs = r->pairs, i = 0;

	for (; !r->neox && i + 4 <= pairs; i += 4) {
		__m256 k = _mm256_loadu_ps(x + 2 * i), z = four_angles(cs, r->pair, i);
		__m256 crossed = _mm256_mul_ps(_mm256_permute_ps(k, 0xb1), _mm256_movehdup_ps(z));

		_mm256_storeu_ps(out + 2 * i, _mm256_fmaddsub_ps(k, _mm256_moveldup_ps(z), crossed));
	}
	for (; r->neox && i + 8 <= pairs; i += 8) {
		__m256 y = four_angles(cs, r->pair, i), z = four_angles(cs, r->pair, i + 4);
		__m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + pairs + i);
		__m256 c = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0x88)), 0xd8));
		__m256 s = _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(y, z, 0xdd)), 0xd8));

		_mm256_storeu_ps(out + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
		_mm256_storeu_ps(out + pairs + i, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
	}
	for (; i < pairs; i++)
		turn_one(r, cs, i, r->neox ? i : 2 * i, r->neox ? i + pairs : 2 * i + 1, x, out);
	memcpy(out + 2 * pairs, x + 2 * pairs, (r->padded - 2 * pairs) * sizeof *out);
}

/* Pairs among the columns, and which they are. */
static void
find_pairs(struct ready *r, int32_t *pair)
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
		pair[i] = r->neox ? channel[i] : channel[2 * i] / 2;
	r->pair = pair;
}

static bool
has_scores(const struct kv_attn_segment *s, size_t heads)
{
	return 2 * heads + 11 <= KV_ATTN_CHUNK && (s->dtype == F16 || (s->dtype == CODES && s->scheme == BY_ROWS));
}

/* Lays everything out in scratch space of 2 heads + 11 padded rows, and no more. */
static void
get_ready(struct ready *r, const struct kv_attn *a, const struct kv_attn_list *l, const float *q, size_t heads, float *scratch)
{
	const struct kv_attn_segment *s = r->seg;

	r->padded = (s->width + 7) / 8 * 8;
	r->group = SIZE_MAX;
	r->q = scratch;
	r->raw = r->q + heads * r->padded;
	r->keys = r->raw + KV_AVX2_KEYS * r->padded;
	r->scale = r->keys + KV_AVX2_KEYS * r->padded;
	r->min = r->scale + r->padded;
	memset(scratch, 0, (heads + 2 * KV_AVX2_KEYS + 2) * r->padded * sizeof *scratch);
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < s->width; i++)
			r->q[h * r->padded + i] = q[h * a->d_k + (s->channel ? s->channel[i] : i)];
	if (s->turned || !l->angles)
		return;
	r->angles = l->angles;
	r->n_rot = a->n_rot;
	r->neox = a->neox;
	find_pairs(r, (int32_t *)(void *)(r->min + r->padded));
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
	few = rows + (heads + 2 * KV_AVX2_KEYS + 3) * r.padded;
	for (size_t j = v.from, n; j < v.to; j += n, s += n) {
		n = v.to - j < KV_AVX2_KEYS ? v.to - j : KV_AVX2_KEYS;
		for (size_t i = 0; i < n; i++) {
			unpack(&r, j + i - seg->from, (r.angles ? r.raw : r.keys) + i * r.padded);
			if (r.angles)
				turn(&r, r.angles + (j + i) * r.n_rot, r.raw + i * r.padded, r.keys + i * r.padded);
		}
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

/* Values in the making: columns i … of a few heads. */
struct sum_of {
	const struct kv_attn_segment *seg;
	size_t first, n;		/* rows of the segment */
	const float *w;			/* [heads] rows of n weights … */
	size_t ld;			/* … so far apart */
	float *o;			/* [heads] likewise */
	size_t ld_o;
};

/* vectors of 8 columns from i on, of which `left` are there */
static inline __attribute__((always_inline)) void
add_columns(const struct sum_of *t, unsigned bits, size_t i, size_t vectors, size_t heads, size_t left)
{
	const struct kv_attn_segment *s = t->seg;
	const uint8_t *row = s->data + t->first * s->row_bytes + (bits ? i * bits / 8 : 2 * i);
	__m256 sum[KV_AVX2_HEADS][4];

	for (size_t h = 0; h < heads; h++)
		for (size_t k = 0; k < vectors; k++)
			sum[h][k] = _mm256_loadu_ps(t->o + h * t->ld_o + i + 8 * k);
	for (size_t j = 0; j < t->n; j++, row += s->row_bytes)
		for (size_t k = 0; k < vectors; k++) {
			__m256 x = bits ? eight_codes(row + k * bits, bits, bits) :
				left >= 8 ? kv_avx2_widen((const uint16_t *)(const void *)(row + 16 * k)) : some_halves(row, left);

			for (size_t h = 0; h < heads; h++)
				sum[h][k] = _mm256_fmadd_ps(x, _mm256_set1_ps(t->w[h * t->ld + j]), sum[h][k]);
		}
	for (size_t h = 0; h < heads; h++)
		for (size_t k = 0; k < vectors; k++)
			_mm256_storeu_ps(t->o + h * t->ld_o + i + 8 * k, sum[h][k]);
}

static inline __attribute__((always_inline)) void
add_heads(struct sum_of t, unsigned bits, size_t i, size_t vectors, size_t heads, size_t left)
{
	for (; heads; heads -= heads < KV_AVX2_HEADS ? heads : KV_AVX2_HEADS, t.w += KV_AVX2_HEADS * t.ld, t.o += KV_AVX2_HEADS * t.ld_o)
		switch (heads) {
		case 1: add_columns(&t, bits, i, vectors, 1, left); break;
		case 2: add_columns(&t, bits, i, vectors, 2, left); break;
		default: add_columns(&t, bits, i, vectors, 3, left); break;
		}
}

/* Columns from … to - 1, where each is there for a whole number of vectors, or the last are a few in f16. */
static inline __attribute__((always_inline)) void
add_range(const struct sum_of *t, unsigned bits, size_t from, size_t to, size_t heads)
{
	size_t i = from;

	for (; i + 32 <= to; i += 32)
		add_heads(*t, bits, i, 4, heads, 32);
	for (; i + 8 <= to; i += 8)
		add_heads(*t, bits, i, 1, heads, 8);
	if (i < to)
		add_heads(*t, bits, i, 1, heads, to - i);
}

/* w [heads][ld_w] = p times the scales of group g of each row; sums of p times their minima [heads] */
static void
scale_weights(const struct sum_of *t, size_t g, const float *p, size_t ld, size_t heads, float *w, float *least)
{
	const struct kv_attn_segment *s = t->seg;
	size_t groups = s->width / s->group;
	float scale[KV_ATTN_CHUNK], min[KV_ATTN_CHUNK];

	for (size_t j = 0; j < t->n; j++) {
		size_t at = (t->first + j) * groups + g;

		if (s->scale_dtype == F16) {
			scale[j] = kv_avx2_half(s->scales + 2 * at);
			min[j] = kv_avx2_half(s->minima + 2 * at);
		} else {
			memcpy(&scale[j], s->scales + 4 * at, sizeof *scale);
			memcpy(&min[j], s->minima + 4 * at, sizeof *min);
		}
	}
	for (size_t h = 0; h < heads; h++) {
		float sum[8] = { 0 };

		for (size_t j = 0; j < t->n; j++) {
			w[h * t->ld + j] = p[h * ld + j] * scale[j];
			sum[j % 8] += p[h * ld + j] * min[j];
		}
		least[h] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
	}
}

/* Group after group of columns: their codes by weights that hold the scales, and the minima on top. */
static void
weigh_codes(struct sum_of t, const float *p, size_t ld, size_t heads, float *w, float *least)
{
	const struct kv_attn_segment *s = t.seg;

	for (size_t g = 0; g < s->width / s->group; g++) {
		size_t from = g * s->group, to = from + s->group;

		scale_weights(&t, g, p, ld, heads, w, least);
		switch (s->bits) {
		case 2: add_range(&t, 2, from, to, heads); break;
		case 4: add_range(&t, 4, from, to, heads); break;
		default: add_range(&t, 8, from, to, heads); break;
		}
		for (size_t h = 0; h < heads; h++)
			for (size_t i = from; i < to; i++)
				t.o[h * t.ld_o + i] += least[h];
	}
}

bool
kv_avx2_segment_weigh(const struct kv_attn *a, const struct kv_attn_segment *seg, struct kv_span v, const float *p, size_t ld, size_t heads,
	float *rows, float *o, size_t ld_o)
{
	size_t padded = (seg->width + 7) / 8 * 8;
	struct sum_of t = { .seg = seg, .first = v.from - seg->from, .n = v.to - v.from, .o = rows, .ld_o = padded };
	bool codes = seg->dtype == CODES;
	float *w = rows + heads * padded, *least = w + heads * KV_ATTN_CHUNK;
	size_t width = a->d_k > a->d_v ? a->d_k : a->d_v;

	if (codes ? seg->scheme != BY_CHANNELS || seg->group % 8 : seg->dtype != F16)
		return false;
	if (heads * (padded + KV_ATTN_CHUNK + 1) > KV_ATTN_CHUNK * width)
		return false;
	memset(t.o, 0, heads * padded * sizeof *t.o);
	t.w = codes ? w : p;
	t.ld = codes ? KV_ATTN_CHUNK : ld;
	if (codes)
		weigh_codes(t, p, ld, heads, w, least);
	else
		add_range(&t, 0, 0, seg->width, heads);
	for (size_t h = 0; h < heads; h++)
		for (size_t i = 0; i < seg->width; i++)
			o[h * ld_o + (seg->channel ? seg->channel[i] : i)] += t.o[h * padded + i];
	return true;
}
#endif
