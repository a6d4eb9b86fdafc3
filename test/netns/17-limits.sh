#!/bin/bash
# 17. One device, or strangers, take nothing from the others: a scan, a flood of SYNs, of flows, of packets to the box
#     itself; each is dropped early and counted, while another device's flows lose nothing and its new ones open. A rule's
#     rate and a segment's rate are what the receiver measures.
. "$(dirname "$0")/lib.sh"
POLICY_FILE=$LIB/segments-limits.cfg
LIMITS='device = { kernel_packets = 200; }; strangers = { packets = 2000; packets_each = 200; };'
world_up s17
camera_make cam1 11 ""
sensor_make s1 12
device_make x1 66
S4=10.7.0.12
mac_of() { in_ns "$1" cat "/sys/class/net/$2/address"; }
GW=$(mac_of gw dev0) S=$(mac_of s1 eth0) X=$(mac_of x1 eth0)
echo_both tcp core "$NVR4" "$NVR6" 554
for port in 5000 5001; do echo_both udp core "$NVR4" "$NVR6" "$port"; done
tcp_echo core "$NVR4" 1883
for port in $(seq 6000 6039); do
	spawn core "udp-echo-$port" python3 "$LIB/traffic.py" udp-echo "$NVR4" "$port"
done
must "the last server" 10 in_ns core python3 "$LIB/traffic.py" listening udp 6039
for port in 5200 6200; do
	spawn core "count-$port" python3 "$LIB/traffic.py" udp-count "$NVR4" "$port" "$D/$port.count"
done
must "the counting servers" 5 in_ns core python3 "$LIB/traffic.py" listening udp 6200
in_both cam1 cam1 camera/cam1
in_both s1 s1 sensor/s1
udp_flows cam1 "$NVR4" "$NVR6" 5000 video
tcp_flows cam1 "$NVR4" "$NVR6" 554 rtsp
FLOWS=(video video-v6 rtsp rtsp-v6)
check "a camera's flows run" wait_for 5 all_run "${FLOWS[@]}"

traffic() { in_ns "$1" python3 "$LIB/traffic.py" "${@:2}"; }
grown() { [ $(($(drops "$1") - BEFORE)) -ge "$2" ]; } # REASON AT-LEAST
lost() {
	local f n=0
	for f in "${FLOWS[@]}"; do n=$((n + $(flow_lost "$f"))); done
	say "$n"
}
no_more_lost() { [ "$(lost)" -le "$1" ]; } # wait for it: an answer may be on its way
# harmless WHAT REASON AT-LEAST COMMAND...: the command floods for some seconds. Meanwhile the camera opens flows.
harmless() {
	local what=$1 reason=$2 least=$3 before flooder
	shift 3
	wait_for 2 no_more_lost 0
	before=$(lost)
	BEFORE=$(drops "$reason")
	"$@" >"$D/flood.log" 2>&1 &
	flooder=$!
	wait_for 5 grown "$reason" 1 || fail "$what: \"$reason\" is counted"
	check "$what: a new TCP connection opens" tcp_try cam1 "$NVR4" 554
	check "$what: in IPv6 too" tcp_try cam1 "$NVR6" 554
	check "$what: a new UDP flow opens" udp_try cam1 "$NVR4" 5001
	check "$what: the box answers the camera's ping" ping_try cam1 "$GW4"
	wait "$flooder"
	check "$what: $(cat "$D/flood.log") frames; \"$reason\" counts most of them" wait_for 4 grown "$reason" "$least"
	check "$what: the camera's flows lost nothing" wait_for 3 no_more_lost "$before"
	check "$what: and run" all_run "${FLOWS[@]}"
}

# ---- rates, as the receiver measures them --------------------------------------------------------
# measured PORT: bit/s of IP packets that arrive, over four seconds after the burst has gone
measured() {
	local from to
	must "packets arrive" 5 test -s "$D/$1.count"
	sleep 1.5 # the burst, which is not the rate
	from=$(cat "$D/$1.count")
	sleep 4 # the time that is measured
	to=$(cat "$D/$1.count")
	awk -v from="$from" -v to="$to" 'BEGIN { split(from, a); split(to, b); printf "%d\n", (b[2] - a[2]) * 8000 / (b[3] - a[3]) }'
}
within() { awk -v got="$1" -v want="$2" 'BEGIN { exit !(got > want * 0.85 && got < want * 1.15) }'; }
BEFORE=$(drops rate_rule)
traffic cam1 udp-blast "$NVR4" 5200 7 500 972 >/dev/null & # 4 Mbit/s of IP packets
blast=$!
rate=$(measured 5200)
wait "$blast"
check "a rule of 1 Mbit/s lets pass $rate bit/s" within "$rate" 1000000
check "the rest is counted under \"rate_rule\"" wait_for 4 grown rate_rule 1000
BEFORE=$(drops rate_device)
traffic s1 udp-blast "$NVR4" 6200 7 1000 972 >/dev/null & # 8 Mbit/s
blast=$!
rate=$(measured 6200)
wait "$blast"
check "a device of 2 Mbit/s sends $rate bit/s" within "$rate" 2000000
check "the rest is counted under \"rate_device\"" wait_for 4 grown rate_device 1000

# The kernel path has a meter of its own for the rule.
cert_make w1 "URI:$(id_of camera/w1)"
vouch camera/w1
device_in w1 w1 camera/w1 "$WIFI4"
kernel_grown() { [ $(($(kernel_count rate) - BEFORE)) -ge "$1" ]; }
BEFORE=$(kernel_count rate)
rm -f "$D/5200.count"
traffic w1 udp-blast "$NVR4" 5200 7 500 972 >/dev/null &
blast=$!
rate=$(measured 5200)
wait "$blast"
check "at a kernel-only port it lets pass $rate bit/s" within "$rate" 1000000
check "and nftables counts the rest under \"rate\"" wait_for 4 kernel_grown 1000

# ---- floods of one device ------------------------------------------------------------------------
harmless "a scan" new_flow_rate 5000 traffic s1 flood eth0 syn 4000 4 "smac=$S" "dmac=$GW" "src=$S4" "dst=$NVR4"
flows=$(ctl_json status .dataplane.flows)
check "a scan leaves a small table: $flows flows" test "$flows" -lt 600
harmless "packets to the box" kernel_rate 5000 \
	traffic s1 flood eth0 udp 4000 4 "smac=$S" "dmac=$GW" "src=$S4" "dst=$GW4" dport=53
harmless "ARP requests" kernel_rate 5000 traffic s1 flood eth0 arp 4000 4 "smac=$S" "dmac=$GW" "src=$S4" "dst=$GW4"

# ---- flows of one device -------------------------------------------------------------------------
BEFORE=$(drops flow_cap)
answered=$(traffic s1 udp-ports "$NVR4" 6000 6039)
check "of forty flows the sensor may have $answered" test "$answered" -ge 20 -a "$answered" -le 30
check "the others are counted under \"flow_cap\"" wait_for 4 grown flow_cap $((40 - answered))
check "the camera opens one none the less" udp_try cam1 "$NVR4" 5001

# ---- strangers -----------------------------------------------------------------------------------
harmless "a stranger's SYNs to the listener" stranger_rate 5000 \
	traffic x1 flood eth0 syn 4000 4 "smac=$X" "dmac=$GW" src=10.7.0.66 "dst=$GW4" dport=8883
camera_make cam2 13 ""
traffic x1 flood eth0 syn 1000 8 "smac=$X" "dmac=$GW" src=10.7.0.66 "dst=$GW4" dport=8883 >"$D/flood.log" &
flooder=$!
BEFORE=$(drops stranger_rate)
must "the flood is on" 5 grown stranger_rate 100
device_in cam2 cam2 camera/cam2
check "a new device gets in while a stranger floods" kill -0 "$flooder"
wait "$flooder"

# ---- the words for it ----------------------------------------------------------------------------
check_match "sallyctl status counts by reason" 'new_flow_rate' "$(ctl status)"
check_eq "sallyctl segments shows a rule's rate" "1 Mbit/s" \
	"$(ctl_json segments '.rules[] | select(.name == "capped") | .limits')"
check_eq "and what a member may" "2 Mbit/s, 50 new flows/s, 30 flows" \
	"$(ctl_json segments '.segments[] | select(.name == "sensors") | .limits')"
check_match "sallyctl policy check too" 'rule capped: 1 Mbit/s' "$(ctl policy check "$D/segments.cfg")"
refused_of() { ctl_json stats devices ".devices[] | select(.device == \"$(id_of "$1")\") | .refused"; }
check "sallyctl stats says whose packets were dropped" test "$(refused_of sensor/s1)" -gt 30000
check "and whose were not: the camera's are those above its own rate" test "$(refused_of camera/cam1)" -lt 5000
check "the log says who tried too much" log_has agent 'new_flow_rate'
