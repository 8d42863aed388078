#!/bin/bash
# What a cut cache costs: step-wise perplexity of a text under several policies and budgets, as in the papers. One token is read, one entry
# goes, all the way (snapkv: 256 tokens at a time). Prints a table: policy, budget, mean NLL, perplexity.
#
#   examples/perplexity.sh TEXTFILE [TOKENS]        KV_MODEL names the model; JOBS runs at a time (default 1)
set -euo pipefail

PATH=${KV_BIN:-build/bin}:$PATH
export TEXT=$1 TAKE=${2:-2000}
BUDGETS=${BUDGETS:-64 128 256 512}

one() {
	local name=$1 k=$2 chunk=$3 observe=nll each=$4
	[ "$name" != h2o ] || observe=nll,acc
	printf '%s\t%s\t%s\n' "$name" "$k" \
		"$(kv-prefill -q --take "$TAKE" --observe "$observe" --chunk "$chunk" ${each:+--each "$each"} "$TEXT" | kv-dump --ppl | cut -f2-)"
}
export -f one

jobs_() {
	printf '%s\0' full - 512 ''
	for k in $BUDGETS; do
		printf '%s\0' tova "$k" 1 "kv-evict --tova -k $k"
		printf '%s\0' window "$k" 1 "kv-evict --window -k $k"
		printf '%s\0' window+4 "$k" 1 "kv-evict --window --sinks 4 -k $k"
		printf '%s\0' streaming "$k" 1 "kv-evict --streaming -k $k | kv-reposition --compact"
		printf '%s\0' h2o "$k" 1 "kv-evict --h2o -k $k"
		printf '%s\0' snapkv "$k" 256 "kv-evict --snapkv -k $k"
		printf '%s\0' random "$k" 1 "kv-evict --random -k $k"
	done
}

printf 'policy\tbudget\tnll\tperplexity\n'
# shellcheck disable=SC2016  # the inner shell expands
jobs_ | xargs -0 -n 4 -P "${JOBS:-1}" bash -c 'one "$@"' one | sort -t "$(printf '\t')" -k2,2n -k3,3n
