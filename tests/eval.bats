#!/usr/bin/env bats
# The scripts that measure what policies are worth: that they run, and say what they measured. What they find takes a real model and hours.

load lib/kv.bash

EVAL=$BATS_TEST_DIRNAME/eval

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	export KV_BIN=$KV_BUILD/bin
}

@test "a long text: as long as asked for, always the same, no pass like another" {
	for i in 1 2 3 4 5 6 7 8; do
		for w in 1 2 3 4 5 6 7 8 9; do printf 'paragraph %s has a work that you must license, ' $i; done
		printf '\n\n'
	done >real
	"$EVAL/longtext.sh" 20000 1 real >a
	"$EVAL/longtext.sh" 20000 1 real >b
	"$EVAL/longtext.sh" 30000 2 real >c
	[ "$(wc -c <a)" -eq 20000 ]
	[ "$(wc -c <c)" -eq 30000 ]
	cmp a b
	run ! cmp -s a <(head -c 20000 c)
	[ "$(grep -c . a)" -gt 40 ]
	[ "$(grep . a | sort | uniq -d | wc -l)" -eq 0 ]
	grep -q 'library' a
	run ! "$EVAL/longtext.sh" 100 1 /dev/null
}

@test "a pass key: every method reads, is asked and judged; what fails throughout is not asked again" {
	"$EVAL/passkey.sh" -b 256 -m "1 2" -d 50 -M "full window streaming tova cse citrus pot pot+rope pot+cap pot+nuc pot+pool pot+layer" >table
	[ "$(head -n 1 table)" = "$(printf 'filler\ttimes\tmethod\tright\tof\tnll\tseconds')" ]
	awk -F'\t' 'NR > 1 && (NF != 7 || $2 != 1 || $4 != 0 || $5 != 1 || !($6 > 0)) { exit 1 } END { exit NR != 13 }' table || { cat table; return 1; }
	run -2 "$EVAL/passkey.sh" -f nonsense
	run -2 "$EVAL/passkey.sh" -p nonsense
	run ! "$EVAL/passkey.sh" -b 256 -m 1 -d 50 -M nonsense
}
