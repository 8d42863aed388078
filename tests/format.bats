#!/usr/bin/env bats
# The format through the tools: golden files, what editors do with what they do not know, the second reader, file(1).

load lib/kv.bash

setup() {
	files=$BATS_TEST_DIRNAME/files
	formats=$BATS_TEST_DIRNAME/../formats
	cd "$BATS_TEST_TMPDIR"
}

# The exit status that a golden file is named after.
verdict() {
	case ${1##*/} in
	good-*) echo 0 ;;
	bad-*) echo 3 ;;
	unsupported-*) echo 4 ;;
	esac
}

types() { kv-dump --tsv frames "$1" | cut -f 2 | tail -n +2 | tr '\n' ' '; }

@test "the worked example in kvs.md is the golden file, byte for byte" {
	sed -n '/^```$/,/^```$/p' "$formats/kvs.md" | grep -E '^[0-9a-f]{8}(  |$)|^[*]$' | tr -s ' ' >printed
	od -A x -t x1 "$files/good-tiny.kvs" | sed '/^[*]/!s/^/00/' | diff - printed
	# The table of frames: offset, type, length, hash.
	grep -oE '\| [0-9]+ \| [A-Za-z]{4}[ *0-9]* \| [0-9]+ \| `[0-9a-f]{16}`' "$formats/kvs.md" | tr -d '|`' | awk '{ print $1, $2, $(NF - 1) }' | sort -n >table
	diff table <(kv-dump --tsv frames "$files/good-tiny.kvs" | awk 'NR > 1 { print $8, $2, $10 }')
	for file in good-tiny good-index; do
		grep -qF "$(wc -c <"$files/$file.kvs" | sed -E 's/(...)$/,\1/') bytes" "$formats/kvs.md"
		grep -qF "$(kv-dump --digest "$files/$file.kvs")" "$formats/kvs.md"
	done
}

@test "golden files: readers end as the names say" {
	for file in "$files"/*.kvs; do
		want=$(verdict "$file")
		if [ "$want" -eq 0 ]; then
			kv-dump --verify "$file"
			kv-dump --quick "$file"
			diff <(kv-dump --digest "$file") <(kv-dump --json "$file" | grep -o '"digest":"[^"]*' | cut -d '"' -f 4)
		else
			refuse "$want" kv-dump --verify "$file"
			says "${file##*/}"
			[[ $file == */bad-after-* ]] || refuse "$want" kv-dump --json "$file"	# what stands before the garbage is whole
		fi
	done
}

@test "golden files: any number of threads says the same" {
	for file in "$files"/*.kvs; do
		for n in 1 4; do
			status=0
			kv-dump -@$n --json "$file" >out$n 2>err$n || status=$?
			echo $status >>out$n
		done
		cmp out1 out4 && cmp err1 err4 || { echo "$file"; return 1; }
	done
}

@test "golden files: editors end as the names say, and write what verifies" {
	for file in "$files"/*.kvs; do
		want=$(verdict "$file")
		for tool in "kv-evict --window -k 2" "kv-reposition --shift 1"; do
			status=0
			$tool -o edited.kvs "$file" 2>err || status=$?
			if [ $status -eq 0 ]; then
				kv-dump --verify edited.kvs
				rm edited.kvs
			fi
			[ ! -e edited.kvs ]
			[ $status -eq "$want" ] && continue
			# Positions that are baked in do not move (formats/kvs.md, section 19).
			[ $status -eq 5 ] && grep -q 'baked' err && [[ $tool == kv-reposition* ]] && continue
			# Nor is a group of codes split.
			[ $status -eq 5 ] && grep -q 'would be split' err || { echo "$tool $file: $status, want $want"; return 1; }
		done
	done
}

@test "golden files: headers alone tell what reading it all tells" {
	for file in "$files"/*.kvs; do
		for n in 1 2; do
			status=0
			if [ $n -eq 1 ]; then
				kv-dump --tsv frames "$file" >out1 2>err1 || status=$?
			else
				cat "$file" | kv-dump --tsv frames >out2 2>err2 || status=$?
				sed -i "s|standard input|$file|" err2
			fi
			echo $status >>out$n
		done
		cmp out1 out2 && cmp err1 err2 || { echo "$file"; return 1; }
		if [ $status -eq 0 ]; then kv-dump --quick "$file"; else refuse $status kv-dump --quick "$file"; fi
	done
	for file in "$files"/bad-index-*.kvs "$files"/bad-ends-*.kvs; do refuse 3 kv-dump --quick "$file"; done
}

@test "a quick look finds what is wrong between payloads, not within" {
	cp "$files/good-index.kvs" s.kvs
	read -r at stored < <(kv-dump --tsv frames s.kvs | awk '$2 == "KEYS" { print $8, $9 }')
	spoilt() { { head -c "$1" s.kvs; printf '\377'; tail -c +$(($1 + 2)) s.kvs; } >bad.kvs; }
	spoilt $((at + 64 + stored - 1))
	kv-dump --quick bad.kvs
	refuse 3 kv-dump --verify bad.kvs
	run bash -c 'cat bad.kvs | kv-dump --quick'	# a pipe is read to its end
	[ "$status" -eq 3 ]
	spoilt $((at + 9))
	refuse 3 kv-dump --quick bad.kvs
	says "frame 8"
	spoilt $((at + 64 + stored))
	refuse 3 kv-dump --quick bad.kvs
	says "padding"
}

@test "editors keep what is safe to copy and drop what is not" {
	kv-evict --window -k 2 "$files/good-unknown-safe.kvs" -o e.kvs
	[[ $(types e.kvs) == *" aBCd "* ]]
	kv-evict --window -k 2 "$files/good-unknown-private.kvs" -o e.kvs
	[[ $(types e.kvs) == *" abCd "* ]]
	kv-evict --window -k 2 "$files/good-unknown-unsafe.kvs" -o e.kvs
	[[ $(types e.kvs) != *" aBCD "* ]]
	kv-evict --window -k 2 "$files/good-unknown-third.kvs" -o e.kvs
	[[ $(types e.kvs) != *" oBsQ "* ]]
	# Nothing has gone: what it said is still true.
	kv-evict --window -k 3 "$files/good-unknown-unsafe.kvs" -o e.kvs
	[[ $(types e.kvs) == *" aBCD "* ]]
	same e.kvs "$files/good-unknown-unsafe.kvs"
	# Its bytes are those that came.
	kv-evict --window -k 2 -u "$files/good-unknown-safe.kvs" | grep -aq something
	# They are not opened, whatever the output's codec.
	stored() { kv-dump --tsv frames "$1" | awk '$2 == "aBCd"' | cut -f 3,4,9,10; }
	kv-evict --window -k 2 -u "$files/good-unknown-sealed.kvs" -o e.kvs
	diff <(stored "$files/good-unknown-sealed.kvs") <(stored e.kvs)
	# An ancillary frame that must be understood, or whose codec nobody here knows, is left out.
	kv-evict --window -k 2 "$files/good-flag-must-ancillary.kvs" -o e.kvs
	[[ $(types e.kvs) != *" oBSn "* ]]
	kv-evict --window -k 2 "$files/good-codec2-ancillary.kvs" -o e.kvs
	[[ $(types e.kvs) != *" oBSQ "* ]]
}

@test "observations: by row they go when rows go, by source they stay" {
	kv-evict --window -k 2 "$files/good-tiny.kvs" -o e.kvs
	[ "$(types e.kvs)" = "GEOM ROPE LAYR TOKS HIDN ENTS oBSQ oBSA KEYS VALS oBSn pROv pROv iNDX ENDS " ] ||
		[ "$(types e.kvs)" = "GEOM ROPE LAYR TOKS HIDN ENTS oBSQ KEYS VALS oBSn pROv pROv iNDX ENDS " ]
	kv-reposition --shift 3 "$files/good-tiny.kvs" -o r.kvs
	[ "$(types r.kvs)" = "GEOM ROPE LAYR TOKS HIDN ENTS oBSQ oBSA KEYS VALS oBSn pROv pROv iNDX ENDS " ]
}

@test "what is critical and unknown is named" {
	refuse 4 kv-evict --window -k 2 "$files/unsupported-critical.kvs"
	says XYZW
	refuse 4 kv-dump --verify "$files/unsupported-major.kvs"
	says "format 2.0, this program reads 1.x"
	refuse 4 kv-dump --verify "$files/unsupported-codec2.kvs"
	says "codec 2"
}

@test "moving keys forwards them packed as they were" {
	tiny_model
	prose 200 >doc
	kv-prefill doc -o s.kvs
	kv-reposition --shift 5 s.kvs -o r.kvs
	stored() { kv-dump --tsv frames "$1" | awk '$2 == "KEYS" || $2 == "VALS"' | cut -f 2-7,9-; }
	diff <(stored s.kvs) <(stored r.kvs)
	kv-reposition --shift 0 r.kvs | kv-dump --verify
	kv-reposition --compact s.kvs --no-prov -o c1.kvs
	kv-reposition --compact c1.kvs --no-prov -o c2.kvs
	cmp c1.kvs c2.kvs
}

@test "bytes do not depend on threads, content not on the codec" {
	tiny_model
	prose 300 >doc
	kv-prefill doc -o s.kvs
	for codec in raw zlib; do
		kv-evict --window -k 200 --codec $codec -@1 s.kvs >one
		kv-evict --window -k 200 --codec $codec -@4 s.kvs >four
		cmp one four
		mv one $codec
	done
	same raw zlib
	kv-evict --window -k 9999 --no-prov -u raw >again
	cmp raw again
}

@test "the second reader agrees with kv-dump" {
	cc -O1 -o kvs-min "$formats/kvs-min.c" -lz -lxxhash
	tiny_model
	prose 120 >doc
	kv-prefill doc -o s.kvs
	kv-prefill -u --observe all doc >u.kvs || kv-prefill -u doc >u.kvs
	kv-evict --window -k 40 s.kvs -o e.kvs
	kv-reposition --compact e.kvs -o r.kvs
	kv-decode -n 3 --save d.kvs r.kvs >text
	cat s.kvs r.kvs u.kvs >seq.kvs
	for file in ./*.kvs "$files"/good-*.kvs; do
		kv-dump --verify "$file"
		./kvs-min <"$file" >listed
		grep -E '^[0-9a-f]{32}  ' listed | cut -d ' ' -f 1 | diff <(kv-dump --digest "$file") -
	done
	for n in 1 64 1000 5000 $(($(wc -c <s.kvs) - 1)); do
		head -c "$n" s.kvs >cut
		run -3 ./kvs-min <cut
	done
}

@test "a bit that flips anywhere is found by both readers" {
	cc -O1 -o kvs-min "$formats/kvs-min.c" -lz -lxxhash
	tiny_model
	prose 120 >doc
	kv-prefill -u doc >raw.kvs
	kv-prefill --codec zlib doc -o packed.kvs
	kv-prune --think 0.4 --recent 16 -u raw.kvs >pruned.kvs
	kv-quant --kivi 4 --group 8 -u raw.kvs >codes.kvs
	python3 - raw.kvs packed.kvs pruned.kvs codes.kvs <<-'END'
		import random, subprocess, sys
		random.seed(5)
		for name in sys.argv[1:]:
		    whole = open(name, "rb").read()
		    for _ in range(50):
		        bad, at = bytearray(whole), random.randrange(8 * len(whole))
		        bad[at // 8] ^= 1 << at % 8
		        said = [subprocess.run(reader, input=bad, capture_output=True).returncode for reader in (["./kvs-min"], ["kv-dump", "--verify"])]
		        assert said == [3, 3], (name, at // 8, at % 8, said)
	END
}

@test "file(1) knows snapshots" {
	command -v file >/dev/null || skip "no file(1)"
	[ "$(file -b -m "$formats/kvs.magic" "$files/good-tiny.kvs")" = "KV-cache snapshot, format 1.0" ]
	[ "$(file -b -m "$formats/kvs.magic" "$files/good-minor.kvs")" = "KV-cache snapshot, format 1.1" ]
	[ "$(file -b -m "$formats/kvs.magic" "$files/unsupported-major.kvs")" = "KV-cache snapshot, format 2.0" ]
	[ "$(file -b --mime-type -m "$formats/kvs.magic" "$files/good-tiny.kvs")" = application/x-kv-snapshot ]
	[[ $(file -b -m "$formats/kvs.magic" "$files/bad-magic.kvs") != *KV-cache* ]]
}
