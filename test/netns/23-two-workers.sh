#!/bin/bash
# 23. Two packet workers, and a port with a queue for each (AF_PACKET) beside one with a single queue: many flows, TCP and
#     UDP, both families, lose nothing; both directions of a flow meet on one worker and count as one flow; an ICMP error
#     finds the worker of its flow; a revocation reaches both workers. Then a vhost-user and a TAP port of two queues.
. "$(dirname "$0")/lib.sh"
LCORES="0-1" N=24 DEV_DEVARGS=net_af_packet0,iface=dev0,qpairs=2
world_up s23
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
camera_make cam2 12 "$DIGEST_A"
sensor_make s1 13
CAM4=10.7.0.11 CAM6=fd07::11
echo_both tcp core "$NVR4" "$NVR6" 1883
echo_both tcp core "$NVR4" "$NVR6" 554
echo_both udp core "$NVR4" "$NVR6" 5000
echo_both udp cam1 "$CAM4" "$CAM6" 7000
in_both cam1 cam1 camera/cam1
in_both cam2 cam2 camera/cam2
in_both s1 s1 sensor/s1

traffic() { in_ns "$1" python3 "$LIB/traffic.py" "${@:2}"; }
# many KIND NS ADDR4 ADDR6 PORT NAME: N flows in each family, NAME and NAME-v6
many() {
	spawn "$2" "$6" python3 "$LIB/traffic.py" "$1-many" "$3" "$5" "$N" "$D/$6.flow"
	spawn "$2" "$6-v6" python3 "$LIB/traffic.py" "$1-many" "$4" "$5" "$N" "$D/$6-v6.flow"
}
all_answered() { # NAME...: each of its N flows has had an answer
	local f
	for f in "$@"; do [ "$(awk '{print $4}' "$D/$f.flow" 2>/dev/null)" = "$N" ] || return 1; done
}
# No answer over two rounds of all flows; the round before that is for answers that were on their way.
many_stopped() {
	local f a s
	for f in "$@"; do
		s=$(awk '{print $1}' "$D/$f.flow")
		wait_for 10 flow_sent_beyond "$f" $((s + N)) || return 1
		a=$(flow_received "$f") s=$(awk '{print $1}' "$D/$f.flow")
		wait_for 10 flow_sent_beyond "$f" $((s + 2 * N)) && [ "$(flow_received "$f")" = "$a" ] || return 1
	done
}
lcores() { ctl_json stats lcores ".lcores | map($1) | join(\" \")"; }
both_have() { [ "$(ctl_json stats lcores "[.lcores[] | select(.flows >= $1)] | length")" = 2 ]; }
# Flows as the dataplane has them: from NAME's device to PORT, in all workers' tables
flows_to() { # CAMERA|SENSOR-PATH PORT FILTER
	ctl_json flows "[.flows[] | select(.device_src == \"$(id_of "$1")\" and .dport == $2 and .state == \"established\")] | $3"
}
flows_are() { [ "$(flows_to "$1" "$2" length)" = "$3" ]; }
lost_at_most() {
	local f n=0
	for f in "${@:2}"; do n=$((n + $(flow_lost "$f"))); done
	[ "$n" -le "$1" ]
}

check_eq "the dataplane has two workers" "0 1" "$(lcores '.lcore | tostring')"
check "the device port a queue for each" log_has dataplane 'port up name=dev .*rx_queues=2 tx_queues=2'
check "the uplink one for both" log_has dataplane 'port up name=up .*rx_queues=1 tx_queues=1'

# ---- many flows, both directions ----------------------------------------------------------------
many udp cam1 "$NVR4" "$NVR6" 5000 c1-udp
many tcp cam1 "$NVR4" "$NVR6" 554 c1-tcp
many udp cam2 "$NVR4" "$NVR6" 5000 c2-udp
many tcp cam2 "$NVR4" "$NVR6" 554 c2-tcp
many udp s1 "$CAM4" "$CAM6" 7000 s1-udp
FIRST=(c1-udp c1-udp-v6 c1-tcp c1-tcp-v6)
OTHER=(c2-udp c2-udp-v6 c2-tcp c2-tcp-v6)
PEER=(s1-udp s1-udp-v6)
ALL=("${FIRST[@]}" "${OTHER[@]}" "${PEER[@]}")
check "each of $((10 * N)) flows is answered, UDP and TCP, in both families" wait_for 20 all_answered "${ALL[@]}"
check "both workers have their part of the flows: at least a quarter" wait_for 5 both_have $((10 * N / 4))
say "        flows of the workers: $(lcores '.flows | tostring'); handed on: $(lcores '.handed | tostring')"
for d in camera/cam1 camera/cam2; do
	check "$d: both directions of a UDP flow are one flow, $((2 * N)) of them" wait_for 3 flows_are "$d" 5000 $((2 * N))
	check "$d: and of a TCP flow" wait_for 3 flows_are "$d" 554 $((2 * N))
done
check "sensor to camera, in one subnet: the same" wait_for 3 flows_are sensor/s1 7000 $((2 * N))
# What they say that they sent and got is in the flows' counts, so these count both directions.
sums() { awk '{ n += $1 + $2 } END { print n }' "$D/c1-udp.flow" "$D/c1-udp-v6.flow"; }
want=$(sums) got=$(flows_to camera/cam1 5000 'map(.packets) | add')
check_eq "the flows' counts hold questions and answers ($want asked and answered, $got counted)" true \
	"$([ "$got" -ge "$want" ] && echo true)"
check "the largest flows of both workers are found, not of the first alone" \
	test "$(ctl_json flows --top $((10 * N)) --by packets '.flows | length')" -ge $((10 * N))

# The driver's own counts
queues() { # COUNTER [ETHDEV]: of the two queues of the device port, which is the first, or of another
	printf '%s\n' "/ethdev/stats,${2:-0}" | RUNTIME_DIRECTORY=$D/run dpdk-telemetry.py -f sp-gw1 2>/dev/null |
		sed -n '/^{"\/ethdev/p' | jq -r ".[].$1[:2] | join(\" \")"
}
queues_both() { [ "$(queues "$@" | awk '{ print ($1 >= 100) + ($2 >= 100) }')" = 2 ]; }
check "each worker has taken packets from its queue of the device port" wait_for 5 queues_both q_ipackets
check "and sent by it" wait_for 5 queues_both q_opackets
say "        received by queue: $(queues q_ipackets); sent: $(queues q_opackets)"

# The kernel sees none of it, and most go by the fast lane, on either worker.
lane() { ctl_json stats .totals.lane; }
capture gw sp-dev dev "udp port 5000 or tcp port 554 or icmp"
shadow=$LAST
before=$(flow_received c1-udp) lane=$(lane)
must "the capture works: the box itself is in the kernel" 3 ping_try cam1 "$GW4"
must "100 more answers" 10 flow_beyond c1-udp $((before + 100))
lane_beyond() { [ "$(lane)" -ge "$1" ]; }
check "100 more answers, so 200 packets more, by the fast lane" wait_for 4 lane_beyond $((lane + 200))
end "$shadow"
check_match "the capture sees the box's own ping" '^[1-9]' "$(seen dev icmp)"
check_eq "and no packet of a flow" 0 "$(seen dev tcp or udp)"
check "no packet was lost" wait_for 5 lost_at_most 0 "${ALL[@]}"
check_eq "nor did a worker find the other's ring full" "0 0" "$(lcores '.ring_dropped | tostring')"

# ---- ICMP errors: to the worker of the flow that they speak of ----------------------------------
# Linux tells a host six times at once and then once a second, if it is let.
in_ns core sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 || die "sysctl"
ports_refused() { # ADDR TYPE: 12 new flows, each is told
	local i n=0
	for ((i = 0; i < 12; i++)); do
		[ "$(traffic cam1 udp-error "$1" $((5050 + i)) 2 64)" != "$2 $1" ] || n=$((n + 1))
	done
	[ "$n" = 12 ] || {
		say "$n of 12"
		return 1
	}
}
check "each of 12 flows learns that its port is unreachable, whichever worker has it, IPv4" ports_refused "$NVR4" "3 3"
check "and IPv6" ports_refused "$NVR6" "1 4"
check_eq "and that the hop limit was exceeded" "11 0 $GW4" "$(traffic cam1 udp-error "$NVR4" 5000 2 1)"

# ---- revocation ---------------------------------------------------------------------------------
own=$(ctl_json flows "[.flows[] | select(.device_src == \"$(id_of camera/cam1)\" or .device_dst == \"$(id_of camera/cam1)\")] | length")
receipt=$(ctl revoke "$(id_of camera/cam1)" --reason stolen)
say "        $receipt"
closed=$(sed -n 's/.* \([0-9]*\) flows closed, 0 untracked.*/\1/p' <<<"$receipt")
check_eq "the receipt counts the flows of both workers ($own before, $closed closed)" true \
	"$([ "${closed:-0}" -ge $((6 * N)) ] && [ "$closed" -le $((own + 2)) ] && echo true)"
check "every flow of the device stops, whichever worker has it" many_stopped "${FIRST[@]}"
check "those that end at it too" many_stopped "${PEER[@]}"
no_flows() { [ "$(flows_to camera/cam1 "$1" length)" = 0 ]; }
check "no worker has an established flow of it, UDP" wait_for 3 no_flows 5000
check "nor TCP" wait_for 3 no_flows 554
check "the other device's flows go on" all_run "${OTHER[@]}"
check "and have lost nothing" wait_for 5 lost_at_most 0 "${OTHER[@]}"

# ---- after a new start both workers pick their flows up again -----------------------------------
daemon_stop dataplane
daemon_start dataplane
check "after a new start of the dataplane all flows return" wait_for 15 all_run "${OTHER[@]}"
check "to both workers" wait_for 10 both_have $((4 * N / 4))

# ---- an uplink of two queues: AF_PACKET, which comes and goes, vhost-user, TAP --------------------
# uplink_becomes DEVARGS
uplink_becomes() {
	daemon_stop dataplane
	daemon_stop agent
	sed -i "s|devargs = \"[^\"]*\"; addresses = \[ \"$UP4|devargs = \"$1\"; addresses = [ \"$UP4|" "$D/gateway.cfg"
	daemon_start agent
	daemon_start dataplane
	must "the gateway is ready again" 15 gw_ready
}
# Both workers send by a queue of their own when it goes, and when it comes back.
uplink_becomes "net_af_packet1,iface=up0,qpairs=2"
check "all flows run over an uplink with a queue for each worker" wait_for 20 all_run "${OTHER[@]}"
pid=$(daemon_pid dataplane)
for i in 1 2 3; do
	check_match "$i: it is removed while both workers use it" 'port up: removed' "$(ctl port remove up 2>&1)"
	check "$i: no flow passes" many_stopped "${OTHER[@]}"
	check_match "$i: it is added" 'port up: added' "$(ctl port add up 2>&1)"
	check "$i: the flows return" wait_for 20 all_run "${OTHER[@]}"
done
check_eq "the dataplane is the same process" "$pid" "$(daemon_pid dataplane)"

# The other side spreads over both queues and reads no other than the first.
uplink_becomes "net_vhost0,iface=$D/up.sock,queues=2"
check "a vhost-user port has the queues that were asked for" log_has dataplane 'port up name=up .*rx_queues=2 tx_queues=1 rss=no'
spawn gw testpmd dpdk-testpmd --no-huge --no-shconf --no-pci --no-telemetry -m 128 -l 0,1 --file-prefix "testpmd-$$" \
	--vdev "net_virtio_user0,path=$D/up.sock,queues=2,queue_size=512" --vdev net_af_packet0,iface=up0,qpairs=2 -- \
	--rxq=2 --txq=2 --forward-mode=io --auto-start --stats-period 1 --total-num-mbufs=8192
uplink_is_up() { [ "$(ctl_json status '.dataplane.ports[1].link')" = up ]; }
must "the vhost-user link is up" 15 uplink_is_up
in_ns core ip neigh flush dev eth0
check "all flows return" wait_for 20 all_run "${OTHER[@]}"
lose_no_more() { # each UDP flow asks once, then four times more. TCP asks on while it waits to send again
	local f n=0 a
	for f in c2-udp c2-udp-v6; do
		a=$(flow_received "$f")
		wait_for 10 flow_beyond "$f" $((a + N)) || return 1
	done
	for f in c2-udp c2-udp-v6; do n=$((n + $(flow_lost "$f"))); done
	for f in c2-udp c2-udp-v6; do
		a=$(flow_received "$f")
		wait_for 10 flow_beyond "$f" $((a + 4 * N)) || return 1
	done
	wait_for 5 lost_at_most "$n" c2-udp c2-udp-v6 || {
		say "lost before: $n, of the flows: $(flow_lost c2-udp) $(flow_lost c2-udp-v6)"
		return 1
	}
}
check "and lose nothing" lose_no_more
# ethdev 1 is the device port's shadow
check "each worker has taken packets from its queue of the uplink" wait_for 10 queues_both q_ipackets 2
say "        received by queue: $(queues q_ipackets 2)"
end "$LAST"

# A TAP driver hashes, so it says. Its interface becomes the core's.
uplink_becomes net_tap0,iface=sptap
check "a TAP port has a queue for each worker" log_has dataplane 'port up name=up .*rx_queues=2 tx_queues=2 rss=yes'
in_ns gw ip link set sptap netns "${P}core"
in_ns core ip link set eth0 down
in_ns core ip addr flush dev eth0
in_ns core ip link set sptap address 02:00:00:00:0c:01 mtu 1500 up
in_ns core ip addr add "$NVR4/24" dev sptap
in_ns core ip addr add "$NVR6/64" dev sptap nodad
in_ns core ip route replace default via "$UP4"
in_ns core ip -6 route replace default via "$UP6" src "$NVR6"
check "all flows return" wait_for 20 all_run "${OTHER[@]}"
check "and lose nothing" lose_no_more
check "each worker has sent by its queue of it" wait_for 5 queues_both q_opackets 2
say "        received by queue: $(queues q_ipackets 2); sent: $(queues q_opackets 2)"
