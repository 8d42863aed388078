/* Frames that the worked example lacks: what rounds leave behind, masks and codes of values, frames that nobody opens. */
#ifndef KV_TESTS_GOLDEN_EXTRA_H
#define KV_TESTS_GOLDEN_EXTRA_H

#include "forge.h"

void golden_round(struct forge *f);		/* attention of a chunk of text and of a probe; the round */
void golden_probe_kind(struct forge *f);	/* of a third kind */
void golden_probe_heads(struct forge *f);	/* joined over heads, and a row for each all the same */
void golden_codes(struct forge *f);		/* values: three of four channels, as codes by row; the spare bits are set */
void golden_alive(struct forge *f);		/* no ids but those of the entries */
void golden_sealed(struct forge *f);		/* an unknown frame that cannot be unpacked */
void golden_sealed_index(struct forge *f);	/* an index of codec 200 */
void golden_hashes(struct forge *f);		/* a raw payload with two hashes */
void golden_sequence(struct forge *f);		/* two snapshots */

#endif
