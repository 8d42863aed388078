#!/usr/bin/env bats
# What may follow what: a test for each row of the table, with its status and its message.

load lib/kv.bash

setup() {
	tiny_model		# 3 layers, 2 KV heads of 2 query heads each, 16 channels
	cd "$BATS_TEST_TMPDIR"
	prose 130 >doc
	made s.kvs kv-prefill doc
	S=$BATS_FILE_TMPDIR
}

# made NAME COMMAND…: the snapshot is made once for the whole file and linked here.
made() {
	local name=$1
	shift
	[ -f "$BATS_FILE_TMPDIR/$name" ] || "$@" -o "$BATS_FILE_TMPDIR/$name" 2>/dev/null
	ln -sf "$BATS_FILE_TMPDIR/$name" "$name"
}

baked() { made baked.kvs kv-prune --think 0.4 s.kvs; }
paired() { made paired.kvs kv-prune --think 0.4 --pairs s.kvs; }
coded() { made coded.kvs kv-quant --kivi 4 --group 8 --residual 32 s.kvs; }

# note TEXT COMMAND…: succeeds, and says so on one line of standard error; the snapshot is out.kvs.
note() {
	local text=$1
	shift
	run -0 --separate-stderr bash -c '"$@" >out.kvs' bash "$@"
	[ "${#stderr_lines[@]}" -eq 1 ] || { printf 'not one line: %s\n' "$stderr"; return 1; }
	says "$text"
	kv-dump --verify out.kvs
}

# quietly COMMAND…: succeeds without a word.
quietly() {
	run -0 --separate-stderr bash -c '"$@" >out.kvs' bash "$@"
	[ -z "$stderr" ] || { printf 'said: %s\n' "$stderr"; return 1; }
	kv-dump --verify out.kvs
}

keys() { kv-dump --tsv frames "$1" | grep -E $'\tKEYS\t|\tQUNT\t|\tCMSK\t' | cut -f2-; }

# --- kv-reposition

@test "reposition: full rows of any type" {
	for t in f16 bf16 f32; do
		kv-prefill --dtype $t doc -o $t.kvs
		quietly kv-reposition --shift 5 $t.kvs
		kv-reposition --shift -5 out.kvs -o back.kvs
		same $t.kvs back.kvs
	done
}

@test "reposition: pair-pruned rows move and come back; before or after pruning is one" {
	paired
	quietly kv-reposition --shift 5 paired.kvs
	kv-reposition --shift 5 s.kvs | kv-prune --think 0.4 --pairs -o other.kvs
	same out.kvs other.kvs
	kv-reposition --shift -5 out.kvs -o back.kvs
	same paired.kvs back.kvs
}

@test "reposition: baked rows are refused, with or without codes" {
	baked
	refuse 5 kv-reposition --shift 5 baked.kvs
	says "kv-reposition: baked.kvs: layer 0 head 0: positions are baked in: keys were pruned without rotary partners"
	says "pairs broken); run kv-reposition before kv-prune, or prune with --pairs"
	kv-quant --kivi 4 --group 8 --residual 32 baked.kvs -o q.kvs
	refuse 5 kv-reposition --compact --align end q.kvs || refuse 5 kv-reposition --shift 1 q.kvs
	says "positions are baked in"
}

@test "reposition: codes before rotation, untouched" {
	coded
	quietly kv-reposition --shift 5 coded.kvs
	cmp <(keys coded.kvs) <(keys out.kvs)
	mkstate rows s.kvs rows.kvs
	quietly kv-reposition --shift 5 rows.kvs
}

@test "reposition: values pruned or quantised" {
	kv-prune --think 0.4 --what v s.kvs -o v.kvs
	quietly kv-reposition --shift 5 v.kvs
	kv-quant --kivi 2 --what v --group 8 --residual 32 s.kvs -o qv.kvs
	quietly kv-reposition --shift 5 qv.kvs
}

@test "reposition: kinds of attention and of RoPE that are not known" {
	refuse 4 kv-reposition --shift 1 "$BATS_TEST_DIRNAME/files/unsupported-attn-kind.kvs"
	refuse 4 kv-reposition --shift 1 "$BATS_TEST_DIRNAME/files/unsupported-rope-kind.kvs"
}

@test "reposition: recorded queries move with the next token, their numbers stay" {
	kv-reposition --shift 7 s.kvs -o moved.kvs
	[ "$(kv-dump --json moved.kvs | jq_ .next_pos)" -eq $(($(kv-dump --json s.kvs | jq_ .next_pos) + 7)) ]
	cmp <(kv-evict --tova -k 40 --dry-run s.kvs | cut -f1-4,6) <(kv-evict --tova -k 40 --dry-run moved.kvs | cut -f1-4,6)
}

@test "reposition: positions that do not ascend, or pass the next token's" {
	printf '*\t*\t5\t3\n' >map
	refuse 5 kv-reposition --map map s.kvs
	printf '*\t*\t5\t100000\n' >map
	refuse 5 kv-reposition --map map s.kvs
	refuse 5 kv-reposition --gaps --next 3 s.kvs
}

# --- kv-prune, keys

@test "prune: no queries" {
	kv-prefill --observe none doc -o n.kvs
	refuse 5 kv-prune --think 0.4 n.kvs
	says "kv-prune: n.kvs: no window queries in this snapshot; run kv-prefill --observe last=32"
	refuse 5 kv-prune --think 0.4 --score error n.kvs
	quietly kv-prune --think 0.4 --score knorm n.kvs
	quietly kv-prune --think 0.4 --score random n.kvs
	kv-prefill --observe last=8 doc -o few.kvs
	refuse 5 kv-prune --think 0.4 few.kvs
	says "8 window queries"
	says "--observe last=32"
	quietly kv-prune --think 0.4 --last 8 few.kvs
	# Fewer tokens than queries asked for: all there can be are there.
	kv-prefill -p "the cache keeps" | kv-prune --think 0.4 --recent 0 -o out.kvs
}

@test "prune: stale queries" {
	kv-prefill --from s.kvs --observe none -p ' and lets go' -o later.kvs
	n=$(($(kv-dump --json later.kvs | jq_ .tokens) - $(kv-dump --json s.kvs | jq_ .tokens)))
	note "queries are stale by $n tokens" kv-prune --think 0.4 later.kvs
}

@test "prune: no more entries than stay whole" {
	kv-evict --window -k 32 s.kvs -o small.kvs
	note "6 of 6 heads stay as they are: no more than 32 entries" kv-prune --think 0.4 small.kvs
	same small.kvs out.kvs
	kv-evict --window -k 33 s.kvs -o small.kvs
	quietly kv-prune --think 0.4 small.kvs
	[ "$(kv-dump --json out.kvs | jq_ .masks.rows_pruned)" -eq 6 ]
	kv-evict --window -k 31 s.kvs -o small.kvs
	note "no more than 32 entries" kv-prune --think 0.4 small.kvs
	kv-prefill -p '' -o empty.kvs
	note "stay as they are" kv-prune --think 0.4 empty.kvs
}

@test "prune: ratios" {
	for bad in 1 1.5 -0.1 0.4x 4e-1 '' 40% nan; do
		refuse 2 kv-prune --think "$bad" s.kvs
		says "--think"
	done
	for high in 0.61 0.9; do
		refuse 2 kv-prune --think $high s.kvs
		says "--force"
		quietly kv-prune --think $high --force s.kvs
	done
	quietly kv-prune --think 0.60 s.kvs
	note "the ratio is less than one channel" kv-prune --think 0 s.kvs
	same s.kvs out.kvs
	refuse 2 kv-prune s.kvs
}

@test "prune: channels that are gone do not come back" {
	baked
	refuse 5 kv-prune --think 0.4 --score random baked.kvs
	says "layer 0 head 0: "
	says " channels asked for were dropped before and cannot come back; use --reuse-mask for newer entries"
	# The same lot, with more drawn: a subset.
	kv-prune --think 0.2 --score random s.kvs -o part.kvs
	quietly kv-prune --think 0.5 --score random part.kvs
	[ "$(kv-dump --json out.kvs | jq_ .masks.kept_min)" -eq 8 ]
}

@test "prune: --reuse-mask narrows what came since, and that alone" {
	paired
	kv-prefill --from paired.kvs -p "$(prose 40)" -o grown.kvs
	quietly kv-prune --reuse-mask grown.kvs
	n=$(kv-dump --json grown.kvs | jq_ .entries.max)
	[ "$(kv-dump --json out.kvs | jq_ .masks.rows_pruned)" -eq $(((n - 32) * 6)) ]
	diff <(kv-dump --tsv masks paired.kvs) <(kv-dump --tsv masks out.kvs)
	mv out.kvs again.kvs
	note "nothing came since" kv-prune --reuse-mask again.kvs
	note "no mask to use again" kv-prune --reuse-mask s.kvs
	quietly kv-prune --reuse-mask --think 0.4 --pairs s.kvs
	same paired.kvs out.kvs
	baked
	kv-prefill --from baked.kvs -p "$(prose 40)" -o grown.kvs
	quietly kv-prune --reuse-mask grown.kvs
	[ "$(kv-dump --json out.kvs | jq_ .masks.rows_pruned)" -eq $(((n - 32) * 6)) ]
	# A mask may happen to keep pairs whole, and then its rows are not turned: as many lists are baked as before.
	was=$(kv-dump --json baked.kvs | jq_ .entries.max)
	lists=$(($(kv-dump --json baked.kvs | jq_ .masks.rows_baked) / (was - 32)))
	[ "$lists" -gt 0 ]
	[ "$(kv-dump --json out.kvs | jq_ .masks.rows_baked)" -eq $(((n - 32) * lists)) ]
}

@test "prune: pairs out of codes, exactly" {
	coded
	quietly kv-prune --think 0.4 --pairs --score random coded.kvs
	kv-quant --restore out.kvs -o a.kvs
	kv-quant --restore coded.kvs | kv-prune --think 0.4 --pairs --score random -o b.kvs
	same a.kvs b.kvs
}

@test "prune: single channels out of codes only anew" {
	coded
	refuse 5 kv-prune --think 0.4 coded.kvs
	says "layer 0: codes cannot be narrowed exactly; run kv-prune before kv-quant, prune with --pairs, or accept --requant"
	note lossy kv-prune --think 0.4 --requant coded.kvs
	[ "$(kv-dump --json out.kvs | jq_ .quant.bits_k)" -eq 4 ]
	[ "$(kv-dump --json out.kvs | jq_ .masks.rows_baked)" -gt 0 ]
}

@test "prune: a subset out of baked codes, exactly" {
	kv-prune --think 0.2 --score random s.kvs | kv-quant --kivi 4 --group 8 --residual 32 -o bq.kvs
	quietly kv-prune --think 0.5 --score random bq.kvs
	kv-quant --restore out.kvs -o a.kvs
	kv-quant --restore bq.kvs | kv-prune --think 0.5 --score random -o b.kvs
	same a.kvs b.kvs
}

@test "prune: keys in blocks along channels" {
	mkstate rows s.kvs rows.kvs
	refuse 5 kv-prune --think 0.5 --pairs rows.kvs
	says "codes cannot be narrowed exactly; run kv-prune before kv-quant or accept --requant"
	note lossy kv-prune --think 0.5 --pairs --requant rows.kvs
}

@test "prune: a basis that is not known" {
	refuse 4 kv-prune --think 0.4 "$BATS_TEST_DIRNAME/files/unsupported-k-basis.kvs"
}

@test "prune: a mask for each query head" {
	refuse 5 kv-prune --think 0.4 --mask-scope qhead s.kvs
	says "masks per query head need as many KV heads as query heads (have 2 and 4)"
	mkmodel --heads 4 --kv-heads 4 -o mha.gguf
	kv-prefill -m mha.gguf doc -o mha.kvs
	quietly kv-prune --think 0.4 --mask-scope qhead mha.kvs
	kv-prune --think 0.4 mha.kvs -o kv.kvs
	same kv.kvs out.kvs
}

# --- kv-prune, values

@test "prune values: no queries" {
	kv-prefill --observe none doc -o n.kvs
	refuse 5 kv-prune --think 0.4 --what v n.kvs
	says "no window queries in this snapshot; run kv-prefill --observe last=32"
}

@test "prune values: codes share scales along channels" {
	coded
	refuse 5 kv-prune --think 0.5 --what v coded.kvs
	says "codes cannot be narrowed exactly; run kv-prune before kv-quant or accept --requant"
	kv-quant --kivi 4 --what v --group 8 --residual 32 s.kvs -o qv.kvs
	note lossy kv-prune --think 0.5 --what v --requant qv.kvs
	refuse 5 kv-prune --think 0.4 --what v --requant qv.kvs
	says "group"
}

@test "prune values: keys pruned or quantised before" {
	baked
	note "scores are approximate" kv-prune --think 0.4 --what v baked.kvs
	kv-quant --kivi 4 --what k --group 8 --residual 32 s.kvs -o qk.kvs
	note "scores are approximate" kv-prune --think 0.4 --what v qk.kvs
	refuse 2 kv-prune --think 0.4 --what v --pairs s.kvs
	refuse 2 kv-prune --think 0.4 --what v --rebuild s.kvs
	refuse 2 kv-prune --think 0.4 --what v --score error s.kvs
	refuse 2 kv-prune --think 0.4 --score rebuilt s.kvs
}

# --- kv-evict

@test "evict: by age, by lot, and from outside, in any state" {
	baked
	paired
	made v.kvs kv-prune --think 0.4 --what v s.kvs
	for f in baked paired v; do
		for p in --window --streaming --random; do
			quietly kv-evict $p -k 40 $f.kvs
			[ "$(kv-dump --json out.kvs | jq_ .entries.max)" -eq 40 ]
		done
		kv-evict --window -k 40 --dry-run $f.kvs | awk '$6 == 1 || /layer/' | cut -f1-3 >keep
		kv-evict --window -k 40 $f.kvs -o window.kvs
		quietly kv-evict --keep-list keep $f.kvs
		same window.kvs out.kvs
		kv-evict --window -k 40 --dry-run $f.kvs | cut -f1-3,5 >scores
		quietly kv-evict --scores scores -k 40 $f.kvs
		same window.kvs out.kvs
	done
	head -n 20 scores >few
	refuse 5 kv-evict --scores few -k 40 s.kvs
}

@test "evict: chunks go as the policy whose scores they average" {
	baked
	note approximate kv-evict --chunkkv --base knorm -k 40 baked.kvs
	note approximate kv-evict --chunkkv -k 40 baked.kvs
}

@test "evict: attention of queries that are not there" {
	kv-prefill --observe none doc -o n.kvs
	for p in tova snapkv pyramidkv adakv scissorhands expected-attention; do
		refuse 5 kv-evict --$p -k 40 n.kvs
		says "--observe last="
	done
}

@test "evict: attention from narrowed or coded keys is approximate" {
	baked
	paired
	made qk.kvs kv-quant --kivi 4 --what v --group 8 --residual 32 s.kvs
	for f in baked paired; do
		for p in tova snapkv pyramidkv adakv scissorhands expected-attention; do
			note approximate kv-evict --$p -k 60 $f.kvs
		done
	done
	quietly kv-evict --tova -k 60 qk.kvs
}

@test "evict: accumulated attention that is not there, or has gaps" {
	for p in h2o roco observed; do
		refuse 5 kv-evict --$p -k 40 s.kvs
		says "--observe acc"
	done
	refuse 5 kv-evict --h2o -k 40 s.kvs
	says "no accumulated attention in the snapshot, --h2o needs it: run kv-prefill with --observe acc"
	kv-prefill --observe acc doc -o acc.kvs
	kv-prefill --from acc.kvs --observe none -p ' and lets go' -o stale.kvs
	for p in h2o roco observed; do
		refuse 5 kv-evict --$p -k 40 stale.kvs
		says "--allow-stale"
		run -0 --separate-stderr kv-evict --$p -k 40 --allow-stale stale.kvs -o out.kvs
	done
}

@test "evict: surprisal that is not there" {
	refuse 5 kv-evict --sirllm -k 40 s.kvs
	says nll
}

@test "evict: by keys of several widths" {
	baked
	paired
	for f in baked paired; do
		for p in knorm keydiff; do
			note "" kv-evict --$p -k 60 $f.kvs
			[ "$(kv-dump --json out.kvs | jq_ .entries.max)" -eq 60 ]
		done
		note "" kv-evict --lagkv --lag 16 -k 60 $f.kvs
	done
}

@test "evict: groups of codes are not split" {
	coded
	refuse 5 kv-evict --window -k 41 coded.kvs
	says "head 0: "
	says " quantised groups of 8 would be split; evict before kv-quant, or accept --requant"
	run -0 --separate-stderr kv-evict --window -k 41 --requant coded.kvs -o out.kvs
	kv-dump --verify out.kvs
	[ "$(kv-dump --json out.kvs | jq_ .entries.max)" -eq 41 ]
}

@test "evict: whole groups go, exactly" {
	coded
	n=$(kv-dump --json coded.kvs | jq_ .entries.max)
	quietly kv-evict --window -k $((n - 64)) coded.kvs
	kv-quant --restore out.kvs -o a.kvs
	kv-quant --restore coded.kvs | kv-evict --window -k $((n - 64)) -o b.kvs
	same a.kvs b.kvs
}

@test "evict: coded values go one by one, exactly" {
	kv-quant --kivi 4 --what v --group 8 --residual 32 s.kvs -o qv.kvs
	quietly kv-evict --window -k 41 qv.kvs
	kv-quant --restore out.kvs -o a.kvs
	kv-quant --restore qv.kvs | kv-evict --window -k 41 -o b.kvs
	same a.kvs b.kvs
	mkstate rows s.kvs rows.kvs
	quietly kv-evict --window -k 41 rows.kvs
}

@test "evict: a baked row leaves with its position" {
	baked
	quietly kv-evict --streaming -k 60 baked.kvs
	diff <(kv-dump --tsv entries out.kvs | cut -f1,2,4,5) <(kv-evict --streaming -k 60 s.kvs | kv-dump --tsv entries | cut -f1,2,4,5)
}

# --- kv-quant

@test "quant: full, pair-pruned and baked rows keep their basis" {
	baked
	paired
	for f in s baked paired; do
		quietly kv-quant --kivi 4 --group 8 --residual 32 --what k $f.kvs
		[ "$(kv-dump --json out.kvs | jq_ .masks.rows_baked)" = "$(kv-dump --json $f.kvs | jq_ .masks.rows_baked)" ]
		[ "$(kv-dump --json out.kvs | jq_ .quant.rows_k)" -gt 0 ]
	done
}

@test "quant: what is in codes stays; nothing left, or other parameters, is refused" {
	coded
	refuse 5 kv-quant --kivi 4 --group 8 --residual 32 coded.kvs
	says "layer 0: K is quantised already (kivi, 4 bits); start from the snapshot before kv-quant"
	refuse 5 kv-quant --kivi 2 --group 8 --residual 32 coded.kvs
	says "(kivi, 4 bits)"
	refuse 5 kv-quant --kivi 4 --group 16 --residual 32 coded.kvs
	says "quantised already"
	refuse 5 kv-quant --kivi 4 --group 8 --residual 32 --what v coded.kvs
	says "layer 0: V is quantised already"
	mkstate rows s.kvs rows.kvs
	refuse 5 kv-quant --kivi 8 --group 8 --residual 32 --what k rows.kvs
	says "other axis"
	quietly kv-quant --kivi 2 --group 8 --residual 32 --what v rows.kvs
}

@test "quant: further blocks, none twice" {
	coded
	kv-prefill --from coded.kvs -p "$(prose 40)" -o grown.kvs
	quietly kv-quant --kivi 4 --group 8 --residual 32 grown.kvs
	n=$(kv-dump --json grown.kvs | jq_ .entries.max)
	[ "$(kv-dump --json out.kvs | jq_ .quant.rows_k)" -eq $((n / 32 * 32 * 6)) ]
	[ "$(kv-dump --json out.kvs | jq_ .quant.rows_v)" -eq $(((n - 32) * 6)) ]
	kv-evict --keep-list <(kv-dump --tsv entries coded.kvs | cut -f1-3) out.kvs 2>/dev/null | kv-quant --restore -o a.kvs
	kv-quant --restore coded.kvs | kv-dump --diff - a.kvs >diff || true
}

@test "quant: what is no finite number" {
	for x in nan inf; do
		mkstate $x s.kvs $x.kvs
		refuse 5 kv-quant --kivi 4 --group 8 --residual 32 $x.kvs
		says "layer 1 head 0"
		says "3"
	done
}

@test "quant: constant groups" {
	mkstate flat s.kvs flat.kvs
	quietly kv-quant --kivi 2 --group 8 --residual 32 flat.kvs
	kv-quant --restore out.kvs -o back.kvs
	same flat.kvs back.kvs
}

@test "quant: groups that do not divide" {
	refuse 2 kv-quant --kivi 4 --group 32 --residual 100 s.kvs
	says "--group 32 does not divide --residual 100"
	refuse 5 kv-quant --kivi 4 s.kvs
	says "group"
	quietly kv-quant --kivi 4 --what k s.kvs
	kv-prune --think 0.4 --what v s.kvs -o v.kvs
	refuse 5 kv-quant --kivi 4 --group 8 --residual 32 v.kvs
	says "group"
}

@test "quant: fewer entries than the residual" {
	kv-evict --window -k 30 s.kvs -o small.kvs
	run -0 --separate-stderr kv-quant --kivi 4 --group 8 --residual 32 small.kvs -o out.kvs
	says "keys of 6 of 6 heads: nothing to code"
	says "values of 6 of 6 heads: nothing to code"
	same small.kvs out.kvs
}

@test "quant: one mode, and its own options" {
	refuse 2 kv-quant s.kvs
	refuse 2 kv-quant --kivi 3 s.kvs
	refuse 2 kv-quant --kivi 4 --restore s.kvs
	refuse 2 kv-quant --restore --group 8 s.kvs
	refuse 2 kv-quant --dtype f8 s.kvs
	kv-prefill --dtype f32 doc -o f32.kvs
	mkstate flat f32.kvs flat.kvs
	quietly kv-quant --dtype f16 f32.kvs
	quietly kv-quant --dtype bf16 f32.kvs
	[ "$(kv-dump --json out.kvs | jq_ .dtype)" = bf16 ]
	note "they are of this type" kv-quant --dtype f16 --what k s.kvs
	note "there are no codes" kv-quant --restore --what k s.kvs
}

# --- kv-decode, kv-prefill --from

@test "decode: another model" {
	mkmodel --seed 9 -o other.gguf
	refuse 5 kv-decode -m other.gguf -n 1 s.kvs
	says "snapshot was made with another model: weights differ"
	refuse 5 kv-prefill -m other.gguf --from s.kvs -p x
	says "snapshot was made with another model: weights differ"
}

@test "decode: what is not known, and what cannot be" {
	refuse 4 kv-decode -n 1 "$BATS_TEST_DIRNAME/files/unsupported-attn-kind.kvs"
	refuse 3 kv-decode -n 1 "$BATS_TEST_DIRNAME/files/bad-next-pos.kvs"
}

@test "decode: lists of several lengths, and any mix of rows" {
	baked
	paired
	coded
	kv-evict --adakv -k 60 s.kvs -o ragged.kvs
	kv-prune --think 0.4 ragged.kvs | kv-quant --kivi 4 --group 8 --residual 16 --what k -o mix.kvs
	for f in ragged baked paired coded mix; do
		run -0 --separate-stderr kv-decode -n 4 -p ' and' --ids --save "$f.out" $f.kvs
		[ -n "$output" ]
		kv-dump --verify "$f.out"
		run -0 --separate-stderr kv-prefill --from $f.kvs -p ' and lets go' -o "$f.more"
	done
	# What came is plain and whole.
	[ "$(kv-dump --json mix.kvs | jq_ .masks.rows_pruned)" -eq "$(kv-dump --json mix.out | jq_ .masks.rows_pruned)" ]
	[ "$(kv-dump --json mix.kvs | jq_ .quant.rows_k)" -eq "$(kv-dump --json mix.out | jq_ .quant.rows_k)" ]
}

@test "decode: a pipeline that would move baked rows stops the job" {
	baked
	run -5 --separate-stderr kv-decode -n 8 --each 'kv-evict --streaming -k 60 | kv-reposition --compact' --every 2 baked.kvs
	says "positions are baked in"
	run -5 --separate-stderr kv-prefill --from baked.kvs --chunk 16 --each 'kv-evict --streaming -k 60 | kv-reposition --compact' -p "$(prose 30)" -o x.kvs
	says "round 1"
	says "positions are baked in"
	[ ! -e x.kvs ]
}

# --- any tool

@test "any tool: truncated, damaged, unknown" {
	paired
	coded
	for f in paired coded; do
		head -c 9000 $f.kvs >cut
		for tool in "kv-prune --think 0.4" "kv-quant --kivi 4" "kv-evict --window -k 4" "kv-reposition --shift 1" "kv-decode -n 1"; do
			run -3 --separate-stderr bash -c "$tool <cut >out"
			run ! kv-dump --verify out
		done
	done
	for f in unsupported-major unsupported-critical unsupported-codec2; do
		refuse 4 kv-prune --think 0.4 "$BATS_TEST_DIRNAME/files/$f.kvs"
		refuse 4 kv-quant --kivi 4 "$BATS_TEST_DIRNAME/files/$f.kvs"
	done
}

@test "any tool: scores that belong to another cache" {
	printf '# digest %s\nlayer\thead\tslot\tscore\n*\t*\t0\t1\n' "$(kv-evict --window -k 9 s.kvs | kv-dump --digest)" >scores
	refuse 5 kv-evict --scores scores -k 4 s.kvs
}
