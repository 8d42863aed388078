/*
 * Products for one to four tokens: every weight is read once, in place, so that what counts is to keep the memory busy. Two rows at a time;
 * sums of a row are in the order of its blocks, whoever computes it.
 */
#include "kernel/ops.h"

#if defined __AVX2__
#include <string.h>

#include "kernel/avx2.h"
#include "kernel/quant.h"
#include "util/le.h"
#include "util/mem.h"

enum { FEW_ROWS = 64, AHEAD = 4096 };	/* rows in one item of work; bytes ahead of the reading that are asked for */

/* Sums of a row so far: of products, lane by lane, and of minima. */
struct sums {
	__m256 dot;
	float min;
};

static inline __m256i
bytes_at(const void *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

static inline __m128i
word_at(const uint8_t *p)
{
	return _mm_cvtsi32_si128((int32_t)le32_get(p));
}

/* Codes without a sign times activations, in eight sums. Two products of at most 63 * 127 fit sixteen bits. */
static inline __m256
dot_codes(__m256i codes, __m256i q)
{
	return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(codes, q), _mm256_set1_epi16(1)));
}

/* The same for codes from -128 to 127: |w| times the activation under w's sign. */
static inline __m256
dot_signed(__m256i w, __m256i q)
{
	return dot_codes(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
}

/* ds [2] of the block */
static inline void
add_block(struct sums *s, __m256 dot, float d, float min, const float *ds)
{
	s->dot = _mm256_fmadd_ps(dot, _mm256_set1_ps(d * ds[0]), s->dot);
	s->min += min * ds[1];
}

static inline void
finish(const struct sums s[2], float *out)
{
	out[0] = kv_avx2_sum(s[0].dot) + s[0].min;
	out[1] = kv_avx2_sum(s[1].dot) + s[1].min;
}

/*
 * Blocks of four bits, `size` bytes each, codes from byte `codes` on; the scale comes first, and a minimum behind it, or else -8 times the scale
 * is one. Two blocks at a time: their scales and minima are one multiplication.
 */
static inline __attribute__((always_inline)) void
product_nibbles(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, size_t size, size_t codes, float *out)
{
	__m256 dot[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
	__m128 min[2] = { _mm_setzero_ps(), _mm_setzero_ps() };
	size_t b = 0;

	for (; b + 2 <= n; b += 2) {
		__m256i q0 = bytes_at(x->q + b * KV_AVX2_BLOCK), q1 = bytes_at(x->q + (b + 1) * KV_AVX2_BLOCK);
		__m128 ds = _mm_loadu_ps(x->ds + 2 * b);

#pragma GCC unroll 2
		for (size_t r = 0; r < 2; r++) {
			const uint8_t *v = p[r] + b * size, *w = v + size;
			__m128i head = _mm_unpacklo_epi32(word_at(v), word_at(w));
			__m128 worth;

			_mm_prefetch((const char *)v + AHEAD, _MM_HINT_T0);
			if (codes == 2)	/* no minimum: the scale in its place */
				head = _mm_shufflelo_epi16(head, 0xa0);
			worth = _mm_mul_ps(_mm_cvtph_ps(head), ds);
			min[r] = _mm_add_ps(min[r], worth);
			dot[r] = _mm256_fmadd_ps(dot_codes(kv_avx2_nibbles(v + codes), q0), _mm256_broadcastss_ps(worth), dot[r]);
			dot[r] = _mm256_fmadd_ps(dot_codes(kv_avx2_nibbles(w + codes), q1), _mm256_broadcastss_ps(_mm_movehl_ps(worth, worth)), dot[r]);
		}
	}
	for (size_t r = 0; r < 2; r++) {
		struct sums s = { dot[r], _mm_cvtss_f32(_mm_movehdup_ps(_mm_add_ps(min[r], _mm_movehl_ps(min[r], min[r])))) };

		if (codes == 2)
			s.min *= -8;
		if (b < n) {
			const uint8_t *w = p[r] + b * size;
			float d = kv_avx2_half(w);

			add_block(&s, dot_codes(kv_avx2_nibbles(w + codes), bytes_at(x->q + b * KV_AVX2_BLOCK)), d, codes == 2 ? -8 * d : kv_avx2_half(w + 2),
				x->ds + 2 * b);
		}
		out[r] = kv_avx2_sum(s.dot) + s.min;
	}
}

static void
product_q4_0(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product_nibbles(p, n, x, 18, 2, out);
}

static void
product_q4_1(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product_nibbles(p, n, x, 20, 4, out);
}

static void
product_q8_0(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	struct sums s[2] = { { _mm256_setzero_ps(), 0 }, { _mm256_setzero_ps(), 0 } };

	for (size_t b = 0; b < n; b++) {
		__m256i q = bytes_at(x->q + b * KV_AVX2_BLOCK);

		for (size_t r = 0; r < 2; r++) {
			const uint8_t *w = p[r] + b * 34;

			_mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
			add_block(&s[r], dot_signed(bytes_at(w + 2), q), kv_avx2_half(w), 0, x->ds + 2 * b);
		}
	}
	finish(s, out);
}

/* Eight blocks of 32 under six-bit scales and minima. */
static void
product_q4_k(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	struct sums s[2] = { { _mm256_setzero_ps(), 0 }, { _mm256_setzero_ps(), 0 } };
	const __m256i low = _mm256_set1_epi8(15);

	for (size_t b = 0; b < n; b += 8)
		for (size_t r = 0; r < 2; r++) {
			const uint8_t *w = p[r] + b / 8 * 144;
			float d = kv_avx2_half(w), dmin = kv_avx2_half(w + 2);

			for (size_t g = 0; g < 8; g++) {
				__m256i codes = bytes_at(w + 16 + g / 2 * 32);
				int scale, min;

				kv_scale_min(w + 4, (int)g, &scale, &min);
				codes = _mm256_and_si256(g % 2 ? _mm256_srli_epi16(codes, 4) : codes, low);
				add_block(&s[r], dot_codes(codes, bytes_at(x->q + (b + g) * KV_AVX2_BLOCK)), d * (float)scale, -dmin * (float)min, x->ds + 2 * (b + g));
			}
			_mm_prefetch((const char *)w + AHEAD, _MM_HINT_T0);
			_mm_prefetch((const char *)w + AHEAD + 64, _MM_HINT_T0);
		}
	finish(s, out);
}

/* Sixteen codes share a scale of eight bits: it goes into the products of sixteen bits (2 * 32 * 127 * 128 * 2 fits thirty-two). */
static void
product_q6_k(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	struct sums s[2] = { { _mm256_setzero_ps(), 0 }, { _mm256_setzero_ps(), 0 } };

	for (size_t b = 0; b < n; b += 8)
		for (size_t r = 0; r < 2; r++) {
			const uint8_t *w = p[r] + b / 8 * 210;
			float d = kv_avx2_half(w + 208);

			for (size_t g = 0; g < 8; g++) {
				__m256i codes = kv_avx2_codes_q6_k(w, g), q = bytes_at(x->q + (b + g) * KV_AVX2_BLOCK);
				__m256i two = _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(q, codes));
				__m256i scale = _mm256_set_m128i(_mm_set1_epi16((int8_t)w[192 + 2 * g + 1]), _mm_set1_epi16((int8_t)w[192 + 2 * g]));

				add_block(&s[r], _mm256_cvtepi32_ps(_mm256_madd_epi16(two, scale)), d, 0, x->ds + 2 * (b + g));
			}
			for (size_t line = 0; line < 4; line++)
				_mm_prefetch((const char *)w + AHEAD + 64 * line, _MM_HINT_T0);
		}
	finish(s, out);
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
product_floats(const uint8_t *const p[2], size_t n, const float *x, eight *load, size_t size, float *out)
{
	__m256 sum[2][4];

	for (size_t k = 0; k < 4; k++)
		sum[0][k] = sum[1][k] = _mm256_setzero_ps();
	for (size_t b = 0; b < n; b++)
		for (size_t k = 0; k < 4; k++) {
			size_t i = b * KV_AVX2_BLOCK + 8 * k;
			__m256 v = _mm256_loadu_ps(x + i);

			for (size_t r = 0; r < 2; r++) {
				_mm_prefetch((const char *)p[r] + size * i + AHEAD, _MM_HINT_T0);
				sum[r][k] = _mm256_fmadd_ps(load(p[r], i), v, sum[r][k]);
			}
		}
	for (size_t r = 0; r < 2; r++)
		out[r] = kv_avx2_sum(_mm256_add_ps(_mm256_add_ps(sum[r][0], sum[r][1]), _mm256_add_ps(sum[r][2], sum[r][3])));
}

static void
product_f32(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product_floats(p, n, x->x, eight_f32, 4, out);
}

static void
product_f16(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product_floats(p, n, x->x, eight_f16, 2, out);
}

static void
product_bf16(const uint8_t *const p[2], size_t n, const struct kv_few_token *x, float *out)
{
	product_floats(p, n, x->x, eight_bf16, 2, out);
}

kv_few_product *
kv_avx2_few(uint32_t type)
{
	switch (type) {
	case KV_W_F32: return product_f32;
	case KV_W_F16: return product_f16;
	case KV_W_BF16: return product_bf16;
	case KV_W_Q4_0: return product_q4_0;
	case KV_W_Q4_1: return product_q4_1;
	case KV_W_Q8_0: return product_q8_0;
	case KV_W_Q4_K: return product_q4_k;
	case KV_W_Q6_K: return product_q6_k;
	default: return NULL;
	}
}

struct few {
	const struct kv_weight *w;
	struct kv_few_token token[KV_AVX2_GROUP];
	size_t m;
	float *y;			/* [m][n_out] */
	bool add;
	kv_few_product *product;
};

static void
few_rows(void *arg, size_t item, unsigned thread)
{
	const struct few *f = arg;
	const struct kv_weight *w = f->w;
	size_t first = item * FEW_ROWS, end = first + FEW_ROWS < w->n_out ? first + FEW_ROWS : w->n_out;

	(void)thread;
	for (size_t r = first; r < end; r += 2) {
		size_t rows = end - r < 2 ? 1 : 2;
		const uint8_t *p[2] = { w->data + r * w->row_bytes, w->data + (r + rows - 1) * w->row_bytes };

		for (size_t t = 0; t < f->m; t++) {
			float out[2], *y = f->y + t * w->n_out + r;

			f->product(p, w->n_in / KV_AVX2_BLOCK, &f->token[t], out);
			for (size_t k = 0; k < rows; k++)
				y[k] = f->add ? y[k] + out[k] : out[k];
		}
	}
}

bool
kv_avx2_multiply_few(struct kv_pool *pool, kv_few_product *product, const struct kv_weight *w, const struct kv_avx2_act *a,
	const float *x, size_t m, float *y, bool add)
{
	struct few f = { .w = w, .m = m, .y = y, .add = add, .product = product };
	size_t n = w->n_in / KV_AVX2_BLOCK;
	int8_t *q = kv_block_new(m * n, KV_AVX2_BLOCK + 2 * sizeof *f.token->ds);
	float *ds;

	if (!q)
		return false;
	ds = (float *)(void *)(q + m * n * KV_AVX2_BLOCK);
	for (size_t t = 0; t < m; t++) {
		f.token[t] = (struct kv_few_token){ q + t * n * KV_AVX2_BLOCK, ds + t * n * 2, x + t * w->n_in };
		for (size_t b = 0; a && b < n; b++) {
			memcpy(f.token[t].q + b * KV_AVX2_BLOCK, a[b].q[t], KV_AVX2_BLOCK);
			f.token[t].ds[2 * b] = a[b].d[t];
			f.token[t].ds[2 * b + 1] = a[b].s[t];
		}
	}
	kv_pool_run(pool, (w->n_out + FEW_ROWS - 1) / FEW_ROWS, few_rows, &f);
	kv_block_free(q);
	return true;
}
#endif
