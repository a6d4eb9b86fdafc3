#!/bin/bash
# revocation N: N devices, one after another, get in, start a UDP flow of 1,000 packets a second, and are revoked.
# Prints one line a measure for bench/run on standard output; what happens goes to standard error.
set -u
exec 3>&1 1>&2
. "$(dirname "$0")/../test/netns/lib.sh"
N=$1
PER_SECOND=1000
world_up bench
certify "$DIGEST_A"
tcp_echo core "$NVR4" 1883 # the listener's upstream
in_force=() to_last=()

word() { od -An -t u8 -j "$2" -N 8 "$D/$1" 2>/dev/null | tr -d ' '; }
packets() { word "$1" 0; }
last_us() { word "$1" 8; }
beyond() { [ "$(packets "$1")" -gt "$2" ] 2>/dev/null; }
file_there() { [ -s "$D/$1" ]; }

once() { # I
	local d=cam$1 n=$((10 + $1)) receiver sender receipt sent got
	camera_make "$d" "$n" "$DIGEST_A"
	spawn core receiver "$B/bench/flow" receive "$NVR4" 5000 "$D/received"
	receiver=$LAST
	must "the receiver runs" 5 file_there received
	device_in "$d" "$d" "camera/$d"
	spawn "$d" sender "$B/bench/flow" send "$NVR4" 5000 "$PER_SECOND" "$D/sent"
	sender=$LAST
	must "the flow runs" 10 beyond received 500
	receipt=$("$B/bench/flow" stamp "$D/started" sallyctl --agent "$D/run/api.sock" \
		--controller "$D/run/controller.sock" --json revoke "$(id_of "camera/$d")" --reason benchmark) ||
		die "revoke: $receipt"
	sent=$(packets sent)
	must "the sender goes on" 10 beyond sent $((sent + 300))
	got=$(packets received) sent=$(packets sent)
	must "the sender goes on" 10 beyond sent $((sent + 300))
	[ "$(packets received)" = "$got" ] || die "$d: packets passed after its revocation was in force"
	in_force+=("$(jq -e '.receipts[0].in_force_us' <<<"$receipt")") || die "no receipt: $receipt"
	to_last+=("$(($(last_us received) - $(last_us started)))")
	end "$sender" "$receiver"
	rm -f "$D/sent" "$D/received" "$D/started"
	pass "$d: in force after ${in_force[-1]} µs, last packet ${to_last[-1]} µs after the command"
}

for ((i = 1; i <= N; i++)); do once "$i"; done

emit() { # NAME STATISTIC GOAL SAMPLES...
	local name=$1 stat=$2 goal=$3
	shift 3
	(IFS=, && printf '%s\tus\t%s\t%s\t%s\t\t\n' "$name" "$stat" "$goal" "$*") >&3
}
emit revoke_in_force_us median "" "${in_force[@]}"
emit revoke_in_force_us_p99 p99 "" "${in_force[@]}"
emit command_to_last_packet_us median "" "${to_last[@]}"
emit command_to_last_packet_us_p99 p99 "" "${to_last[@]}"
