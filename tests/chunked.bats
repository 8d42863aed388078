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

# A model of one layer with one head, for texts of a million tokens: their number counts here, not what is made of them.
least_model() {
	mkmodel --type F32 --layers 1 --heads 1 --kv-heads 1 --head-dim 4 --embd 32 --ff 32 -o least.gguf
	export KV_MODEL=$PWD/least.gguf
}

# rounds: of the lines of -v on standard input, one a round: its number, entries kept, entries there, the next position before it was moved.
rounds() {
	awk '{ sub(/.*each: round /, "") } / kv-evict: kept / { r = $1 + 0; kept = $4; of = $6 } / kv-reposition: / { sub(/.*was /, ""); print r, kept, of, $1 }'
}

# digests FILE: of each snapshot of a sequence.
digests() { kv-dump --digest "$1"; }

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

@test "InfiniPot: in this process, in a shell, and as a loop over files, more than 20 rounds" {
	local keep='kv-evict --infinipot -k 32 | kv-reposition --compact' rounds=0 n room
	kv-prefill --fill 56 --probe @question --each "$keep" doc -o in.kvs
	kv-prefill --fill 56 --probe @question --observe nll --each "$keep | cat" doc -o out.kvs
	alike in.kvs out.kvs
	kv-prefill -@3 --fill 56 --probe @question --each "$keep" doc -o threads.kvs
	alike in.kvs threads.kvs
	kv-prefill --observe nll --take 0 doc -o loop.kvs
	while n=$(tokens_of loop.kvs) && [ "$n" -lt "$total" ]; do
		room=$((56 - probe - $(field loop.kvs .entries.max)))
		kv-prefill --from loop.kvs --continue --take $room --observe nll --probe @question doc -o full.kvs
		if [ "$(tokens_of full.kvs)" -lt "$total" ]; then
			kv-evict --infinipot -k 32 full.kvs | kv-reposition --compact -o loop.kvs
		else
			cp full.kvs loop.kvs
		fi
		rounds=$((rounds + 1))
	done
	[ "$rounds" -gt 20 ]
	same in.kvs loop.kvs
	cmp <(kv-dump --tsv nll in.kvs) <(kv-dump --tsv nll loop.kvs)
	cmp <(kv-decode -n 12 --ids -p @question in.kvs) <(kv-decode -n 12 --ids -p @question loop.kvs)
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

@test "CItruS: sizes as the table has them, up to a million tokens" {
	ids 1000000 >ids
	while read -r chunk keep n chunks evicts peak after final; do
		[ "$n" -lt 100000 ] || least_model
		[ "$n" -lt 100000 ] || ! sanitized t || continue	# very slow
		kv-prefill -v --tokens --take "$n" --chunk "$chunk" --probe '5 6 7' \
			--each "kv-evict --citrus -k $keep | kv-reposition --compact" ids -o a.kvs 2>log
		kv-prefill --tokens --from a.kvs --probe '5 6 7' | kv-evict --citrus -k "$keep" | kv-reposition --compact -o f.kvs
		got=$(rounds <log | awk '{ n++; if ($2 < $3 && first == "") first = $1; if ($3 > peak) peak = $3 }
			END { print n, first == "" ? "-" : first, peak }')
		got="$got $(field a.kvs .entries.max) $(field f.kvs .entries.max)"
		[ "$got" = "$chunks $evicts $peak $after $final" ] || { echo "$chunk/$keep $n: $got"; return 1; }
		[ "$(field f.kvs .entries.min .tail)" = "$final 0" ]
		# No position beyond budget, old chunk and new one.
		rounds <log | awk -v most=$((keep + 2 * chunk)) '$4 > most { exit 1 }'
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
		8 24 3125 391 4 40 29 24
		256 768 100000 391 4 1280 928 768
		256 768 1000000 3907 4 1280 832 768'
}

@test "CItruS: a probe longer than the chunk, and than what is kept" {
	ids 200 >ids
	P=$(seq 25 | paste -sd' ')
	kv-prefill -v --tokens --chunk 4 --probe "$P" --each 'kv-evict --citrus -k 6 | kv-reposition --compact' ids -o a.kvs 2>log
	[ "$(rounds <log | wc -l)" -eq 50 ]
	rounds <log | awk 'BEGIN { split("4 4,8 8,10 12", first, ",") } { want = $1 < 3 ? first[$1 + 1] : "10 14" } $2 " " $3 != want { exit 1 }'
	[ "$(field a.kvs .entries.min .entries.max .next_pos .tail)" = "10 10 10 4" ]
	kv-prefill --tokens --from a.kvs --probe "$P" | kv-evict --citrus -k 6 -o f.kvs
	[ "$(field f.kvs .entries.min .entries.max .tail)" = "6 6 0" ]
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
	# To the last bit of every key and value: of the new entries alone, moved to the same positions, both make one snapshot.
	for new in 16 8; do
		for seq in main twin; do kv-evict --window --scope head -k $new $seq.seq | kv-reposition --compact >new.$seq; done
		cmp <(digests new.main) <(digests new.twin)
		[ "$(digests new.main | sort -u | wc -l)" -eq 24 ]
	done
	# What was there before is not the same any more; the last twin, ranked by the question, is the answer's cache.
	kv-dump --only 24 --tsv entries main.seq | awk -F'\t' 'NR > 1 && $3 < 36' | cut -f1,2,4 >main.old
	kv-dump --only 24 --tsv entries twin.seq | awk -F'\t' 'NR > 1 && $3 < 36' | cut -f1,2,4 >twin.old
	run ! cmp main.old twin.old
	kv-evict --only 24 --citrus -k 20 twin.seq | kv-reposition --compact -o last.kvs
	same last.kvs twin.kvs
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
	# Made by reading it behind what was kept, and nothing else.
	kv-prefill --from kept.kvs question -o read.kvs
	same read.kvs asked.kvs
	kv-decode -n 5 --ignore-eos --ids -p @question --save answered.kvs kept.kvs
	[ "$(field answered.kvs .entries.max .next_pos)" = "$((40 + probe + 5)) $((40 + probe + 5))" ]
}

@test "InfiniPot: sizes as the table has them, up to a million tokens" {
	least_model
	ids 1000000 >ids
	P=$(seq 32 | paste -sd' ')
	while read -r n reserve distilled end; do
		[ "$n" -lt 100000 ] || ! sanitized t || continue
		kv-prefill -v --tokens --take "$n" --fill 4096 --probe "$P" --reserve "$reserve" \
			--each 'kv-evict --infinipot -k 2048 | kv-reposition --compact' ids -o a.kvs 2>log
		got="$(rounds <log | wc -l) $(field a.kvs .entries.min .entries.max .next_pos)"
		[ "$got" = "$distilled $end $end $end" ] || { echo "$n $reserve: $got"; return 1; }
		rounds <log | awk '$2 != 2048 || $3 > 4064 || $4 > 4064 { exit 1 }'
	done <<<'1 0 0 1
		4064 0 0 4064
		4065 0 1 2049
		6080 0 1 4064
		6081 0 2 2049
		8096 0 2 4064
		8097 0 3 2049
		1 160 0 1
		4064 160 1 2048
		4065 160 1 2049
		6080 160 2 2048
		6081 160 2 2049
		8096 160 3 2048
		8097 160 3 2049
		100000 0 48 3232
		100000 160 48 3232
		1000000 0 495 2080'
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
	# Before anything was distilled all heads agree on what is new: the top of what the plain model finds surprising, and the first token.
	kv-prefill "${exact[@]}" --observe nll --take "$first" doc | kv-dump --tsv nll | tail -n +2 | sort -t"$(printf '\t')" -k3,3gr | cut -f1 >surprising
	for part in '100% 29' '50% 14'; do
		kv-prefill "${exact[@]}" --take $((first + 1)) --fill 60 --probe @question --each "kv-evict --infinipot --nuc ${part% *} -k 30" doc -o n.kvs
		{ echo 0 && head -n "${part#* }" surprising; } >novel
		kv-dump --tsv entries n.kvs | awk -F'\t' 'NR == FNR { want[$1]; next } FNR > 1 { has[$1, $2, $4]; list[$1, $2] }
			END { for (l in list) for (s in want) if (!((l, s) in has)) exit 1 }' novel -
	done
}

@test "InfiniPot: round by round, what a probe leaves behind is its record alone" {
	local n=0 full kept read=0
	kv-prefill --fill 60 --probe @question --observe nll \
		--each 'tee -a full.seq | kv-evict --infinipot -k 30 | kv-reposition --compact | tee -a kept.seq' doc -o a.kvs
	kv-prefill --take 0 --observe nll doc -o kept.kvs
	full=$((60 - probe))
	digests full.seq >full.digests
	# The same fill without a probe.
	while n=$((n + 1)) && [ $n -le "$(wc -l <full.digests)" ]; do
		room=$((full - $(field kept.kvs .entries.max)))
		kv-prefill --from kept.kvs --continue --take $room --observe nll doc -o plain.kvs
		[ "$(digests plain.kvs)" = "$(sed -n ${n}p full.digests)" ]
		cmp <(kv-dump --tsv nll plain.kvs) <(kv-dump --only $n --tsv nll full.seq)
		kv-evict --only $n --window -k 1000 kept.seq -o kept.kvs
	done
	[ $n -gt 18 ]
	# Full means full in every list, and distilled means k in every list, at positions 0 ….
	kv-dump --json full.seq >full.json
	kv-dump --json kept.seq >kept.json
	python3 -c 'import json, sys
for name, n in ("full", int(sys.argv[1])), ("kept", 30):
    for s in (json.loads(l) for l in open(name + ".json")):
        assert s["entries"]["per_head"] == [[n] * 2] * 3 and s["next_pos"] == n, (name, s["entries"])' $full
	cmp <(digests kept.seq) <(kv-reposition --compact kept.seq | kv-dump --digest)
	# By surprisal alone all heads hold the same, whatever the round.
	kv-prefill --fill 60 --probe @question --observe nll \
		--each 'kv-evict --infinipot --nuc 100% -k 30 | kv-reposition --compact | tee -a novel.seq' doc -o b.kvs
	for n in $(seq 18); do
		kv-dump --only "$n" --tsv entries novel.seq | awk -F'\t' 'NR > 1 { set[$1, $2] = set[$1, $2] " " $4 } END { for (k in set) if (set[k] != set[0, 0]) exit 1 }'
	done
	kv-dump --only 18 --tsv entries kept.seq | awk -F'\t' 'NR > 1 { set[$1, $2] = set[$1, $2] " " $4 } END { exit set[0, 0] == set[1, 1] }'
}

@test "a document of 100000 tokens: positions and sizes stay" {
	! sanitized t || skip "very slow with the sanitizer of threads"
	ids 100000 | kv-prefill -v --history alive --tokens --chunk 64 --probe '5 6 7' --each 'kv-evict --citrus -k 24 | kv-reposition --compact' -o a.kvs 2>log
	[ "$(field a.kvs .tokens .entries.max .next_pos .tail)" = "100000 56 56 32" ]
	rounds <log | awk '$3 > 152 || $4 > 152 { exit 1 } END { exit NR != 1563 }'
	[ "$(wc -c <a.kvs)" -lt 200000 ]
}

@test "a text that ends inside a character" {
	printf 'the cache keeps \xe2\x82' >cut
	for how in '' '--chunk 4 --probe @question --each kv-evict\ --citrus\ -k\ 6' '--fill 16 --probe @question --each kv-evict\ --infinipot\ -k\ 3'; do
		eval "run -0 --separate-stderr kv-prefill $how cut -o a.kvs"
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ $stderr == *"not UTF-8"* ]]
		kv-dump --verify a.kvs
		# From a pipe, too.
		eval "run -0 --separate-stderr kv-prefill $how -o b.kvs <cut"
		same a.kvs b.kvs
	done
	# Each byte that is left of it counts as U+FFFD, as anywhere in a text.
	printf 'the cache keeps \xef\xbf\xbd\xef\xbf\xbd' >whole
	kv-prefill whole -o c.kvs
	kv-prefill -q cut -o d.kvs
	same c.kvs d.kvs
}
