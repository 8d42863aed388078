#!/usr/bin/env bats
# Rounds with a probe: what is read, what is recorded, and what a job says when it cannot go on.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 130 >doc
	printf 'what is kept?\n' >question
	total=$(kv-prefill doc | kv-dump --json | jq_ .tokens)
	probe=$(kv-prefill --bos no question | kv-dump --json | jq_ .tokens)
}

# field FILE PATH…: values of kv-dump --json, blanks between.
field() {
	local file=$1 path
	shift
	kv-dump --json "$file" >json
	for path; do jq_ "$path" <json; done | paste -sd' '
}

@test "a probe leaves nothing behind but its record" {
	kv-prefill doc -o plain.kvs
	for at in old all; do
		kv-prefill --probe @question --probe-at $at doc -o probed.kvs
		same plain.kvs probed.kvs
		kv-prefill --chunk 20 --each 'kv-evict --tova -k 50 | kv-reposition --compact' doc -o a.kvs
		kv-prefill --chunk 20 --each 'kv-evict --tova -k 50 | kv-reposition --compact' --probe @question --probe-at $at doc -o b.kvs
		same a.kvs b.kvs
	done
	kv-prefill --observe nll,acc --chunk 20 doc -o a.kvs
	kv-prefill --observe nll,acc --chunk 20 --probe @question doc -o b.kvs
	same a.kvs b.kvs
	for t in nll entries; do cmp <(kv-dump --tsv $t a.kvs) <(kv-dump --tsv $t b.kvs); done
}

@test "a probe over a snapshot: nothing is read, nothing is new" {
	kv-prefill doc -o s.kvs
	[ "$(field s.kvs .tokens .tail)" = "$total $total" ]
	kv-prefill --from s.kvs --probe @question -o p.kvs </dev/null
	[ "$(field p.kvs .tokens .tail .next_pos .entries.max)" = "$total 0 $total $total" ]
	kv-prefill --from - --probe @question <s.kvs -o q.kvs
	same p.kvs q.kvs
	kv-prefill --from s.kvs --continue --probe @question doc -o r.kvs
	same p.kvs r.kvs
	echo unread | kv-prefill --from s.kvs --probe @question -o r.kvs
	same p.kvs r.kvs
	echo more >more
	kv-prefill --from s.kvs --probe @question - <more -o r.kvs
	[ "$(field r.kvs .tokens)" -gt "$total" ]
	kv-prefill --from s.kvs more -o t.kvs
	same r.kvs t.kvs
	# An empty text of its own stays one.
	kv-prefill --probe @question -o e.kvs </dev/null
	[ "$(field e.kvs .tokens .tail)" = "0 0" ]
}

@test "--fill counts the probe; sizes as the tables have them" {
	# tokens, reserve, entries at the end: a pot of 8, a probe of 2, 4 kept
	while read -r n reserve want; do
		kv-prefill --take "$n" --fill 8 --tokens --probe '5 6' --reserve "$reserve" \
			--each 'kv-evict --window -k 4 | kv-reposition --compact' <(seq 1 12) -o f.kvs
		[ "$(field f.kvs .entries.max .next_pos)" = "$want $want" ] || { echo "$n $reserve: $(field f.kvs .entries.max)"; false; }
	done <<<'6 2 6
		6 3 4
		7 2 5
		8 2 6
		9 2 5
		10 2 6
		10 3 4'
}

@test "a pipeline that leaves no room, or hardly any" {
	refuse 5 kv-prefill --fill 40 --probe @question --each 'kv-evict --window -k 40' doc
	says "no room"
	says "--fill 40"
	run -0 --separate-stderr kv-prefill --fill 40 --probe @question --each "kv-evict --window -k $((40 - probe - 2))" doc -o f.kvs
	[[ $stderr == *"room for 2 tokens"* ]]
	[ "${#stderr_lines[@]}" -eq 1 ]
	refuse 2 kv-prefill --fill "$probe" --probe @question --each 'kv-evict --window -k 4' doc
	says "probe has $probe tokens"
}

@test "probes that make no sense" {
	: >empty
	refuse 2 kv-prefill --probe @empty doc
	refuse 2 kv-prefill --probe '' doc
	refuse 2 kv-prefill --tokens --probe ' ' -p '1 2'
	refuse 2 kv-prefill --probe-at old doc
	refuse 2 kv-prefill --probe x --probe-at new doc
	refuse 2 kv-prefill --from - doc --probe x - <doc
	refuse 1 kv-prefill --probe @missing doc
	refuse 2 kv-prefill --observe chunks doc
}

@test "what filters in this process have to say, with -v" {
	run -0 --separate-stderr kv-prefill --chunk 100 --each 'kv-evict --window -k 30 | kv-reposition --compact' doc -o a.kvs
	[ -z "$stderr" ]
	run -0 --separate-stderr kv-prefill -v --chunk 100 --each 'kv-evict --window -k 30 | kv-reposition --compact' doc -o a.kvs
	[[ $stderr == *"--each: round 0: kv-evict: kept 30 of 100 entries"*"--each: round 1: kv-reposition: moved"* ]]
	run -0 --separate-stderr kv-prefill --chunk 100 --each 'kv-evict -v --window -k 30 | kv-reposition --compact' doc -o a.kvs
	[[ $stderr == *"round 0: kv-evict"* && $stderr != *kv-reposition* ]]
	run -0 --separate-stderr kv-decode -v -n 3 --ignore-eos --each 'kv-evict --window -k 9' a.kvs
	[[ $stderr == *"--each: round 1: kv-evict: kept 9 of 10"* ]]
}

@test "a text is read as it is needed: byte by byte, or without an end" {
	prose 6000 >long
	set -- --chunk 64 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact'
	kv-prefill "$@" long -o a.kvs
	dd bs=1 if=long 2>/dev/null | kv-prefill "$@" -o b.kvs
	same a.kvs b.kvs
	set -- --fill 100 --probe @question --observe nll --each 'kv-evict --infinipot -k 40 | kv-reposition --compact'
	kv-prefill "$@" <long -o a.kvs
	head -c 20001 long >one
	tail -c +20002 long >two
	kv-prefill "$@" one two -o b.kvs
	same a.kvs b.kvs
	yes 'the cache lets go' | kv-prefill --take 700 --chunk 64 -o c.kvs
	yes 'the cache lets go' | kv-prefill --take 700 -o d.kvs
	[ "$(field c.kvs .tokens .tail)" = "700 $((700 % 64))" ]
	[ "$(field d.kvs .tokens .tail)" = "700 700" ]
}
