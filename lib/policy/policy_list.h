/* All policies, one line each: identifier, name at the command line, help. The table, the options and their help are made from it. */
#ifndef KV_POLICY_POLICY_LIST_H
#define KV_POLICY_POLICY_LIST_H

#define KV_POLICY_LIST(X) \
	X(tova, "tova", "the last query's attention, mean over all heads of a layer") \
	X(window, "window", "the most recent; with --sinks I the tokens 0 to I - 1 as well") \
	X(streaming, "streaming", "the first --sinks (4) and the most recent") \
	X(h2o, "h2o", "half by all attention received so far, half the most recent") \
	X(roco, "roco", "by mean attention received, unless it deviates much") \
	X(snapkv, "snapkv", "the last queries' attention, pooled; their own entries stay") \
	X(pyramidkv, "pyramidkv", "snapkv with more for low layers, less for high ones") \
	X(adakv, "adakv", "snapkv with the budget shared among the heads of a layer") \
	X(sirllm, "sirllm", "tokens that surprised, sinks, and recent ones to fill up") \
	X(scissorhands, "scissorhands", "how often a query paid more than the even share") \
	X(knorm, "knorm", "keys of small norm") \
	X(keydiff, "keydiff", "keys unlike the mean key") \
	X(expected_attention, "expected-attention", "attention that queries to come would pay, times the value's norm") \
	X(chunkkv, "chunkkv", "whole chunks by the mean of another policy's scores") \
	X(lagkv, "lagkv", "keys and values that vary against the block behind them") \
	X(observed, "observed", "mean attention received") \
	X(random, "random", "by lot: the control every comparison needs")

#endif
