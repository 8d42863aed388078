/*
 * Products for a few tokens: every weight is read once, in place, so that what counts is to keep the memory busy. Rows are read one behind
 * the other, as they stand: the processor sees one stream and runs ahead of it by itself. (Two rows side by side took up to twice as long.)
 */
#include "kernel/ops.h"

#if defined __AVX2__
#include <string.h>

#include "kernel/few.h"
#include "kernel/quant.h"
#include "util/le.h"
#include "util/mem.h"

enum {
	PIECES = 2,	/* of the rows for a thread: long streams, and still some for who is done first */
};

static inline __m256i
bytes_at(const void *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

static inline __m128i
half_block_at(const uint8_t *p)
{
	return _mm_loadu_si128((const __m128i *)(const void *)p);
}

static inline __m128i
word_at(const uint8_t *p)
{
	return _mm_cvtsi32_si128((int32_t)le32_get(p));
}

/* Codes without a sign times activations, two of which fit sixteen bits (63 * 127 each), times `scales`, in eight sums. */
static inline __m256
dot_codes(__m256i codes, __m256i q, __m256i scales)
{
	return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(codes, q), scales));
}

/* Scales and what stands behind them of two blocks: [2][2], or with `alone` the scale twice. w NULL: there is no second block. */
static inline __attribute__((always_inline)) __m128
heads_at(const uint8_t *v, const uint8_t *w, bool alone)
{
	__m128i head = _mm_unpacklo_epi32(word_at(v), w ? word_at(w) : _mm_setzero_si128());

	return _mm_cvtph_ps(alone ? _mm_shufflelo_epi16(head, 0xa0) : head);
}

/* The sums of one token. */
struct sums {
	__m256 dot[2];
	__m128 min;
};

/*
 * Two blocks of a row, number `at` and the next: low nibbles of both, then high ones, against activations in that order (four products of
 * 15 * 127 fit sixteen bits). With `alone`, the second is not there.
 */
static inline __attribute__((always_inline)) void
add_nibbles(struct kv_few_nibbles kind, const uint8_t *row, size_t at, bool alone, const struct kv_few_token *x, size_t m, struct sums *to, size_t chain)
{
	const __m256i nibble = _mm256_set1_epi8(15), scales = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2), one = _mm256_set1_epi16(1);
	const uint8_t *v = row + at * kind.size, *w = alone ? NULL : v + kind.size;
	__m256i c = _mm256_set_m128i(w ? half_block_at(w + kind.codes) : _mm_setzero_si128(), half_block_at(v + kind.codes));
	__m256i low = _mm256_and_si256(c, nibble), high = _mm256_and_si256(_mm256_srli_epi16(c, 4), nibble);
	__m128 heads = heads_at(v, w, kind.codes == 2);

	for (size_t t = 0; t < m; t++) {
		const int8_t *q = x[t].q + at * KV_AVX2_BLOCK;
		__m128 worth = _mm_mul_ps(heads, _mm_loadu_ps(x[t].ds + 2 * at));
		__m256i sum = _mm256_add_epi16(_mm256_maddubs_epi16(low, bytes_at(q)), _mm256_maddubs_epi16(high, bytes_at(q + KV_AVX2_BLOCK)));

		to[t].min = _mm_add_ps(to[t].min, worth);
		to[t].dot[chain] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_madd_epi16(sum, one)),
			_mm256_permutevar8x32_ps(_mm256_castps128_ps256(worth), scales), to[t].dot[chain]);
	}
}

static inline __attribute__((always_inline)) void
sums_nibbles(struct kv_few_nibbles kind, const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	struct sums s[KV_FEW_TOGETHER] = { { { _mm256_setzero_ps(), _mm256_setzero_ps() }, _mm_setzero_ps() } };
	size_t b = 0;

	for (; b + 4 <= n; b += 4) {
		add_nibbles(kind, p, b, false, x, m, s, 0);
		add_nibbles(kind, p, b + 2, false, x, m, s, 1);
	}
	if (b + 2 <= n) {
		add_nibbles(kind, p, b, false, x, m, s, 0);
		b += 2;
	}
	if (b < n)
		add_nibbles(kind, p, b, true, x, m, s, 1);
	for (size_t t = 0; t < m; t++) {
		__m128 min = _mm_blend_ps(_mm_setzero_ps(), _mm_mul_ps(s[t].min, _mm_set1_ps(kind.codes == 2 ? -8 : 1)), 10);	/* of every other lane */

		out[t] = _mm256_add_ps(_mm256_add_ps(s[t].dot[0], s[t].dot[1]), _mm256_set_m128(_mm_setzero_ps(), min));
	}
}

KV_FEW_NIBBLES(q4_0, 18, 2)
KV_FEW_NIBBLES(q4_1, 20, 4)

/* Codes from -128 to 127: |w| times the activation under w's sign (two products of 128 * 127 fit sixteen bits). */
static inline __attribute__((always_inline)) void
add_bytes(const uint8_t *block, __m128 heads, size_t at, const struct kv_few_token *x, size_t m, struct sums *to, size_t chain)
{
	__m256i w = bytes_at(block + 2), size = _mm256_abs_epi8(w);

	for (size_t t = 0; t < m; t++) {
		__m256 dot = dot_codes(size, _mm256_sign_epi8(bytes_at(x[t].q + at * KV_AVX2_BLOCK), w), _mm256_set1_epi16(1));

		to[t].dot[chain] = _mm256_fmadd_ps(dot, _mm256_broadcastss_ps(_mm_mul_ss(heads, _mm_load_ss(x[t].ds + 2 * at))), to[t].dot[chain]);
	}
}

static inline __attribute__((always_inline)) void
sums_q8_0(const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	struct sums s[KV_FEW_TOGETHER] = { { { _mm256_setzero_ps(), _mm256_setzero_ps() }, _mm_setzero_ps() } };
	size_t b = 0;

	for (; b + 2 <= n; b += 2, p += 68) {
		__m128 heads = heads_at(p, p + 34, true);

		add_bytes(p, heads, b, x, m, s, 0);
		add_bytes(p + 34, _mm_movehl_ps(heads, heads), b + 1, x, m, s, 1);
	}
	if (b < n)
		add_bytes(p, heads_at(p, NULL, true), b, x, m, s, 0);
	for (size_t t = 0; t < m; t++)
		out[t] = _mm256_add_ps(s[t].dot[0], s[t].dot[1]);
}

/*
 * Eight blocks of 32 under six-bit scales and minima, which twelve bytes hold (kv_scale_min): as bytes, eight scales and eight minima, in the
 * order of blocks 0 1 4 5 2 3 6 7, which taking every other float of sixteen makes.
 */
static inline __m128i
scales_q4_k(const uint8_t *p)
{
	uint32_t a = le32_get(p), b = le32_get(p + 4), c = le32_get(p + 8);
	__m128i bytes = _mm_setr_epi32((int)(a & 0x3f3f3f3f), (int)((c & 0x0f0f0f0f) | (a >> 2 & 0x30303030)), (int)(b & 0x3f3f3f3f),
		(int)((c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030)));

	return _mm_shuffle_epi8(bytes, _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
}

static inline __m256
eight_bytes(__m128i bytes)
{
	return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

static inline __attribute__((always_inline)) void
sums_q4_k(const uint8_t *w, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	static const size_t place[8] = { 0, 1, 4, 5, 2, 3, 6, 7 };
	__m256 dot[KV_FEW_TOGETHER][2] = { { _mm256_setzero_ps() } }, min[KV_FEW_TOGETHER] = { _mm256_setzero_ps() };
	const __m256i nibble = _mm256_set1_epi8(15), one = _mm256_set1_epi16(1);

	for (size_t at = 0; at < n; at += 8, w += 144) {
		__m128i bytes = scales_q4_k(w + 4);
		__m256 scales = _mm256_mul_ps(eight_bytes(bytes), _mm256_set1_ps(kv_avx2_half(w)));
		__m256 minima = _mm256_mul_ps(eight_bytes(_mm_srli_si128(bytes, 8)), _mm256_set1_ps(kv_avx2_half(w + 2)));
		_Alignas(32) float worth[KV_FEW_TOGETHER][8];

		for (size_t t = 0; t < m; t++) {
			__m256 a = _mm256_loadu_ps(x[t].ds + 2 * at), b = _mm256_loadu_ps(x[t].ds + 2 * at + 8);

			_mm256_store_ps(worth[t], _mm256_mul_ps(scales, _mm256_shuffle_ps(a, b, 0x88)));
			min[t] = _mm256_fmadd_ps(minima, _mm256_shuffle_ps(a, b, 0xdd), min[t]);
		}
#pragma GCC unroll 8
		for (size_t g = 0; g < 8; g++) {
			__m256i codes = bytes_at(w + 16 + g / 2 * 32);

			codes = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(codes, 4) : codes, nibble);
			for (size_t t = 0; t < m; t++)
				dot[t][g % 2] = _mm256_fmadd_ps(dot_codes(codes, bytes_at(x[t].q + (at + g) * KV_AVX2_BLOCK), one),
					_mm256_broadcast_ss(worth[t] + place[g]), dot[t][g % 2]);
		}
	}
	for (size_t t = 0; t < m; t++)
		out[t] = _mm256_sub_ps(_mm256_add_ps(dot[t][0], dot[t][1]), min[t]);
}

/* Codes of 128 values, from 0 on: number g of four, 32 each. low [2], high: the bytes they are made of. */
static inline __attribute__((always_inline)) __m256i
codes_q6_k(const __m256i low[2], __m256i high, int g)
{
	const __m256i nibble = _mm256_set1_epi8(15), two = _mm256_set1_epi8(48);
	__m256i l = g < 2 ? low[g] : _mm256_srli_epi16(low[g - 2], 4);
	__m256i h = g == 0 ? _mm256_slli_epi16(high, 4) : g == 1 ? _mm256_slli_epi16(high, 2) : g == 2 ? high : _mm256_srli_epi16(high, 2);

	return _mm256_or_si256(_mm256_and_si256(l, nibble), _mm256_and_si256(h, two));
}

/*
 * Sixteen codes share a scale of eight bits: it goes into the products of sixteen bits (63 * 127 * 2 * 128 * 2 fits thirty-two). Codes stand for
 * code - 32: that much of the activations' sums is taken off, sixteen by sixteen.
 */
static inline __attribute__((always_inline)) void
sums_q6_k(const uint8_t *w, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	const __m128i apart = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);

	for (size_t t = 0; t < m; t++)
		out[t] = _mm256_setzero_ps();
	for (size_t at = 0; at < n; at += 8, w += 210) {
		__m128i scales = half_block_at(w + 192);
		__m256i words = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, apart));	/* in the low half those of first sixteens, in the high half of second */
		__m256 first = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales)), second = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(scales, 8)));
		__m256 super[KV_FEW_TOGETHER][2] = { { _mm256_setzero_ps() } };

#pragma GCC unroll 2
		for (size_t half = 0; half < 2; half++) {
			const __m256i low[2] = { bytes_at(w + 64 * half), bytes_at(w + 64 * half + 32) }, high = bytes_at(w + 128 + 32 * half);

#pragma GCC unroll 4
			for (size_t g = 0; g < 4; g++) {
				__m256i scale = _mm256_shuffle_epi8(words, _mm256_set1_epi16((short)(0x0100 + 0x0202 * (4 * half + g))));
				__m256i codes = codes_q6_k(low, high, (int)g);
				size_t b = at + 4 * half + g;

				for (size_t t = 0; t < m; t++)
					super[t][g % 2] = _mm256_fmadd_ps(dot_codes(codes, bytes_at(x[t].q + b * KV_AVX2_BLOCK), scale),
						_mm256_broadcast_ss(x[t].ds + 2 * b), super[t][g % 2]);
			}
		}
		for (size_t t = 0; t < m; t++) {
			__m256 off = _mm256_fmadd_ps(second, _mm256_loadu_ps(x[t].halves + 2 * at + 8), _mm256_mul_ps(first, _mm256_loadu_ps(x[t].halves + 2 * at)));

			off = _mm256_fmadd_ps(off, _mm256_set1_ps(-32), _mm256_add_ps(super[t][0], super[t][1]));
			out[t] = _mm256_fmadd_ps(off, _mm256_set1_ps(kv_avx2_half(w + 208)), out[t]);
		}
	}
}

/* Eight weights that are numbers: these need no eight-bit activations. */
typedef __m256 eight(const uint8_t *w, size_t i);

static inline __m256
eight_f32(const uint8_t *w, size_t i)
{
	return _mm256_loadu_ps((const float *)(const void *)(w + 4 * i));
}

static inline __m256
eight_f16(const uint8_t *w, size_t i)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(w + 2 * i)));
}

static inline __m256
eight_bf16(const uint8_t *w, size_t i)
{
	__m128i x = _mm_loadu_si128((const __m128i *)(const void *)(w + 2 * i));

	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}

static inline __attribute__((always_inline)) void
sums_floats(const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out, eight *load)
{
	__m256 sum[KV_FEW_TOGETHER][4] = { { _mm256_setzero_ps() } };

	for (size_t i = 0; i < n * KV_AVX2_BLOCK; i += KV_AVX2_BLOCK)
		for (size_t k = 0; k < 4; k++) {
			__m256 w = load(p, i + 8 * k);

			for (size_t t = 0; t < m; t++)
				sum[t][k] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x[t].x + i + 8 * k), sum[t][k]);
		}
	for (size_t t = 0; t < m; t++)
		out[t] = _mm256_add_ps(_mm256_add_ps(sum[t][0], sum[t][1]), _mm256_add_ps(sum[t][2], sum[t][3]));
}

static inline __attribute__((always_inline)) void
sums_f32(const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	sums_floats(p, n, x, m, out, eight_f32);
}

static inline __attribute__((always_inline)) void
sums_f16(const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	sums_floats(p, n, x, m, out, eight_f16);
}

static inline __attribute__((always_inline)) void
sums_bf16(const uint8_t *p, size_t n, const struct kv_few_token *x, size_t m, __m256 *out)
{
	sums_floats(p, n, x, m, out, eight_bf16);
}

KV_FEW_KERNEL(f32, 2)
KV_FEW_KERNEL(f16, 2)
KV_FEW_KERNEL(bf16, 2)
KV_FEW_KERNEL(q4_0, 2)
KV_FEW_KERNEL(q4_1, 2)
KV_FEW_KERNEL(q8_0, 2)
KV_FEW_KERNEL(q4_k, 2)
KV_FEW_KERNEL(q6_k, 2)

struct kv_few
kv_avx2_few(uint32_t type)
{
	switch (type) {
	case KV_W_F32: return (struct kv_few){ f32, 1, KV_AVX2_FEW };
	case KV_W_F16: return (struct kv_few){ f16, 1, KV_AVX2_FEW };
	case KV_W_BF16: return (struct kv_few){ bf16, 1, KV_AVX2_FEW };
	case KV_W_Q4_0: return (struct kv_few){ q4_0, 2, 5 };
	case KV_W_Q4_1: return (struct kv_few){ q4_1, 2, 5 };
	case KV_W_Q8_0: return (struct kv_few){ q8_0, 1, 5 };
	case KV_W_Q4_K: return (struct kv_few){ q4_k, 1, 5 };
	case KV_W_Q6_K: return (struct kv_few){ q6_k, 1, 5 };
	default: return (struct kv_few){ NULL, 0, 0 };
	}
}

struct few {
	const struct kv_weight *w;
	struct kv_few how;
	struct kv_few_token token[KV_AVX2_FEW];
	size_t m, rows;			/* in one item of work */
	float *y;			/* [m][n_out] */
	bool add;
};

static void
few_rows(void *arg, size_t item, unsigned thread)
{
	const struct few *f = arg;
	const struct kv_weight *w = f->w;
	size_t first = item * f->rows, end = first + f->rows < w->n_out ? first + f->rows : w->n_out;

	(void)thread;
	for (size_t r = first; r < end; r += KV_FEW_ROWS) {
		size_t rows = end - r < KV_FEW_ROWS ? end - r : KV_FEW_ROWS;
		float out[KV_AVX2_FEW][KV_FEW_ROWS];

		f->how.multiply(w->data + r * w->row_bytes, w->row_bytes, rows, w->n_in / KV_AVX2_BLOCK, f->token, f->m, out);
		for (size_t t = 0; t < f->m; t++) {
			float *y = f->y + t * w->n_out + r;

			for (size_t k = 0; k < rows; k++)
				y[k] = f->add ? y[k] + out[t][k] : out[t][k];
		}
	}
}

/* Token t of a [groups of tokens][n], in the order that `halves` blocks ask for. */
static void
lay_out(const struct kv_avx2_act *a, size_t n, size_t t, size_t halves, struct kv_few_token *o)
{
	a += t / KV_AVX2_GROUP * n;
	t %= KV_AVX2_GROUP;
	for (size_t b = 0; b < n; b++) {
		int8_t *first = o->q + b / halves * halves * KV_AVX2_BLOCK + b % halves * KV_AVX2_BLOCK / 2;

		memcpy(first, a[b].q[t], KV_AVX2_BLOCK / 2);
		memcpy(first + halves * KV_AVX2_BLOCK / 2, a[b].q[t] + KV_AVX2_BLOCK / 2, KV_AVX2_BLOCK / 2);
		o->ds[2 * b] = a[b].d[t];
		o->ds[2 * b + 1] = a[b].s[t];
		o->halves[2 * b] = a[b].first[t];
		o->halves[2 * b + 1] = a[b].s[t] - a[b].first[t];
	}
}

bool
kv_avx2_multiply_few(struct kv_pool *pool, struct kv_few how, const struct kv_weight *w, const struct kv_avx2_act *a, const float *x, size_t m,
	float *y, bool add)
{
	struct few f = { .w = w, .how = how, .m = m, .y = y, .add = add };
	size_t n = w->n_in / KV_AVX2_BLOCK, room = (n + 3) / 4 * 4;
	int8_t *q = kv_block_new(m * room, KV_AVX2_BLOCK + 4 * sizeof (float));
	float *ds;

	if (!q)
		return false;
	ds = (float *)(void *)(q + m * room * KV_AVX2_BLOCK);
	if (room > n)
		memset(q, 0, m * room * (KV_AVX2_BLOCK + 4 * sizeof (float)));
	for (size_t t = 0; t < m; t++) {
		f.token[t] = (struct kv_few_token){ q + t * room * KV_AVX2_BLOCK, ds + t * room * 4, ds + t * room * 4 + room * 2, x + t * w->n_in };
		if (a)
			lay_out(a, n, t, how.halves, &f.token[t]);
	}
	f.rows = w->n_out / (kv_pool_threads(pool) * PIECES) + 1;
	kv_pool_run(pool, (w->n_out + f.rows - 1) / f.rows, few_rows, &f);
	kv_block_free(q);
	return true;
}
#endif
