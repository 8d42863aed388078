/* Text on its way out, and how what comes from a snapshot is made harmless in it. */
#include "view/view.h"

#include <string.h>

#include "util/utf8.h"

enum { MUCH = 1 << 16 };

enum kv_status
kv_print_flush(struct kv_print *p, bool all, struct kv_err *err)
{
	enum kv_status rc;

	if (p->buf.failed)
		return kv_fail_mem(err, "text to print");
	if (!p->out || !p->buf.len || (!all && p->buf.len < MUCH))
		return KV_OK;
	rc = kv_out_write(p->out, p->buf.p, p->buf.len, err);
	p->buf.len = 0;
	return rc == KV_OK && all ? kv_out_flush(p->out, err) : rc;
}

void
kv_print_uint(struct kv_print *p, uint64_t v)
{
	char digit[20];
	size_t n = sizeof digit;

	do
		digit[--n] = (char)('0' + v % 10);
	while (v /= 10);
	kv_buf_add(&p->buf, digit + n, sizeof digit - n);
}

static bool
is_control(const uint8_t *c, size_t len)
{
	return c[0] < 0x20 || c[0] == 0x7f || (len == 2 && c[0] == 0xc2 && c[1] < 0xa0);
}

void
kv_print_field(struct kv_print *p, const void *text, size_t n)
{
	static const char plain[] = "\t\n\r\\", letter[] = "tnr\\";
	const uint8_t *s = text;
	const char *at;
	size_t i = 0;

	while (i < n) {
		size_t len = kv_utf8_len(s + i, n - i);

		if (s[i] && (at = strchr(plain, s[i])))
			kv_buf_printf(&p->buf, "\\%c", letter[at - plain]);
		else if (!len || is_control(s + i, len))
			kv_buf_printf(&p->buf, "\\x%02x", s[i]);
		else {
			kv_buf_add(&p->buf, s + i, len);
			i += len;
			continue;
		}
		i++;
	}
}

void
kv_print_word(struct kv_buf *out, const char *word, size_t n)
{
	static const char bare[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%^";
	size_t i = 0;

	while (i < n && word[i] && strchr(bare, word[i]))
		i++;
	if (n && i == n) {
		kv_buf_add(out, word, n);
		return;
	}
	kv_buf_add(out, "'", 1);
	for (i = 0; i < n; i++)
		if (word[i] == '\'')
			kv_buf_add(out, "'\\''", 4);
		else
			kv_buf_add(out, word + i, 1);
	kv_buf_add(out, "'", 1);
}
