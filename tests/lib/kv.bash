# Shared by all .bats files: where the tools are, a synthetic model, and what a refusal looks like.

bats_require_minimum_version 1.5.0

KV_BUILD=${KV_BUILD:-$BATS_TEST_DIRNAME/../build}
PATH=${KV_BIN:-$KV_BUILD/bin}:$KV_BUILD/tests/tools:$PATH
unset KV_MODEL KV_ISA NO_COLOR SOURCE_DATE_EPOCH
export KV_THREADS=${KV_TEST_THREADS:-}	# the thread sanitizer wants several
export LC_ALL=C

# sanitized [a|t]: the tools were built with the sanitizer of addresses, of threads; with either.
sanitized() { grep -qs "__${1:-[at]}san_init" "$(command -v kv-evict)"; }

# A small model with random weights, made once a run. $TINY names it.
tiny_model() {
	export TINY=$BATS_RUN_TMPDIR/tiny.gguf
	[ -f "$TINY" ] || { mkmodel -o "$TINY.$$" && mv "$TINY.$$" "$TINY"; }
	export KV_MODEL=$TINY
}

# A text of the synthetic model's language: seeded, so always the same. prose N: N words.
prose() {
	awk -v n="$1" 'BEGIN { srand(7); split("the cache keeps what a token needs and lets go of all else when memory is short", w, " ");
		for (i = 1; i <= n; i++) printf "%s%s", w[1 + int(rand() * 16)], i % 12 ? " " : ".\n"; print "" }'
}

# refuse STATUS command…: exits with just this status, prints nothing on standard output and one line on standard error.
refuse() {
	local want=$1
	shift
	run --separate-stderr "$@"
	if [ "$status" -ne "$want" ] || [ -n "$output" ] || [ "${#stderr_lines[@]}" -ne 1 ]; then
		printf 'want exit %s, no output, one line; got exit %s, output %q, stderr:\n%s\n' "$want" "$status" "${output:0:200}" "$stderr"
		return 1
	fi
}

# says TEXT: the message of the last refuse holds this text.
says() {
	[[ $stderr == *"$1"* ]] || { printf 'not in: %s\n' "$stderr"; return 1; }
}

# same A B: two snapshots of one content.
same() {
	local a b
	a=$(kv-dump --digest "$1") && b=$(kv-dump --digest "$2") && [ "$a" = "$b" ] || { printf '%s %s\n%s %s\n' "$a" "$1" "$b" "$2"; return 1; }
}

# jq_ .a.b: one value of a JSON object on standard input. (jq itself is not among the packages we need.)
jq_() {
	python3 -c 'import functools, json, sys
v = functools.reduce(lambda o, k: o[int(k) if isinstance(o, list) else k], sys.argv[1].strip(".").split("."), json.load(sys.stdin))
print(json.dumps(v) if isinstance(v, (dict, list, bool)) or v is None else v)' "$1"
}

# make_filter: filter.py does what the file `mode` says once the eighth snapshot comes (round 7); before that it hands on what it gets.
make_filter() {
	cat >filter.py <<'END'
import os, struct, sys
n = 0
def need(k):
    b = sys.stdin.buffer.read(k)
    if len(b) < k:
        sys.exit(0)
    return b
while True:
    mode = open("mode").read().strip() if n == 7 else "go"
    out = [need(64)]
    if mode == "hangup":
        sys.exit(0)
    while True:
        head = need(64)
        out.append(head + need((struct.unpack("<Q", head[16:24])[0] + 63) // 64 * 64))
        if head[:4] == b"ENDS":
            break
    if mode == "fail":
        sys.exit(9)
    if mode == "nothing":
        sys.exit(0)
    if mode == "garbage":
        out = [b"garbage" * 100]
    if mode == "half":
        out = [out[0], out[1]]
    try:
        sys.stdout.buffer.write(b"".join(out) * (2 if mode == "twice" else 1))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        os._exit(0)
    if mode == "garbage" or mode == "half":
        sys.exit(0)
    n += 1
END
}
