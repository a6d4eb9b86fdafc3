#!/bin/bash
# 20. A dataplane without packets leaves its core alone, and wakes for the first one.
. "$(dirname "$0")/lib.sh"

DATAPLANE_EXTRA='icmp_s = 60;'
world_up s20
certify "$DIGEST_A"
tcp_echo core "$NVR4" 1883
udp_echo core "$NVR4" 5000
camera_make cam1 11 "$DIGEST_A"
device_in cam1 cam1 camera/cam1
must "the fast path passes a ping" 5 ping_try cam1 "$NVR4"

median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }
pid=$(daemon_pid dataplane)
shares=()
for _ in 1 2 3 4 5; do shares+=("$(worker_cpu_pct "$pid" 1)"); done
say "  worker's share of its core, %: ${shares[*]}"
check "without packets the worker takes less than 5 % of its core (median of 5 windows)" below "$(median "${shares[@]}")" 5

# Each after a second of silence; ping waits for a second, so none can be rescued by the next.
answers=$(in_ns cam1 ping -n -i 1.2 -c 6 -W 1 "$NVR4" | sed -n 's/.* \([0-9]*\) received.*/\1/p')
check_eq "six packets, each the first after 1.2 s of silence: all pass" 6 "$answers"
check "so does the box itself, by the shadow" ping_try cam1 "$GW4"
check "and a first packet from the other side" udp_try cam1 "$NVR4" 5000
check "sallyctl gets its answer from a sleeping worker" ctl flows
flows=$(ctl_json flows '.flows | length')
check_match "with the flows in it" '^[1-9]' "$flows"

# The measure can see a busy worker: the same share under load is more.
spawn cam1 load ping -n -q -i 0.0002 "$NVR4"
load=$LAST
busy=$(worker_cpu_pct "$pid" 1)
end "$load"
idle=$(worker_cpu_pct "$pid" 1)
say "  under 5,000 pings a second: $busy %; after it: $idle %"
check "under load the worker's share is higher" below "$idle" "$busy"
