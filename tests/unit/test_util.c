/* lib/util: numbers, halves, buffers, UTF-8, the pool. */
#define _GNU_SOURCE	/* sbrk */
#include "tap.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/half.h"
#include "util/mem.h"
#include "util/pool.h"
#include "util/text.h"
#include "util/utf8.h"

static void
test_half(void)
{
	int bad = 0;

	for (uint32_t h = 0; h < 0x10000; h++) {
		float f = f16_to_f32((uint16_t)h);
		bad += !isnan(f) && f32_to_f16(f) != h;
		f = bf16_to_f32((uint16_t)h);
		bad += !isnan(f) && f32_to_bf16(f) != h;
	}
	is_int(bad, 0, "every half survives the way to f32 and back");
	is_int(f32_to_f16(1.0f + 0x1p-11f), 0x3c00, "f16: a tie goes to even, down");
	is_int(f32_to_f16(1.0f + 0x3p-11f), 0x3c02, "f16: a tie goes to even, up");
	is_int(f32_to_f16(65519.0f), 0x7bff, "f16: the largest that stays finite");
	is_int(f32_to_f16(65520.0f), 0x7c00, "f16: infinity begins");
	is_int(f32_to_f16(0x1p-25f), 0, "f16: half of the smallest subnormal goes to zero");
	is_int(f32_to_f16(0x1.8p-25f), 1, "f16: three quarters of it do not");
	is_int(f32_to_f16(-0.0f), 0x8000, "f16: minus zero");
	is_int(f32_to_bf16(1.00390625f), 0x3f80, "bf16: a tie goes to even, down");
	is_int(f32_to_bf16(1.01171875f), 0x3f82, "bf16: a tie goes to even, up");
	is_int(f32_to_bf16(3.4e38f), 0x7f80, "bf16: rounds to infinity");
	is_int(f32_to_bf16(-0.1f), 0xbdcd, "bf16: -0.1");
}

static void
test_amounts(void)
{
	struct kv_amount a;
	struct kv_err err;
	static const char *const bad[] = { "0", "x", "", "-1", "5x", "0%", "101%", "1.5", "%", "1e3", " 5", "0x10", "12345678901234567890" };

	ok(kv_parse_amount("-k", "512", &a, &err) == KV_OK && kv_amount_of(a, 9999) == 512, "a count");
	ok(kv_parse_amount("-k", "25%", &a, &err) == KV_OK && kv_amount_of(a, 1001) == 250, "a share is rounded down");
	ok(kv_parse_amount("-k", "12.5%", &a, &err) == KV_OK && kv_amount_of(a, 16) == 2, "a share with a point");
	ok(kv_parse_amount("-k", "10%", &a, &err) == KV_OK && kv_amount_of(a, 10) == 1, "10%% of 10 is 1, not 0");
	ok(kv_parse_amount("-k", "1%", &a, &err) == KV_OK && kv_amount_of(a, 5) == 1, "a share is at least 1");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		ok(kv_parse_amount("-k", bad[i], &a, &err) == KV_EUSAGE, "'%s' is refused", bad[i]);
}

static void
test_numbers(void)
{
	struct kv_err err;
	uint64_t u;
	int64_t v;

	ok(kv_parse_int("-n", "-1", -1, 10, &v, &err) == KV_OK && v == -1, "an integer");
	ok(kv_parse_int("-n", "11", -1, 10, &v, &err) == KV_EUSAGE, "out of range");
	ok(kv_parse_int("-n", "99999999999999999999", -1, INT64_MAX, &v, &err) == KV_EUSAGE, "beyond 64 bits");
	ok(kv_parse_int("-n", "5 ", 0, 10, &v, &err) == KV_EUSAGE, "the whole string");
	ok(kv_parse_size("--mem-limit", "64M", &u, &err) == KV_OK && u == 64 << 20, "64M");
	ok(kv_parse_size("--mem-limit", "99999999999G", &u, &err) == KV_EUSAGE, "a size beyond 64 bits");
	ok(kv_parse_size("--mem-limit", "1T", &u, &err) == KV_EUSAGE, "an unknown unit");
}

static void
test_quote(void)
{
	char q[40], small[16];

	is_str(kv_quote(q, sizeof q, "a\x1b[1m\n", 6), "a\\x1b[1m\\x0a", "escapes");
	is_str(kv_quote(q, sizeof q, "caf\xc3\xa9 \xff", 7), "café \\xff", "UTF-8 stays, the rest does not");
	is_str(kv_quote(q, sizeof q, "\xc2\x9b", 2), "\\xc2\\x9b", "C1 controls");
	ok(strlen(kv_quote(small, sizeof small, "abcdefghijklmnopqrstuvwxyz", 26)) < sizeof small, "long text is cut");
}

static void
test_utf8(void)
{
	ok(kv_utf8_len((const uint8_t *)"\xf0\x9f\x98\x80", 4) == 4, "four bytes");
	ok(!kv_utf8_len((const uint8_t *)"\xc0\x80", 2), "overlong");
	ok(!kv_utf8_len((const uint8_t *)"\xed\xa0\x80", 3), "a surrogate");
	ok(!kv_utf8_len((const uint8_t *)"\xf4\x90\x80\x80", 4), "beyond U+10FFFF");
	is_int(kv_utf8_partial((const uint8_t *)"a\xf0\x9f\x98", 4), 3, "three of four bytes wait");
	is_int(kv_utf8_partial((const uint8_t *)"a\xc3\xa9", 3), 0, "a whole one does not");
	is_int(kv_utf8_partial((const uint8_t *)"\x80\x80", 2), 0, "nor do stray continuations");
	is_int(kv_utf8_partial((const uint8_t *)"\xed\xa0", 2), 0, "nor what can never be completed");
}

static void
test_blocks(void)
{
	void *a;
	int unaligned = 0;

	kv_mem_limit_set(1 << 20);
	ok((a = kv_block_new(1 << 19, 1)) != NULL, "half the limit");
	ok(!kv_block_new(1 << 19, 1), "the other half and its header do not fit");
	ok(!kv_block_new(SIZE_MAX / 2, 4), "a product that overflows");
	kv_block_free(a);
	ok((a = kv_block_new(1 << 19, 1)) != NULL, "again after it was freed");
	kv_block_free(a);
	kv_mem_limit_set(0);
	for (size_t n = 0; n < 200; n += 7) {
		if (!(a = kv_block_new(n, 1)))
			exit(1);
		unaligned += (uintptr_t)a % 64 != 0;
		memset(a, 1, n);
		kv_block_free(a);
	}
	is_int(unaligned, 0, "blocks of any size are aligned");
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
/* Of many blocks of one size every second one is freed: as many more fit in between. */
static void
test_blocks_again(void)
{
	enum { N = 64, SIZE = 1 << 20 };
	void *a[N], *b[N / 2], *end;

	kv_mem_start();
	for (int i = 0; i < N; i++)
		a[i] = kv_block_new(SIZE, 1);
	end = sbrk(0);
	for (int i = 0; i < N; i += 2)
		kv_block_free(a[i]);
	for (int i = 0; i < N / 2; i++)
		b[i] = kv_block_new(SIZE, 1);
	ok((char *)sbrk(0) - (char *)end < N / 4 * SIZE, "freed blocks are used again for others of their size");
	for (int i = 0; i < N / 2; i++) {
		kv_block_free(b[i]);
		kv_block_free(a[2 * i + 1]);
	}
}
#else
static void
test_blocks_again(void)
{
}
#endif

static void
count(void *arg, size_t item, unsigned thread)
{
	atomic_uchar *hits = arg;

	(void)thread;
	atomic_fetch_add(&hits[item], 1);
}

static void
test_pool(void)
{
	enum { N = 1000, ROUNDS = 50 };
	static atomic_uchar hits[N];

	for (unsigned threads = 1; threads <= 4; threads++) {
		struct kv_pool *p = kv_pool_new(threads);
		int wrong = 0;

		for (int r = 0; r < ROUNDS; r++)
			kv_pool_run(p, N, count, hits);
		for (size_t i = 0; i < N; i++)
			wrong += atomic_exchange(&hits[i], 0) != ROUNDS;
		is_int(wrong, 0, "%u threads: every item once in every round", kv_pool_threads(p));
		kv_pool_free(p);
	}
	kv_pool_run(NULL, N, count, hits);
	ok(hits[N - 1] == 1, "no pool works too");
}

int
main(void)
{
	test_half();
	test_amounts();
	test_numbers();
	test_quote();
	test_utf8();
	test_blocks();
	test_blocks_again();
	test_pool();
	return done_testing();
}
