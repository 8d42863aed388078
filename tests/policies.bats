#!/usr/bin/env bats
# Eviction policies at the command line: what they need, how they are combined, what comes behind them.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 120 >doc
	full=$BATS_FILE_TMPDIR/full.kvs
	[ -f "$full" ] || kv-prefill --observe acc,nll,last=600 doc -o "$full"
	entries=$(kv-dump --json "$full" | jq_ .entries.max)
}

# Those that work on what is recorded here.
policies() {
	kv-evict --list | awk -F'\t' '$4 !~ /probe/ { print $1 }'
}

@test "every policy: pipe and file, one thread and four, all give one digest" {
	for p in $(policies); do
		kv-evict --no-prov --$p -k 48 "$full" -o a.kvs
		kv-evict --no-prov -@4 --$p -k 48 <"$full" | cat >b.kvs
		same a.kvs b.kvs || { echo "$p"; return 1; }
		kv-dump --verify a.kvs
	done
}

@test "every policy: decoding, another cut, reading on, moving and looking work behind it" {
	for p in $(policies); do
		kv-evict --$p -k 60 "$full" -o a.kvs
		[ "$(kv-decode -n 4 --ids -p "what is kept?" a.kvs | wc -w)" -eq 4 ]
		kv-prefill --from a.kvs --observe acc,nll,last=600 -p "the cache lets go" -o b.kvs
		kv-evict --$p -k 48 b.kvs -o c.kvs
		kv-reposition --compact c.kvs | kv-decode -n 4 --ids >ids
		[ "$(wc -w <ids)" -eq 4 ]
		kv-dump --verify c.kvs
		kv-dump --tsv scores:$p c.kvs | awk -F'\t' 'NR > 1 && NF != 5 { exit 1 } END { exit NR < 2 }' || { echo "$p"; return 1; }
	done
}

@test "a budget that suffices changes nothing" {
	for p in $(policies); do
		kv-evict --$p -k "$entries" "$full" -o k.kvs
		same "$full" k.kvs || { echo "$p"; return 1; }
	done
}

@test "a missing observation is refused and its option named, whatever the budget" {
	kv-prefill --observe none doc -o bare.kvs
	for p in $(kv-evict --list | awk -F'\t' '$4 != "-" { print $1 }'); do
		want=$(kv-evict --list | awk -F'\t' -v p=$p '$1 == p { sub(",.*", "", $4); print $4 == "probe" ? "--probe" : "--observe " $4 }')
		for k in 48 100%; do
			refuse 5 kv-evict --$p -k $k bare.kvs
			says "run kv-prefill with $want"
		done
		refuse 5 kv-dump --tsv scores:$p bare.kvs
	done
	for p in $(kv-evict --list | awk -F'\t' '$4 == "-" { print $1 }'); do
		kv-evict --$p -k 48 bare.kvs -o k.kvs
	done
}

@test "an option goes with the policies that take it" {
	refuse 2 kv-evict --tova -k 48 --pool max:7 "$full"
	says "--pool does not go with --tova"
	refuse 2 kv-evict --snapkv -k 48 --beta 3 "$full"
	refuse 2 kv-evict --roco -k 48 --scope layer "$full"
	refuse 2 kv-evict --chunkkv -k 48 --base adakv "$full"
	refuse 2 kv-evict --keep-list x --sinks 2 "$full"
	refuse 2 kv-evict --snapkv -k 31 "$full"
	says "less than the 32"
	kv-evict --chunkkv -k 48 --base tova --chunk-len 7 "$full" -o c.kvs
	kv-evict --chunkkv -k 48 --last 8 --pool none "$full" -o c.kvs
}

@test "attention summed in two runs is that of one, and survivors keep it" {
	head -n 5 doc >A
	tail -n +6 doc >B
	kv-prefill --precision f32 --dtype f32 --observe acc A | kv-prefill --precision f32 --from - --observe acc B | kv-evict --h2o -k 40 | kv-dump --tsv entries >two
	kv-prefill --precision f32 --dtype f32 --observe acc A B | kv-evict --h2o -k 40 | kv-dump --tsv entries >one
	cmp one two
	kv-evict --h2o -k 60 "$full" | kv-evict --h2o -k 30 | kv-dump --tsv entries >two
	kv-evict --h2o -k 30 "$full" | kv-dump --tsv entries >one
	cmp one two
	kv-dump --tsv scores:observed "$full" | sort -k1,1n -k2,2n -k4,4n >before
	kv-evict --observed -k 40 "$full" | kv-dump --tsv scores:observed | sort -k1,1n -k2,2n -k4,4n >after
	awk -F'\t' 'NR == FNR { s[$1, $2, $4] = $5; next } s[$1, $2, $4] != $5 { exit 1 }' before after
}

@test "sums that missed some queries are refused, unless they will do" {
	kv-prefill --observe acc -p "one two three four five six seven" | kv-prefill --from - --observe none -p "and more" -o stale.kvs
	for p in h2o observed; do
		refuse 5 kv-evict --$p -k 5 stale.kvs
		says "--allow-stale"
		kv-evict --$p -k 5 --allow-stale stale.kvs | kv-dump --verify
	done
	refuse 2 kv-evict --knorm -k 5 --allow-stale stale.kvs
}

@test "-v tells that a pyramid has become a column" {
	run --separate-stderr kv-evict -v --pyramidkv --alloc kvpress -k 40 "$full" -o column.kvs
	says "all layers get the same"
	kv-evict --pyramidkv -k 40 --last 4 --pool none "$full" -o pyramid.kvs
	kv-dump --tsv entries pyramid.kvs | awk -F'\t' 'NR > 1 && $2 == 0 { n[$1]++ } END { exit !(n[0] > n[1] && n[1] > n[2]) }'
}

@test "heads that keep different numbers of entries" {
	kv-evict --adakv -k 44 --alpha 0 "$full" -o ada.kvs
	kv-dump --tsv entries ada.kvs | awk 'NR > 1 { n[$1 " " $2]++ } END { for (i in n) print n[i] }' | sort -un >lengths
	[ "$(wc -l <lengths)" -gt 1 ]
	refuse 5 kv-evict --tova -k 33 ada.kvs
	says "--scope head"
	kv-evict --tova --scope head -k 33 ada.kvs | kv-decode -n 4 --ids >ids
	[ "$(wc -w <ids)" -eq 4 ]
	kv-reposition --compact ada.kvs -o start.kvs
	kv-reposition --compact --align end ada.kvs -o end.kvs
	longest=$(tail -n 1 lengths)
	for s in start end; do
		[ "$(kv-dump --json $s.kvs | jq_ .next_pos)" -eq "$longest" ]
		kv-prefill --from $s.kvs -p "the cache" -o more.kvs
		kv-decode -n 3 --ids more.kvs >ids
		kv-reposition --original more.kvs | kv-dump --verify
	done
	# Aligned at the end, the newest entry of every list stands right before the next token.
	kv-dump --tsv entries end.kvs | awk -F'\t' -v last=$((longest - 1)) 'NR > 1 { p[$1, $2] = $5 } END { for (i in p) if (p[i] != last) exit 1 }'
	kv-reposition --gaps ada.kvs | kv-dump --verify
}

@test "decay goes with every turn, and the perplexity does not change" {
	kv-evict --sirllm -k 100% --decay 0.5 "$full" -o half.kvs
	cmp <(kv-dump --ppl "$full") <(kv-dump --ppl half.kvs)
	paste <(kv-dump --tsv nll "$full") <(kv-dump --tsv nll half.kvs) |
		awk -F'\t' 'NR > 2 { d = $(NF / 2) / 2 - $NF; if (d > 1e-5 || d < -1e-5) exit 1 } END { exit NR < 20 }'
}

@test "a policy of one's own, in awk" {
	kv-dump --tsv scores:tova "$full" | awk -v k=24 -f "$BATS_TEST_DIRNAME/../examples/stretches.awk" >keep.tsv
	kv-evict --keep-list keep.tsv "$full" -o own.kvs
	kv-dump --tsv entries own.kvs | awk -F'\t' -v n="$entries" 'NR > 1 { c[$1, $2]++; if ($4 < int($3 * n / 24) || $4 >= int(($3 + 1) * n / 24)) exit 1 }
		END { for (i in c) if (c[i] != 24) exit 1 }'
	kv-decode -n 3 --ids -p "what is kept?" own.kvs >ids
	# The same policy as scores: the best of each stretch, told from the rest.
	awk -F'\t' 'NR == FNR { s[$1, $2, $3] = 1; next } FNR == 1 { print; next } { print $1, $2, $3, $4, ($1, $2, $3) in s ? 1 : 0 }' OFS='\t' keep.tsv \
		<(kv-dump --tsv scores:tova "$full") >scores.tsv
	kv-evict --scores scores.tsv -k 24 "$full" -o scored.kvs
	same own.kvs scored.kvs
}

@test "scores of a policy, taken out and brought in again, keep the same" {
	for p in tova snapkv h2o observed knorm keydiff expected-attention lagkv scissorhands random; do
		scope=$(kv-evict --list | awk -F'\t' -v p=$p '$1 == p { print $3 }')
		recent=
		[ $p = h2o ] && recent="--recent 24"
		kv-dump --tsv scores:$p "$full" >scores.tsv
		kv-evict --$p -k 48 "$full" -o a.kvs
		kv-evict --scores scores.tsv --scope $scope $recent -k 48 "$full" -o b.kvs
		same a.kvs b.kvs || { echo "$p"; return 1; }
	done
}
