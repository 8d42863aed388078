#!/usr/bin/env bats
# Every system call and every allocation fails once: the exit status tells the truth, and a file is the old one or the new one.

load lib/kv.bash

setup() {
	! sanitized || skip "sanitizers bring their own malloc"
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 12 >doc
	kv-prefill doc -o s.kvs
	echo "what was there before" >old
}

# storm CALL WHAT command…: the n-th CALL ends in WHAT, for n = 1, 2, 3, … (in wider steps behind 16) until the command makes fewer
# calls. $made is the file that the command makes; without $made it is standard output, of which a failure may leave a part.
storm() {
	local call=$1 what=$2 n=0 status fired=0 target=${made:-out} also=
	shift 2
	[ "$call" = read ] && also=" mmap:0:ENOMEM"	# what is mapped is not read
	"$@" >out
	mv "$target" want
	cp old "$target"
	while :; do
		n=$((n + 1 + n / 16))
		status=0
		LD_PRELOAD=$KV_BUILD/tests/inject.so KV_INJECT=$call:$n:$what$also KV_INJECT_FIRED=$PWD/fired$n "$@" >out 2>err || status=$?
		case $status in
		0) cmp want "$target" || bad "status 0 and another result" "$@"; cp old "$target" ;;
		1)
			[ "$what" != short ] && [ "$what" != EINTR ] || bad "not overcome" "$@"
			# Where there is other output as well, the file may be whole already when that fails.
			[ -z "${made-}" ] || cmp -s old "$target" || { [[ $* == *--save* ]] && cmp want "$target"; } ||
				bad "the old file is gone" "$@"
			mapfile -t lines <err
			[ ${#lines[@]} -eq 1 ] || bad "not one line of explanation" "$@"
			;;
		*) bad "status $status" "$@" ;;
		esac
		! compgen -G '*.tmp' || bad "a temporary file stays" "$@"
		[ -e fired$n ] || break
		rm fired$n
		fired=$((fired + 1))
	done
	[ $status -eq 0 ] || bad "fails without a fault" "$@"
	[ $fired -gt 0 ] || bad "no $call at all" "$@"
}

bad() {
	printf '%s %s, number %s: %s: %s\n' "$call" "$what" "$n" "$1" "${*:2}"
	cat err
	return 1
}

# Every fault that can meet a command that reads a snapshot or a text.
storms() {
	for what in short EINTR EIO; do storm read $what "$@"; done
	for what in short EINTR EIO ENOSPC; do storm write $what "$@"; done
	storm close EIO "$@"
	storm malloc ENOMEM "$@"
	[ -z "${made-}" ] || storm fsync EIO "$@"
	[ -z "${made-}" ] || storm rename EACCES "$@"
}

@test "kv-evict, into a file and into a pipe" {
	made=e.kvs storms kv-evict --tova -k 5 s.kvs -o e.kvs
	for what in short EINTR EIO ENOSPC; do storm write $what kv-evict --tova -k 5 -u s.kvs; done
}

@test "kv-reposition" {
	made=r.kvs storm malloc ENOMEM kv-reposition --shift 3 s.kvs -o r.kvs
	made=r.kvs storm write ENOSPC kv-reposition --shift 3 s.kvs -o r.kvs
	made=r.kvs storm read short kv-reposition --shift 3 s.kvs -o r.kvs
}

@test "kv-prune and kv-quant" {
	made=p.kvs
	storm malloc ENOMEM kv-prune --think 0.5 --rebuild --recent 4 s.kvs -o p.kvs
	storm read short kv-prune --think 0.5 --recent 4 s.kvs -o p.kvs
	storm write ENOSPC kv-prune --think 0.5 --recent 4 s.kvs -o p.kvs
	storm fsync EIO kv-prune --think 0.5 --recent 4 s.kvs -o p.kvs
	made=q.kvs
	storm malloc ENOMEM kv-quant --kivi 2 --group 4 --residual 4 s.kvs -o q.kvs
	storm read EIO kv-quant --kivi 2 --group 4 --residual 4 s.kvs -o q.kvs
	storm write short kv-quant --kivi 2 --group 4 --residual 4 s.kvs -o q.kvs
	storm rename EACCES kv-quant --kivi 2 --group 4 --residual 4 s.kvs -o q.kvs
	kv-quant --kivi 2 --group 4 --residual 4 s.kvs -o codes.kvs
	made=r.kvs storm malloc ENOMEM kv-quant --restore codes.kvs -o r.kvs
}

@test "kv-prefill in rounds" {
	made=p.kvs storm malloc ENOMEM kv-prefill --chunk 8 --each 'kv-evict --tova -k 8 | kv-reposition --compact' doc -o p.kvs
}

@test "kv-dump" {
	storm malloc ENOMEM kv-dump --json s.kvs
	storm malloc ENOMEM kv-dump --tsv entries s.kvs
	for what in short EINTR EIO ENOSPC; do storm write $what kv-dump --json s.kvs; done
	storm read EIO kv-dump s.kvs
	storm malloc ENOMEM kv-dump --verify s.kvs 2>/dev/null
	made=d.json storm rename EACCES kv-dump --json s.kvs -o d.json
}

@test "kv-dump --quick reads with pread" {
	for what in short EINTR EIO; do storm read $what kv-dump --quick s.kvs; done
}

@test "kv-decode" {
	storm read short kv-decode -n 2 s.kvs
	storm read EIO kv-decode -n 2 s.kvs
	storm write ENOSPC kv-decode -n 2 s.kvs
	storm write short kv-decode -n 2 s.kvs
	storm malloc ENOMEM kv-decode -n 2 s.kvs
	made=g.kvs
	for what in short EINTR ENOSPC; do storm write $what kv-decode -n 2 --save g.kvs s.kvs; done
	storm fsync EIO kv-decode -n 2 --save g.kvs s.kvs
	storm rename EIO kv-decode -n 2 --save g.kvs s.kvs
	storm close EIO kv-decode -n 2 --save g.kvs s.kvs
}

@test "kv-prefill" {
	made=p.kvs storms kv-prefill doc -o p.kvs
	made=p.kvs storm mmap ENOMEM kv-prefill doc -o p.kvs
	storm write ENOSPC kv-prefill -u doc
}

@test "a disk that is full stays full" {
	for tool in "kv-evict --tova -k 5 s.kvs" "kv-prefill doc" "kv-decode -n 2 s.kvs" "kv-dump s.kvs"; do
		status=0
		LD_PRELOAD=$KV_BUILD/tests/inject.so KV_INJECT=write:1+:ENOSPC $tool >out 2>err || status=$?
		[ $status -eq 1 ] && grep -q 'No space left' err
	done
}
