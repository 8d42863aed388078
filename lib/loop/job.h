/* What a job was asked to do, as far as it decides what comes out: what its checkpoint remembers. */
#ifndef KV_LOOP_JOB_H
#define KV_LOOP_JOB_H

#include <jansson.h>

#include "loop/rounds.h"

/* By names of options; the text is not part of it. observe: with what the pipelines need. c: as the job began. NULL: no memory. */
json_t *kv_job_describe(const struct kv_rounds *r, const struct kv_observe *observe, const struct kv_session *s, const struct kv_cache *c);

#endif
