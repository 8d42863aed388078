#!/usr/bin/env bats
# Bad input and bad usage: one clear line, the right exit status, nothing on standard output.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 60 >doc
	kv-prefill doc -o s.kvs
}

@test "what is no snapshot" {
	: >empty
	for tool in "kv-evict --tova -k 5" "kv-prune --think 0.4" "kv-quant --kivi 4" "kv-reposition --compact" kv-decode "kv-dump --verify"; do
		refuse 3 $tool empty
		says empty
		refuse 3 $tool doc
		says "not a kvs snapshot"
		refuse 1 $tool nowhere.kvs
		says "No such file"
		refuse 1 $tool .
	done
}

@test "a snapshot cut at every frame boundary, and inside frames" {
	kv-prefill -p "the cache keeps what it needs" -u -o t.kvs
	size=$(wc -c <t.kvs)
	for ((n = 0; n < size; n += 64)); do
		head -c $n t.kvs >cut
		refuse 3 kv-evict --window -k 2 cut
	done
	for n in 1 63 65 100 $((size - 1)); do
		head -c "$n" t.kvs >cut
		refuse 3 kv-decode -n 1 cut
	done
}

@test "one flipped bit, anywhere" {
	python3 - <<'END'
data = open("s.kvs", "rb").read()
for i in range(40):
    flipped = bytearray(data)
    flipped[i * (len(data) - 1) // 39] ^= 1 << i % 8
    open(f"flipped{i}", "wb").write(flipped)
END
	for file in flipped*; do
		refuse 3 kv-evict --window -k 2 "$file"
		refuse 3 kv-decode -n 1 "$file"
	done
}

@test "a failure upstream spreads, with and without pipefail" {
	head -c 5000 s.kvs >cut
	run bash -c 'kv-evict --window -k 2 cut | kv-reposition --compact | kv-decode -n 1'
	[ "$status" -eq 3 ]
	# The second snapshot of a sequence is damaged: the first comes through, the end does not.
	cat s.kvs cut >seq
	run bash -c 'kv-evict --window -k 2 seq 2>/dev/null | kv-dump --verify'
	[ "$status" -eq 3 ]
}

@test "another model's snapshot" {
	mkmodel --seed 99 -o other.gguf
	refuse 5 kv-decode -m other.gguf s.kvs
	says fingerprint
	refuse 5 kv-prefill -m other.gguf --from s.kvs -p more
	mkmodel --layers 5 -o deeper.gguf
	refuse 5 kv-decode -m deeper.gguf s.kvs
	says layers
}

@test "models that are not there, not whole, not ours" {
	refuse 1 kv-prefill -m nowhere.gguf doc
	refuse 2 env -u KV_MODEL kv-prefill doc
	says KV_MODEL
	refuse 3 kv-prefill -m doc doc
	: >empty
	refuse 3 kv-prefill -m empty doc
	size=$(wc -c <"$TINY")
	for n in 4 24 100 1000 5000 $((size / 2)) $((size - 1)); do
		head -c "$n" "$TINY" >cut.gguf
		refuse 3 kv-prefill -m cut.gguf doc
	done
}

# tests/unit/test_gguf_damage.c goes through all bytes and lengths; here is what the tool makes of some.
@test "a model whose header is damaged or cut" {
	local n status
	for n in {0..23} 40 100 333 1000 2500 4000 7000; do
		cp "$TINY" bad.gguf
		printf "\\x$(printf %02x $(($(od -An -tu1 -j $n -N 1 bad.gguf) ^ 64)))" | dd of=bad.gguf bs=1 seek=$n conv=notrunc status=none
		status=0
		kv-prefill -m bad.gguf doc >out 2>err || status=$?
		case $status in
		0) [ $n -ge 24 ] ;;
		3 | 4 | 5) [ ! -s out ] && [ "$(wc -l <err)" -eq 1 ] ;;
		*) false ;;
		esac || { echo "byte $n: $status"; return 1; }
	done
	for n in 0 1 4 8 23 24 25 60 61 200 1111 5000 7000 9000 100000; do
		head -c $n "$TINY" >bad.gguf
		refuse 3 kv-prefill -m bad.gguf doc
	done
}

@test "budgets" {
	for k in 0 x -1 '' 0% 101% 1.5 5x; do
		refuse 2 kv-evict --tova -k "$k" s.kvs
		says -k
	done
	refuse 2 kv-evict --tova s.kvs
	refuse 2 kv-evict --streaming -k 4 s.kvs
}

@test "policies" {
	refuse 2 kv-evict -k 5 s.kvs
	refuse 2 kv-evict --tova --window -k 5 s.kvs
	refuse 2 kv-evict --nonesuch -k 5 s.kvs
	refuse 2 kv-evict --policy nonesuch -k 5 s.kvs
	kv-prefill --observe none doc -o bare.kvs
	refuse 5 kv-evict --tova -k 5 bare.kvs
	says "--observe"
}

@test "usage" {
	for tool in kv-prefill kv-evict kv-prune kv-quant kv-reposition kv-decode kv-dump; do
		refuse 2 $tool --nonesuch
		refuse 2 $tool -é
		says 'no option -\xc3'
		refuse 2 $tool $'-q\n'
		says 'no option -\x0a'
		says "try '$tool --help'"
		run -0 --separate-stderr $tool --help
		[[ ${lines[0]} == "usage: $tool "* ]] && [ -z "$stderr" ]
		run -0 --separate-stderr $tool --version
		[[ ${lines[0]} =~ ^$tool\ [0-9]+\.[0-9]+\.[0-9]+$ ]]
		refuse 2 $tool -@ x
		refuse 2 env KV_THREADS=many $tool
	done
	refuse 2 kv-evict --window -k 5 s.kvs s.kvs
	refuse 2 kv-reposition s.kvs
	refuse 2 kv-reposition --compact --original s.kvs
	refuse 2 kv-prefill --from - </dev/null
	refuse 2 kv-prefill --dtype f64 doc
	refuse 2 kv-prefill --observe everything doc
	refuse 2 env KV_ISA=sse9 kv-prefill doc
	says sse9
	refuse 2 kv-decode --temp -1 s.kvs
	refuse 2 kv-decode -n many s.kvs
	refuse 2 kv-decode --logprobs 3 s.kvs
}

@test "token ids" {
	refuse 2 kv-prefill --tokens -p "1 2 x"
	refuse 2 kv-prefill --tokens -p "1 99999999999"
	refuse 2 kv-prefill --tokens -p "1 -2"
	kv-prefill --tokens -p "5 6	7
8" -o ids.kvs
	[ "$(kv-dump --json ids.kvs | jq_ .tokens)" -eq 4 ]
}

@test "a position that would overflow" {
	kv-reposition --shift 2147483000 s.kvs -o far.kvs
	refuse 5 kv-prefill --from far.kvs doc doc doc doc doc doc doc doc doc doc doc doc
	says "kv-reposition --compact"
	refuse 5 kv-reposition --shift 2147483647 far.kvs
	refuse 5 kv-reposition --shift -1 s.kvs
}

@test "--mem-limit" {
	refuse 1 kv-evict --mem-limit 1K --window -k 5 s.kvs
	kv-evict --mem-limit 100M --window -k 5 s.kvs >/dev/null
}
