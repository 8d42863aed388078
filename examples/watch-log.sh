#!/bin/sh
# Reads what was appended to a log since the last time, into a cache of fixed size, and answers a standing question. The question looks at the
# cache every 256 tokens and decides which of the older entries stay (CItruS), so that what it needs outlives the rest of the log. For cron:
#   */10 * * * *  KV_MODEL=… examples/watch-log.sh /var/log/app.log question.txt state/
# Silent when there is nothing new. May be killed at any moment and goes on where it was: a part of the log is first set aside, then read with
# a checkpoint into a snapshot that appears whole, which becomes the current one by a rename, and is answered from until an answer has been
# printed. A rotated log is read to its end first if it is LOG.1 now. Another question may be asked from now on; to begin anew, remove the
# folder.
set -eu
[ $# -eq 3 ] || { echo "usage: watch-log.sh LOG QUESTION-FILE STATE-FOLDER" >&2; exit 2; }
log=$1 question=$2 state=$3
[ -z "${KV_BIN:-}" ] || PATH=$KV_BIN:$PATH
keep='kv-evict --citrus -k 768 | kv-reposition --compact'

size() { wc -c <"$1"; }

# ending FILE N: a checksum of the last bytes of the first N, by which the file is known again.
ending() { head -c "$2" "$1" | tail -c 1000 | cksum | cut -d' ' -f1; }

# is_read FILE: is it the one that was read up to byte $at?
is_read() { [ -f "$1" ] && [ "$(size "$1")" -ge "$at" ] && [ "$(ending "$1" "$at")" = "$sum" ]; }

# A snapshot is named read-N-SUM.kvs: the log was read up to byte N, SUM is the ending there.
look() {
	current=$(readlink "$state/current" || true)
	sum=${current%.kvs} sum=${sum##*-}
	at=${current#read-} at=${at%%-*}
}

# What there is to read now, as a file of the same name but for its ends. Whole lines alone: the last one may still be being written.
set_aside() {
	: >"$state/new.tmp"
	if [ -n "$at" ] && ! is_read "$log"; then	# another log by now
		! is_read "$log.1" || tail -c "+$((at + 1))" "$log.1" >"$state/new.tmp"
		at=0
	fi
	at=${at:-0}
	tail -c "+$((at + 1))" "$log" >"$state/rest.tmp"
	head -n "$(wc -l <"$state/rest.tmp")" "$state/rest.tmp" >"$state/lines.tmp"
	at=$((at + $(size "$state/lines.tmp")))
	cat "$state/lines.tmp" >>"$state/new.tmp"
	[ ! -s "$state/new.tmp" ] || mv "$state/new.tmp" "$state/part-$at-$(ending "$log" "$at").txt"
	rm -f "$state"/*.tmp
}

# The part that was set aside, if there is one.
read_part() {
	for part in "$state"/part-*.txt; do
		[ -e "$part" ] || return 0
		next=${part##*/part-} next=read-${next%.txt}.kvs
		if [ "$next" = "$current" ] || [ -e "$state/$next" ]; then
			rm -f "$state/half"
		else
			set -- --chunk 256 --probe "@$question" --history alive --each "$keep" --checkpoint "$state/half" -o "$state/$next" "$part"
			[ -z "$current" ] || set -- --from "$state/$current" "$@"
			kv-prefill "$@" || {
				# Half read with another question, or by another version: once more.
				[ $? -eq 5 ] && [ -e "$state/half" ] || exit 1
				rm "$state/half"
				kv-prefill "$@"
			}
		fi
		ln -sf "$next" "$state/next.tmp"
		mv -T "$state/next.tmp" "$state/current"
		rm "$part"
		find "$state" -name 'read-*.kvs' ! -name "$next" -exec rm {} +
		look
	done
}

mkdir -p "$state"
exec 9>"$state/lock"
flock -n 9 || exit 0		# the last run is still at it
rm -f "$state"/*.tmp
touch "$state/answered"

look
read_part
set_aside
read_part

asked="$current $(cksum <"$question")"
if [ -n "$current" ] && [ "$asked" != "$(cat "$state/answered")" ]; then
	kv-prefill --from "$state/$current" --probe "@$question" | kv-evict --citrus -k 768 | kv-reposition --compact |
		kv-decode -n "${WORDS:-64}" -p "@$question"
	echo "$asked" >"$state/answered.tmp"
	mv "$state/answered.tmp" "$state/answered"
fi
