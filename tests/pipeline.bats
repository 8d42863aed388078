#!/usr/bin/env bats
# The tools together: what a pipeline promises.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 200 >doc
}

@test "the main job: prefill, evict, decode" {
	run -0 bash -o pipefail -c 'kv-prefill doc | kv-evict --tova -k 64 | kv-decode -n 8 -p "what is kept?" --ids'
	[ "$(wc -w <<<"$output")" -eq 8 ]
}

@test "prefill then decode through a file, a pipe and one process give the same tokens" {
	kv-prefill doc -o s.kvs
	kv-decode -n 12 --ids s.kvs >a
	kv-prefill doc | kv-decode -n 12 --ids >b
	kv-prefill -p '' | kv-decode -p @doc -n 12 --ids >c
	cmp a b
	cmp a c
}

@test "threads change nothing, not a byte" {
	for n in 1 2 3; do
		kv-prefill -@$n --no-prov --observe nll doc -o full$n.kvs
		kv-evict -@$n --no-prov --tova -k 50 full$n.kvs -o cut$n.kvs
		kv-decode -@$n -n 10 --json cut$n.kvs >out$n
	done
	cmp full1.kvs full2.kvs && cmp full1.kvs full3.kvs
	cmp cut1.kvs cut2.kvs && cmp cut1.kvs cut3.kvs
	cmp out1 out2 && cmp out1 out3
}

@test "raw and packed, pipe and file: one digest" {
	kv-prefill doc -o z.kvs
	kv-prefill --codec raw doc -o r.kvs
	kv-prefill doc | cat >p.kvs
	kv-prefill -u doc >u.kvs
	same z.kvs r.kvs
	same z.kvs p.kvs
	same z.kvs u.kvs
	[ "$(wc -c <z.kvs)" -lt "$(wc -c <r.kvs)" ]
}

@test "reading on from a snapshot: A then B is A B" {
	prose 90 >A
	sed 's/cache/token/g' doc >B
	kv-prefill --precision f32 --dtype f32 A B -o ab.kvs
	kv-prefill --precision f32 --dtype f32 A | kv-prefill --precision f32 --from - B -o a_b.kvs
	cmp <(kv-dump --tsv entries ab.kvs) <(kv-dump --tsv entries a_b.kvs)
	cmp <(kv-decode --precision f32 --ids -n 16 ab.kvs) <(kv-decode --precision f32 --ids -n 16 a_b.kvs)
}

@test "positions: eviction leaves them, --compact renumbers them, --original brings them back" {
	kv-prefill doc -o s.kvs
	next=$(kv-dump --json s.kvs | jq_ .next_pos)
	kv-evict --streaming -k 20 s.kvs -o e.kvs
	[ "$(kv-dump --json e.kvs | jq_ .next_pos)" -eq "$next" ]
	kv-reposition --compact e.kvs -o c.kvs
	[ "$(kv-dump --json c.kvs | jq_ .next_pos)" -eq 20 ]
	kv-dump --tsv entries c.kvs | awk -F'\t' 'NR > 1 && $5 != $3 { exit 1 }'
	kv-reposition --compact c.kvs -o cc.kvs
	same c.kvs cc.kvs
	kv-reposition --original c.kvs -o o.kvs
	same e.kvs o.kvs
	# The next token stands where the geometry says: at n behind original positions, at k behind compacted ones.
	kv-decode -n 1 --save e1.kvs e.kvs >/dev/null
	kv-decode -n 1 --save c1.kvs c.kvs >/dev/null
	[ "$(kv-dump --tsv entries e1.kvs | tail -n 1 | cut -f5)" -eq "$next" ]
	[ "$(kv-dump --tsv entries c1.kvs | tail -n 1 | cut -f5)" -eq 20 ]
}

@test "a sequence of snapshots: filters map over it, --only picks" {
	kv-prefill doc -o a.kvs
	kv-prefill -p "a short one" -o b.kvs
	cat a.kvs b.kvs >ab.kvs
	kv-evict --window -k 3 ab.kvs >cut.kvs
	kv-evict --window -k 3 b.kvs -o b3.kvs
	[ "$(kv-dump --digest cut.kvs | wc -l)" -eq 2 ]
	[ "$(kv-dump --digest cut.kvs | tail -n 1)" = "$(kv-dump --digest b3.kvs)" ]
	[ "$(kv-evict --window -k 3 --only 2 ab.kvs | kv-dump --digest)" = "$(kv-dump --digest b3.kvs)" ]
	refuse 5 kv-evict --window -k 3 --only 3 ab.kvs
	says "there are 2"
}

@test "a filter's snapshot is whole while its input is still open" {
	kv-prefill doc -o s.kvs
	mkfifo in out
	kv-evict --window -k 9 <in >out &
	pid=$!
	exec 8>in 9<out
	cat s.kvs >&8
	size=$(kv-evict --window -k 9 s.kvs | wc -c)
	timeout 20 head -c "$size" <&9 >got
	kv-dump --verify got
	exec 8>&- 9<&-
	wait $pid || true
}

@test "output onto the own input is safe" {
	kv-prefill doc -o s.kvs
	kv-evict --window -k 30 s.kvs -o w.kvs
	kv-evict --window -k 30 s.kvs -o s.kvs
	same s.kvs w.kvs
	[ "$(ls)" = "$(printf 'doc\ns.kvs\nw.kvs')" ]
}

@test "a chat goes on from a saved snapshot" {
	kv-prefill --chat -p "Hello" -o chat.kvs
	kv-decode -n 5 --save chat.kvs chat.kvs >/dev/null
	kv-dump --verify chat.kvs
	kv-decode -n 5 --chat -p "And now?" --show-prompt chat.kvs >/dev/null 2>shown
	grep -q 'And now?<|im_end|>' shown
	run ! grep -q 'system' shown
}

@test "an empty text is an empty snapshot, and every tool takes it" {
	kv-prefill -p '' -o e.kvs
	kv-dump --verify e.kvs
	[ "$(kv-dump --json e.kvs | jq_ .entries.total)" -eq 0 ]
	kv-evict --tova -k 5 e.kvs | kv-reposition --compact | kv-dump --verify
	kv-decode -p "the cache" -n 2 e.kvs >/dev/null
	refuse 5 kv-decode -n 2 e.kvs
	says "-p"
}

@test "--diff: silent and 0 where nothing differs, else 1, trouble is 2 and up" {
	kv-prefill doc -o a.kvs
	kv-prefill -u doc -o raw.kvs
	run -0 kv-dump --diff a.kvs raw.kvs
	[ -z "$output" ]
	kv-evict --window -k 9 a.kvs -o w.kvs
	run -1 kv-dump --diff a.kvs w.kvs
	n=$(kv-dump --json a.kvs | jq_ .entries.max)
	heads=$(kv-dump --json a.kvs | jq_ .geometry.kv_heads)
	[ "$(kv-dump --diff a.kvs w.kvs | awk -F'\t' '$1 == "0" { print $2, $3, $4, $5, $6 }')" = "$(((n - 9) * heads)) 0 $((9 * heads)) 0 0" ]
	kv-reposition --compact w.kvs -o c.kvs
	run -1 kv-dump --diff w.kvs c.kvs
	[[ $output == *"next position: $n and 9"* ]]
	kv-prefill --dtype bf16 doc -o b.kvs
	run -1 kv-dump --diff a.kvs b.kvs
	awk -F'\t' '$1 == "0" { exit !($4 > 0 && $6 > 0 && $6 < 0.1) }' <<<"$output"
	mkmodel --layers 5 -o deeper.gguf
	kv-prefill -m deeper.gguf doc -o deep.kvs
	run -1 kv-dump --diff a.kvs deep.kvs
	refuse 2 kv-dump --diff a.kvs
	refuse 2 kv-dump --diff a.kvs nowhere.kvs
	head -c 3000 a.kvs >cut
	refuse 3 kv-dump --diff a.kvs cut
}
