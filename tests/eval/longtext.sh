#!/bin/bash
# A long text of real prose: the paragraphs of some files, again and again, each time in another order and with some of its words changed, so that
# no pass can be copied from the last. The same arguments give the same text.
#
#   tests/eval/longtext.sh BYTES [SEED [FILE …]]     default: the licence texts that every Debian system has
#
# 6 bytes a token are more than any English text needs: kv-prefill --take N reads just N tokens of longtext.sh $((6 * N)).
set -euo pipefail
export LC_ALL=C

bytes=${1:?how many bytes?} seed=${2:-1}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- /usr/share/common-licenses/{GPL-3,MPL-2.0,GFDL-1.3,LGPL-2.1,Apache-2.0,CC0-1.0,Artistic}

awk -v bytes="$bytes" -v seed="$seed" '
	# Integers below 2^53 alone: every awk gives the same numbers.
	function draw(n) { seed = seed * 16807 % 2147483647; return seed % n }
	function changed(s,    i, m, w, out) {
		m = split(s, w, " ")
		for (i = 1; i <= m; i++) {
			if (w[i] in group && !draw(3))
				w[i] = other[group[w[i]], draw(sizes[group[w[i]]])]
			out = out (i > 1 ? " " : "") w[i]
		}
		return out
	}
	BEGIN {
		RS = ""
		seed = seed * 7919 % 2147483646 + 1
		n_groups = split("work program document library book|you we they everyone|copy version edition print|must should shall may|" \
			"license agreement contract permission|source original manuscript|distribute publish send sell|any every some each|" \
			"modified translated shortened corrected|software text material|user reader recipient|terms conditions rules", g, "|")
		for (i = 1; i <= n_groups; i++) {
			sizes[i] = split(g[i], w, " ")
			for (j = 1; j <= sizes[i]; j++) {
				group[w[j]] = i
				other[i, j - 1] = w[j]
			}
		}
	}
	{
		gsub(/[ \t\n]+/, " ")
		if (length($0) > 120)
			paragraph[n++] = $0
	}
	END {
		if (!n) {
			print "longtext.sh: no paragraph in these files" >"/dev/stderr"
			exit 1
		}
		for (pass = 0; done < bytes; pass++) {
			for (i = n - 1; pass && i > 0; i--) {
				j = draw(i + 1)
				s = paragraph[i]
				paragraph[i] = paragraph[j]
				paragraph[j] = s
			}
			for (i = 0; i < n && done < bytes; i++) {
				s = (pass ? changed(paragraph[i]) : paragraph[i]) "\n\n"
				printf "%s", substr(s, 1, bytes - done)
				done += length(s)
			}
		}
	}' "$@"
