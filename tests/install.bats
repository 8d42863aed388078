#!/usr/bin/env bats
# The installed tree: tools, manual, and a program of somebody else's against header, library and kvs.pc.

load lib/kv.bash

setup() {
	tree=$BATS_TEST_TMPDIR/tree
	export PKG_CONFIG_PATH=$tree/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$tree PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
	# As it was built, so it is installed; sanitizers ask for their flags at the link.
	make -s -C "$BATS_TEST_DIRNAME/.." --no-print-directory B="$KV_BUILD" DESTDIR="$tree" PREFIX=/usr install
	flags=$(nm "$tree/usr/lib/libkvs.a" 2>/dev/null | grep -om1 '__asan_init\|__tsan_init' |
		sed 's/__asan_init/-fsanitize=address,undefined/; s/__tsan_init/-fsanitize=thread/' || true)
}

teardown() {
	make -s -C "$BATS_TEST_DIRNAME/.." --no-print-directory B="$KV_BUILD" DESTDIR="$tree" PREFIX=/usr uninstall
	[ -z "$(find "$tree" -type f)" ]
}

@test "the tools run where they are installed, the manual is there" {
	for tool in "$KV_BUILD"/bin/kv-*; do
		"$tree/usr/bin/${tool##*/}" --version | grep -q "^${tool##*/} "
	done
	[ -f "$tree/usr/share/man/man5/kvs.5" ] && [ -f "$tree/usr/share/man/man1/kv-evict.1" ]
}

@test "a program of somebody else's reads snapshots" {
	command -v pkg-config >/dev/null || skip "no pkg-config"
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	# shellcheck disable=SC2046
	cc -Wall -Werror $flags -o key-norms "$BATS_TEST_DIRNAME/../examples/key-norms.c" $(pkg-config --cflags --libs kvs) -lm
	prose 60 >doc
	kv-prefill doc -o s.kvs
	./key-norms s.kvs >packed
	kv-prefill -u doc | ./key-norms - >raw
	cmp packed raw
	[ "$(wc -l <packed)" -eq "$(kv-dump --json s.kvs | jq_ .geometry.layers)" ]
	awk '!($2 > 0) { exit 1 }' packed
	# knorm's scores are the same norms, negated, entry by entry.
	kv-dump --tsv scores:knorm s.kvs | awk 'NR > 1 { s[$1] += $NF < 0 ? -$NF : $NF } END { for (l in s) printf "%d\t%.4g\n", l, s[l] }' | sort -n >scores
	awk '{ printf "%d\t%.4g\n", $1, $2 }' packed | diff - scores
	# From C++ as well.
	# shellcheck disable=SC2046
	c++ -x c++ -Wall -Werror $flags -o key-norms++ "$BATS_TEST_DIRNAME/../examples/key-norms.c" $(pkg-config --cflags --libs kvs) -lm
	./key-norms++ s.kvs | cmp - packed
	head -c 3000 s.kvs >cut
	refuse 3 ./key-norms cut
	cat s.kvs s.kvs | ./key-norms | cmp - <(cat packed packed)
}
