#!/bin/sh
# Parts of a text through a cache of fixed size, one turn of the pipe a part, the snapshot replaced each time. What --chunk and --each do
# inside one process, for texts that arrive as files.
#   examples/by-part.sh CACHE.kvs part1.txt part2.txt …
set -eu
[ $# -ge 2 ] || { echo "usage: by-part.sh CACHE.kvs PART …" >&2; exit 2; }
cache=$1
shift
[ -z "${KV_BIN:-}" ] || PATH=$KV_BIN:$PATH

# A stage that fails leaves its output without an END frame; then the last one fails as well and the cache stays as it was.
for part; do
	if [ -e "$cache" ]; then
		kv-prefill --from "$cache" "$part"
	else
		kv-prefill "$part"
	fi | kv-evict --tova -k "${KEEP:-768}" | kv-reposition --compact -o "$cache"
done
