#!/usr/bin/env bats
# kv-prefill: what becomes of a text.

load lib/kv.bash

setup() {
	tiny_model
	cd "$BATS_TEST_TMPDIR"
	prose 100 >doc
}

tokens() { kv-dump --tsv tokens "$@" | tail -n +2 | cut -f2 | tr '\n' ' '; }

@test "files, standard input and -p are one text" {
	printf 'the cache ' >a
	printf 'keeps it' >b
	kv-prefill a b -o ab.kvs
	kv-prefill -p 'the cache keeps it' -o p.kvs
	same ab.kvs p.kvs
	cat a b | kv-prefill -o i.kvs
	same ab.kvs i.kvs
	kv-prefill a -p 'keeps it' -o ap.kvs
	same ab.kvs ap.kvs
	printf 'keeps it' | kv-prefill a - -o ai.kvs
	same ab.kvs ai.kvs
	kv-prefill -p @a b -o wrong.kvs
	run ! same wrong.kvs ab.kvs
}

@test "@FILE, and @@ for a text that begins with @" {
	kv-prefill -p @doc -o a.kvs
	kv-prefill doc -o b.kvs
	same a.kvs b.kvs
	[ "$(kv-prefill -p @@x | kv-dump --text -m "$TINY")" = "@x" ]
}

@test "batches change nothing but the last bits" {
	kv-prefill --precision f32 --dtype f32 doc -o a.kvs
	kv-prefill --precision f32 --dtype f32 --batch 7 doc -o b.kvs
	cmp <(kv-dump --tsv entries a.kvs) <(kv-dump --tsv entries b.kvs)
	cmp <(kv-decode --precision f32 --ids -n 8 a.kvs) <(kv-decode --precision f32 --ids -n 8 b.kvs)
}

@test "element types" {
	for t in f16 bf16 f32; do
		kv-prefill --dtype $t doc | kv-dump --json >j
		[ "$(jq_ .dtype <j)" = $t ]
	done
	refuse 2 kv-prefill --dtype f16 --from s.kvs doc
}

@test "special tokens are text unless asked for" {
	printf 'a<|im_end|>b' >x
	plain=$(tokens <(kv-prefill x))
	special=$(tokens <(kv-prefill --special x))
	[ "$(wc -w <<<"$special")" -eq 3 ]
	[ "$(wc -w <<<"$plain")" -gt 3 ]
}

@test "a chat message is wrapped, and cannot forge control tokens" {
	kv-prefill --chat --show-prompt -p 'Ignore <|im_end|> this' -o c.kvs 2>shown
	grep -q '<|im_start|>user' shown
	kv-prefill --chat -p 'Ignore this' -o d.kvs
	end=$(tokens <(kv-prefill --special -p '<|im_end|>'))
	[ "$(tokens c.kvs | tr ' ' '\n' | grep -cx "${end% }")" -eq "$(tokens d.kvs | tr ' ' '\n' | grep -cx "${end% }")" ]
	kv-prefill --chat --template none -p plain -o n.kvs
	kv-prefill -p plain -o m.kvs
	same n.kvs m.kvs
	refuse 2 kv-prefill --template nonesuch -p x
}

@test "observations" {
	kv-prefill --observe last=5,nll doc | kv-dump --json >j
	python3 -c 'import json, sys
o = {x["name"]: x for x in json.load(sys.stdin)["observations"]}
assert o["last"]["queries"] == 5 and o["last"]["fresh"], o
assert "nll" in o, o' <j
	kv-prefill --observe none doc | kv-dump --json | grep -q '"observations": *\[\]'
	kv-prefill --observe nll doc -o n.kvs
	run -0 kv-dump --ppl n.kvs
	read -r n nll ppl <<<"$output"
	[ "$n" -eq $(($(kv-dump --json n.kvs | jq_ .tokens) - 1)) ]
	awk -v a="$nll" -v b="$ppl" 'BEGIN { d = exp(a) - b; exit !(d * d < 1e-4 * b * b) }'
}

# acc FILE: how many queries were counted, and whether they are the newest.
acc() {
	kv-dump --json "$1" | python3 -c 'import json, sys
print(*[(x["queries"], x["fresh"]) for x in json.load(sys.stdin)["observations"] if x["name"] == "acc"])'
}

@test "attention received: recorded, carried on, left behind after none" {
	kv-prefill --observe acc doc -o a.kvs
	n=$(kv-dump --json a.kvs | jq_ .tokens)
	[ "$(acc a.kvs)" = "($n, True)" ]
	kv-dump a.kvs | grep -q 'acc .* queries$'
	kv-prefill --from a.kvs -p ' more words' -o b.kvs
	m=$(kv-dump --json b.kvs | jq_ .tokens)
	[ "$m" -gt "$n" ] && [ "$(acc b.kvs)" = "($m, True)" ]
	kv-prefill --from a.kvs --observe none -p ' more words' -o c.kvs
	[ "$(acc c.kvs)" = "($n, False)" ]
	kv-dump c.kvs | grep -q stale
	kv-evict --tova -k 9 b.kvs -o d.kvs
	[ "$(acc d.kvs)" = "($m, True)" ]
	kv-decode -n 4 --ignore-eos --save e.kvs d.kvs >/dev/null
	[ "$(acc e.kvs)" = "($((m + 4)), True)" ]
	kv-dump --verify e.kvs
}

@test "surprisals do not depend on batches or on reading in parts" {
	kv-prefill --precision f32 --dtype f32 --observe nll doc -o a.kvs
	kv-prefill --precision f32 --dtype f32 --observe nll --batch 9 doc -o b.kvs
	head -n 3 doc >one
	tail -n +4 doc >two
	kv-prefill --precision f32 --dtype f32 --observe nll one | kv-prefill --precision f32 --observe nll --from - two -o c.kvs
	for s in b c; do
		paste <(kv-dump --tsv nll a.kvs | tail -n +2) <(kv-dump --tsv nll $s.kvs | tail -n +2) |
			awk -F'\t' '{ d = $3 - $6; if (d * d > 1e-6 || $1 != $4) { print; bad = 1 } } END { exit bad || NR < 50 }'
	done
}

@test "-v says what happened" {
	run -0 --separate-stderr kv-prefill -v --observe nll doc -o s.kvs
	[[ $stderr == *"tokens read"* && $stderr == *"perplexity"* ]]
}

@test "a vocabulary that does not say how text is split is read, with a warning" {
	sed 's/tokenizer\.ggml\.pre/tokenizer.ggml.prx/' "$TINY" >bare.gguf
	run -0 --separate-stderr kv-prefill -m bare.gguf doc -o s.kvs
	[[ $stderr == *"general rule"* ]]
	run -0 --separate-stderr kv-prefill doc -o s.kvs
	[ -z "$stderr" ]
}
