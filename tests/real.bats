#!/usr/bin/env bats
# bats file_tags=model
# The real model against independent implementations (tests/peers/make_golden.py). Runs where KV_TEST_MODEL names it; `make test` fetches it.

load lib/kv.bash

setup() {
	[ -n "${KV_TEST_MODEL:-}" ] || skip "KV_TEST_MODEL is not set"
	export KV_MODEL=$KV_TEST_MODEL KV_THREADS=2
	FILES=$BATS_TEST_DIRNAME/files
	cd "$BATS_TEST_TMPDIR"
}

@test "f32: logits, greedy continuations and NLL of float32 transformers" {
	n=0
	while IFS=$'\t' read -r ids greedy gaps top nll; do
		[[ $ids != \#* ]] || continue
		kv-prefill --tokens --precision f32 --dtype f32 --observe nll -p "$ids" -o s.kvs
		kv-decode --precision f32 --ignore-eos --json --logprobs 8 -n 48 s.kvs >made
		python3 - "$greedy" "$gaps" "$top" "$nll" "$(kv-dump --ppl s.kvs)" <<'END'
import json, sys
greedy, gaps, top = sys.argv[1].split(), [float(g) for g in sys.argv[2].split()], [t.split(":") for t in sys.argv[3].split()]
made = [json.loads(line) for line in open("made")]
# Logits are compared as differences to the largest: log-probabilities shift all by the same amount.
first = {str(t["id"]): t["logprob"] for t in made[0]["top"]}
for i, v in top[:4]:
    d = (first[i] - first[top[0][0]]) - (float(v) - float(top[0][1]))
    assert abs(d) < 2e-3, (i, d)
for step, (want, gap) in enumerate(zip(greedy, gaps)):
    if str(made[step]["id"]) != want:
        assert gap <= 1e-3, (step, want, made[step]["id"], gap)
        break
assert abs(float(sys.argv[5].split()[1]) - float(sys.argv[4])) < 1e-4, (sys.argv[4], sys.argv[5])
END
		n=$((n + 1))
	done <"$FILES/smollm2-greedy.tsv"
	[ $n -eq 10 ]
}

@test "TOVA keeps what the model's own attention says" {
	ids=$(head -n 1 "$FILES/smollm2-tova.tsv" | cut -f2)
	kv-prefill --tokens --precision f32 --dtype f32 -p "$ids" -o s.kvs
	kv-evict --tova -k 64 s.kvs | kv-dump --tsv entries >kept
	python3 - "$FILES/smollm2-tova.tsv" <<'END'
import collections, sys
ours = collections.defaultdict(set)
for line in list(open("kept"))[1:]:
    f = line.split("\t")
    ours[int(f[0]), int(f[1])].add(int(f[3]))
for line in open(sys.argv[1]):
    if line.startswith("#"):
        continue
    layer, kept, gap = line.rstrip("\n").split("\t")
    want = set(map(int, kept.split()))
    for head in range(3):
        differ = want ^ ours[int(layer), head]
        assert not differ or (float(gap) < 1e-5 and len(differ) == 2), (layer, head, differ, gap)
END
}

@test "the default precision stays within half a percent of f32 in mean NLL" {
	head -c 9000 /usr/share/common-licenses/Apache-2.0 >text
	kv-prefill --observe nll text | kv-dump --ppl >fast
	kv-prefill --observe nll --precision f32 --dtype f32 text | kv-dump --ppl >exact
	awk '{ n[NR] = $2 } END { d = n[1] / n[2] - 1; exit !(NR == 2 && d < 0.005 && d > -0.005) }' fast exact
}

@test "reading in two parts: K and V within 1e-4, the same greedy tokens" {
	head -n 20 /usr/share/common-licenses/BSD >A
	tail -n +21 /usr/share/common-licenses/BSD >B
	kv-prefill --precision f32 --dtype f32 A B -o ab.kvs
	kv-prefill --precision f32 --dtype f32 A | kv-prefill --precision f32 --from - B -o a_b.kvs
	cmp <(kv-dump --tsv tokens ab.kvs) <(kv-dump --tsv tokens a_b.kvs)
	cmp <(kv-decode --precision f32 --ids -n 24 ab.kvs) <(kv-decode --precision f32 --ids -n 24 a_b.kvs)
}

@test "the tokenizer's special cases, through the tools" {
	[ "$(kv-prefill -p 'Hello, world!' | kv-dump --tsv tokens | tail -n +2 | cut -f2 | paste -sd' ')" = "19556 28 905 17" ]
	[ "$(kv-prefill --special -p 'a<|im_end|>b' | kv-dump --tsv tokens | tail -n +2 | cut -f2 | paste -sd' ')" = "81 2 82" ]
	[ "$(kv-prefill --chat -p Hi | kv-dump --tsv tokens | tail -n +2 | cut -f2 | paste -sd' ')" = \
		"1 9690 198 2683 359 253 5356 5646 11173 3365 3511 308 34519 28 7018 411 407 19712 8182 2 198 1 4093 198 26843 2 198 1 520 9531 198" ]
}
