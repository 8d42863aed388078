/* Vocabularies of the synthetic models: every byte can be written, some words are one token, and a chat has its marks. */
#ifndef KV_TESTS_SYNTH_VOCAB_H
#define KV_TESTS_SYNTH_VOCAB_H

#include <stdbool.h>
#include <stdint.h>

#include "ggufbuild.h"

uint32_t synth_vocab_size(bool spm);
void synth_put_vocab(struct ggufbuild *b, bool spm);

#endif
