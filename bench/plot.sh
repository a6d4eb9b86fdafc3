#!/bin/bash
# plot.sh RESULT.json PLOT.svg: the rates of a packet-rate run as bars, each beside what it was measured against.
set -eu
data=$(mktemp)
trap 'rm -f "$data"' EXIT
jq -r 'select((.name | startswith("rate_")) and .unit == "Mpps" and .reference) |
	[(.name | ltrimstr("rate_") | gsub("_"; " ")), .value, .min, .max, .reference_value] | @tsv' "$1" >"$data"
[ -s "$data" ] || exit 0
title=$(jq -rs '.[0] | "\(.machine), commit \(.commit)"' "$1")
gnuplot <<-PLOT
	set terminal svg size 900,420 font "sans,13" background "white"
	set output "$2"
	set title "Packets forwarded by one core, Mpps (median; least and most)\\n{/*0.8 ${title//\"/}}"
	set style data histograms
	set style histogram errorbars gap 1 lw 1
	set style fill solid 0.9 border -1
	set grid ytics
	set yrange [0:*]
	set ylabel "Mpps"
	set key top right
	set datafile separator "\t"
	plot "$data" using 2:3:4:xtic(1) title "sallyport" lc rgb "#2a6f97", \
		"" using 5:5:5 title "dpdk-testpmd macswap" lc rgb "#c8c8c8"
PLOT
