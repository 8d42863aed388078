#!/bin/bash
# Runs all tests: the programs of tests/unit, then the .bats files. The last line counts them.
#   tests/run.sh BUILD [FILE …]     BUILD = the build folder; FILE: only these
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

build=$1
shift
[ $# -gt 0 ] || set -- "$build"/tests/unit/test_* tests/*.bats
KV_BUILD=$(realpath "$build")
export KV_BUILD BATS_TEST_TIMEOUT=${BATS_TEST_TIMEOUT:-300}
passed=0 failed=0 skipped=0

for file; do
	case $file in
	*.d | *.o) continue ;;
	*.bats) cmd=(bats --formatter tap "$file") ;;
	*) cmd=("$file") ;;
	esac
	out=$("${cmd[@]}" 2>&1)
	status=$?
	good=$(grep -cE '^ok [0-9]+' <<<"$out")
	skips=$(grep -cE '^ok [0-9]+ .*# skip|^1\.\.0 # SKIP' <<<"$out")
	bad=$(grep -cE '^not ok [0-9]+' <<<"$out")
	# A test program that died, or that stopped before its plan, has failed whatever it printed.
	[ $status -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
	[ "$skips" -gt 0 ] && grep -E '# skip|# SKIP' <<<"$out"
	[ "$bad" -gt 0 ] && printf '%s\n' "$out" | grep -vE '^ok ' | head -n 200
	printf '%-40s %5d passed, %d failed\n' "${file##*/}" $((good - $(grep -cE '^ok [0-9]+ .*# skip' <<<"$out"))) "$bad"
	passed=$((passed + good - $(grep -cE '^ok [0-9]+ .*# skip' <<<"$out")))
	failed=$((failed + bad))
	skipped=$((skipped + skips))
done

[ $skipped -eq 0 ] || echo "$skipped skipped (reasons above)"
echo "$passed passed, $failed failed"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
