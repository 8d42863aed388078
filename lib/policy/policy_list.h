/* All policies, one line each: identifier, name at the command line, argument, help. The table, the options and their help are made from it. */
#ifndef KV_POLICY_POLICY_LIST_H
#define KV_POLICY_POLICY_LIST_H

#define KV_POLICY_LIST(X) \
	X(tova, "tova", NULL, "the last query's attention, mean over all heads of a layer") \
	X(window, "window", NULL, "the most recent; with --sinks I the tokens 0 to I - 1 as well") \
	X(streaming, "streaming", NULL, "the first --sinks (4) and the most recent") \
	X(h2o, "h2o", NULL, "half by all attention received so far, half the most recent") \
	X(roco, "roco", NULL, "by mean attention received, unless it deviates much") \
	X(snapkv, "snapkv", NULL, "the last queries' attention, pooled; their own entries stay") \
	X(pyramidkv, "pyramidkv", NULL, "snapkv with more for low layers, less for high ones") \
	X(adakv, "adakv", NULL, "snapkv with the budget shared among the heads of a layer") \
	X(sirllm, "sirllm", NULL, "tokens that surprised, sinks, and recent ones to fill up") \
	X(scissorhands, "scissorhands", NULL, "how often a query paid more than the even share") \
	X(citrus, "citrus", "[=probe|chunk]", "a probe's, or a chunk's, attention to what was there before; -k counts that alone") \
	X(infinipot, "infinipot", "[=probe|last]", "tokens that surprised (--nuc), the rest by a probe's attention") \
	X(knorm, "knorm", NULL, "keys of small norm") \
	X(keydiff, "keydiff", NULL, "keys unlike the mean key") \
	X(expected_attention, "expected-attention", NULL, "attention that queries to come would pay, times the value's norm") \
	X(chunkkv, "chunkkv", NULL, "whole chunks by the mean of another policy's scores") \
	X(lagkv, "lagkv", NULL, "keys and values that vary against the block behind them") \
	X(observed, "observed", NULL, "mean attention received") \
	X(random, "random", NULL, "by lot: the control every comparison needs")

#endif
