/* Channel masks and the maps that rebuild what they drop. */
#include <stdlib.h>
#include <string.h>

#include "cache/segment_parts.h"
#include "util/half.h"
#include "util/le.h"
#include "util/mem.h"

static size_t
map_bytes(const struct kv_mask *m, unsigned dtype)
{
	return (m->d - m->n_kept) * ((size_t)m->n_kept + 1) * kvs_dtype_size(dtype);
}

enum kv_status
kv_mask_new(const struct kvs_geom *g, unsigned layer, bool values, const uint8_t *bits, struct kv_mask **out, struct kv_err *err)
{
	struct kv_mask *m = kv_array_new(1, sizeof *m);

	if (!m)
		return kv_fail_mem(err, "a mask");
	m->refs = 1;
	m->d = values ? g->d_v : g->d_k;
	m->values = values;
	for (uint32_t j = 0; j < m->d; j++)
		if (bits[j / 8] >> j % 8 & 1) {
			m->bits[j / 8] |= (uint8_t)(1 << j % 8);
			m->n_kept++;
		}
	if (!m->n_kept || m->n_kept == m->d) {
		kv_fail(err, KV_EFIT, "a mask that keeps %u of %u channels", m->n_kept, m->d);
		kv_mask_free(m);
		return KV_EFIT;
	}
	m->pairs = !values && kvs_mask_pairs(g, layer, m->bits);
	if (!(m->channel = kv_array_new(m->n_kept, sizeof *m->channel))) {
		kv_mask_free(m);
		return kv_fail_mem(err, "a mask");
	}
	for (uint32_t j = 0, c = 0; j < m->d; j++)
		if (kv_mask_has(m, j))
			m->channel[c++] = (uint16_t)j;
	*out = m;
	return KV_OK;
}

enum kv_status
kv_mask_set_map(struct kv_mask *m, unsigned dtype, const float *map, struct kv_err *err)
{
	uint32_t dropped = m->d - m->n_kept, kept = m->n_kept;
	size_t size = kvs_dtype_size(dtype);
	uint8_t *p = kv_array_new(map_bytes(m, dtype), 1), *constants;

	if (!p)
		return kv_fail_mem(err, "a mask");
	constants = p + (size_t)dropped * kept * size;
	for (uint32_t i = 0; i < dropped; i++)
		for (uint32_t c = 0; c <= kept; c++) {
			uint8_t *at = c < kept ? p + ((size_t)i * kept + c) * size : constants + i * size;
			float x = map[(size_t)i * (kept + 1) + c];

			if (dtype == KVS_F32)
				lef32_put(at, x);
			else
				le16_put(at, f32_to_f16(x));
		}
	free(m->map);
	m->map = p;
	m->map_dtype = (uint8_t)dtype;
	return KV_OK;
}

enum kv_status
kv_mask_copy(const struct kv_mask *m, struct kv_mask **out, struct kv_err *err)
{
	struct kv_mask *to = kv_array_new(1, sizeof *to);

	if (!to)
		return kv_fail_mem(err, "a mask");
	*to = *m;
	to->refs = 1;
	to->channel = kv_array_new(m->n_kept, sizeof *m->channel);
	to->map = m->map ? kv_array_new(map_bytes(m, m->map_dtype), 1) : NULL;
	if (!to->channel || (m->map && !to->map)) {
		kv_mask_free(to);
		return kv_fail_mem(err, "a mask");
	}
	memcpy(to->channel, m->channel, m->n_kept * sizeof *m->channel);
	if (m->map)
		memcpy(to->map, m->map, map_bytes(m, m->map_dtype));
	*out = to;
	return KV_OK;
}

struct kv_mask *
kv_mask_share(struct kv_mask *m)
{
	if (m)
		m->refs++;
	return m;
}

void
kv_mask_free(struct kv_mask *m)
{
	if (!m || --m->refs)
		return;
	free(m->channel);
	free(m->map);
	free(m);
}

size_t
kv_mask_bytes(const struct kv_mask *m)
{
	return (m->d + 63) / 64 * 8 + (m->map ? map_bytes(m, m->map_dtype) : 0);
}

bool
kv_mask_same(const struct kv_mask *a, const struct kv_mask *b)
{
	if (!a || !b || a == b)
		return a == b;
	return a->d == b->d && a->values == b->values && !memcmp(a->bits, b->bits, sizeof a->bits) && a->map_dtype == b->map_dtype &&
		(!a->map || !memcmp(a->map, b->map, map_bytes(a, a->map_dtype)));
}

bool
kv_mask_within(const struct kv_mask *a, const struct kv_mask *b)
{
	bool within = a || !b;

	for (size_t i = 0; a && b && i < sizeof a->bits; i++)
		within &= !(a->bits[i] & ~b->bits[i]);
	return within;
}

enum kv_status
kv_fail_baked(const struct kvs_geom *g, unsigned layer, unsigned head, const struct kv_mask *m, struct kv_err *err)
{
	const struct kvs_rope *r = &g->rope[g->layer[layer].rope];
	unsigned pairs = r->n_rot / 2, broken = 0;

	for (unsigned i = 0; i < pairs; i++)
		broken += r->kind == KVS_ROPE_NEOX ? kv_mask_has(m, i) != kv_mask_has(m, i + pairs) : kv_mask_has(m, 2 * i) != kv_mask_has(m, 2 * i + 1);
	return kv_fail(err, KV_EFIT, "layer %u head %u: positions are baked in: keys were pruned without rotary partners (%u of %u pairs broken); "
		"run kv-reposition before kv-prune, or prune with --pairs", layer, head, broken, pairs);
}

/* The number at i of a map. */
static float
map_at(const struct kv_mask *m, size_t i)
{
	return m->map_dtype == KVS_F16 ? f16_to_f32(le16_get(m->map + 2 * i)) : lef32_get(m->map + 4 * i);
}

void
kv_mask_widen(const struct kv_mask *m, unsigned dtype, const float *x, float *out)
{
	size_t kept = m->n_kept, constants = (m->d - kept) * kept;

	memset(out, 0, m->d * sizeof *out);
	for (size_t c = 0; c < kept; c++)
		out[m->channel[c]] = x[c];
	for (size_t j = 0, i = 0; m->map && j < m->d; j++) {
		float sum;

		if (kv_mask_has(m, (uint32_t)j))
			continue;
		sum = map_at(m, constants + i);
		for (size_t c = 0; c < kept; c++)
			sum += map_at(m, i * kept + c) * x[c];
		out[j] = dtype == KVS_F16 ? f16_to_f32(f32_to_f16(sum)) : dtype == KVS_BF16 ? bf16_to_f32(f32_to_bf16(sum)) : sum;
		i++;
	}
}
