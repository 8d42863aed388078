#!/usr/bin/awk -f
# A policy of one's own: cut each list into k stretches of equal length and keep the best entry of each, so that no part of the text is
# forgotten altogether. Reads a table of scores, prints what stays:
#
#     kv-dump --tsv scores:tova s.kvs | awk -v k=64 -f stretches.awk >keep.tsv
#     kv-evict --keep-list keep.tsv s.kvs | kv-decode -p "What happened in the middle?"

BEGIN { FS = OFS = "\t" }
NR == 1 { print "layer", "head", "slot"; next }		# layer head slot source score
n && ($1 != layer || $2 != head) { list_done() }
{ layer = $1; head = $2; score[n++] = $5 }
END { if (n) list_done() }

function list_done(    i, j, best) {
	for (j = 0; j < k && j < n; j++) {
		best = i = k < n ? int(j * n / k) : j
		while (++i < (k < n ? int((j + 1) * n / k) : j + 1))
			if (score[i] + 0 >= score[best] + 0)
				best = i
		print layer, head, best
	}
	n = 0
}
