#!/bin/bash
# plot-tls.sh RESULT.json PLOT.svg: what a tls run measured, beside nginx and HAProxy: handshakes, messages, bulk, memory.
set -eu
dir=$(mktemp -d)
trap 'rm -r "$dir"' EXIT
# rows FILE NAME...: label, ours with its spread, nginx's, HAProxy's; labels are the names
rows() {
	local file=$1
	shift
	jq -rs --args '(map({(.name): .}) | add) as $m | $ARGS.positional[] | $m[.] | select(. != null) |
		[(.name | gsub("_"; " ")), .value, .min, .max, .reference_value // 0, $m[.name + "_haproxy"].value // 0] | @tsv' \
		"$@" <"$result" >"$dir/$file"
	[ -s "$dir/$file" ] || echo "- 0 0 0 0 0" | tr ' ' '\t' >"$dir/$file"
}
result=$1
rows handshake handshake_x25519_us handshake_x25519_us_10k_revoked handshake_x25519_us_100k_revoked
rows messages messages_per_s messages_per_s_32
rows bulk bulk_mb_per_s
rows idle idle_session_bytes
title=$(jq -rs '.[0] | "\(.machine), commit \(.commit)"' "$1")
gnuplot <<-PLOT
	set terminal svg size 1000,700 font "sans,12" background "white"
	set output "$2"
	set multiplot layout 2,2 title "mTLS sessions: processor time of one server core (median; least and most)\\n{/*0.8 ${title//\"/}}"
	set style data histograms
	set style histogram errorbars gap 1 lw 1
	set style fill solid 0.9 border -1
	set grid ytics
	set yrange [0:*]
	set key top left
	set datafile separator "\t"
	do for [p in "handshake:us messages:1/s bulk:MB/s idle:bytes"] {
		file = p[1:strstrt(p, ":") - 1]
		set ylabel p[strstrt(p, ":") + 1:*]
		set title file
		plot "$dir/".file using 2:3:4:xtic(1) title "sallyport" lc rgb "#2a6f97", \
			"" using 5:5:5 title "nginx" lc rgb "#c8c8c8", "" using 6:6:6 title "haproxy" lc rgb "#8a8a8a"
	}
	unset multiplot
PLOT
