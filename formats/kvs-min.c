/*
 * kvs-min: reads any sequence of kvs 1.x snapshots from standard input, verifies it and lists its frames.
 *
 *	cc -o kvs-min kvs-min.c -lz -lxxhash		kvs-min < doc.kvs
 *
 * A second reader, written from formats/kvs.md in the order of its sections and sharing no line with the library. Ancillary
 * frames whose type it knows are unpacked and their tags checked, the index and padding as well; what observations and JSON
 * say stays unread. Exit: 0 good, 1 trouble of the machine, 3 corrupt, 4 valid but not known here.
 */
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zlib.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

enum { TROUBLE = 1, CORRUPT = 3, UNKNOWN = 4, ALL = 0xffff, CODES = 16 };

#define T(a, b, c, d) ((u32)(a) | (u32)(b) << 8 | (u32)(c) << 16 | (u32)(d) << 24)
#define GEOM T('G', 'E', 'O', 'M')
#define ROPE T('R', 'O', 'P', 'E')
#define LAYR T('L', 'A', 'Y', 'R')
#define TOKS T('T', 'O', 'K', 'S')
#define HIDN T('H', 'I', 'D', 'N')
#define ENTS T('E', 'N', 'T', 'S')
#define CMSK T('C', 'M', 'S', 'K')
#define CMAP T('C', 'M', 'A', 'P')
#define QUNT T('Q', 'U', 'N', 'T')
#define KEYS T('K', 'E', 'Y', 'S')
#define VALS T('V', 'A', 'L', 'S')
#define INDX T('i', 'N', 'D', 'X')
#define PADD T('p', 'A', 'D', 'D')
#define ENDS T('E', 'N', 'D', 'S')

struct head { u32 type, codec, filter, must, layer, head, chunk; u64 seq, enc_len, raw_len, enc_hash, raw_hash; };
struct side { u32 rows, chunks; int open; u8 last[64]; };	/* keys or values of the list in hand */

static struct {
	u64 at, max_raw, seq, sum_raw, index_at, n_indexed;	/* at: bytes of this snapshot read */
	XXH3_state_t *content, *heads, *index;
	u8 *enc, *raw, *quant;
	u64 quant_len, enc_cap, raw_cap;
	u32 layers, heads_q, heads_kv, d_k, d_v, n_embd, n_vocab, n_rope, ids, next_pos;	/* GEOM */
	u64 consumed, hist_first, toks_end;
	u32 rope_kind[16], n_rot[16], ropes, toks, toks_short, rank, covered, list, masks, quant_waits;
	u8 layer_rope[1024], (*mask)[4], (*tags)[12];
	u32 *sparse, n_sparse, *entries;
	u64 n_tags;
	struct side side[2];
} s;

static void
die(int code, const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "kvs-min: frame %llu: ", (unsigned long long)s.seq);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(code);
}

static void must(int good, const char *rule) { if (!good) die(CORRUPT, "%s", rule); }
static void known(int good, const char *what) { if (!good) die(UNKNOWN, "%s is not known to this reader", what); }

static void *
grown(void *p, u64 n)
{
	if (!(p = realloc(p, n ? n : 1)))
		die(TROUBLE, "out of memory");
	return p;
}

/* ---- 2. Numbers ---- */

static u32 g16(const u8 *p) { return p[0] | (u32)p[1] << 8; }
static u32 g32(const u8 *p) { return g16(p) | g16(p + 2) << 16; }
static u64 g64(const u8 *p) { return g32(p) | (u64)g32(p + 4) << 32; }
static float gf(const u8 *p) { u32 u = g32(p); float f; memcpy(&f, &u, 4); return f; }
static int zero(const u8 *p, u64 n) { u8 any = 0; while (n--) any |= *p++; return !any; }

static int
ascending(const u8 *p, u64 n, u64 end)
{
	for (u64 i = 0; i < n; i++)
		if ((i && g32(p + 4 * i - 4) >= g32(p + 4 * i)) || g32(p + 4 * i) >= end)
			return 0;
	return 1;
}

/* Exactly n bytes, the buffer growing as they arrive. */
static void
take(u8 **buf, u64 *cap, u64 n)
{
	for (u64 have = 0, step; have < n; have += step) {
		if (have == *cap)
			*buf = grown(*buf, *cap = *cap ? 2 * *cap : 1 << 16);
		step = (n < *cap ? n : *cap) - have;
		if (fread(*buf + have, 1, step, stdin) != step)
			die(ferror(stdin) ? TROUBLE : CORRUPT, "truncated");
	}
	s.at += n;
}

static void
take_small(u8 *p, u64 n)
{
	if (fread(p, 1, n, stdin) != n)
		die(ferror(stdin) ? TROUBLE : CORRUPT, "truncated");
	s.at += n;
}

/* ---- 3. Prologue ---- 0: the input ends here */

static int
prologue(int first)
{
	u8 p[64];
	size_t got = fread(p, 1, 64, stdin);

	if (!got && !ferror(stdin) && !first)
		return 0;
	must(got >= 8 && !memcmp(p, "\x8bKVS\r\n\x1a\n", 8), "not a kvs snapshot");
	must(got == 64 && XXH3_64bits(p, 56) == g64(p + 56), "hash of the prologue");
	known(g16(p + 8) == 1, "this major version");
	known(zero(p + 12, 4) && zero(p + 24, 32), "a field of the prologue");
	known((s.max_raw = g64(p + 16)) <= (u64)1 << 30, "a max_raw beyond 1 GiB");
	s.at = 64;
	s.seq = s.sum_raw = s.index_at = s.n_indexed = s.n_tags = s.n_sparse = s.quant_waits = 0;
	s.ropes = s.toks = s.toks_short = s.rank = s.covered = s.list = s.masks = 0;
	memset(s.side, 0, sizeof s.side);
	XXH3_128bits_reset(s.content);
	XXH3_64bits_reset(s.heads);
	XXH3_64bits_reset(s.index);
	XXH3_64bits_update(s.heads, p, 64);
	return 1;
}

/* ---- 4. Frame header ---- */

static struct head
header(u8 p[64])
{
	struct head h;

	take_small(p, 64);
	must(XXH3_64bits(p, 56) == g64(p + 56), "hash of the header");
	h = (struct head){ g32(p), p[4], p[5], p[6], g16(p + 48), g16(p + 50), g32(p + 52), g64(p + 8), g64(p + 16), g64(p + 24), g64(p + 32),
		g64(p + 40) };
	for (int i = 0; i < 4; i++)
		must((p[i] | 32) >= 'a' && (p[i] | 32) <= 'z', "a type of letters");
	must(h.seq == s.seq, "sequence number");
	must(h.codec ? h.enc_len < h.raw_len : h.enc_len == h.raw_len && h.enc_hash == h.raw_hash, "length rule");
	must(h.raw_len <= s.max_raw, "raw_len within max_raw");
	known(s.seq < 1 << 24, "a snapshot of so many frames");
	return h;
}

/* Codec, filter and flags. */
static int readable(const struct head *h) { return !h->must && h->codec <= 1 && h->filter <= 2 && (h->codec || !h->filter); }

/* ---- 5. Codec ---- */

static void
decode(const struct head *h)
{
	u64 planes = 1u << h->filter, m = h->raw_len / planes, o = 16 * planes, len;
	u8 *plane;

	if (s.raw_cap < h->raw_len) {
		must(!h->codec || h->raw_len / 1032 <= h->enc_len, "what deflate can do");
		s.raw = grown(s.raw, s.raw_cap = h->raw_len);
	}
	if (!h->codec) {
		memcpy(s.raw, s.enc, h->raw_len);
		return;
	}
	must(h->raw_len % planes == 0 && h->enc_len >= o && h->raw_len / 1032 <= h->enc_len, "room for planes");
	plane = grown(NULL, m);
	for (u64 p = 0; p < planes; p++, o += len) {
		const u8 *e = s.enc + 16 * p;
		z_stream z = { 0 };

		known(e[0] <= 1 && zero(e + 1, 7), "a plane of this kind");
		len = g64(e + 8);
		must(len <= h->enc_len - o && (e[0] ? len < m : len == m), "length of a plane");
		z.next_in = s.enc + o;
		z.avail_in = (uInt)len;
		z.next_out = plane;
		z.avail_out = (uInt)m;
		if (!e[0])
			memcpy(plane, s.enc + o, m);
		else if (inflateInit2(&z, -15) != Z_OK)
			die(TROUBLE, "inflate");
		else
			must(inflate(&z, Z_FINISH) == Z_STREAM_END && !z.avail_in && z.total_out == m, "a whole plane");
		inflateEnd(&z);
		for (u64 i = 0; i < m; i++)
			s.raw[i * planes + p] = plane[i];
	}
	free(plane);
	must(o == h->enc_len, "nothing after the planes");
	must(XXH3_64bits(s.raw, h->raw_len) == h->raw_hash, "hash of the unpacked payload");
}

/* ---- 7. Geometry ---- */

static void
geom(const u8 *p, u64 n)
{
	static const u32 limit[7] = { 1024, 1024, 1024, 1024, 1024, 1 << 20, 1 << 24 };
	size_t arch = strnlen((const char *)p + 112, 32);

	known(n == 256, "a GEOM of another size");
	known(zero(p + 44, 4) && zero(p + 172, 84), "a field of GEOM");
	known(!g32(p + 32) && !g32(p + 36), "this kind of attention or basis");
	for (int i = 0; i < 7; i++) {
		must(g32(p + 4 * i) != 0, "a size of 0");
		known(g32(p + 4 * i) <= limit[i], "a model of this size");
	}
	s.layers = g32(p), s.heads_q = g32(p + 4), s.heads_kv = g32(p + 8), s.d_k = g32(p + 12), s.d_v = g32(p + 16);
	s.n_embd = g32(p + 20), s.n_vocab = g32(p + 24), s.n_rope = g32(p + 40);
	must(s.heads_q % s.heads_kv == 0, "kv heads divide query heads");
	known(s.n_rope <= 16, "so many RoPE sets");
	for (size_t i = 0; i < arch; i++)
		must(p[112 + i] && strchr("abcdefghijklmnopqrstuvwxyz0123456789._-", p[112 + i]), "name of the architecture");
	must(zero(p + 112 + arch, 32 - arch), "end of the architecture");
	must(isfinite(gf(p + 48)) && gf(p + 48) > 0, "attention scale");
	must(isfinite(gf(p + 52)) && gf(p + 52) >= 0 && isfinite(gf(p + 56)) && gf(p + 56) >= 0, "soft caps");
	known(g32(p + 60) <= 1, "a fingerprint of this kind");
	must(g32(p + 60) || zero(p + 64, 48), "no fingerprints without a kind");
	known(g32(p + 168) <= 1, "a flag of GEOM");
	s.consumed = g64(p + 144), s.hist_first = s.toks_end = g64(p + 152), s.next_pos = g32(p + 160), s.ids = g32(p + 168);
	must(s.consumed <= 0xffffffff && s.hist_first <= s.consumed && g32(p + 164) <= s.consumed, "tokens read, history, tail");
	must(s.ids || s.hist_first == s.consumed, "no history without ids");
	must(!(s.next_pos >> 31), "next position");
	s.entries = grown(s.entries, sizeof *s.entries * s.layers * s.heads_kv);
}

static void
rope(const struct head *h, const u8 *p, u64 n)
{
	must(h->chunk == s.ropes && s.ropes < s.n_rope && n >= 64, "RoPE sets in order");
	known((g32(p) == 1 || g32(p) == 2) && g32(p + 12) <= 3, "this RoPE");
	known(zero(p + 40, 24), "a field of ROPE");
	s.rope_kind[s.ropes] = g32(p);
	s.n_rot[s.ropes] = g32(p + 4);
	must(g32(p + 4) >= 2 && g32(p + 4) % 2 == 0 && g32(p + 4) <= s.d_k && n == 64 + 2 * (u64)g32(p + 4), "rotated channels");
	for (u64 i = 8; i < n; i += 4)
		must(i == 12 || i == 20 || isfinite(gf(p + i)), "finite numbers in ROPE");
	s.ropes++;
}

static void
layr(const u8 *p, u64 n)
{
	must(n == 16 * (u64)s.layers, "16 bytes a layer");
	for (u32 l = 0; l < s.layers; l++, p += 16) {
		must(p[0] == 0xff || p[0] < s.n_rope, "a RoPE set that is there");
		known(p[1] >= 1 && p[1] <= 3 && p[2] >= 1 && p[2] <= 3, "an element type");
		known(!p[3] && zero(p + 8, 8), "a field of LAYR");
		s.layer_rope[l] = p[0];
	}
}

/* ---- 8. Tokens and state ---- */

static void
toks(const struct head *h, const u8 *p, u64 n)
{
	u64 dense, sparse;

	must(s.ids && h->chunk == s.toks++ && !s.toks_short && n >= 16, "TOKS in order");
	known(!g32(p + 12), "a field of TOKS");
	dense = g32(p + 4), sparse = g32(p + 8);
	must(n == 16 + 8 * sparse + 4 * dense && dense <= 262144, "length of TOKS");
	must(g32(p) == s.toks_end && s.toks_end + dense <= s.consumed && (!h->chunk || (dense && !sparse)), "ids without a gap");
	must(ascending(p + 16, sparse, s.hist_first), "old tokens in order");
	for (u64 i = sparse; i < 2 * sparse + dense; i++)
		must(g32(p + 16 + 4 * i) < s.n_vocab, "ids within the vocabulary");
	s.toks_end += dense;
	s.toks_short = dense < 262144;
	if (!h->chunk)
		s.sparse = grown(s.sparse, 4 * (s.n_sparse = (u32)sparse));
	for (u64 i = 0; i < sparse; i++)
		s.sparse[i] = g32(p + 16 + 4 * i);
}

static void
hidn(const u8 *p, u64 n)
{
	must(n == 64 + 4 * (u64)s.n_embd && g32(p) == s.n_embd, "a hidden state of n_embd");
	known(zero(p + 4, 4) && zero(p + 16, 48), "a field of HIDN");
	must(s.consumed && g64(p + 8) == s.consumed - 1, "the last token's state");
}

/* ---- 9. Entries ---- */

static int by_u32(const void *a, const void *b) { u32 x = *(const u32 *)a, y = *(const u32 *)b; return (x > y) - (x < y); }

static void
ents(const struct head *h, const u8 *p, u64 n)
{
	u32 first = h->layer == ALL ? 0 : h->layer * s.heads_kv + (h->head == ALL ? 0 : h->head);
	u32 count = h->layer == ALL ? s.layers * s.heads_kv : h->head == ALL ? s.heads_kv : 1;

	must(!h->chunk && (h->layer == ALL ? h->head == ALL : h->layer < s.layers && (h->head == ALL || h->head < s.heads_kv)), "tag of ENTS");
	must(first == s.covered, "every head once, in order");
	must(n % 8 == 0 && ascending(p, n / 8, s.consumed) && ascending(p + n / 2, n / 8, s.next_pos), "entries in order");
	for (u64 i = 0; s.ids && i < n / 8 && g32(p + 4 * i) < s.hist_first; i++) {
		u32 src = g32(p + 4 * i);

		must(s.n_sparse && bsearch(&src, s.sparse, s.n_sparse, 4, by_u32) != NULL, "an id for every living token");
	}
	for (u32 i = 0; i < count; i++)
		s.entries[first + i] = (u32)(n / 8);
	s.covered += count;
}

/* ---- 10. Keys and values ---- */

static void
close_lists(u32 end)
{
	for (; s.list < end; s.list++) {
		must(!s.quant_waits && s.side[0].rows == s.entries[s.list] && s.side[1].rows == s.entries[s.list], "a row for every entry");
		memset(s.side, 0, sizeof s.side);
		s.masks = 0;
	}
}

static int kept(const u8 *bits, u32 j) { return bits[j / 8] >> j % 8 & 1; }

static void
cmsk(const struct head *h, const u8 *p, u64 n)
{
	u32 d, rot, count = 0, set = s.layer_rope[h->layer];
	int whole = 1;

	must(n >= 16 && h->chunk == s.masks + 1 && h->chunk < 65536 && !s.side[0].chunks && !s.side[1].chunks && !s.quant_waits, "masks first");
	known(p[8] <= 3 && zero(p + 9, 7), "a flag of CMSK");
	d = p[8] & 2 ? s.d_v : s.d_k;
	must(g32(p) == d && n == 16 + (d + 63) / 64 * 8, "length of a mask");
	for (u32 j = 0; j < (d + 63) / 64 * 64; j++)
		must(!kept(p + 16, j) || (count++, j < d), "channels that are there");
	must(count && count < d && count == g32(p + 4), "number of channels kept");
	rot = set == 0xff ? 0 : s.n_rot[set];
	for (u32 i = 0; i < rot / 2; i++)
		whole &= s.rope_kind[set] == 1 ? kept(p + 16, 2 * i) == kept(p + 16, 2 * i + 1) : kept(p + 16, i) == kept(p + 16, i + rot / 2);
	must((p[8] & 1) == (p[8] & 2 ? 0 : whole), "rotary pairs");
	s.mask = grown(s.mask, sizeof *s.mask * (s.masks + 1));
	s.mask[s.masks][0] = (u8)count, s.mask[s.masks][1] = (u8)(count >> 8), s.mask[s.masks][2] = p[8];
	s.masks++;
}

static void
cmap(const struct head *h, const u8 *p, u64 n)
{
	u8 *m = s.masks ? s.mask[s.masks - 1] : NULL;
	u64 numbers;

	must(n >= 16 && m && h->chunk == s.masks && !(m[2] & 4) && !s.side[0].chunks && !s.side[1].chunks, "a map behind its mask");
	known((p[8] == 1 || p[8] == 2) && zero(p + 9, 7), "type of a map");
	must(m[2] & 1 && g32(p + 4) == (u32)(m[0] | m[1] << 8) && g32(p) == s.d_k - g32(p + 4), "a map of its mask");
	numbers = (u64)g32(p) * (g32(p + 4) + 1);
	must(n == 16 + numbers * (p[8] == 1 ? 4 : 2), "length of a map");
	for (u64 i = 0; i < numbers; i++)
		must(p[8] == 1 ? (g32(p + 16 + 4 * i) & 0x7f800000) != 0x7f800000 : (p[17 + 2 * i] & 0x7c) != 0x7c, "finite numbers");
	m[2] |= 4;
}

static void
qunt(const u8 *q, u64 n, const u8 *p, u32 rows, u32 width)
{
	u32 by_row = p[17] == 2, group = g32(p + 20), size = p[19] == 1 ? 4 : 2, groups, sum = 0;
	u64 counts = 0, cells;

	must(n >= 16, "length of QUNT");
	groups = g32(q);
	known(zero(q + 8, 8), "a field of QUNT");
	must(g32(q + 4) == (by_row ? rows : width) && (by_row ? groups == width / group : groups <= rows), "shape of QUNT");
	counts = by_row ? 0 : (groups + 3) / 4 * 16;
	cells = (u64)groups * g32(q + 4);
	must(n == 16 + counts + 2 * cells * size, "length of QUNT");
	for (u32 i = 0; !by_row && i < groups; i++) {
		must(g32(q + 16 + 4 * i) && g32(q + 16 + 4 * i) <= group, "rows of a group");
		sum += g32(q + 16 + 4 * i);
	}
	must(by_row || sum == rows, "groups add up");
	known(by_row || zero(q + 16 + 4 * groups, counts - 4 * groups), "a field of QUNT");
	q += 16 + counts;
	for (u64 i = 0; i < 2 * cells; i++) {
		u32 x = size == 4 ? g32(q + 4 * i) : g16(q + 2 * i) << 16, top = size == 4 ? 0x7f800000 : 0x7c000000;

		must((x & top) != top && (i >= cells || !(x >> 31) || !(x << 1)), "scales and minima");
	}
}

static void
chunk(const struct head *h, const u8 *p, u64 n)
{
	int values = h->type == VALS, codes;
	struct side *side = &s.side[values];
	u32 d = values ? s.d_v : s.d_k, rows, bytes, width, mask, most = 4096;
	const u8 *m;

	must(h->chunk == side->chunks && n >= 64 && (values ? s.side[0].rows == s.entries[s.list] : !s.side[1].chunks), "chunks in order");
	rows = g32(p + 4), bytes = g32(p + 8), width = g16(p + 12), mask = g16(p + 14);
	known((p[16] >= 1 && p[16] <= 3) || p[16] == CODES, "an element type");
	known(p[17] <= 2 && (p[18] == 0 || p[18] == 2 || p[18] == 4 || p[18] == 8) && p[19] <= 2, "a way to quantise");
	known(p[24] <= 1 && zero(p + 25, 3) && zero(p + 32, 32), "a field of a chunk");
	codes = p[16] == CODES;
	must(codes == !!p[17] && codes == !!p[18] && codes == !!p[19] && codes == !!g32(p + 20) && (codes || !g32(p + 28)), "codes or none");
	must(p[17] != 2 || width % g32(p + 20) == 0, "groups that divide the row");
	must(mask ? width && width < d : width == d, "width of a row");
	must(!p[24] || (mask && !values), "only masked keys are rotated");
	must(bytes == (codes ? (width * p[18] + 7) / 8 : width * (p[16] == 1 ? 4 : 2)), "bytes of a row");
	while (most > 1 && (u64)most * bytes > 1 << 20)
		most /= 2;
	must(rows && rows <= most && n == 64 + (u64)rows * bytes, "rows of a chunk");
	must(g32(p) == side->rows && rows <= s.entries[s.list] - side->rows, "rows without hole or overlap");
	must(!side->open || memcmp(p + 8, side->last + 8, 56), "full chunks");
	if (mask) {
		must(mask <= s.masks, "a mask that is there");
		m = s.mask[mask - 1];
		must(g16(m) == width && values == !!(m[2] & 2) && (values || p[24] == !(m[2] & 1)), "rows that fit their mask");
	}
	must(codes ? s.quant_waits == 1u + (u32)values : !s.quant_waits, "scales for codes, and for nothing else");
	if (codes)
		qunt(s.quant, s.quant_len, p, rows, width);
	s.quant_waits = 0;
	side->rows += rows;
	side->chunks++;
	side->open = rows < most;
	memcpy(side->last, p, 64);
}

static void
data(const struct head *h, const u8 *p, u64 n)
{
	must(h->layer < s.layers && h->head < s.heads_kv && h->layer * s.heads_kv + h->head >= s.list, "lists in order");
	close_lists(h->layer * s.heads_kv + h->head);
	if (h->type == KEYS || h->type == VALS) {
		chunk(h, p, n);
		return;
	}
	must(!s.quant_waits, "scales before their chunk");
	if (h->type == CMSK) {
		cmsk(h, p, n);
		return;
	}
	if (h->type == CMAP) {
		cmap(h, p, n);
		return;
	}
	must((h->chunk & 0x7fffffff) == s.side[h->chunk >> 31].chunks, "QUNT in order");
	must(h->chunk >> 31 ? s.side[0].rows == s.entries[s.list] : !s.side[1].chunks, "QUNT in order");
	s.quant = grown(s.quant, s.quant_len = n);
	memcpy(s.quant, p, n);
	s.quant_waits = 1 + (h->chunk >> 31);
}

/* ---- 6. Order ---- */

static void
enter(u32 rank)
{
	must(s.rank || rank == 1, "GEOM first");
	must(rank > s.rank || (rank == s.rank && rank != 1 && rank != 3 && rank != 5), "order of frames");
	must(rank < 3 || s.ropes == s.n_rope, "every RoPE set");
	must(rank <= 3 || s.rank >= 3, "LAYR");
	must(rank <= 4 || !s.ids || s.toks_end == s.consumed, "ids of all tokens");
	must(rank <= 6 || s.covered == s.layers * s.heads_kv, "entries of every head");
	s.rank = rank;
}

static void
critical(const struct head *h)
{
	static const u32 order[] = { 0, GEOM, ROPE, LAYR, TOKS, HIDN, ENTS };
	u32 rank = 6;

	while (rank && order[rank] != h->type)
		rank--;
	enter(rank ? rank : 7);
	must(!rank || rank == 6 || (h->layer == ALL && h->head == ALL && (!h->chunk || rank == 2 || rank == 4)), "tag");
	switch (rank) {
	case 0: data(h, s.raw, h->raw_len); break;
	case 1: geom(s.raw, h->raw_len); break;
	case 2: rope(h, s.raw, h->raw_len); break;
	case 3: layr(s.raw, h->raw_len); break;
	case 4: toks(h, s.raw, h->raw_len); break;
	case 5: hidn(s.raw, h->raw_len); break;
	case 6: ents(h, s.raw, h->raw_len); break;
	}
}

/* Is the type one of those that are defined, and does its tag go with it? */
static int
ancillary(const struct head *h, const u8 *type)
{
	static const struct { char type[5]; u8 layer, head; u32 last_chunk; } tag[] = {
		{ "oBSQ", 1, 0, 0 }, { "oBSA", 1, 1, 0 }, { "oBSP", 1, 1, -1u }, { "oBSn", 0, 0, 0 }, { "oBSR", 0, 0, 0 }, { "cKPT", 0, 0, 0 },
		{ "iNFo", 0, 0, 0 }, { "pROv", 0, 0, 255 }, { "iNDX", 0, 0, 0 }, { "pADD", 0, 0, -1u } };

	for (size_t i = 0; i < sizeof tag / sizeof tag[0]; i++)
		if (!memcmp(tag[i].type, type, 4)) {
			must(tag[i].layer ? h->layer < s.layers : h->layer == ALL, "layer of an ancillary frame");
			must(tag[i].head ? h->head < s.heads_kv : h->head == ALL, "head of an ancillary frame");
			must(h->chunk <= tag[i].last_chunk, "chunk of an ancillary frame");
			return 1;
		}
	return 0;
}

/* ---- 13. ENDS ---- */

static int by_tag(const void *a, const void *b) { return memcmp(a, b, 12); }

static void
ends(const struct head *h, const u8 *p, u64 start)
{
	XXH128_hash_t digest = XXH3_128bits_digest(s.content);

	must(!h->codec && h->layer == ALL && h->head == ALL && !h->chunk, "ENDS as it is");
	must(g64(p) == s.seq + 1 && g64(p + 8) == s.sum_raw && g64(p + 16) == s.at, "tallies");
	must(g64(p + 24) == (s.index_at ? start - s.index_at : 0), "distance to the index");
	must(g64(p + 32) == digest.low64 && g64(p + 40) == digest.high64, "content digest");
	must(g64(p + 48) == XXH3_64bits_digest(s.heads), "hash of all headers");
	must(!memcmp(p + 56, "\n\x1a\n\rSVK\x8b", 8), "end magic");
	enter(8);
	close_lists(s.layers * s.heads_kv);
	if (s.n_tags)
		qsort(s.tags, s.n_tags, 12, by_tag);
	for (u64 i = 1; i < s.n_tags; i++)
		must(memcmp(s.tags[i - 1], s.tags[i], 12), "no name twice");
	printf("%016llx%016llx  %llu frames, %llu bytes\n", (unsigned long long)digest.high64, (unsigned long long)digest.low64,
		(unsigned long long)s.seq + 1, (unsigned long long)s.at);
}

/* ---- 15. Reading ---- 0 after ENDS */

static int
frame(void)
{
	u8 p[64], pad[64], entry[32] = { 0 };
	u64 start = s.at;
	struct head h = header(p);
	int optional = p[0] & 32;

	known(optional || h.type == ENDS || strstr("GEOM ROPE LAYR TOKS HIDN ENTS CMSK CMAP QUNT KEYS VALS",
		(char[]){ (char)p[0], (char)p[1], (char)p[2], (char)p[3], 0 }), "a critical frame");
	known(optional || readable(&h), "a codec, filter or flag");
	known(h.type != ENDS || h.raw_len == 64, "an ENDS of another size");
	take(&s.enc, &s.enc_cap, h.enc_len);
	take_small(pad, -h.enc_len % 64);
	must(zero(pad, -h.enc_len % 64), "padding");
	must(XXH3_64bits(s.enc, h.enc_len) == h.enc_hash, "hash of the payload");
	if (h.type == ENDS) {
		ends(&h, s.enc, start);
		return 0;
	}
	if (h.type == INDX) {
		must(!s.index_at && h.raw_len == 32 * s.n_indexed && h.raw_hash == XXH3_64bits_digest(s.index), "index");
		s.index_at = start;
	}
	must(s.rank || h.type == GEOM, "GEOM first");
	printf("%8llu  %.4s  %5d %5d %6u  %10llu  %10llu\n", (unsigned long long)start, (char *)p, h.layer == ALL ? -1 : (int)h.layer,
		h.head == ALL ? -1 : (int)h.head, h.chunk, (unsigned long long)h.enc_len, (unsigned long long)h.raw_len);
	if (readable(&h) && (!optional || ancillary(&h, p)))
		decode(&h);
	must(h.type != PADD || !readable(&h) || zero(s.raw, h.raw_len), "padding of zeros");
	memcpy(entry, p, 4), memcpy(entry + 8, p + 48, 8);
	for (int i = 0; i < 8; i++)
		entry[16 + i] = (u8)(start >> 8 * i), entry[24 + i] = (u8)(h.raw_len >> 8 * i);
	if (optional) {
		if (!(s.n_tags & (s.n_tags - 1)))
			s.tags = grown(s.tags, sizeof *s.tags * (s.n_tags ? 2 * s.n_tags : 1));
		memcpy(s.tags[s.n_tags], p, 4), memcpy(s.tags[s.n_tags++] + 4, p + 48, 8);
	} else {
		critical(&h);
		XXH3_128bits_update(s.content, p, 4), XXH3_128bits_update(s.content, p + 48, 8);
		XXH3_128bits_update(s.content, p + 24, 8), XXH3_128bits_update(s.content, p + 40, 8);
	}
	XXH3_64bits_update(s.heads, p, 64);
	if (h.type != PADD && ++s.n_indexed)
		XXH3_64bits_update(s.index, entry, 32);
	s.sum_raw += h.raw_len;
	s.seq++;
	return 1;
}

int
main(void)
{
	s.content = XXH3_createState(), s.heads = XXH3_createState(), s.index = XXH3_createState();
	if (!s.content || !s.heads || !s.index)
		die(TROUBLE, "out of memory");
	for (int first = 1; prologue(first); first = 0) {
		printf("  offset  type  layer  head  chunk      stored         raw\n");
		while (frame())
			;
	}
	return fflush(stdout) || ferror(stdout) ? TROUBLE : 0;
}
