/*
 * Sums the Euclidean norms of the keys of every layer: key-norms SNAPSHOT
 *
 *	cc -o key-norms key-norms.c $(pkg-config --cflags --libs kvs) -lm
 */
#include <kvs.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Of one list; negative: it could not be read. */
static double
sum_of_norms(struct kvs_file *f, const struct kvs_shape *s, unsigned layer, unsigned head, struct kvs_error *e)
{
	uint32_t n = kvs_entries(f, layer, head);
	float *rows = (float *)calloc((size_t)n * s->d_k + 1, sizeof *rows);
	double sum = 0;

	if (!rows || kvs_keys(f, layer, head, 0, n, rows, e) != KVS_GOOD) {
		free(rows);
		return -1;
	}
	for (uint32_t i = 0; i < n; i++) {
		double squares = 0;

		for (uint32_t j = 0; j < s->d_k; j++)
			squares += (double)rows[(size_t)i * s->d_k + j] * (double)rows[(size_t)i * s->d_k + j];
		sum += sqrt(squares);
	}
	free(rows);
	return sum;
}

static int
print_layers(struct kvs_file *f, struct kvs_error *e)
{
	struct kvs_shape s;

	kvs_describe(f, &s);
	for (unsigned layer = 0; layer < s.n_layers; layer++) {
		double sum = 0;

		for (unsigned head = 0; head < s.n_heads_kv; head++) {
			double one = sum_of_norms(f, &s, layer, head, e);

			if (one < 0)
				return KVS_TROUBLE;
			sum += one;
		}
		printf("%u\t%.6g\n", layer, sum);
	}
	return KVS_GOOD;
}

int
main(int argc, char **argv)
{
	struct kvs_error e = { KVS_TROUBLE, "out of memory" };
	struct kvs_file *f = NULL;
	int rc = kvs_open(argc > 1 ? argv[1] : "-", &f, &e);

	while (rc == KVS_GOOD && (rc = kvs_next(f, &e)) == KVS_GOOD)
		rc = print_layers(f, &e);
	kvs_close(f);
	if (rc == KVS_OVER)
		return 0;
	fprintf(stderr, "key-norms: %s\n", e.text);
	return rc;
}
