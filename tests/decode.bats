#!/usr/bin/env bats
# kv-decode: what comes out.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 60 >doc
	kv-prefill doc -o s.kvs
}

@test "the three forms agree" {
	kv-decode -n 10 --ids --ignore-eos s.kvs >ids
	kv-decode -n 10 --json --ignore-eos s.kvs >json
	kv-decode -n 10 --special --ignore-eos s.kvs >text
	[ "$(wc -w <ids)" -eq 10 ]
	python3 - <<'END'
import json
lines = [json.loads(l) for l in open("json")]
assert [l["id"] for l in lines] == [int(w) for w in open("ids").read().split()]
assert all(l["logprob"] <= 0 for l in lines)
END
}

@test "--logprobs: the chosen token is the likeliest when greedy" {
	kv-decode -n 6 --json --logprobs 4 --ignore-eos s.kvs >json
	python3 - <<'END'
import json
for l in map(json.loads, open("json")):
    assert len(l["top"]) == 4
    assert l["top"][0]["id"] == l["id"]
    assert abs(l["top"][0]["logprob"] - l["logprob"]) < 1e-9
    assert [t["logprob"] for t in l["top"]] == sorted((t["logprob"] for t in l["top"]), reverse=True)
END
}

@test "--logprobs beyond the vocabulary: all of it, and the probabilities add up to one" {
	kv-decode -n 2 --json --logprobs 1000 --ignore-eos s.kvs >json
	python3 - <<'END'
import json, math
for l in map(json.loads, open("json")):
    assert len({t["id"] for t in l["top"]}) == len(l["top"]) < 1000
    assert abs(sum(math.exp(t["logprob"]) for t in l["top"]) - 1) < 1e-6
END
}

@test "sampling repeats with its seed, and only with it" {
	a=$(kv-decode -n 30 --ids --ignore-eos --temp 2 --seed 1 s.kvs)
	b=$(kv-decode -n 30 --ids --ignore-eos --temp 2 --seed 1 s.kvs)
	c=$(kv-decode -n 30 --ids --ignore-eos --temp 2 --seed 2 s.kvs)
	[ "$a" = "$b" ]
	[ "$a" != "$c" ]
	[ "$(kv-decode -n 9 --ids --ignore-eos --temp 5 --top-k 1 s.kvs)" = "$(kv-decode -n 9 --ids --ignore-eos s.kvs)" ]
	[ "$(kv-decode -n 9 --ids --ignore-eos --temp 5 --top-p 0 s.kvs)" = "$(kv-decode -n 9 --ids --ignore-eos s.kvs)" ]
	[ "$(kv-decode -n 9 --ids --ignore-eos --temp 5 --min-p 1 s.kvs)" = "$(kv-decode -n 9 --ids --ignore-eos s.kvs)" ]
}

@test "--stop ends before the text, wherever tokens are cut" {
	kv-decode -n 40 --ignore-eos --special s.kvs >full
	for from in 3 7 12; do
		stop=$(python3 -c 'import sys; t = open("full", "rb").read().decode("utf-8", "ignore"); print(t[int(sys.argv[1]):][:4], end="")' $from)
		[ -n "$stop" ] || continue
		kv-decode -n 40 --ignore-eos --special --stop "$stop" s.kvs >got
		python3 - "$stop" <<'END'
import sys
full, got = open("full", "rb").read(), open("got", "rb").read()
want = full[:full.index(sys.argv[1].encode())]
assert got in (want, want + b"\n"), (want, got)
END
	done
}

@test "--save: decoding goes on as if it had never stopped" {
	kv-decode -n 12 --ids --ignore-eos s.kvs >whole
	kv-decode -n 5 --ids --ignore-eos --save mid.kvs s.kvs >first
	kv-decode -n 7 --ids --ignore-eos mid.kvs >second
	[ "$(cat whole)" = "$(cat first) $(cat second)" ]
	kv-dump --verify mid.kvs
	[ "$(kv-dump --json mid.kvs | jq_ .tokens)" -eq $(($(kv-dump --json s.kvs | jq_ .tokens) + 5)) ]
}

@test "a prompt given to decode is what prefill would have read" {
	kv-prefill --from s.kvs -p ' and more' | kv-decode -n 6 --ids >a
	kv-decode -n 6 --ids -p ' and more' s.kvs >b
	cmp a b
}

@test "-n 0 prints nothing, and a newline ends a text" {
	[ "$(kv-decode -n 0 s.kvs | wc -c)" -eq 0 ]
	kv-decode -n 5 --ignore-eos --special s.kvs | tail -c 1 | od -An -c | grep -q '\\n'
}

@test "-v tells what was reused" {
	run -0 --separate-stderr kv-decode -v -n 3 -p x s.kvs
	[[ $stderr =~ [0-9]+\ entries\ reused ]]
}

@test "nothing is printed before the snapshot was read to its end" {
	head -c $(($(wc -c <s.kvs) - 64)) s.kvs >no_end
	refuse 3 kv-decode -n 3 no_end
}
