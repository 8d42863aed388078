/* Where lines for people go. A library prints nothing: whoever has a terminal says how. */
#ifndef KV_LOOP_SAY_H
#define KV_LOOP_SAY_H

#include <stddef.h>

struct kv_say {
	/* Shown if the tool is as talkative as level: 0 always, 1 with -v. NULL: nobody listens. */
	void (*line)(void *arg, int level, const char *text);
	void *arg;
};

static inline void
kv_say(const struct kv_say *s, int level, const char *text)
{
	if (s && s->line)
		s->line(s->arg, level, text);
}

#endif
