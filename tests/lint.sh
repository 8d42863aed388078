#!/bin/bash
# The rules of the house that a program can check.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
bad=0

complain() { printf '%s\n' "$*" >&2; bad=1; }

# room: what it may include (itself is understood)
allowed() {
	case $1 in
	util) echo ;;
	kvs | kernel) echo util ;;
	cache) echo util kvs ;;
	policy) echo util kvs cache kernel ;;
	stage) echo util kvs cache kernel policy ;;
	model) echo util kvs cache kernel ;;
	loop | view) echo util kvs cache kernel policy stage model ;;
	esac
}

for dir in lib/*/; do
	room=$(basename "$dir")
	for file in "$dir"*.[ch]; do
		while read -r inc; do
			[[ " $room $(allowed "$room") " == *" $inc "* ]] || complain "$file: $room must not include $inc"
		done < <(sed -n 's|^#include "\([a-z]*\)/.*|\1|p' "$file" | sort -u)
	done
done

twice=$(git ls-files '*.c' '*.h' | sed 's|.*/||' | sort | uniq -d)
[ -z "$twice" ] || complain "file names that occur twice: $twice"

for header in lib/*/*.h; do
	out=$(printf '#include "%s"\n' "${header#lib/}" | cc -std=c11 -D_POSIX_C_SOURCE=200809L -Ilib -Wall -Wextra -fsyntax-only -x c - 2>&1) ||
		complain "$header does not compile alone: $out"
done

# The public header stands alone, in C++ as well, and so do programs that use it.
! grep '#include' lib/kvs/kvs.h | grep -v '<std[a-z]*\.h>' || complain "lib/kvs/kvs.h: more than standard headers"
for file in lib/kvs/kvs.h examples/*.c; do
	for lang in "c -std=c11" "c++ -std=c++17"; do
		# shellcheck disable=SC2086
		cc -x $lang -Ilib/kvs -Wall -Wextra -Wpedantic -Werror -fsyntax-only "$file" >&2 || complain "$file: not as $lang"
	done
done

for script in examples/*.sh tests/*.sh tests/eval/*.sh; do
	! command -v shellcheck >/dev/null || shellcheck "$script" >&2 || bad=1
done
! python3 -c 'import yaml' 2>/dev/null || python3 -c 'import yaml; yaml.safe_load(open("formats/kvs.ksy"))' ||
	complain "formats/kvs.ksy: not YAML"
! command -v mandoc >/dev/null || mandoc -T lint -W warning man/*.[1-9] >&2 || bad=1
exit $bad
