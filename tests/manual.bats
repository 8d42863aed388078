#!/usr/bin/env bats
# The manual and the house: pages without a warning, every option described, every example runs, rooms include only what is below.

load lib/kv.bash

MAN=$BATS_TEST_DIRNAME/../man

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
}

@test "the rules of the house" {
	command -v mandoc >/dev/null || skip "no mandoc"
	"$BATS_TEST_DIRNAME/lint.sh"
}

@test "every option of --help is in the page, and the other way round" {
	for tool in kv-prefill kv-evict kv-prune kv-quant kv-reposition kv-decode kv-dump; do
		$tool --help | sed '/^Example/,$d' | grep -oE -- '(^|[ ,])--[a-z][a-z0-9-]+' | grep -oE -- '--[a-z].*' | sort -u >help
		mandoc -T ascii -O width=500 "$MAN/$tool.1" | col -bx | sed -n '/^DESCRIPTION/,/^EXAMPLES/p' |
			grep -oE '^ +(-., )?--[a-z][a-z0-9-]+' | grep -oE -- '--[a-z].*' | sort -u >page
		[ "$(wc -l <help)" -gt 10 ]
		diff help page || { echo "$tool: < only in --help, > only in the page"; return 1; }
	done
}

@test "every example of the manual runs" {
	prose 250 >book.txt
	mkmodel --head-dim 32 -o wide.gguf	# groups of 32, the default of kv-quant, must fit
	export KV_MODEL=$PWD/wide.gguf
	for page in "$MAN"/*.[157]; do
		rm -rf work && mkdir work && cp book.txt work/
		mandoc -T ascii -O width=400 "$page" | col -bx |
			awk '/^EXAMPLES/ { on = 1; next } /^[A-Z]/ { on = 0 } on' | sed -n 's/^ *[$>] \(.*\)/\1/p' >script
		case ${page##*/} in kvs.5) ;; *) [ "$(wc -l <script)" -ge 2 ] ;; esac
		(cd work && timeout 60 bash -eu -o pipefail ../script >../log 2>&1 </dev/null) || { echo "${page##*/}:"; cat script log; return 1; }
	done
}
