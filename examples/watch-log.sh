#!/bin/sh
# Reads what was appended to a log since the last time, into a cache of fixed size, and answers a standing question. The question looks at the
# cache every 256 tokens and decides which of the older entries stay (CItruS), so that what it needs outlives the rest of the log. For cron:
#   */10 * * * *  KV_MODEL=… examples/watch-log.sh /var/log/app.log question.txt state/
# Silent when there is nothing new. May be interrupted at any moment: a snapshot is named after the place in the log that it has read
# to, and becomes the current one by a rename.
set -eu
[ $# -eq 3 ] || { echo "usage: watch-log.sh LOG QUESTION-FILE STATE-FOLDER" >&2; exit 2; }
log=$1 question=$2 state=$3
[ -z "${KV_BIN:-}" ] || PATH=$KV_BIN:$PATH

mkdir -p "$state"
exec 9>"$state/lock"
flock -n 9 || exit 0

current=$(readlink "$state/current" || true)
at=${current#read-}
at=${at%.kvs}
at=${at:-0}
[ "$(wc -c <"$log")" -ge "$at" ] || at=0	# the log was rotated

# Whole lines alone: the last one may still be being written.
tail -c "+$((at + 1))" "$log" >"$state/part"
head -n "$(wc -l <"$state/part")" "$state/part" >"$state/new"
[ -s "$state/new" ] || exit 0
next=read-$((at + $(wc -c <"$state/new"))).kvs

set --
[ -z "$current" ] || set -- --from "$state/$current"
kv-prefill "$@" --chunk 256 --probe "@$question" --history alive --each 'kv-evict --citrus -k 768 | kv-reposition --compact' \
	-o "$state/$next" "$state/new"
ln -sf "$next" "$state/next"
mv -T "$state/next" "$state/current"
[ -z "$current" ] || [ "$current" = "$next" ] || rm -f "$state/$current"

kv-prefill --from "$state/current" --probe "@$question" | kv-evict --citrus -k 768 | kv-reposition --compact |
	kv-decode -n "${WORDS:-64}" -p "@$question"
