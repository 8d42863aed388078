#!/bin/bash
# The main job once, with figures: a document is read, its cache cut to 512 entries a layer by TOVA, a question answered from what is left.
# KV_MODEL names the model, KV_BIN the folder of the executables. DOC and QUESTION may be given.
set -euo pipefail

PATH=${KV_BIN:-build/bin}:$PATH
DOC=${DOC:-/usr/share/common-licenses/Apache-2.0}
QUESTION=${QUESTION:-What is this document about?}
KEEP=512
export KV_THREADS=${KV_THREADS:-0}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

size() { awk -v b="$(wc -c <"$1")" 'BEGIN { printf "%.1f MB", b / 1e6 }'; }

cat <<END
\$ kv-prefill $DOC |
    kv-evict --tova -k $KEEP |
    kv-decode --stop \$'\\n' -p \$'\\n\\nQuestion: $QUESTION\\nAnswer:'

END
start=$(date +%s.%N)
kv-prefill -v "$DOC" 2>"$tmp/prefill" | tee "$tmp/full.kvs" |
	kv-evict -v --tova -k $KEEP 2>"$tmp/evict" | tee "$tmp/kept.kvs" |
	kv-decode -v --stop $'\n' -p $'\n\nQuestion: '"$QUESTION"$'\nAnswer:' 2>"$tmp/decode" || { cat "$tmp/prefill" "$tmp/evict" "$tmp/decode" >&2; exit 1; }
end=$(date +%s.%N)

printf '\n'
sed 's/^kv-[a-z]*: /  /' "$tmp/prefill" "$tmp/evict" "$tmp/decode"
printf '  snapshot: %s before, %s after eviction\n' "$(size "$tmp/full.kvs")" "$(size "$tmp/kept.kvs")"
awk -v a="$start" -v b="$end" 'BEGIN { printf "  %.1f seconds in all\n", b - a }'
