#!/bin/bash
# What narrower keys and fewer bits cost: for each of a list of pipelines the bytes of keys and values, the mean NLL of what comes next in the
# text, and the mean Kullback-Leibler distance of the next token's distribution from that of the full cache (nats). A table with tabs.
#
#   tests/eval/channels.sh TEXTFILE [CONTEXT [NEXT [BASE …]]]
#
# CONTEXT (1536) tokens are read, the NEXT (512) scored; BASE: full, snapkv, h2o (all three). KV_MODEL names the model; BUDGET is what is kept
# (512), RATIOS the shares of channels dropped, BITS those of codes; ONLY, a regular expression, picks pipelines by their names.
set -euo pipefail

cd "$(dirname "$0")/../.."
PATH=${KV_BUILD:-build}/bin:${KV_BUILD:-build}/tests/tools:$PATH
text=$1 context=${2:-1536} next=${3:-512}
shift $(($# < 3 ? $# : 3))
[ $# -gt 0 ] || set -- full snapkv h2o
budget=${BUDGET:-512}
work=$(mktemp -d)
feeder=
trap '[ -z "$feeder" ] || kill "$feeder" 2>/dev/null; rm -rf "$work"' EXIT

# name, then the pipeline that makes it of a cache on standard input
pipelines() {
	local r b
	for r in ${RATIOS:-0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8}; do
		echo "think $r|kv-prune -q -f --think $r --rounding paper"
		echo "pairs $r|kv-prune -q -f --think $r --pairs"
		echo "error $r|kv-prune -q -f --think $r --score error"
		echo "error pairs $r|kv-prune -q -f --think $r --score error --pairs"
		echo "sinks $r|kv-prune -q -f --think $r --rounding paper --sinks 4"
		echo "rebuild $r|kv-prune -q -f --think $r --rebuild --sinks 4"
		echo "rebuild, no sinks $r|kv-prune -q -f --think $r --rebuild"
		echo "rebuild by think $r|kv-prune -q -f --think $r --rebuild --sinks 4 --score think"
		echo "rebuild by error $r|kv-prune -q -f --think $r --rebuild --sinks 4 --score error"
		echo "knorm $r|kv-prune -q -f --think $r --score knorm"
		echo "random $r|kv-prune -q -f --think $r --score random"
	done
	for b in ${BITS:-8 4 2}; do
		echo "kivi $b|kv-quant -q --kivi $b"
		echo "kivi $b sinks|kv-quant -q --kivi $b --sinks 4"
		echo "kivi $b keys|kv-quant -q --kivi $b --what k"
		echo "kivi $b values|kv-quant -q --kivi $b --what v"
		echo "think 0.4, kivi $b|kv-prune -q --think 0.4 | kv-quant -q --kivi $b"
		echo "pairs 0.4, kivi $b|kv-prune -q --think 0.4 --pairs | kv-quant -q --kivi $b"
		echo "rebuild 0.4, kivi $b|kv-prune -q --think 0.4 --rebuild --sinks 4 | kv-quant -q --kivi $b --sinks 4"
	done
}

kv-prefill -q --observe last=32,acc --take "$context" "$text" -u -o "$work/full.kvs"
printf 'base\tpipeline\tbytes\tshare\tnll\tkl\n'
for base; do
	case $base in
	full) ln -f "$work/full.kvs" "$work/base.kvs" ;;
	*) kv-evict -q "--$base" -k "$budget" -u "$work/full.kvs" -o "$work/base.kvs" ;;
	esac
	pipelines | grep -E "^[^|]*(${ONLY:-})" >"$work/list"
	cut -d'|' -f1 "$work/list" | nl -ba -w1 >"$work/names"
	mkdir "$work/$base"
	# Snapshots are made one at a time, as kldiv opens them.
	fifos=()
	while read -r i _; do
		fifos+=("$work/$base/$i")
		mkfifo "$work/$base/$i"
	done <"$work/names"
	cut -d'|' -f2- "$work/list" | nl -ba -w1 | while read -r i pipe; do
		bash -o pipefail -c "$pipe" <"$work/base.kvs" >"$work/$base/$i"
	done &
	feeder=$!
	kldiv -n "$next" -t "$text" "$work/full.kvs" "$work/base.kvs" "${fifos[@]}" |
		awk -F'\t' -v OFS='\t' -v base="$base" 'NR == FNR { name[NR] = $2; next }
			FNR == 2 { full = $2 }
			FNR > 2 { print base, FNR == 3 ? "-" : name[FNR - 3], $2, sprintf("%.4f", $2 / full), $3, $4; fflush() }' "$work/names" -
	wait $feeder
	feeder=
done
