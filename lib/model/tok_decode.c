/* Ids to text. */
#include <string.h>

#include "model/tok_int.h"
#include "util/utf8.h"

/* Character by character back to the bytes they stand for. */
static void
add_bpe(const struct kv_tokenizer *t, struct kv_str s, struct kv_buf *out)
{
	for (size_t i = 0, len; i < s.n; i += len) {
		const uint8_t *p = (const uint8_t *)s.p + i;
		unsigned c;
		uint8_t byte;

		if (!(len = kv_utf8_len(p, s.n - i)))
			len = 1;
		c = len == 1 ? p[0] : len == 2 ? (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu) : 0x180;
		if (c < 0x180 && t->char_byte[c] >= 0) {
			byte = (uint8_t)t->char_byte[c];
			kv_buf_add(out, &byte, 1);
		} else {
			kv_buf_add(out, p, len);
		}
	}
}

static void
add_spm(struct kv_str s, struct kv_buf *out)
{
	for (size_t i = 0; i < s.n;) {
		bool mark = s.n - i >= 3 && !memcmp(s.p + i, "\xe2\x96\x81", 3);

		kv_buf_add(out, mark ? " " : s.p + i, 1);
		i += mark ? 3 : 1;
	}
}

static unsigned
digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

void
kv_token_bytes(const struct kv_tokenizer *t, uint32_t id, bool special, struct kv_buf *out)
{
	struct kv_str s;
	uint8_t byte;

	if (id >= t->n)
		return;
	s = t->text[id];
	switch (t->type[id]) {
	case KV_TOK_UNKNOWN:
	case KV_TOK_CONTROL:
	case KV_TOK_UNUSED:
		if (special)
			kv_buf_add(out, s.p, s.n);
		break;
	case KV_TOK_USER:
		kv_buf_add(out, s.p, s.n);
		break;
	case KV_TOK_BYTE:
		if (t->spm) {	/* "<0xNN>", seen to when it was read */
			byte = (uint8_t)(digit(s.p[3]) << 4 | digit(s.p[4]));
			kv_buf_add(out, &byte, 1);
			break;
		}
		/* fall through */
	default:
		if (t->spm)
			add_spm(s, out);
		else
			add_bpe(t, s, out);
	}
}

void
kv_detok_add(const struct kv_tokenizer *t, struct kv_detok *d, uint32_t id, bool special, struct kv_buf *out)
{
	size_t from = out->len, hold;

	kv_buf_add(out, d->held, d->n);
	kv_token_bytes(t, id, special, out);
	if (out->failed)
		return;
	/* The space that was put in front of the text when it was cut up. */
	if (d->begins && !d->started && t->space_prefix && out->len > from) {
		if (out->p[from] == ' ' && t->type[id] == KV_TOK_NORMAL) {
			memmove(out->p + from, out->p + from + 1, out->len - from - 1);
			out->len--;
		}
	}
	d->started = d->started || id < t->n;
	hold = kv_utf8_partial(out->p + from, out->len - from);
	out->len -= hold;
	memcpy(d->held, out->p + out->len, hold);
	d->n = (unsigned)hold;
}

void
kv_detok_end(struct kv_detok *d, struct kv_buf *out)
{
	kv_buf_add(out, d->held, d->n);
	d->n = 0;
}
