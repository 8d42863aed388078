#!/usr/bin/env bats
# --chunk and --each: rounds in this process, in a shell, and as a loop over files.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 130 >doc
	total=$(kv-prefill doc | kv-dump --json | jq_ .tokens)
}

# both OPTIONS PIPELINE: the pipeline inside, and outside with a cat in it, give one snapshot; $inside names it.
both() {
	local pipe=$1
	shift
	kv-prefill "$@" --each "$pipe" doc -o in.kvs
	kv-prefill "$@" --each "$pipe | cat" doc -o out.kvs
	same in.kvs out.kvs
	cmp <(kv-dump --json in.kvs | jq_ .observation_digest) <(kv-dump --json out.kvs | jq_ .observation_digest)
}

@test "in this process, in a shell, and as a loop over files: one cache after 20 rounds and more" {
	local pipe='kv-evict --tova -k 40 | kv-reposition --compact' n=0 rounds=0
	[ "$total" -ge 320 ]
	both "$pipe" --chunk 16
	kv-prefill --take 16 doc | kv-evict --tova -k 40 | kv-reposition --compact -o loop.kvs
	while n=$(kv-dump --json loop.kvs | jq_ .tokens) && [ "$n" -lt "$total" ]; do
		kv-prefill --from loop.kvs --continue --take 16 doc | kv-evict --tova -k 40 | kv-reposition --compact -o loop.kvs
		rounds=$((rounds + 1))
	done
	[ "$rounds" -ge 20 ]
	same in.kvs loop.kvs
	cmp <(kv-dump --json in.kvs | jq_ .observation_digest) <(kv-dump --json loop.kvs | jq_ .observation_digest)
	[ "$(kv-dump --json in.kvs | jq_ .entries.max)" -eq 40 ]
	cmp <(kv-decode -n 12 --ids in.kvs) <(kv-decode -n 12 --ids loop.kvs)
}

@test "every policy, in this process and outside" {
	for policy in $(kv-evict --list | cut -f1); do
		both "kv-evict --$policy -k 50" --chunk 64 --probe 'what is kept?' --probe-at all --observe acc,nll,chunk,last=1024
	done
}

@test "element types, positions left alone, threads" {
	for t in f32 bf16; do
		both 'kv-evict --streaming -k 30' --dtype $t --chunk 50
	done
	for n in 1 2 3; do
		kv-prefill -@$n --no-prov --chunk 20 --each 'kv-evict --tova -k 30 | kv-reposition --compact' doc -o t$n.kvs
	done
	cmp t1.kvs t2.kvs && cmp t1.kvs t3.kvs
}

@test "a budget that is never reached: the rounds leave what one reading leaves" {
	kv-prefill --precision f32 --dtype f32 --chunk 32 --each 'kv-evict --tova -k 100000' doc -o a.kvs
	kv-prefill --precision f32 --dtype f32 doc -o b.kvs
	cmp <(kv-dump --tsv entries a.kvs) <(kv-dump --tsv entries b.kvs)
	cmp <(kv-decode --ids -n 12 a.kvs) <(kv-decode --ids -n 12 b.kvs)
}

@test "without --chunk the whole text is one round" {
	kv-prefill --each 'kv-evict --tova -k 30' doc -o a.kvs
	kv-prefill doc | kv-evict --tova -k 30 -o b.kvs
	same a.kvs b.kvs
}

@test "one token, one entry: perplexity of a policy" {
	kv-prefill --chunk 1 --observe nll --each 'kv-evict --tova -k 30' doc -o a.kvs
	[ "$(kv-dump --ppl a.kvs | cut -f1)" -eq $((total - 1)) ]
	kv-prefill --chunk 1 --observe nll --each 'kv-evict --tova -k 100000' --precision f32 --dtype f32 doc -o b.kvs
	paste <(kv-dump --ppl b.kvs) <(kv-prefill --observe nll --precision f32 --dtype f32 doc | kv-dump --ppl) | awk '{ d = $2 - $5; exit d * d > 1e-8 }'
	[ "$(kv-dump --ppl a.kvs)" != "$(kv-dump --ppl b.kvs)" ]
}

@test "what the policies need is observed without being asked for" {
	kv-prefill --observe none --chunk 16 --each 'kv-evict --tova -k 30' doc | kv-dump --json | grep -q '"name": *"last"'
	run -5 --separate-stderr kv-prefill --observe none --chunk 16 --each 'cat | kv-evict --tova -k 30' doc
	[[ $stderr == *"--observe last=1"*"round 0: the pipeline ended with status 5"* ]]
}

@test "a cache that is coded as it grows: rounds with too little for a block are no error, and say so once" {
	for what in k v kv; do
		both "kv-quant --kivi 4 --group 8 --residual 64 --what $what" --chunk 16
		# As many are coded as if it were done in the end.
		kv-prefill --chunk 16 --each "kv-quant --kivi 4 --group 8 --residual 64 --what $what" doc -o a.kvs 2>log
		[ "$(grep -c 'round 0: kv-quant' log)" -eq ${#what} ]
		[ "$(wc -l <log)" -le $((2 * ${#what})) ]
		[ "$(kv-dump --json a.kvs | jq_ .quant.rows_k)" = $([ $what = v ] && echo 0 || echo $((total / 64 * 64 * 6))) ]
		[ "$(kv-dump --json a.kvs | jq_ .quant.rows_v)" = $([ $what = k ] && echo 0 || echo $(((total - 64) * 6))) ]
	done
	kv-prefill --chunk 16 -v --each 'kv-quant --kivi 4 --group 8 --residual 64 --what k' doc -o a.kvs 2>log
	[ "$(grep -c 'nothing to code' log)" -eq $(((total + 15) / 16 - total / 64)) ]
	# While decoding, too.
	kv-prefill --take 100 doc | kv-quant --kivi 4 --group 8 --residual 32 --what k -o q.kvs
	kv-decode -n 40 --ignore-eos --ids --each 'kv-quant --kivi 4 --group 8 --residual 32 --what k' --save b.kvs q.kvs
	[ "$(kv-dump --json b.kvs | jq_ .quant.rows_k)" -eq $((128 * 6)) ]
	# Asked again with nothing read since: refused.
	refuse 5 kv-quant --kivi 4 --group 8 --residual 64 --what k <(kv-quant --kivi 4 --group 8 --residual 64 --what k <(kv-prefill doc))
	says "K is quantised already"
}

@test "pruning, coding and evicting in one loop: what goes, and what is refused" {
	both 'kv-evict --tova -k 100 | kv-quant --kivi 4 --group 8 --residual 32 --what v | kv-reposition --compact' --chunk 16
	[ "$(kv-dump --json in.kvs | jq_ .quant.rows_v)" -gt 0 ]
	both 'kv-evict --tova -k 100 | kv-prune --think 0.4 --pairs --reuse-mask | kv-reposition --compact' --chunk 16
	[ "$(kv-dump --json in.kvs | jq_ .masks.rows_pruned)" -gt 0 ]
	refused() { run -5 --separate-stderr kv-prefill --chunk 16 --each "$1" doc && [[ ${stderr_lines[-1]} == *": $2: layer "*"$3"* ]]; }
	refused 'kv-evict --tova -k 100 | kv-quant --kivi 4 --group 8 --residual 32' kv-evict 'quantised groups of 8 would be split'
	refused 'kv-evict --window -k 100 | kv-prune --think 0.4 --reuse-mask | kv-reposition --compact' kv-reposition 'positions are baked in'
}

@test "pipelines as sh reads them" {
	kv-prefill --chunk 90 --each 'kv-evict --window -k 20' doc -o want.kvs
	kv-prefill --chunk 90 --each "kv-evict  '--window' \"-k\" 2\\0" doc -o a.kvs
	same want.kvs a.kvs
	k=20 kv-prefill --chunk 90 --each 'kv-evict --window -k $k' doc -o b.kvs 2>b || { export k=20; kv-prefill --chunk 90 --each 'kv-evict --window -k $k' doc -o b.kvs; }
	same want.kvs b.kvs
	kv-prefill --chunk 90 --each "$(command -v kv-evict) --window -k 20" doc -o c.kvs
	same want.kvs c.kvs
	kv-prefill --chunk 90 --each 'kv-evict --window -k 20 -@ 2 -v --codec raw' doc -o d.kvs
	same want.kvs d.kvs
}

@test "pipelines that make no sense are usage errors, before any work" {
	for pipe in '' 'kv-evict --tova -k 3 |' 'kv-evict --tova -k $k |' "kv-evict 'x" 'kv-evict --tovva -k 3' 'kv-evict --tova' 'kv-evict --list' 'kv-evict --tova -k 3 --dry-run'; do
		refuse 2 kv-prefill --chunk 16 --each "$pipe" doc
		says "--each"
	done
}

@test "pipelines that fail stop the job, which names the round" {
	one() { refuse "$1" kv-prefill --chunk 16 --each "$2" doc && says "round ${3:-0}"; }
	one 3 true
	one 1 false
	one 42 'exit 42'
	one 137 'kill -9 $$'
	one 3 'head -c 70'
	one 3 'cat | head -c 70'
	one 7 'kv-evict --window -k 9 | sh -c "cat >/dev/null & exit 7"'
	kv-prefill -p other -o other.kvs
	one 5 'head -c 1 >/dev/null; cat other.kvs; cat >/dev/null'
	mkmodel --seed 9 -o other.gguf
	kv-prefill -m other.gguf --take 16 doc -o other.kvs
	one 5 'head -c 1 >/dev/null; cat other.kvs; cat >/dev/null'
	run -3 --separate-stderr kv-prefill --chunk 16 --each 'cat; echo more' doc
	[[ $stderr == *"after the last round"* ]]
	run -3 --separate-stderr kv-prefill --chunk 16 --each 'echo garbage; cat' doc
}

@test "a pipeline that fails in round 7 takes nothing with it" {
	make_filter
	echo fail >mode
	echo old >kept
	refuse 9 kv-prefill --chunk 16 --each 'python3 filter.py' doc -o kept
	says "round 7"
	[ "$(cat kept)" = old ]
	kv-prefill --chunk 64 --each 'python3 filter.py' doc -o a.kvs
	kv-prefill --chunk 64 doc -o b.kvs
	same a.kvs b.kvs
}

@test "--take and --continue: a text cut at tokens" {
	kv-prefill --take 37 doc -o a.kvs
	[ "$(kv-dump --json a.kvs | jq_ .tokens)" -eq 37 ]
	kv-prefill --from a.kvs --continue --take 40 doc -o b.kvs
	kv-prefill --from b.kvs --continue doc -o c.kvs
	cmp <(kv-dump --tsv tokens c.kvs) <(kv-prefill doc | kv-dump --tsv tokens)
	kv-prefill --from c.kvs --continue doc -o d.kvs
	same c.kvs d.kvs
	kv-prefill --take 0 doc -o e.kvs
	[ "$(kv-dump --json e.kvs | jq_ .tokens)" -eq 0 ]
	sed 's/cache/cashe/' doc >other
	refuse 5 kv-prefill --from c.kvs --continue other
	head -c 50 doc >short
	refuse 5 kv-prefill --from c.kvs --continue short
	refuse 2 kv-prefill --continue doc
}

@test "--fill: the pot is emptied when it is full and more text waits" {
	# tokens, reserve, entries at the end: a pot of 8, 4 kept
	while read -r n reserve want; do
		kv-prefill --take $n --fill 8 --reserve $reserve --each 'kv-evict --window -k 4 | kv-reposition --compact' doc -o f.kvs
		got=$(kv-dump --json f.kvs | jq_ .entries.max)
		[ "$got" -eq "$want" ] || { echo "$n $reserve: $got"; false; }
		[ "$(kv-dump --json f.kvs | jq_ .next_pos)" -eq "$want" ]
	done <<<'1 0 1
		8 0 8
		6 2 6
		6 3 4
		9 0 5
		12 0 8
		12 1 4
		13 0 5
		100 0 8
		101 7 4'
	both 'kv-evict --tova --scope head -k 24 | kv-reposition --compact' --fill 48
	[ "$(kv-dump --json in.kvs | jq_ .entries.max)" -le 48 ]
	refuse 5 kv-prefill --fill 8 --each 'kv-evict --window -k 8' doc
	says "--fill 8"
	refuse 2 kv-prefill --fill 8 doc
	refuse 2 kv-prefill --fill 8 --chunk 8 --each 'kv-evict --window -k 4' doc
	refuse 2 kv-prefill --reserve 8 doc
}

@test "--history: what is remembered of tokens that are gone" {
	for h in all alive none; do
		kv-prefill --history $h --observe nll --chunk 16 --each 'kv-evict --streaming -k 20 | kv-reposition --compact' doc -o $h.kvs
		kv-dump --verify $h.kvs
		kv-decode -n 8 --ids $h.kvs >$h.ids
	done
	cmp all.ids alive.ids && cmp all.ids none.ids
	[ "$(kv-dump --ppl all.kvs)" = "$(kv-dump --ppl alive.kvs)" ]
	[ "$(kv-dump --ppl all.kvs)" = "$(kv-dump --ppl none.kvs)" ]
	[ "$(kv-dump --tsv tokens alive.kvs | wc -l)" -le 40 ]
	[ "$(kv-dump --tsv tokens alive.kvs | wc -l)" -gt 20 ]
	cmp <(kv-dump --tsv entries alive.kvs) <(kv-dump --tsv entries all.kvs)
	refuse 5 kv-dump --tsv tokens none.kvs
	kv-prefill --history alive --observe nll --chunk 16 --each 'kv-evict --streaming -k 20 | kv-reposition --compact | cat' doc -o ext.kvs
	same alive.kvs ext.kvs
}

@test "kv-decode --each: in this process and outside, step by step" {
	kv-prefill doc | kv-evict --tova -k 30 -o s.kvs
	kv-decode -n 24 --ids --ignore-eos --each 'kv-evict --tova -k 30' --save a.kvs s.kvs >a
	kv-decode -n 24 --ids --ignore-eos --each 'kv-evict --tova -k 30 | cat' --save b.kvs s.kvs >b
	cmp a b
	same a.kvs b.kvs
	[ "$(kv-dump --json a.kvs | jq_ .entries.max)" -eq 30 ]
	kv-decode -n 24 --ids --ignore-eos --each 'kv-evict --tova -k 30' --every 10 --save c.kvs s.kvs >c
	[ "$(kv-dump --json c.kvs | jq_ .entries.max)" -eq 34 ]
	cp s.kvs step.kvs
	for i in $(seq 24); do
		kv-decode -n 1 --ids --ignore-eos --save next.kvs step.kvs >>d
		kv-evict --tova -k 30 next.kvs -o step.kvs
	done
	[ "$(tr '\n' ' ' <d)" = "$(tr '\n' ' ' <a)" ]
	same a.kvs step.kvs
	refuse 2 kv-decode --every 3 s.kvs
}

tokens() { kv-dump --json "$1" | jq_ .tokens; }

watch() { "$BATS_TEST_DIRNAME/../examples/watch-log.sh" log question state; }

# state_is N TOKENS: N bytes of the log are read, and so many tokens in all; nothing is left over.
state_is() {
	[[ $(readlink state/current) == read-$1-* ]] && [ "$(tokens state/current)" -eq "$2" ] &&
		[ "$(ls state | sort | paste -sd' ')" = "answered current lock $(readlink state/current)" ] ||
		{ ls -l state && tokens state/current; return 1; }
}

@test "examples: a log that grows, is cut, rotated, and asked about anew" {
	export WORDS=4
	echo "what is kept?" >question
	head -n 3 doc >log
	printf 'half a li' >>log
	watch >answer
	[ -s answer ]
	state_is "$(head -n 3 doc | wc -c)" "$(tokens <(head -n 3 doc | kv-prefill))"
	run -0 watch
	[ -z "$output" ]
	printf 'ne, and half of \xe2\x82' >>log
	run -0 watch
	[ -z "$output" ]
	printf '\xac\n' >>log
	run -0 --separate-stderr watch
	[ -n "$output" ]
	[ -z "$stderr" ]
	read=$(tokens <(kv-prefill log))
	state_is "$(wc -c <log)" "$read"
	# Rotated, with a line that was not read yet.
	echo "the last line" >>log
	mv log log.1
	echo "the first line" >log
	run -0 watch
	[ -n "$output" ]
	read=$((read + $(tokens <(printf 'the last line\nthe first line\n' | kv-prefill --bos no))))
	state_is 15 "$read"
	# Copied and truncated, longer than it was when nobody looks; then without a trace of what it was.
	cp log log.1
	prose 40 >log
	run -0 watch
	read=$((read + $(tokens <(kv-prefill --bos no log))))
	state_is "$(wc -c <log)" "$read"
	rm log.1
	prose 60 | tail -n +2 >log
	run -0 watch
	read=$((read + $(tokens <(kv-prefill --bos no log))))
	state_is "$(wc -c <log)" "$read"
	# Another question is answered at once, the same one not again.
	echo "what is gone?" >question
	run -0 watch
	[ -n "$output" ]
	run -0 watch
	[ -z "$output" ]
	rm log
	run ! watch
}

@test "examples: whoever watches a log may be killed at any moment" {
	export WORDS=4
	echo "what is kept?" >question
	RANDOM=5
	prose 4000 >text
	mkdir state
	head -c 300 text >log
	start=${EPOCHREALTIME/./}
	watch >>answers
	lasts=$((${EPOCHREALTIME/./} - start))	# µs
	kills=0
	for ((i = 1; i < 25; i++)); do
		# Bytes that end where they like; sometimes a new log, before the end of the old one was read.
		[ $((i % 9)) -ne 8 ] || watch >>answers
		tail -c +$((i * 300 + 1)) text | head -c 300 >>log
		if [ $((i % 9)) -eq 8 ]; then
			head -n "$(wc -l <log)" log >log.1
			tail -c +$(($(wc -c <log.1) + 1)) log >log.next
			mv log.next log
		fi
		touch log
		setsid "$BATS_TEST_DIRNAME/../examples/watch-log.sh" log question state >>answers 2>>errors &
		pid=$!
		sleep "$(awk -v r=$RANDOM -v us=$lasts 'BEGIN { print r / 32768 * us * 2 / 1e6 }')"
		kill -9 -- -$pid 2>/dev/null && kills=$((kills + 1))
		wait $pid || :
		flock state/lock true		# those that it ran are gone, too
	done
	[ $kills -gt 3 ]
	[ ! -s errors ] || { cat errors; false; }
	watch >>answers
	watch >last
	[ ! -s last ]
	[ -s answers ]
	# Every whole line once, whatever was cut off when.
	lines=$(head -c $((25 * 300)) text | wc -l)
	state_is "$(head -n "$(wc -l <log)" log | wc -c)" "$(tokens <(head -n "$lines" text | kv-prefill))"
}

@test "examples: parts that arrive" {
	head -n 4 doc >a
	tail -n +5 doc >b
	KEEP=30 "$BATS_TEST_DIRNAME/../examples/by-part.sh" parts.kvs a b
	kv-prefill a | kv-evict --tova -k 30 | kv-reposition --compact | kv-prefill --from - b | kv-evict --tova -k 30 | kv-reposition --compact -o want.kvs
	same parts.kvs want.kvs
	run ! env KEEP=30 "$BATS_TEST_DIRNAME/../examples/by-part.sh" parts.kvs missing
	same parts.kvs want.kvs
}
