#!/usr/bin/env bats
# Files, terminals, signals: nothing half done.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 60 >doc
	kv-prefill doc -o s.kvs
}

@test "binary is neither written to a terminal nor read from one" {
	run script -qec "kv-evict --window -k 5 s.kvs" /dev/null
	[ "$status" -eq 2 ]
	[[ $output == *"not for a terminal"* ]]
	run script -qec "kv-prefill doc" /dev/null
	[ "$status" -eq 2 ]
	run script -qec "kv-evict --window -k 5 -o x.kvs" /dev/null
	[ "$status" -eq 2 ]
	[ ! -e x.kvs ]
	run script -qec "kv-decode" /dev/null
	[ "$status" -eq 2 ]
}

@test "a full disk is noticed" {
	[ -e /dev/full ] || skip "no /dev/full"
	run --separate-stderr bash -c 'kv-evict --window -k 5 s.kvs >/dev/full'
	[ "$status" -eq 1 ]
	[[ $stderr == *"No space left"* ]]
	run --separate-stderr bash -c 'kv-decode -n 2 s.kvs >/dev/full'
	[ "$status" -eq 1 ]
	run --separate-stderr bash -c 'kv-dump --json s.kvs >/dev/full'
	[ "$status" -eq 1 ]
	run --separate-stderr bash -c 'kv-dump --help >/dev/full'
	[ "$status" -eq 1 ]
}

@test "a folder or a device is not replaced" {
	mkdir d
	refuse 2 kv-evict --window -k 5 s.kvs -o d
	refuse 2 kv-evict --window -k 5 s.kvs -o /dev/null
	kv-evict --window -k 5 -f s.kvs -o /dev/null
	refuse 1 kv-evict --window -k 5 s.kvs -o nowhere/x.kvs
}

@test "a reader that leaves ends the writer by SIGPIPE, quietly" {
	for _ in $(seq 40); do cat s.kvs; done >many.kvs	# more than any pipe holds
	run bash -c 'kv-evict -u --window -k 9999 many.kvs 2>err | head -c 100 >/dev/null; echo ${PIPESTATUS[0]}; cat err'
	[ "$output" = 141 ]
	# …also where the caller ignores SIGPIPE, as Python's subprocess used to
	run bash -c 'trap "" PIPE; kv-evict -u --window -k 9999 many.kvs 2>err | head -c 100 >/dev/null; echo ${PIPESTATUS[0]}; cat err'
	[ "$output" = 141 ]
}

@test "a failure leaves no file and does not touch the old one" {
	cp s.kvs old.kvs
	head -c 5000 s.kvs >cut
	refuse 3 kv-evict --window -k 5 cut -o old.kvs
	cmp s.kvs old.kvs
	refuse 3 kv-evict --window -k 5 cut -o new.kvs
	[ -z "$(ls | grep -v '^separate-stderr' | grep -vx 'cut\|doc\|old.kvs\|s.kvs')" ]
}

@test "^C, TERM and HUP leave no file" {
	mkfifo slow
	for sig in INT TERM HUP; do
		kv-evict --window -k 5 slow -o out.kvs &
		pid=$!
		exec 7>slow
		head -c 3000 s.kvs >&7
		for _ in $(seq 100); do [ -n "$(ls out.kvs.* 2>/dev/null)" ] && break; sleep 0.05; done
		ls out.kvs.*
		# A background job of a shell ignores SIGINT, and what is ignored stays so: TERM stands in for it there.
		kill -s "${sig/INT/TERM}" $pid
		status=0
		wait $pid || status=$?
		exec 7>&-
		[ $status -gt 128 ]
		[ ! -e out.kvs ] && [ -z "$(ls out.kvs.* 2>/dev/null)" ]
	done
	run timeout -s INT 1 bash -c 'sleep 3 | kv-evict --window -k 5 -o out.kvs'
	[ -z "$(ls out.kvs* 2>/dev/null)" ]
}

@test "umask and links are respected" {
	(umask 077 && kv-evict --window -k 5 s.kvs -o private.kvs)
	[ "$(stat -c %a private.kvs)" = 600 ]
	mkdir real
	kv-evict --window -k 5 s.kvs -o real/x.kvs
	ln -s real/x.kvs link.kvs
	kv-evict --window -k 4 s.kvs -o link.kvs
	[ -L link.kvs ]
	[ "$(kv-dump --json real/x.kvs | jq_ .entries.max)" -eq 4 ]
}

@test "provenance says what was done, and neither where nor when" {
	kv-evict --window -k 5 -@2 s.kvs -o e.kvs
	kv-dump --tsv prov e.kvs >prov
	grep -q "kv-evict	.*	--window -k 5 s.kvs$" prov
	kv-evict --window -k 5 --no-prov s.kvs -o n.kvs
	[ "$(kv-dump --tsv prov n.kvs | wc -l)" -eq 2 ]
	SOURCE_DATE_EPOCH=1000000000 kv-evict --window -k 5 s.kvs | kv-dump --json | grep -q '"time"'
}
