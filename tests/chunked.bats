#!/usr/bin/env bats
# Documents without end: CItruS (Bai et al. 2406.12018) and InfiniPot (Kim et al. 2410.01518), in this process, outside, and as a loop over files.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 130 >doc
	printf 'what is kept?\n' >question
	total=$(tokens_of <(kv-prefill doc))
	probe=$(tokens_of <(kv-prefill --bos no question))
}

tokens_of() { kv-dump --json "$1" | jq_ .tokens; }

# field FILE PATH…: values of kv-dump --json, blanks between.
field() {
	local file=$1 path
	shift
	kv-dump --json "$file" >json
	for path; do jq_ "$path" <json; done | paste -sd' '
}

# ids N: so many token ids, always the same.
ids() { awk -v n="$1" 'BEGIN { srand(3); for (i = 0; i < n; i++) print int(rand() * 300) }'; }

# rounds: of the lines of -v on standard input, one a round: its number, entries kept, entries there, the next position before it was moved.
rounds() {
	awk '{ sub(/.*each: round /, "") } / kv-evict: kept / { r = $1 + 0; kept = $4; of = $6 } / kv-reposition: / { sub(/.*was /, ""); print r, kept, of, $1 }'
}

alike() {
	same "$1" "$2"
	cmp <(kv-dump --json "$1" | jq_ .observation_digest) <(kv-dump --json "$2" | jq_ .observation_digest)
}

@test "CItruS: in this process, in a shell, and as a loop over files, 24 rounds" {
	local keep='kv-evict --citrus -k 40 | kv-reposition --compact' n=0 rounds=1
	kv-prefill --chunk 16 --probe @question --each "$keep" doc -o in.kvs
	kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | cat | kv-reposition --compact' doc -o out.kvs
	alike in.kvs out.kvs
	kv-prefill --take 16 --probe @question --probe-at old doc | kv-evict --citrus -k 40 | kv-reposition --compact -o loop.kvs
	while n=$(tokens_of loop.kvs) && [ "$n" -lt "$total" ]; do
		kv-prefill --from loop.kvs --continue --take 16 --probe @question --probe-at old doc |
			kv-evict --citrus -k 40 | kv-reposition --compact -o loop.kvs
		rounds=$((rounds + 1))
	done
	[ "$rounds" -ge 20 ]
	alike in.kvs loop.kvs
	cmp <(kv-decode -n 12 --ids -p @question in.kvs) <(kv-decode -n 12 --ids -p @question loop.kvs)
	# Ranked by the chunk itself, which an external pipeline must ask for.
	kv-prefill --chunk 16 --each 'kv-evict --citrus=chunk -k 40 | kv-reposition --compact' doc -o in2.kvs
	kv-prefill --chunk 16 --observe chunk --each 'kv-evict --citrus=chunk -k 40 | cat | kv-reposition --compact' doc -o out2.kvs
	alike in2.kvs out2.kvs
	run ! same in.kvs in2.kvs
	refuse 5 kv-prefill --chunk 16 --each 'kv-evict --citrus -k 40' doc
	says "run kv-prefill with --probe"
}

@test "InfiniPot: in this process, in a shell, and as a loop over files, 20 rounds" {
	local keep='kv-evict --infinipot -k 30 | kv-reposition --compact' rounds=0 n room
	kv-prefill --fill 60 --probe @question --each "$keep" doc -o in.kvs
	kv-prefill --fill 60 --probe @question --observe nll --each "$keep | cat" doc -o out.kvs
	alike in.kvs out.kvs
	kv-prefill --observe nll --take 0 doc -o loop.kvs
	while n=$(tokens_of loop.kvs) && [ "$n" -lt "$total" ]; do
		room=$((60 - probe - $(field loop.kvs .entries.max)))
		kv-prefill --from loop.kvs --continue --take $room --observe nll --probe @question doc -o full.kvs
		if [ "$(tokens_of full.kvs)" -lt "$total" ]; then
			kv-evict --infinipot -k 30 full.kvs | kv-reposition --compact -o loop.kvs
		else
			cp full.kvs loop.kvs
		fi
		rounds=$((rounds + 1))
	done
	[ "$rounds" -ge 18 ]
	same in.kvs loop.kvs
	cmp <(kv-dump --tsv nll in.kvs) <(kv-dump --tsv nll loop.kvs)
}

@test "threads, and reads of one byte, change nothing" {
	local args=(--no-prov --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact')
	kv-prefill "${args[@]}" doc -o t1.kvs
	for n in 2 4; do
		kv-prefill -@$n "${args[@]}" doc -o t$n.kvs
		cmp t1.kvs t$n.kvs
	done
	python3 -c 'import sys
for b in open("doc", "rb").read():
    sys.stdout.buffer.write(bytes([b]))
    sys.stdout.buffer.flush()' | kv-prefill "${args[@]}" -o b.kvs
	cmp t1.kvs b.kvs
}

# near FILE FILE: log probabilities within 1e-4 of each other, and the same tokens.
near() {
	python3 -c 'import json, sys
a, b = ([json.loads(l) for l in open(f)] for f in sys.argv[1:])
assert len(a) == len(b) > 3
for x, y in zip(a, b):
    assert x["id"] == y["id"] and abs(x["logprob"] - y["logprob"]) <= 1e-4 * max(1, abs(y["logprob"])), (x, y)' "$1" "$2"
}

@test "where nothing has to go, the answer is the one of reading at once" {
	local exact=(--precision f32 --dtype f32) answer=(kv-decode --precision f32 --json -n 6 --ignore-eos -p @question)
	kv-prefill "${exact[@]}" doc | "${answer[@]}" >want
	kv-prefill "${exact[@]}" --chunk 16 --probe @question --each 'kv-evict --citrus -k 1000 | kv-reposition --compact' doc | "${answer[@]}" >a
	near a want
	kv-prefill "${exact[@]}" --chunk 16 --probe @question --each 'kv-evict --citrus=chunk -k 1000' \
		--twin-each 'kv-evict --citrus -k 1000' doc | "${answer[@]}" >b
	near b want
	kv-prefill "${exact[@]}" --fill $((total + probe)) --probe @question --each 'kv-evict --infinipot -k 30' doc -o f.kvs
	[ "$(field f.kvs .entries.max)" -eq "$total" ]
	"${answer[@]}" f.kvs >c
	near c want
}

@test "CItruS: sizes as the table has them" {
	ids 10000 >ids
	while read -r chunk keep n chunks evicts peak after final; do
		kv-prefill -v --tokens --take "$n" --chunk "$chunk" --probe '5 6 7' \
			--each "kv-evict --citrus -k $keep | kv-reposition --compact" ids -o a.kvs 2>log
		kv-prefill --tokens --from a.kvs --probe '5 6 7' | kv-evict --citrus -k "$keep" | kv-reposition --compact -o f.kvs
		got=$(rounds <log | awk '{ n++; if ($2 < $3 && first == "") first = $1; if ($3 > peak) peak = $3 }
			END { print n, first == "" ? "-" : first, peak }')
		got="$got $(field a.kvs .entries.max) $(field f.kvs .entries.max)"
		[ "$got" = "$chunks $evicts $peak $after $final" ] || { echo "$chunk/$keep $n: $got"; return 1; }
		[ "$(field f.kvs .entries.min .tail)" = "$final 0" ]
		# No position beyond budget, old chunk and new one.
		[ "$(rounds <log | awk '$4 > most { most = $4 } END { print most }')" -le $((keep + 2 * chunk)) ]
	done <<<'256 768 1 1 - 1 1 1
		256 768 256 1 - 256 256 256
		256 768 257 2 - 257 257 257
		256 768 512 2 - 512 512 512
		256 768 513 3 - 513 513 513
		256 768 768 3 - 768 768 768
		256 768 1024 4 - 1024 1024 768
		256 768 1025 5 4 1025 769 768
		256 768 1280 5 4 1280 1024 768
		256 768 1281 6 4 1280 769 768
		256 768 1300 6 4 1280 788 768
		256 768 10000 40 4 1280 784 768
		256 100 256 1 - 256 256 100
		256 100 257 2 1 257 101 100
		256 100 512 2 1 512 356 100
		256 100 700 3 1 544 288 100
		256 100 1025 5 1 612 101 100
		8 24 3125 391 4 40 29 24'
}

@test "CItruS: what stays is one set a layer, in order; the sizes of every round" {
	kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact | tee -a rounds.kvs' doc -o a.kvs
	kv-dump --json rounds.kvs >all.json
	python3 -c 'import json, sys
old = read = 0
for s in (json.loads(l) for l in open("all.json")):
    new, read = s["tokens"] - read, s["tokens"]
    old = min(40, old) + new
    assert s["tail"] == new and s["entries"]["min"] == s["entries"]["max"] == s["next_pos"] == old, s["tokens"]
' || { head -c 600 all.json; false; }
	kv-dump --tsv entries a.kvs | awk -F'\t' 'NR > 1 { set[$1, $2] = set[$1, $2] " " $4; if ($4 <= last[$1, $2] && $3) exit 1; last[$1, $2] = $4 }
		END { exit set[0, 0] != set[0, 1] || set[1, 0] != set[1, 1] || set[0, 0] == set[1, 0] }'
	n=$(field a.kvs .entries.max)
	# The probe's own sums go with what was evicted: no policy may use them again.
	kv-prefill --from a.kvs --probe @question -o p.kvs
	kv-evict --citrus -k 30 p.kvs -o e.kvs
	[ "$(field e.kvs .entries.max .tail)" = "30 0" ]
	refuse 5 kv-evict --citrus -k 20 e.kvs
	kv-evict --citrus -k "$n" p.kvs -o same.kvs
	same same.kvs p.kvs
	# Nothing scored: nothing goes.
	kv-prefill --chunk 500 --probe @question doc -o one.kvs
	kv-evict --citrus -k 5 one.kvs -o id.kvs
	same one.kvs id.kvs
}

@test "CItruS individual: the twin goes its own way, on the first one's entries" {
	local chunk='kv-evict --citrus=chunk -k 20 | kv-reposition --compact' ask='kv-evict --citrus -k 20 | kv-reposition --compact'
	kv-prefill --chunk 16 --probe @question --each "$chunk" --twin-each "$ask" doc -o twin.kvs
	kv-prefill --chunk 16 --observe chunk --probe @question --each "tee -a main.seq | $chunk" --twin-each "tee -a twin.seq | $ask" doc -o t.kvs
	alike twin.kvs t.kvs
	kv-prefill --chunk 16 --probe @question --each "$ask" doc -o shared.kvs
	kv-prefill --chunk 16 --each "$chunk" doc -o standard.kvs
	run ! same twin.kvs shared.kvs
	run ! same twin.kvs standard.kvs
	# The chunk is ranked as in the standard mode, on the first cache; the twin gets the same new entries.
	for i in $(seq 23); do
		cmp <(kv-dump --only $i --tsv entries main.seq | awk -F'\t' '$4 >= t' t=$((16 * (i - 1)))) \
			<(kv-dump --only $i --tsv entries twin.seq | awk -F'\t' '$4 >= t' t=$((16 * (i - 1))))
	done
	kv-dump --only 23 --json main.seq | grep -q '"name": *"chunk"'
	run ! grep -q '"name": *"probe"' <(kv-dump --only 23 --json main.seq)
	kv-dump --only 23 --json twin.seq | grep -q '"name": *"probe"'
	run ! grep -q '"name": *"chunk"' <(kv-dump --only 23 --json twin.seq)
	# One pipeline for both: one cache twice.
	kv-prefill --chunk 16 --each 'kv-evict --tova -k 20 | kv-reposition --compact' --twin-each 'kv-evict --tova -k 20 | kv-reposition --compact' doc -o a.kvs
	kv-prefill --chunk 16 --each 'kv-evict --tova -k 20 | kv-reposition --compact' doc -o b.kvs
	alike a.kvs b.kvs
	# On a cache that is there already.
	kv-prefill --take 100 doc -o half.kvs
	kv-prefill --from half.kvs --continue --chunk 16 --each 'kv-evict --tova -k 20' --twin-each 'kv-evict --tova -k 20 | cat' doc -o a.kvs
	kv-prefill --from half.kvs --continue --chunk 16 --each 'kv-evict --tova -k 20' doc -o b.kvs
	alike a.kvs b.kvs
	refuse 2 kv-prefill --chunk 16 --twin-each "$ask" doc
	refuse 2 kv-prefill --each "$chunk" --twin-each "$ask" doc
	refuse 5 kv-prefill --chunk 16 --each 'kv-evict --tova -k 20' --twin-each 'kv-evict --h2o -k 20' --observe acc doc
	says "--twin-each: round"
}

@test "CItruS: the question stands once, at the end, on what was kept" {
	kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact' doc |
		kv-prefill --from - --probe @question | kv-evict --citrus -k 40 | kv-reposition --compact -o kept.kvs
	[ "$(field kept.kvs .tokens .tail .entries.min .entries.max .next_pos)" = "$total 0 40 40 40" ]
	kv-decode -n 0 -p @question --save asked.kvs kept.kvs
	[ "$(field asked.kvs .tokens .entries.min .entries.max .next_pos)" = "$((total + probe)) $((40 + probe)) $((40 + probe)) $((40 + probe))" ]
	cmp <(kv-dump --tsv tokens asked.kvs | tail -n "$probe" | cut -f2) <(kv-prefill --bos no question | kv-dump --tsv tokens | tail -n "$probe" | cut -f2)
	kv-dump --tsv entries asked.kvs | awk -F'\t' -v n="$total" 'NR > 1 && $4 >= n && $5 != 40 + $4 - n { exit 1 }'
}

@test "InfiniPot: sizes as the table has them" {
	ids 8097 >ids
	P=$(seq 32 | paste -sd' ')
	while read -r n reserve rounds distilled end; do
		kv-prefill -v --tokens --take "$n" --fill 4096 --probe "$P" --reserve "$reserve" \
			--each 'kv-evict --infinipot -k 2048 | kv-reposition --compact' ids -o a.kvs 2>log
		got="$(rounds <log | wc -l) $(field a.kvs .entries.min .entries.max .next_pos)"
		[ "$got" = "$distilled $end $end $end" ] || { echo "$n $reserve: $got"; return 1; }
		rounds <log | awk '$2 != 2048 || $3 > 4064 || $4 > 4064 { exit 1 }'
	done <<<'1 0 1 0 1
		4064 0 1 0 4064
		4065 0 2 1 2049
		6080 0 2 1 4064
		6081 0 3 2 2049
		8097 0 4 3 2049
		1 160 1 0 1
		4064 160 1 1 2048
		6080 160 2 2 2048
		6081 160 3 2 2049'
}

@test "InfiniPot: never more than the pot, positions from 0, one surprisal from refill to refill" {
	local exact=(--precision f32 --dtype f32)
	kv-prefill -v "${exact[@]}" --fill 60 --probe @question --each 'kv-evict --infinipot -k 30 | kv-reposition --compact' doc -o a.kvs 2>log
	[ "$(rounds <log | wc -l)" -ge 15 ]
	rounds <log | awk -v p="$probe" '$2 != 30 || $3 + p != 60 || $4 + p != 60 { exit 1 }'
	kv-dump --tsv entries a.kvs | awk -F'\t' 'NR > 1 && $5 != $3 { exit 1 }'
	kv-prefill "${exact[@]}" --observe nll --fill 60 --probe @question --each 'kv-evict --infinipot -k 30 | cat | kv-reposition --compact' doc -o b.kvs
	cmp <(kv-dump --tsv nll a.kvs) <(kv-dump --tsv nll b.kvs)
	# The first token of the second fill is foretold by the hidden state at the end of the first.
	first=$((60 - probe))
	kv-prefill "${exact[@]}" --take "$first" doc | kv-decode --precision f32 -n 1 --ignore-eos --json --logprobs 1000 >top
	kv-dump --tsv tokens a.kvs | awk -F'\t' -v t="$first" '$1 == t { print $2 }' >id
	kv-dump --tsv nll a.kvs | awk -F'\t' -v t="$first" '$1 == t { print $NF }' >nll
	python3 -c 'import json
top = {c["id"]: c["logprob"] for c in json.loads(open("top").readline())["top"]}
d = float(open("nll").read()) + top[int(open("id").read())]
assert abs(d) < 1e-5, d'
	# Before anything was distilled all heads agree on what is new: the surest of the novel tokens stay everywhere.
	kv-prefill "${exact[@]}" --take $((first + 1)) --fill 60 --probe @question --each 'kv-evict --infinipot --nuc 100% -k 30' doc -o n.kvs
	kv-dump --tsv entries n.kvs | awk -F'\t' 'NR > 1 { set[$1, $2] = set[$1, $2] " " $4 } END { for (k in set) if (set[k] != set[0, 0]) exit 1 }'
}

@test "a document of 100000 tokens: positions and sizes stay" {
	ids 100000 | kv-prefill -v --history alive --tokens --chunk 64 --probe '5 6 7' --each 'kv-evict --citrus -k 24 | kv-reposition --compact' -o a.kvs 2>log
	[ "$(field a.kvs .tokens .entries.max .next_pos .tail)" = "100000 56 56 32" ]
	rounds <log | awk '$3 > 152 || $4 > 152 { exit 1 } END { exit NR != 1563 }'
	[ "$(wc -c <a.kvs)" -lt 200000 ]
}

@test "words and bytes at the end of a text" {
	printf 'the cache keeps \xe2\x82' >cut
	run -0 --separate-stderr kv-prefill --chunk 4 --probe @question --each 'kv-evict --citrus -k 6' cut -o a.kvs
	[[ $stderr == *"not UTF-8"* ]]
	kv-dump --verify a.kvs
}
