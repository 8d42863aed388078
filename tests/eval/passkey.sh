#!/bin/bash
# Does a key survive? A long text with one line that states a five-digit number is read with a cache of fixed size, by several methods; then the
# number is asked for. Prints a table: filler, length as a multiple of the budget, method, answers that are right to the digit, and the mean NLL of
# the number's tokens behind the question (small: the number is there, even if another wording won the first token).
#
#   tests/eval/passkey.sh [options]       KV_MODEL names the model, KV_BIN the folder of the executables
#
#   -b N       budget: entries that a reading forward pass may see (default 1024)
#   -m LIST    lengths of the text as multiples of the budget (default "2 4 8")
#   -d LIST    depths of the key, percent of the text (default "10 50 90")
#   -t N       texts of each length and depth, each with another number (default 1)
#   -f FILLER  repeat: one sentence group over and over; prose: three real texts in turn (default repeat)
#   -M LIST    methods (default: all but full); one that fails throughout at some length is not asked at greater ones
#   -p PROBE   cap: InfiniPot asks for what matters (examples/cap.txt); question: it knows the question, as CItruS does (default cap)
#   -s SEED    other numbers, other prose (default 1)
#
# Methods: full (no eviction, no budget); window, streaming, tova; cse, citrus (Standard and Shared, with the final prune by the question); and
# InfiniPot step by step: pot (last query, positions run on), pot+rope (compacted), pot+cap (a probe's attention instead), pot+nuc (half of it by
# surprisal: InfiniPot itself); pot+pool and pot+layer are that with --pool avg:7, and with --scope layer.
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
PATH=${KV_BIN:-$here/../../build/bin}:$PATH
budget=1024 multiples="2 4 8" depths="10 50 90" trials=1 filler=repeat probe=cap seed=1
methods="window streaming tova cse citrus pot pot+rope pot+cap pot+nuc pot+pool pot+layer"
while getopts b:m:d:t:f:M:p:s: o; do
	case $o in
	b) budget=$OPTARG ;;
	m) multiples=$OPTARG ;;
	d) depths=$OPTARG ;;
	t) trials=$OPTARG ;;
	f) filler=$OPTARG ;;
	M) methods=$OPTARG ;;
	p) probe=$OPTARG ;;
	s) seed=$OPTARG ;;
	*) sed -n '/^#   /s/^#   //p' "$0" >&2; exit 2 ;;
	esac
done
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# A raw continuation, without a newline at the end: probe and prompt are the same tokens. Asked in the words of the statement, from the newline on: a
# small model that sees all of the text then answers from any distance, so that what is measured is the cache.
printf '\nThe secret number of this book is' >"$tmp/question"
statement() { printf 'The secret number of this book is %s. Remember it.\nThe secret number of this book is %s. Do not forget it.' "$1" "$1"; }
case $probe in
cap) cap=$here/../../examples/cap.txt ;;
question) cap=$tmp/question ;;
*) echo "passkey.sh: -p cap or question" >&2; exit 2 ;;
esac

tokens() { kv-dump --json "$1" | tr ',' '\n' | sed -n 's/^ *"tokens": *\([0-9]*\).*/\1/p' | head -n 1; }

# filler_text BYTES TRIAL
filler_text() {
	local prose=(GPL-3 MPL-2.0 GFDL-1.3)
	case $filler in
	repeat)
		awk -v bytes="$1" 'BEGIN {
			s = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
			for (; bytes > 0; bytes -= length(s))
				printf "%s", substr(s, 1, bytes)
		}' ;;
	prose) "$here/longtext.sh" "$1" "$seed" "/usr/share/common-licenses/${prose[$2 % 3]}" ;;
	*) echo "passkey.sh: -f repeat or prose" >&2; return 2 ;;
	esac
}

# document BYTES DEPTH TRIAL NUMBER: the line stands behind the line or sentence that ends next to its place.
document() {
	filler_text "$1" "$3" | awk -v at=$(($1 * $2 / 100)) -v line="$(statement "$4")" '
		BEGIN { RS = "\001" }
		{
			p = at + match(substr($0, at + 1) ". ", /[.\n][ \n]/)
			printf "%s\n%s\n%s", substr($0, 1, p), line, substr($0, p + 1)
		}'
}

read_rounds() { kv-prefill -q --chunk "$chunk" --each "$1 | kv-reposition --compact" "${@:2}"; }
read_pot() { kv-prefill -q --fill "$budget" --reserve 48 "$@"; }
prune_by_question() { kv-prefill -q --from - --probe @"$tmp/question" | kv-evict --citrus -k "$old" | kv-reposition --compact; }

# read_text METHOD FILE: the snapshot. A round of $chunk tokens beside $old entries makes the budget; a pot is emptied to half of it.
read_text() {
	local chunk=$((budget / 4)) old=$((budget - budget / 4)) half=$((budget / 2)) compact='kv-reposition --compact'
	local by_probe=(--probe @"$cap" --observe nll)
	case $1 in
	full) kv-prefill -q "$2" ;;
	window) read_rounds "kv-evict --window -k $old" "$2" ;;
	streaming) read_rounds "kv-evict --streaming -k $old" "$2" ;;
	tova) read_rounds "kv-evict --tova -k $old" "$2" ;;
	cse) read_rounds "kv-evict --citrus=chunk -k $old" "$2" | prune_by_question ;;
	citrus) read_rounds "kv-evict --citrus -k $old" --probe @"$tmp/question" "$2" | prune_by_question ;;
	pot) read_pot --each "kv-evict --tova --scope head -k $half" "$2" ;;
	pot+rope) read_pot --each "kv-evict --tova --scope head -k $half | $compact" "$2" ;;
	pot+cap) read_pot --probe @"$cap" --each "kv-evict --infinipot --nuc 0 -k $half | $compact" "$2" ;;
	pot+nuc) read_pot "${by_probe[@]}" --each "kv-evict --infinipot -k $half | $compact" "$2" ;;
	pot+pool) read_pot "${by_probe[@]}" --each "kv-evict --infinipot --pool avg:7 -k $half | $compact" "$2" ;;
	pot+layer) read_pot "${by_probe[@]}" --each "kv-evict --infinipot --scope layer -k $half | $compact" "$2" ;;
	*) echo "passkey.sh: there is no method '$1'" >&2; return 2 ;;
	esac
}

# ask SNAP NUMBER: "1 NLL" or "0 NLL".
ask() {
	local answer nll
	answer=$(kv-decode -q -n 10 --stop $'\n' -p @"$tmp/question" "$1" | grep -oE '[0-9]{5,}' | head -n 1) || true
	nll=$(kv-prefill -q --from "$1" --observe nll -p "$(cat "$tmp/question") $2" | kv-dump --tsv nll |
		awk -F'\t' -v from=$(($(tokens "$1") + asked)) 'NR > 1 && $1 >= from { s += $NF; n++ } END { printf "%.3f", s / n }')
	echo "$([ "$answer" = "$2" ] && echo 1 || echo 0) $nll"
}

# How many bytes are a thousand tokens of this filler, and how many tokens is the question?
filler_text 3000 0 >"$tmp/sample"
kv-prefill -q --observe none "$tmp/sample" -o "$tmp/sample.kvs"
per_1000=$((3000 * 1000 / $(tokens "$tmp/sample.kvs")))
kv-prefill -q --bos no --observe none "$tmp/question" -o "$tmp/sample.kvs"
asked=$(tokens "$tmp/sample.kvs")

declare -A lost
printf 'filler\ttimes\tmethod\tright\tof\tnll\tseconds\n'
for m in $multiples; do
	bytes=$((m * budget * per_1000 / 1000))
	for method in $methods; do
		[ -z "${lost[$method]:-}" ] || continue
		right=0 of=0 sum=0 begin=$(date +%s)
		for d in $depths; do
			for ((i = 0; i < trials; i++)); do
				number=$((10000 + (seed * 7919 + m * 104729 + d * 1299709 + i * 15485863) * 48271 % 2147483647 % 90000))
				document "$bytes" "$d" "$i" "$number" >"$tmp/text"
				read_text "$method" "$tmp/text" >"$tmp/read.kvs"
				result=$(ask "$tmp/read.kvs" "$number")
				right=$((right + ${result% *})) of=$((of + 1))
				sum=$(awk -v a="$sum" -v b="${result#* }" 'BEGIN { print a + b }')
			done
		done
		[ "$right" -gt 0 ] || lost[$method]=1
		printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$filler" "$m" "$method" "$right" "$of" \
			"$(awk -v s="$sum" -v n="$of" 'BEGIN { printf "%.3f", s / n }')" $(($(date +%s) - begin))
	done
done
