/* All policies, one line each: identifier, name at the command line, help. The table, the options and their help are made from it. */
#ifndef KV_POLICY_POLICY_LIST_H
#define KV_POLICY_POLICY_LIST_H

#define KV_POLICY_LIST(X) \
	X(tova, "tova", "the last query's attention, mean over all heads of a layer") \
	X(window, "window", "the most recent; with --sinks I the tokens 0 to I - 1 as well") \
	X(streaming, "streaming", "the first --sinks (4) and the most recent") \
	X(knorm, "knorm", "keys of small norm") \
	X(random, "random", "by lot: the control every comparison needs")

#endif
