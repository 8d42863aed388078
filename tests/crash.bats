#!/usr/bin/env bats
# What kill -9 and a second writer leave behind: the old file or the new one, whole.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 800 >doc
	kv-prefill doc -o s.kvs
	kv-evict --window -k 300 s.kvs -o a.kvs
	kv-evict --window -k 700 s.kvs -o b.kvs
}

# Milliseconds that a command takes.
takes() {
	local t0=${EPOCHREALTIME/./}
	"$@"
	echo $(((${EPOCHREALTIME/./} - t0) / 1000))
}

@test "kill -9 at any moment leaves the old file or the new one" {
	RANDOM=11
	for tool in "kv-evict --window -k 700" "kv-prune --think 0.4" "kv-quant --kivi 4 --group 8" "kv-reposition --shift 7"; do
		cp a.kvs out.kvs
		old=0 new=0
		span=$(takes $tool s.kvs -o want.kvs)
		for _ in $(seq 16); do
			$tool s.kvs -o out.kvs &
			pid=$!
			sleep "$(printf '0.%03d' $((RANDOM % (span * 3 / 2 + 2))))"
			kill -9 $pid 2>/dev/null || :
			wait $pid 2>/dev/null || :
			if cmp -s a.kvs out.kvs; then
				old=$((old + 1))
			else
				cmp want.kvs out.kvs
				kv-dump --verify out.kvs
				new=$((new + 1))
				cp a.kvs out.kvs
			fi
		done
		echo "# $tool: old $old, new $new"
		[ $old -gt 0 ] && [ $new -gt 0 ]
	done
	# What stays is named after the target and marked as temporary.
	for file in out.kvs?*; do [[ ! -e $file || $file == out.kvs.*.tmp ]]; done
}

@test "a prefill that is killed leaves no half of a file" {
	span=$(takes kv-prefill doc -o want.kvs)
	for part in 2 4 7 9; do
		cp a.kvs out.kvs
		kv-prefill doc -o out.kvs &
		pid=$!
		sleep "$(printf '%d.%03d' $((span * part / 8000)) $((span * part / 8 % 1000)))"
		kill -9 $pid 2>/dev/null || :
		wait $pid 2>/dev/null || :
		cmp -s a.kvs out.kvs || cmp want.kvs out.kvs
	done
}

@test "killed where there was nothing, there is nothing or the whole" {
	span=$(takes kv-evict --window -k 700 s.kvs -o b.kvs)
	RANDOM=5
	for _ in $(seq 30); do
		rm -f none.kvs
		kv-evict --window -k 700 s.kvs -o none.kvs &
		pid=$!
		sleep "$(printf '0.%03d' $((RANDOM % (span + 2))))"
		kill -9 $pid 2>/dev/null || :
		wait $pid 2>/dev/null || :
		[ ! -e none.kvs ] || cmp b.kvs none.kvs
	done
}

@test "a killed writer of a pipe leaves its reader with an error" {
	for delay in 0.001 0.004 0.01; do
		{ kv-evict --window -k 700 -u s.kvs & pid=$!; sleep $delay; kill -9 $pid; wait $pid || :; } 2>/dev/null >part || :
		cmp -s part <(kv-evict --window -k 700 -u s.kvs) || refuse 3 kv-dump --verify part
	done
	size=$(kv-evict --window -k 700 -u s.kvs | wc -c)
	run bash -c "{ kv-evict --window -k 700 -u s.kvs | head -c $((size - 64)); } | kv-evict --window -k 20 -o cut.kvs"
	[ "$status" -eq 3 ]
	[ ! -e cut.kvs ]
}

@test "two writers to one name: one of them, whole" {
	for _ in $(seq 25); do
		kv-evict --window -k 300 s.kvs -o both.kvs & one=$!
		kv-evict --window -k 700 s.kvs -o both.kvs & two=$!
		wait $one
		wait $two
		cmp -s both.kvs a.kvs || cmp both.kvs b.kvs
	done
	kv-prune --think 0.4 s.kvs -o a.kvs
	kv-quant --kivi 4 --group 8 s.kvs -o b.kvs
	for _ in $(seq 6); do
		kv-prune --think 0.4 s.kvs -o both.kvs & one=$!
		kv-quant --kivi 4 --group 8 s.kvs -o both.kvs & two=$!
		wait $one
		wait $two
		cmp -s both.kvs a.kvs || cmp both.kvs b.kvs
	done
	[ -z "$(compgen -G 'both.kvs?*')" ]
}

@test "a file that shrinks while it is read: a message and status 1" {
	for i in {1..400}; do echo s.kvs; done | xargs cat >many.kvs
	[ "$(wc -c <many.kvs)" -gt 4000000 ]
	run bash -o pipefail -c 'kv-reposition -u --shift 1 many.kvs 2>err | { head -c 64 >/dev/null; truncate -s 4096 many.kvs; cat >/dev/null; }'
	[ "$status" -eq 1 ]
	[ "$(cat err)" = "kv-reposition: a file that is being read has become shorter" ]
	[ -z "$(ls ./*.tmp 2>/dev/null)" ]
}
