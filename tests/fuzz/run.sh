#!/bin/bash
# Fuzzes for a while: tests/fuzz/run.sh BUILD SECONDS [TARGET …]. What is found lies in BUILD/found, and becomes a file of tests/fuzz/corpus.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

build=$1 seconds=$2
shift 2
[ $# -gt 0 ] || set -- $(basename -a -s .c tests/fuzz/fuzz_*.c | sed 's/^fuzz_//')
mkdir -p "$build/found"
status=0

for target; do
	grown=$build/grown/$target
	mkdir -p "$grown"
	seeds=("tests/fuzz/corpus/$target")
	most=8192
	case $target in
	frame | reader | roundtrip | index) seeds+=(tests/files) ;;
	gguf)
		"$build/tests/tools/mkmodel" -o "$grown/tiny.gguf"
		most=200000
		;;
	esac
	"$build/tests/fuzz/fuzz_$target" -max_total_time="$seconds" -max_len=$most -rss_limit_mb=3000 -timeout=20 -verbosity=0 \
		-print_final_stats=1 -artifact_prefix="$build/found/$target-" "$grown" "${seeds[@]}" >"$build/found/$target.log" 2>&1 ||
		{ status=1; tail -n 40 "$build/found/$target.log"; }
	printf '%-10s %10s executions\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/found/$target.log")"
done
exit $status
