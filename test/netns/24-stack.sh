#!/bin/bash
# 24. mTLS on the fast path: a device's session ends in a TLS worker's own stack, behind the dataplane, and the kernel sees
#     none of it. Sessions outlive the dataplane; a worker that is killed takes nothing but its sessions with it.
#     KILLS=N: how often the workers are killed under traffic.
TRANSPORT=stack
TLS_WORKERS=${TLS_WORKERS:-2}
KILLS=${KILLS:-10}
. "$(dirname "$0")/lib.sh"
world_up s24
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
echo_both tcp core "$NVR4" "$NVR6" 1883

# what the dataplane says now; `status` is up to a second old
links_up() { [ "$(ctl_json stats ports '[.ports[] | select(.side == "tls worker" and .link == "up")] | length')" = "$1" ]; }
answers() { wait_for 10 tls_answers cam1 cam1 "$@"; }
must "every worker has its link" 10 links_up "$TLS_WORKERS"

# ---- the kernel sees none of it -----------------------------------------------------------------
capture gw sp-dev shadow-dev tcp
capture gw sp-up shadow-up tcp
capture cam1 eth0 device tcp port 8883
capture core eth0 upstream tcp port 1883
check "a device's line comes back from the upstream" answers
check "IPv6" answers "$GW6"
# hg: the kernel may give large pages to this region
on_large_pages() { grep -A30 '\[heap\]' "/proc/$(daemon_pid tls-proxy)/smaps" | grep -m1 VmFlags | grep -qw hg; }
# the address sanitizer has a heap of its own
grep -qa __asan_init "$B/sallyport-tls-proxy" || check "sessions may be on large pages" wait_for 10 on_large_pages
check "the device spoke with the listener" test "$(seen device 'src host 10.7.0.1 and src port 8883')" -gt 0
check "the upstream heard from the uplink's address, out of the workers' ports" \
	test "$(seen upstream "src host $UP4 and src portrange 16384-32767")" -gt 0
check_eq "and from no other port" 0 "$(seen upstream "src host $UP4 and not src portrange 16384-32767")"
check_eq "the kernel saw no packet of the device's" 0 "$(seen shadow-dev)"
check_eq "nor of the upstream's" 0 "$(seen shadow-up)"
check "ping of the listener's address is the kernel's" ping_try cam1 "$GW4"

# ---- what the engineer is told ------------------------------------------------------------------
ctl trace tcp/8883 -n 1 >"$D/trace.out" 2>&1 &
LAST=$!
PIDS+=("$LAST")
traced() { tls_answers cam1 cam1 && grep -q 'end ' "$D/trace.out"; }
check "a trace sees the packet" wait_for 10 traced
check_match "and says where it went" 'diverted to TLS worker [0-9]' "$(cat "$D/trace.out")"
check_match "so does why" '"listener"' "$(ctl --json why 10.7.0.11 "$GW4" tcp/8883)"
check_match "links have counters" '^[1-9]' "$(ctl_json stats ports '[.ports[] | select(.side == "tls worker") | .rx_packets] | add')"

# ---- what the kernel gets, it does not answer -----------------------------------------------------
check_not "a device at a kernel-only port does not reach the listener by the kernel" tcp_connects w1 "$GW4" 8883
check "it is counted" test "$(kernel_count stack)" -gt 0

# ---- neighbours -----------------------------------------------------------------------------------
in_ns gw ip neigh flush dev sp-up nud all
upstream_known() { in_ns gw ip neigh show "$NVR4" dev sp-up | grep -q lladdr; }
check "the agent keeps the upstream's neighbour" wait_for 5 upstream_known
check "IPv4 again" answers

# ---- the uplink goes and comes back ---------------------------------------------------------------------
check_match "the uplink is removed" 'removed' "$(ctl port remove up 2>&1)"
check_not "without it nothing comes back" tls_answers cam1 cam1
check_match "it is added" 'added' "$(ctl port add up 2>&1)"
check "and the upstream answers again" answers

# ---- the dataplane dies, sessions stay --------------------------------------------------------------
device_in cam1 cam1 camera/cam1
check "a session passes" session_echoes cam1 "$GW4"
dp=$(daemon_pid dataplane)
kill -KILL "$dp"
again() { [ -n "$(daemon_pid dataplane)" ] && [ "$(daemon_pid dataplane)" != "$dp" ] && gw_ready; }
must "the dataplane is there again" 20 again
check "and its links" wait_for 10 links_up "$TLS_WORKERS"
check "the session still passes" wait_for 20 session_echoes cam1 "$GW4"
check_eq "it is the same one" 1 "$(sessions_of camera/cam1)"
end "$LAST"
check "it has ended" wait_for 10 has_sessions camera/cam1 0

# ---- workers die, the dataplane stays -----------------------------------------------------------------
# Sessions that send for as long as they can, and segments of a connection that no worker knows, each of which it answers
# with a reset: traffic both ways on the links, whenever a worker goes.
dp=$(daemon_pid dataplane)
gw_mac=$(in_ns cam1 ip neigh show "$GW4" dev eth0 | sed -n 's/.*lladdr \([0-9a-f:]*\).*/\1/p')
cam_mac=$(in_ns cam1 cat /sys/class/net/eth0/address)
# shellcheck disable=SC2016 # for the inner shell
traffic_start() {
	spawn cam1 sessions bash -c 'while :; do yes "some line" | head -c 400000 | timeout 2 openssl s_client -connect "$1:8883" \
		-CAfile "$2/ca.pem" -cert "$2/cam1.pem" -key "$2/cam1.key" -quiet >/dev/null 2>&1; done' _ "$GW4" "$D/pki"
	TRAFFIC=("$LAST")
	for n in 1 2 3 4 5 6 7 8; do
		spawn cam1 "flood$n" python3 "$LIB/traffic.py" flood eth0 ack 400 100000 "smac=$cam_mac" "dmac=$gw_mac" \
			src=10.7.0.11 "dst=$GW4" dport=8883 "sport=$((5000 + n))"
		TRAFFIC+=("$LAST")
	done
}
link_packets() { ctl_json stats ports '[.ports[] | select(.side == "tls worker") | .rx_packets] | add'; }
answered_beyond() { [ "$(link_packets)" -gt "$1" ]; }
descriptors() { find "/proc/$dp/fd" | wc -l; }
buffers() { ctl_json status '.dataplane | .buffers - .buffers_free'; } # that are somewhere
settled() { local a; a=$(descriptors) && [ "$a" = "$(sleep 0.5; descriptors)" ]; }
quiet() { local a; a=$(link_packets) && [ "$a" = "$(sleep 0.3; link_packets)" ]; }
worker_new() { # N PID: another process is there
	local p
	p=$(daemon_pid "$(tls_service "$1")") && [ -n "$p" ] && [ "$p" != "$2" ]
}
kill_all() {
	local n pids=()
	for ((n = 0; n < TLS_WORKERS; n++)); do pids[n]=$(daemon_pid "$(tls_service "$n")"); done
	kill -KILL "${pids[@]}" || return 1
	killed=$((killed + TLS_WORKERS))
	for ((n = 0; n < TLS_WORKERS; n++)); do wait_for 10 worker_new "$n" "${pids[n]}" || return 1; done
	wait_for 20 links_up "$TLS_WORKERS"
}
killed=0 bad=0
must "the first kill is survived" 1 kill_all # what is made once is there from now on
must "no traffic" 10 quiet
must "all links are set up" 10 settled
fds=$(descriptors)
held=$(buffers)
traffic_start
must "workers answer" 10 answered_beyond "$(($(link_packets) + 500))"
while [ "$killed" -lt $((KILLS + TLS_WORKERS)) ] && [ "$bad" -eq 0 ]; do
	was=$(link_packets)
	kill_all && wait_for 10 answered_beyond "$((was + 50))" || bad=1
done
check_eq "after $killed kills under traffic every worker was there again, and answered" 0 "$bad"
check_eq "the dataplane is the one that it was" "$dp" "$(daemon_pid dataplane)"
check "a new session gets through" answers
end "${TRAFFIC[@]}"
must "no traffic" 10 quiet
kept() { [ "$(descriptors)" -le "$fds" ]; }
check "it has no more descriptors than before" wait_for 10 kept
freed() { [ "$(buffers)" -le $((held + 64)) ]; }
check "and no more packet buffers" wait_for 10 freed
say "        $killed kills, descriptors $fds > $(descriptors), buffers in use $held > $(buffers)"
check_not "no link was lost" log_has dataplane 'link to TLS worker [0-9]*:'
