/*
 * Reading snapshots of KV caches (formats/kvs.md) from programs of your own. This header is all of the public interface: it needs
 * nothing but the standard library, and reads as C11 and as C++. Link with `pkg-config --cflags --libs kvs`.
 *
 *	struct kvs_file *f;
 *	struct kvs_error e;
 *
 *	if (kvs_open("book.kvs", &f, &e) != KVS_GOOD) fail(e.text);
 *	while ((rc = kvs_next(f, &e)) == KVS_GOOD)
 *		for (every layer and head) { kvs_keys(f, layer, head, 0, kvs_entries(f, layer, head), rows, &e); … }
 *	if (rc != KVS_OVER) fail(e.text);
 *	kvs_close(f);
 *
 * A file is a sequence of snapshots, mostly of one. kvs_next reads one to its right end before it says KVS_GOOD: hashes, order,
 * coverage and digest have then been checked. The snapshot is in memory then, as large as it is stored; rows are decoded as they
 * are asked for. Nothing beyond its end has been read, so that pipes can be used.
 *
 * Nothing here prints, exits or keeps state outside a kvs_file. A kvs_file belongs to one thread at a time; several are
 * independent of each other.
 */
#ifndef KVS_H
#define KVS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVS_API_VERSION 1

/* What functions return: good, or the exit status that the tools have for the same trouble. */
enum kvs_result {
	KVS_OVER = -1,		/* no snapshot is left: no error */
	KVS_GOOD = 0,
	KVS_TROUBLE = 1,	/* input, memory */
	KVS_CORRUPT = 3,	/* damaged or truncated */
	KVS_UNSUPPORTED = 4,	/* valid, but not known to this version */
	KVS_UNFIT = 5		/* a layer, head or row that is not there */
};

struct kvs_error {
	int code;		/* what the function returned */
	char text[480];		/* one sentence in English, UTF-8, without a full stop or line end; it may quote bytes of the file, escaped */
};

struct kvs_file;

/*
 * Every error argument may be NULL, and is written only on failure; out-parameters only on success. What kvs_open* gives is the
 * caller's, to be given back to kvs_close.
 */
int kvs_open(const char *path, struct kvs_file **out, struct kvs_error *e);		/* "-": standard input */
int kvs_open_fd(int fd, struct kvs_file **out, struct kvs_error *e);			/* fd is ours from now on, also on failure */
int kvs_open_memory(const void *data, size_t n, struct kvs_file **out, struct kvs_error *e);	/* data must live until kvs_close */
void kvs_close(struct kvs_file *f);							/* takes NULL */

/*
 * The next snapshot takes the place of the one before: pointers into that are gone. KVS_OVER after the last. After KVS_OVER and
 * after a failure there is nothing to do but kvs_close.
 */
int kvs_next(struct kvs_file *f, struct kvs_error *e);

/*
 * All functions below are about the snapshot in hand: kvs_next must have said KVS_GOOD. Layers, heads and rows count from 0. Pointers
 * that they return belong to f, until kvs_next or kvs_close.
 */

struct kvs_shape {
	uint32_t n_layers, n_heads, n_heads_kv;	/* query heads; kv heads: query head h uses kv head h / (n_heads / n_heads_kv) */
	uint32_t d_k, d_v, n_embd, n_vocab;	/* channels of a key, of a value, of the hidden state; token ids are below n_vocab */
	float attn_scale;			/* multiplies query times key */
	char arch[33];				/* of the model, as in its GGUF file */
	uint64_t n_tokens;			/* read so far */
	int32_t next_pos;			/* position of the next token */
	uint32_t tail;				/* tokens that the last run appended */
	uint8_t model[16];			/* fingerprint; zeros = unknown */
	uint8_t digest[16];			/* of the content: the name of the snapshot, as kv-dump --digest prints it */
};

void kvs_describe(const struct kvs_file *f, struct kvs_shape *out);
/* A digest or fingerprint as the tools print it. Returns out. */
char *kvs_print_digest(const uint8_t digest[16], char out[33]);

/* Entries of a list, in time order. 0 and NULL for a layer or head that is not there. */
uint32_t kvs_entries(const struct kvs_file *f, unsigned layer, unsigned head);
const uint32_t *kvs_sources(const struct kvs_file *f, unsigned layer, unsigned head);	/* [entries] which token of the text */
const int32_t *kvs_positions(const struct kvs_file *f, unsigned layer, unsigned head);	/* [entries] what RoPE rotates it by */

/*
 * Rows first … first + n - 1 of a list as float [n][d_k] or [n][d_v], out of codes where they are codes; channels that were pruned are 0, or
 * rebuilt. Keys are as they were before RoPE, but for rows that were pruned without their rotary partners: those are turned at their positions.
 */
int kvs_keys(struct kvs_file *f, unsigned layer, unsigned head, uint32_t first, uint32_t n, float *out, struct kvs_error *e);
int kvs_values(struct kvs_file *f, unsigned layer, unsigned head, uint32_t first, uint32_t n, float *out, struct kvs_error *e);

/* 1 and the id of a token of the text, or 0 and *id untouched if the snapshot does not have it. */
int kvs_token(const struct kvs_file *f, uint32_t source, uint32_t *id);
/* float [n_embd] after the final norm, of the last token; NULL if there is none. */
const float *kvs_hidden(const struct kvs_file *f);

#ifdef __cplusplus
}
#endif

#endif
