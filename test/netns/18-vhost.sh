#!/bin/bash
# 14. Vhost-user ports: the benchmark's generator behind virtio-user on both sides carries flows through the gateway, and
#     checks every 64th frame that comes out (MACs, TTL, checksum, order). Small, and without huge pages.
FLOWS_MAX=16384 DEVICES_MAX=64 MEMORY_MB=128 HUGEPAGES=false GEN_MEMORY='--no-huge --no-shconf -m 128'
. "$(dirname "$0")/../../bench/rig.sh"
[ -x "$B/bench/feed" ] || die "build the generator first: make bench"

# Rates are low, and of no interest here. passes WHAT FAMILY FRAMES: 800 flows of 8 devices, both directions
passes() {
	local answer
	gen flows 800 8 "$2" "$3" 10000 >/dev/null
	check "$1: every flow passes, both ways" gen prime gateway
	answer=$(gen rate gateway 300 0.02)
	check_match "$1: frames come out as they should" 'checked=[1-9]' "$answer"
	check "$1: and none is lost" flows_whole "$answer"
}
flows_whole() { awk -v a="$(word_of sent_mpps <<<"$1")" -v b="$(word_of mpps <<<"$1")" 'BEGIN { exit !(a > 0 && b > 0.97 * a) }'; }
silent() { [ "$(gen rate gateway 300 0.02 | word_of mpps)" = 0.0000 ]; }
dropped_beyond() { [ "$(drops "$1")" -gt "$2" ]; }
target_up() {
	gen_up "$(gateway_target)"
	gen macs gateway "$(rig_mac dev)" "$(rig_mac up)" >/dev/null
}

rig_up s14
target_up
feed_up
gen flows 8 8 v4 64 10000 >/dev/null
check "devices that were never admitted reach nothing" silent
check "they are dropped as strangers" wait_for 5 dropped_beyond stranger 0
devices_load 0 8 v4 v6 >/dev/null
check_eq "all devices are in" 8 "$(ctl_json devices '[.devices[] | select(.standing == "full")] | length')"
passes IPv4 v4 64
passes "IPv4, long and short frames" v4 imix
passes IPv6 v6 64

was=$(drops stranger)
gen rate gateway 300 0.02 0.02 >/dev/null
check "strangers beside them are dropped" wait_for 5 dropped_beyond stranger "$was"

# the peers kick a worker that sleeps
pid=$(daemon_pid dataplane)
sleeps() { # median of five windows
	local shares=()
	for _ in 1 2 3 4 5; do shares+=("$(worker_cpu_pct "$pid" 0.5)"); done
	say "  worker's share of its core, %: ${shares[*]}"
	awk -v a="$(printf '%s\n' "${shares[@]}" | sort -n | sed -n 3p)" 'BEGIN { exit !(a < 5) }'
}
check "without packets the worker takes less than 5 % of its core" sleeps
passes "after the silence" v4 64
for i in 1 2 3 4 5; do
	kill -9 "$GEN_PID"
	end "$GEN_PID"
	target_up
done
passes "after five peers that were killed" v4 64
check "and the worker sleeps again" sleeps
kill -9 "$GEN_PID"
end "$GEN_PID"
check "with no peer it sleeps too" sleeps
target_up

# a port lives as long as its process: with another one behind the same sockets, flows are admitted anew
end "$GEN_PID"
daemon_stop dataplane
daemon_start dataplane
must "the gateway is ready again" 15 gw_ready
rig_neighbours
target_up
passes "after the dataplane was started anew" v4 64

# the last of the flows' devices: gone for good, and nothing of it passes any more
feed revoke 0 8 0 8 >/dev/null
check "after their revocation nothing passes" silent
