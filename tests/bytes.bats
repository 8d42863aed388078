#!/usr/bin/env bats
# What pruning and coding leave of a cache, to the byte: as kv-dump counts it, as kv-prune and kv-quant report it, and as it is worked out by hand.

load lib/kv.bash

setup() {
	cd "$BATS_TEST_TMPDIR"
}

# model LAYERS HEADS KV_HEADS CHANNELS: of this shape, else as small as can be.
model() {
	mkmodel --type F32 --layers "$1" --heads "$2" --kv-heads "$3" --head-dim "$4" --embd 32 --ff 32 -o m.gguf
	export KV_MODEL=$PWD/m.gguf
	lists=$(($1 * $3)) width=$4
}

# reading N: so many tokens, in s.kvs.
reading() {
	awk -v n="$1" 'BEGIN { srand(3); for (i = 0; i < n; i++) print int(rand() * 300) }' | kv-prefill --tokens -o s.kvs
}

# held FILE: keys values masks scales
held() { kv-dump --json "$1" | python3 -c 'import json, sys; b = json.load(sys.stdin)["bytes"]; print(b["keys"], b["values"], b["masks"], b["scales"])'; }

equal() { [ "$1" = "$2" ] || { printf 'want %s, got %s\n' "$2" "$1"; return 1; }; }

@test "channels: rows narrowed, rows whole, and one bit a channel for every mask" {
	for width in 64 128; do
		model 2 2 2 $width
		reading 160
		equal "$(held s.kvs)" "$((160 * width * 2 * lists)) $((160 * width * 2 * lists)) 0 0"
		while read -r d kept options; do
			[ "$d" -eq "$width" ] || continue
			# shellcheck disable=SC2086
			kv-prune --think $options --report s.kvs -o p.kvs 2>report
			keys=$(((128 * kept + 32 * width) * 2 * lists)) masks=$((width / 8 * lists))
			equal "$(held p.kvs)" "$keys $((160 * width * 2 * lists)) $masks 0"
			equal "$(grep -o 'keys: .* bytes in all' report)" "keys: $((keys + masks)) of $((160 * width * 2 * lists)) bytes in all"
			equal "$(grep -c " $((width - kept)) of $width channels dropped in 128 of 160 entries.* $(((keys + masks) / lists)) of $((160 * width * 2)) bytes" report)" $lists
		done <<'END'
			128 90 0.3
			128 77 0.4
			128 78 0.4 --pairs
			128 76 0.4 --rounding paper
			128 64 0.5
			128 52 0.6
			64 39 0.4
			64 40 0.4 --pairs
			64 38 0.4 --rounding paper
			64 26 0.6
END
	done
}

@test "channels: the shapes of SmolLM2 135M and of Llama 3 8B" {
	while read -r layers heads kv_heads width token pruned paired masks; do
		model "$layers" "$heads" "$kv_heads" "$width"
		reading 100
		for how in "$pruned" "$paired --pairs"; do
			# shellcheck disable=SC2086
			kv-prune --think 0.4 ${how#"${how%% *}"} s.kvs -o p.kvs
			read -r k v m s <<<"$(held p.kvs)"
			equal "$((k + v)) $m $s" "$((68 * ${how%% *} + 32 * token)) $masks 0"
		done
	done <<'END'
		30 9 3 64 23040 18540 18720 720
		32 32 8 128 131072 104960 105472 4096
END
}

@test "channels of values, and maps that rebuild those of keys" {
	model 1 1 1 64
	reading 200
	kv-prune --think 0.4 --what v s.kvs -o v.kvs
	equal "$(held v.kvs)" "$((200 * 128)) $((168 * 39 * 2 + 32 * 128)) 8 0"
	# 24 channels from 40 and a constant, in f16
	kv-prune --think 0.4 --rebuild s.kvs -o r.kvs
	equal "$(held r.kvs)" "$((168 * 40 * 2 + 32 * 128)) $((200 * 128)) $((8 + 24 * 41 * 2)) 0"
}

@test "codes: bits, and a scale and a minimum in f16 for 32 numbers" {
	model 1 1 1 64
	while read -r n coded_k coded_v; do
		reading "$n"
		for bits in 2 4; do
			kv-quant --kivi $bits --report s.kvs -o q.kvs 2>report
			k=$((coded_k * 64 * bits / 8 + (n - coded_k) * 128)) v=$((coded_v * 64 * bits / 8 + (n - coded_v) * 128))
			scales=$(((coded_k + coded_v) * 64 / 32 * 4))
			equal "$(held q.kvs)" "$k $v 0 $scales"
			equal "$(tail -n 1 report)" "kv-quant: $((k + v + scales)) of $((n * 256)) bytes"
		done
	done <<'END'
		100 0 0
		128 128 0
		300 256 172
		512 512 384
		2048 2048 1920
END
}

# What is said of 512 entries at 2 bits: 3 bits a key's number, 6.25 a value's.
@test "codes: bits a number, and those of codes of what pruning left" {
	model 1 1 1 128
	reading 512
	kv-quant --kivi 2 --what k s.kvs -o k.kvs
	equal "$(held k.kvs)" "$((512 * 128 * 2 / 8)) $((512 * 256)) 0 $((512 * 128 / 8))"		# 2 and 1 bits
	kv-quant --kivi 2 --what v s.kvs -o v.kvs
	equal "$(held v.kvs)" "$((512 * 256)) $((384 * 32 + 128 * 256)) 0 $((384 * 16))"		# 6.25 in all
	kv-prune --think 0.4 --recent 0 s.kvs -o p.kvs
	for bits in 2 4; do
		# 77 codes end inside a byte: 1.85 bits a key's number where 77 · 3 / 128 is 1.80, and 3.04 for 3.01
		row=$(((77 * bits + 7) / 8)) scales=$((512 / 32 * 77 * 4))
		kv-quant --kivi $bits --residual 0 p.kvs -o q.kvs
		equal "$(held q.kvs)" "$((512 * row)) $((512 * 128 * bits / 8)) 16 $((scales + 512 * 16))"
		read -r k v m s <<<"$(held q.kvs)"
		awk -v k=$((k + scales)) -v v=$((v + 512 * 16)) -v want_k=$([ $bits = 2 ] && echo 1.8516 || echo 3.0391) -v b=$bits 'BEGIN {
			k *= 8 / (512 * 128); v *= 8 / (512 * 128)
			exit !(v == b + 1 && k - want_k < 5e-5 && want_k - k < 5e-5) }'
	done
}
