#!/bin/bash
# idle.sh [WINDOWS [PINGS]]: what an idle dataplane with two AF_XDP ports costs, and what its sleep adds to the first packet.
# For poll = "adaptive" and "always": CPU share of each packet worker in WINDOWS (default 10) windows of 2 s without a
# packet, then the round trip of PINGS (default 30) single pings, each after 1 s of silence, device to server through
# the fast path. Prints "NAME UNIT VALUE..." a line. Needs root.
set -u
. "$(dirname "$0")/../test/netns/lib.sh"
WINDOWS=${1:-10} PINGS=${2:-30}

rtts() { # PINGS: microseconds, one a line; the first one is left out, it opens the flow
	in_ns cam1 ping -n -i 1 -c $(($1 + 1)) "$NVR4" | sed -n 's/.*time=\([0-9.]*\) ms/\1/p' | tail -n +2 |
		awk '{ printf "%d\n", $1 * 1000 }'
}
line() { # NAME UNIT: the figures of standard input, least first
	echo "$1 $2 $(sort -n | paste -sd' ')"
}
for poll in adaptive always; do (
	DATAPLANE_EXTRA="poll = \"$poll\"; icmp_s = 60;"
	world_up idle >&2
	certify "$DIGEST_A"
	tcp_echo core "$NVR4" 1883
	camera_make cam1 11 "$DIGEST_A"
	device_in cam1 cam1 camera/cam1
	check "a ping passes" ping_try cam1 "$NVR4" >&2
	pid=$(daemon_pid dataplane)
	for ((i = 0; i < WINDOWS; i++)); do worker_cpu_pct "$pid" 2; done | line "worker_cpu_$poll" pct
	rtts "$PINGS" | line "first_packet_rtt_$poll" us
); done
