/* The forward pass in double precision, one loop after the other. */
#include "naive.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/quant.h"
#include "kvs/geom.h"
#include "util/half.h"

struct run {
	const struct kv_gguf *g;
	char arch[32];
	struct naive *r;
	const int32_t *pos;
	unsigned dtype;
	const struct naive_gone *gone;
	double eps, scale, softcap, final_softcap, theta, factor, n_ctx_orig;
	size_t window;
	bool neox, qk_norm, yarn;
	double *rope_freqs;	/* [d/2], or NULL */
};

static void *
must(void *p)
{
	if (!p) {
		fputs("naive: out of memory\n", stderr);
		exit(1);
	}
	return p;
}

static double *
zeros(size_t n)
{
	return must(calloc(n ? n : 1, sizeof(double)));
}

static double
number(const struct run *s, const char *name, double otherwise)
{
	char key[96];
	uint64_t u;
	float f;

	snprintf(key, sizeof key, "%s.%s", s->arch, name);
	if (kv_gguf_u64(s->g, key, UINT64_MAX, &u, NULL) == KV_OK)
		return (double)u;
	if (kv_gguf_f32(s->g, key, &f, NULL) == KV_OK)
		return (double)f;
	return otherwise;
}

/* All of a tensor; NULL if the file has none of that name. */
static double *
tensor(const struct run *s, const char *name)
{
	const struct kv_tensor *t = kv_gguf_tensor(s->g, name);
	size_t n;
	float *f;
	double *x;

	if (!t)
		return NULL;
	n = (size_t)(t->dim[0] * t->dim[1]);
	f = must(malloc(n * sizeof *f));
	x = zeros(n);
	kv_dequant(t->type, t->data, n, f);
	for (size_t i = 0; i < n; i++)
		x[i] = (double)f[i];
	free(f);
	return x;
}

static double *
layer_tensor(const struct run *s, size_t layer, const char *name)
{
	char full[64];

	snprintf(full, sizeof full, "blk.%zu.%s", layer, name);
	return tensor(s, full);
}

/* y = W x + b */
static void
linear(const double *w, const double *b, const double *x, size_t n_in, size_t n_out, double *y)
{
	for (size_t o = 0; o < n_out; o++) {
		y[o] = b ? b[o] : 0;
		for (size_t i = 0; i < n_in; i++)
			y[o] += w[o * n_in + i] * x[i];
	}
}

static void
rms(const struct run *s, const double *x, const double *w, size_t n, double *y)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += x[i] * x[i];
	for (size_t i = 0; i < n; i++)
		y[i] = x[i] / sqrt(sum / (double)n + s->eps) * w[i];
}

/* YaRN: how far the frequency of pair i is left alone. */
static double
yarn_ramp(const struct run *s, size_t i)
{
	double d = (double)s->r->d, pi = acos(-1);
	double low = floor(d * log(s->n_ctx_orig / (32 * 2 * pi)) / (2 * log(s->theta)));
	double high = ceil(d * log(s->n_ctx_orig / (1 * 2 * pi)) / (2 * log(s->theta)));
	double y;

	low = low < 0 ? 0 : low;
	high = high > d - 1 ? d - 1 : high;
	y = ((double)i - low) / (high - low > 0.001 ? high - low : 0.001);
	return 1 - (y < 0 ? 0 : y > 1 ? 1 : y);
}

static void
rope(const struct run *s, double *x, int32_t pos)
{
	size_t d = s->r->d;

	for (size_t i = 0; i < d / 2; i++) {
		size_t a = s->neox ? i : 2 * i, b = s->neox ? i + d / 2 : 2 * i + 1;
		double raw = pos * pow(s->theta, -2.0 * (double)i / (double)d) / (s->rope_freqs ? s->rope_freqs[i] : 1);
		double angle = raw / s->factor, m = 1, xa = x[a], xb = x[b];

		if (s->yarn) {
			angle = angle * (1 - yarn_ramp(s, i)) + raw * yarn_ramp(s, i);
			m = 1 + 0.1 * log(s->factor);
		}
		x[a] = m * (xa * cos(angle) - xb * sin(angle));
		x[b] = m * (xa * sin(angle) + xb * cos(angle));
	}
}

static double
stored(unsigned dtype, double x)
{
	float f = (float)x;

	return dtype == KVS_F16 ? (double)f16_to_f32(f32_to_f16(f)) : dtype == KVS_BF16 ? (double)bf16_to_f32(f32_to_bf16(f)) : (double)f;
}

static bool
visible(const struct run *s, size_t layer, size_t head, size_t i, size_t j)
{
	const struct naive *r = s->r;

	if (j > i || (s->window && (size_t)(s->pos[i] - s->pos[j]) >= s->window))
		return false;
	return !s->gone || i < s->gone->from || !s->gone->gone[(layer * r->kv_heads + head) * r->n + j];
}

/* o [heads][d] of token i */
static void
attend(const struct run *s, size_t layer, size_t i, double *o)
{
	const struct naive *r = s->r;
	size_t d = r->d, group = r->heads / r->kv_heads;
	double *q = zeros(d), *k = zeros(d), *p = zeros(r->n);

	for (size_t h = 0; h < r->heads; h++) {
		double sum = 0, top = -INFINITY;

		memcpy(q, r->q + ((layer * r->n + i) * r->heads + h) * d, d * sizeof *q);
		rope(s, q, s->pos[i]);
		for (size_t j = 0; j < r->n; j++) {
			if (!visible(s, layer, h / group, i, j))
				continue;
			memcpy(k, r->k + ((layer * r->n + j) * r->kv_heads + h / group) * d, d * sizeof *k);
			rope(s, k, s->pos[j]);
			p[j] = 0;
			for (size_t c = 0; c < d; c++)
				p[j] += q[c] * k[c];
			p[j] *= s->scale;
			if (s->softcap > 0)
				p[j] = s->softcap * tanh(p[j] / s->softcap);
			top = p[j] > top ? p[j] : top;
		}
		for (size_t j = 0; j < r->n; j++) {
			p[j] = visible(s, layer, h / group, i, j) ? exp(p[j] - top) : 0;
			sum += p[j];
		}
		for (size_t c = 0; c < d; c++) {
			o[h * d + c] = 0;
			for (size_t j = 0; j < r->n; j++)
				o[h * d + c] += p[j] / sum * r->v[((layer * r->n + j) * r->kv_heads + h / group) * d + c];
		}
	}
	free(q);
	free(k);
	free(p);
}

static void
attention(const struct run *s, size_t layer, double *x)
{
	const struct naive *r = s->r;
	size_t e = r->n_embd, q = r->heads * r->d, kv = r->kv_heads * r->d;
	double *norm = layer_tensor(s, layer, "attn_norm.weight");
	double *all = layer_tensor(s, layer, "attn_qkv.weight"), *all_b = layer_tensor(s, layer, "attn_qkv.bias");
	double *wq = layer_tensor(s, layer, "attn_q.weight"), *bq = layer_tensor(s, layer, "attn_q.bias");
	double *wk = layer_tensor(s, layer, "attn_k.weight"), *bk = layer_tensor(s, layer, "attn_k.bias");
	double *wv = layer_tensor(s, layer, "attn_v.weight"), *bv = layer_tensor(s, layer, "attn_v.bias");
	double *nq = layer_tensor(s, layer, "attn_q_norm.weight"), *nk = layer_tensor(s, layer, "attn_k_norm.weight");
	double *wo = layer_tensor(s, layer, "attn_output.weight"), *bo = layer_tensor(s, layer, "attn_output.bias");
	double *h = zeros(e), *o = zeros(q), *y = zeros(e);

	for (size_t i = 0; i < r->n; i++) {
		size_t row = layer * r->n + i;
		double *qi = r->q + row * q, *ki = r->k + row * kv, *vi = r->v + row * kv;

		rms(s, x + i * e, norm, e, h);
		linear(all ? all : wq, all_b ? all_b : bq, h, e, q, qi);
		linear(all ? all + q * e : wk, all_b ? all_b + q : bk, h, e, kv, ki);
		linear(all ? all + (q + kv) * e : wv, all_b ? all_b + q + kv : bv, h, e, kv, vi);
		for (size_t head = 0; nq && s->qk_norm && head < r->heads; head++)
			rms(s, qi + head * r->d, nq, r->d, qi + head * r->d);
		for (size_t head = 0; nk && s->qk_norm && head < r->kv_heads; head++)
			rms(s, ki + head * r->d, nk, r->d, ki + head * r->d);
		for (size_t c = 0; c < kv; c++) {
			ki[c] = stored(s->dtype, ki[c]);
			vi[c] = stored(s->dtype, vi[c]);
		}
	}
	for (size_t i = 0; i < r->n; i++) {
		attend(s, layer, i, o);
		linear(wo, bo, o, q, e, y);
		for (size_t c = 0; c < e; c++)
			x[i * e + c] += y[c];
	}
	double *used[] = { norm, all, all_b, wq, wk, wv, bq, bk, bv, nq, nk, wo, bo, h, o, y };
	for (size_t k = 0; k < sizeof used / sizeof *used; k++)
		free(used[k]);
}

static void
feed_forward(const struct run *s, size_t layer, double *x)
{
	const struct naive *r = s->r;
	size_t e = r->n_embd, f = r->n_ff;
	double *norm = layer_tensor(s, layer, "ffn_norm.weight");
	double *wg = layer_tensor(s, layer, "ffn_gate.weight"), *bg = layer_tensor(s, layer, "ffn_gate.bias");
	double *wu = layer_tensor(s, layer, "ffn_up.weight"), *bu = layer_tensor(s, layer, "ffn_up.bias");
	double *wd = layer_tensor(s, layer, "ffn_down.weight"), *bd = layer_tensor(s, layer, "ffn_down.bias");
	double *h = zeros(e), *g = zeros(f), *u = zeros(f), *y = zeros(e);

	for (size_t i = 0; i < r->n; i++) {
		rms(s, x + i * e, norm, e, h);
		linear(wg, bg, h, e, f, g);
		linear(wu, bu, h, e, f, u);
		for (size_t c = 0; c < f; c++)
			g[c] = g[c] / (1 + exp(-g[c])) * u[c];
		linear(wd, bd, g, f, e, y);
		for (size_t c = 0; c < e; c++)
			x[i * e + c] += y[c];
	}
	double *used[] = { norm, wg, wu, wd, bg, bu, bd, h, g, u, y };
	for (size_t k = 0; k < sizeof used / sizeof *used; k++)
		free(used[k]);
}

static void
read_numbers(struct run *s)
{
	struct naive *r = s->r;
	struct kv_str arch = { "", 0 }, scaling = { "", 0 };
	char key[64];

	kv_gguf_str(s->g, "general.architecture", &arch, NULL);
	snprintf(s->arch, sizeof s->arch, "%.*s", (int)arch.n, arch.p);
	r->layers = (size_t)number(s, "block_count", 0);
	r->heads = (size_t)number(s, "attention.head_count", 0);
	r->kv_heads = (size_t)number(s, "attention.head_count_kv", (double)r->heads);
	r->n_embd = (size_t)number(s, "embedding_length", 0);
	r->n_ff = (size_t)number(s, "feed_forward_length", 0);
	r->d = (size_t)number(s, "attention.key_length", (double)(r->n_embd / r->heads));
	r->vocab = (size_t)kv_gguf_tensor(s->g, "token_embd.weight")->dim[1];
	s->eps = number(s, "attention.layer_norm_rms_epsilon", 0);
	s->scale = 1 / sqrt((double)r->d);
	s->softcap = number(s, "attn_logit_softcapping", 0);
	s->final_softcap = number(s, "final_logit_softcapping", 0);
	s->window = (size_t)number(s, "attention.sliding_window", 0);
	s->theta = number(s, "rope.freq_base", 10000);
	s->factor = number(s, "rope.scaling.factor", 1);
	s->n_ctx_orig = number(s, "rope.scaling.original_context_length", 0);
	snprintf(key, sizeof key, "%s.rope.scaling.type", s->arch);
	kv_gguf_str(s->g, key, &scaling, NULL);
	s->yarn = scaling.n == 4 && !memcmp(scaling.p, "yarn", 4);
	s->neox = strcmp(s->arch, "llama") != 0;
	s->qk_norm = !strcmp(s->arch, "qwen3");
	s->rope_freqs = tensor(s, "rope_freqs.weight");
}

void
naive_run(const struct kv_gguf *g, const uint32_t *ids, size_t n, const int32_t *pos, unsigned dtype, const struct naive_gone *gone,
	struct naive *r)
{
	struct run s = { .g = g, .r = r, .dtype = dtype, .gone = gone };
	int32_t *count = must(calloc(n, sizeof *count));
	double *embd, *output, *norm, *x;

	*r = (struct naive){ .n = n };
	read_numbers(&s);
	for (size_t i = 0; i < n; i++)
		count[i] = (int32_t)i;
	s.pos = pos ? pos : count;
	embd = tensor(&s, "token_embd.weight");
	output = tensor(&s, "output.weight");
	norm = tensor(&s, "output_norm.weight");
	x = zeros(n * r->n_embd);
	r->logits = zeros(n * r->vocab);
	r->hidden = zeros(n * r->n_embd);
	r->q = zeros(r->layers * n * r->heads * r->d);
	r->k = zeros(r->layers * n * r->kv_heads * r->d);
	r->v = zeros(r->layers * n * r->kv_heads * r->d);
	for (size_t i = 0; i < n; i++)
		memcpy(x + i * r->n_embd, embd + ids[i] * r->n_embd, r->n_embd * sizeof *x);
	for (size_t l = 0; l < r->layers; l++) {
		attention(&s, l, x);
		feed_forward(&s, l, x);
	}
	for (size_t i = 0; i < n; i++) {
		rms(&s, x + i * r->n_embd, norm, r->n_embd, r->hidden + i * r->n_embd);
		linear(output ? output : embd, NULL, r->hidden + i * r->n_embd, r->n_embd, r->vocab, r->logits + i * r->vocab);
	}
	for (size_t i = 0; s.final_softcap > 0 && i < n * r->vocab; i++)
		r->logits[i] = s.final_softcap * tanh(r->logits[i] / s.final_softcap);
	free(count);
	free(embd);
	free(output);
	free(norm);
	free(x);
	free(s.rope_freqs);
}

void
naive_free(struct naive *r)
{
	free(r->logits);
	free(r->hidden);
	free(r->q);
	free(r->k);
	free(r->v);
	*r = (struct naive){ 0 };
}
