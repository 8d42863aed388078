#!/usr/bin/env bats
# --checkpoint: a job that was killed at any moment, and given again, ends as if nothing had happened.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 130 >doc
	printf 'what is kept?\n' >question
}

# Faults can be had without sanitizers only, which bring their own malloc.
inject_or_skip() {
	! sanitized || skip "sanitizers bring their own malloc"
	export INJECT=$KV_BUILD/tests/inject.so
}

# saving command…: with a checkpoint after every round.
saving() { "$@" --checkpoint state --checkpoint-every 0; }

# interrupt OPTION…: kv-prefill with these, killed at some moment again and again until it comes through: the bytes of an undisturbed run.
interrupt() {
	local pid span t0=${EPOCHREALTIME/./} tries=0
	kv-prefill "$@" doc -o want.kvs
	span=$(((${EPOCHREALTIME/./} - t0) / 1000 + 20))
	while :; do
		kv-prefill "$@" doc --checkpoint state --checkpoint-every 0 -o got.kvs 2>log &
		pid=$!
		tries=$((tries + 1))
		if [ $tries -le 20 ]; then
			sleep "$(awk -v r=$RANDOM -v s=$span 'BEGIN { print r / 32768 * s / 1000 }')"
			kill -9 $pid 2>/dev/null || :
		fi
		if wait $pid 2>/dev/null; then break; fi
		kills=$((kills + 1))
		[ ! -e got.kvs ] || cmp want.kvs got.kvs
		[ ! -e state ] || kv-dump --verify state
		[ $tries -le 20 ] || { cat log; return 1; }
	done
	cmp want.kvs got.kvs
	[ ! -e state ]
	rm got.kvs
}

@test "kill -9 at any moment: the same bytes in the end" {
	RANDOM=3 kills=0
	for _ in 1 2; do
		interrupt --chunk 4 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact'
		interrupt --chunk 4 --probe @question --observe acc,nll,chunk --history alive --each 'kv-evict --citrus -k 40 | kv-reposition --compact'
		interrupt --chunk 4 --probe @question --each 'kv-evict --citrus=chunk -k 40' --twin-each 'kv-evict --citrus -k 40 | kv-reposition --compact'
		interrupt --fill 40 --probe @question --each 'kv-evict --infinipot -k 24 | kv-reposition --compact'
		interrupt --chunk 16 --each 'kv-evict --tova -k 40 | cat'
	done
	[ $kills -ge 10 ]
}

@test "a pipeline that goes wrong in round 7: one line, the right status, and the state before that round to go on from" {
	make_filter
	job=(kv-prefill --chunk 16 --each 'kv-evict --tova -k 40 | kv-reposition --compact | python3 filter.py' doc)
	echo go >mode
	"${job[@]}" -o want.kvs
	while read -r mode status round text; do
		echo "$mode" >mode
		rm -f state got.kvs
		refuse "$status" saving "${job[@]}" -o got.kvs
		says "--each: round $round: "
		says "$text"
		[ ! -e got.kvs ]
		kv-dump --verify state
		[ "$(kv-dump --json state | jq_ .tokens)" -eq $((round * 16)) ]
		echo go >mode
		saving "${job[@]}" -o got.kvs
		cmp want.kvs got.kvs
	done <<'END'
		fail 9 7 ended with status 9
		nothing 3 7 without a snapshot
		garbage 3 7 what the pipeline wrote: not a kvs snapshot
		half 3 7 what the pipeline wrote: truncated
		hangup 3 7 without a snapshot
		twice 3 8 the pipeline wrote what no round had asked for
END
}

@test "a checkpoint of another job, model or text" {
	inject_or_skip
	job=(kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact')
	kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact' doc -o want.kvs
	LD_PRELOAD=$INJECT KV_INJECT=rename:3:EACCES run -1 saving "${job[@]}" doc -o got.kvs
	cp state kept
	other() { # TEXT command…: refused with it, and the state is as it was
		local text=$1
		shift
		refuse 5 saving "$@" -o got.kvs
		says "$text"
		cmp kept state
		[ ! -e got.kvs ]
	}
	other "whose --chunk was 16" kv-prefill --chunk 8 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact' doc
	other "whose --each was" kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus -k 41 | kv-reposition --compact' doc
	other "whose --probe was" kv-prefill --chunk 16 --probe other --each 'kv-evict --citrus -k 40 | kv-reposition --compact' doc
	other "whose --probe-at was" "${job[@]}" --probe-at all doc
	other "whose --history was" "${job[@]}" --history alive doc
	other "whose --dtype was" "${job[@]}" --dtype f32 doc
	other "whose --observe was" "${job[@]}" --observe acc doc
	other "whose level was" "${job[@]}" --precision f32 doc
	sed 1s/cache/cashe/ doc >changed
	other "text is another one" "${job[@]}" changed
	head -c 40 doc >short
	other "text" "${job[@]}" short
	mkmodel --seed 9 -o other.gguf
	other "fingerprint" "${job[@]}" -m other.gguf doc
	kv-prefill --take 5 doc -o five.kvs
	other "whose --from was" "${job[@]}" --from five.kvs --continue doc
	# The text behind what was read may grow.
	saving "${job[@]}" doc -o got.kvs
	cmp want.kvs got.kvs
	[ ! -e state ]
	# What is no checkpoint is neither believed nor overwritten nor removed.
	cp want.kvs state
	refuse 5 saving "${job[@]}" doc -o got.kvs
	says "not a checkpoint"
	cmp want.kvs state
	echo hello >state
	refuse 3 saving "${job[@]}" doc -o got.kvs
	[ "$(cat state)" = hello ]
	head -c 3000 kept >state
	refuse 3 saving "${job[@]}" doc -o got.kvs
	rm state
	refuse 2 kv-prefill --checkpoint out.kvs doc -o out.kvs
	refuse 2 kv-prefill --checkpoint-every x doc -o out.kvs
}

@test "a disk that is full at the third checkpoint: the second is still there" {
	inject_or_skip
	job=(kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact' doc)
	"${job[@]}" -o want.kvs
	for fault in fsync:3:ENOSPC rename:3:ENOSPC write:3+:ENOSPC; do
		rm -f state
		LD_PRELOAD=$INJECT KV_INJECT=$fault run -1 --separate-stderr saving "${job[@]}" -o got.kvs
		[ "${#stderr_lines[@]}" -eq 1 ]
		[[ $stderr == *"--checkpoint"*"No space left"* ]]
		[ ! -e got.kvs ]
		kv-dump --verify state
		saving "${job[@]}" -o got.kvs
		cmp want.kvs got.kvs
		rm got.kvs
	done
}

@test "going on from a snapshot, and from standard input" {
	inject_or_skip
	kv-prefill --take 100 doc -o half.kvs
	job=(kv-prefill --from half.kvs --continue --chunk 16 --probe @question --each 'kv-evict --citrus -k 40 | kv-reposition --compact' doc)
	"${job[@]}" -o want.kvs
	LD_PRELOAD=$INJECT KV_INJECT=rename:4:EACCES run -1 saving "${job[@]}" -o got.kvs
	saving "${job[@]}" -o got.kvs
	cmp want.kvs got.kvs
	job=(kv-prefill --chunk 16 --each 'kv-evict --tova -k 40')
	"${job[@]}" <doc -o want.kvs
	LD_PRELOAD=$INJECT KV_INJECT=rename:4:EACCES run -1 saving "${job[@]}" -o got.kvs <doc
	saving "${job[@]}" <doc >piped
	same want.kvs piped
	[ ! -e state ]
	cat half.kvs half.kvs >two
	refuse 2 saving kv-prefill --from two -p x -o got.kvs
}

@test "a fault at any call: one line of explanation, and a state that goes on to the same bytes" {
	inject_or_skip
	head -c 200 doc >short
	job=(kv-prefill --chunk 16 --probe @question --each 'kv-evict --citrus=chunk -k 12 | kv-reposition --compact'
		--twin-each 'kv-evict --citrus -k 12' short --checkpoint state --checkpoint-every 0 -o got.kvs)
	"${job[@]}"
	mv got.kvs want.kvs
	for fault in malloc:ENOMEM write:ENOSPC fsync:EIO close:EIO read:EIO; do
		for ((n = 1, more = 1; more; n += 1 + n / 6)); do
			rm -f got.kvs fired state
			status=0
			LD_PRELOAD=$INJECT KV_INJECT=${fault%:*}:$n:${fault#*:} KV_INJECT_FIRED=$PWD/fired "${job[@]}" 2>err || status=$?
			[ -e fired ] || more=0
			if [ $status -eq 1 ]; then
				[ "$(wc -l <err)" -eq 1 ]
				"${job[@]}"
			fi
			cmp want.kvs got.kvs
			[ ! -e state ]
		done
		run ! compgen -G '*.tmp'
		[ "$n" -gt 5 ]
	done
}
