#!/bin/bash
# 4. Allowed flows pass by the fast path and do not touch the kernel; denied ones drop with a reason; device to device
#    inside one subnet, behind isolated switch ports, obeys the segments, and without the gateway nothing crosses.
. "$(dirname "$0")/lib.sh"
world_up s04
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
sensor_make s1 12
for port in 554 1883 22; do echo_both tcp core "$NVR4" "$NVR6" "$port"; done
for port in 5000 6000; do echo_both udp core "$NVR4" "$NVR6" "$port"; done
CAM4=10.7.0.11 CAM6=fd07::11 S4=10.7.0.12 S6=fd07::12
for port in 7000 7001; do echo_both udp cam1 "$CAM4" "$CAM6" "$port"; done
echo_both tcp cam1 "$CAM4" "$CAM6" 7000
echo_both udp s1 "$S4" "$S6" 7000
in_both cam1 cam1 camera/cam1
in_both s1 s1 sensor/s1

# ---- allowed, by the fast path ------------------------------------------------------------------
udp_flows cam1 "$NVR4" "$NVR6" 5000 video
tcp_flows cam1 "$NVR4" "$NVR6" 554 rtsp
udp_flows s1 "$CAM4" "$CAM6" 7000 trigger
FLOWS=(video video-v6 rtsp rtsp-v6 trigger trigger-v6)
check "camera to recorder (UDP, TCP) and sensor to camera (UDP) run in both families" wait_for 5 all_run "${FLOWS[@]}"

forwarded() { ctl_json status .dataplane.forwarded; }
total() {
	local f n=0
	for f in "${FLOWS[@]}"; do n=$((n + $(flow_received "$f"))); done
	say "$n"
}
flow_filter="udp port 5000 or tcp port 554 or udp port 7000"
capture gw sp-dev dev "$flow_filter or icmp"
dev=$LAST
capture gw sp-up up "$flow_filter or icmp"
up=$LAST
capture core eth0 core "$flow_filter"
core=$LAST
# The agent reads the counters about once a second, so `before` may be older than `answers`, and only by so much more.
answers=$(total) before=$(forwarded) kernel=$(kernel_count forwarded)
beyond() { [ "$(total)" -ge $((answers + $1)) ]; }
must "300 more answers" 10 beyond 300
more=$(($(total) - answers))
grown() { [ $(($(forwarded) - before)) -ge $((2 * more)) ]; }
check "\"forwarded\" counts the packets of the flows, both ways" wait_for 4 grown
must "the captures work: the box itself is in the kernel" 3 ping_try cam1 "$GW4"
must "the same on the uplink" 3 ping_try core "$UP4"
end "$dev" "$up" "$core"
check_match "the outside sees the flows" '^[1-9][0-9][0-9]' "$(seen core "$flow_filter")"
check_match "the capture on the device port's shadow sees the box's own ping" '^[1-9]' "$(seen dev icmp)"
check_eq "and no packet of the established flows" 0 "$(seen dev "$flow_filter")"
check_match "the capture on the uplink's shadow sees the box's own ping" '^[1-9]' "$(seen up icmp)"
check_eq "and no packet of the established flows there" 0 "$(seen up "$flow_filter")"
check_eq "nor did the kernel's table count one" "$kernel" "$(kernel_count forwarded)"
rules() { ctl_json flows "[.flows[] | select(.state == \"established\" and .current) | .rule] | unique | join(\" \")"; }
check_eq "sallyctl names the rules that they run under" "trigger video" "$(rules)"

# ---- denied, with reason ------------------------------------------------------------------------
ping_briefly() { in_ns "$1" ping -n -c 1 -W 0.4 "$2"; }
check "ping works where it is allowed" ping_briefly cam1 "$NVR4"
before=$(drops denied)
for peer in "$NVR4" "$NVR6"; do
	check_not "camera to recorder, another UDP port, $peer" udp_try cam1 "$peer" 6000 0.4
	check_not "camera to recorder, another TCP port, $peer" tcp_try cam1 "$peer" 22 0.4
	check_not "sensor to recorder, the cameras' port, $peer" udp_try s1 "$peer" 5000 0.4
	check_not "sensor may not ping the recorder, $peer" ping_briefly s1 "$peer"
done
denied() { [ $(($(drops denied) - before)) -ge "$1" ]; }
check "each is counted under \"denied\"" wait_for 4 denied 8
check_match "and sallyctl why says so" 'denied|no rule' "$(ctl why "$S4" "$NVR4" udp/5000 2>&1)"

# ---- device to device in one subnet -------------------------------------------------------------
before=$(drops denied)
for peer in "$CAM4" "$CAM6"; do
	check "sensor to camera, tcp/7000, $peer" tcp_try s1 "$peer" 7000
	check_not "sensor to camera, udp/7001, $peer" udp_try s1 "$peer" 7001 0.4
	check_not "sensor may not ping the camera, $peer" ping_briefly s1 "$peer"
done
for peer in "$S4" "$S6"; do
	check_not "camera to sensor, udp/7000, $peer" udp_try cam1 "$peer" 7000 0.4
done
check "the refusals are counted under \"denied\"" wait_for 4 denied 6
check_eq "in the sensor's neighbour table the camera is at the gateway's MAC" \
	"$(in_ns gw cat /sys/class/net/sp-dev/address)" \
	"$(in_ns s1 ip neigh show "$CAM4" | sed -n 's/.*lladdr \([^ ]*\).*/\1/p')"
check "and all flows still run" all_run "${FLOWS[@]}"

# ---- without the gateway's dataplane ------------------------------------------------------------
capture cam1 eth0 cam1 'inbound and (ip or ip6)'
witness=$LAST
sees_sensor() { [ "$(seen cam1 "udp dst port 7000")" -gt 0 ]; }
must "the capture sees the sensor's packets now" 3 sees_sensor
daemon_stop dataplane
stopped=$(now_ms)
check "with the dataplane stopped every flow stops" all_stopped "${FLOWS[@]}"
check_not "nothing from the sensor reaches the camera through the switch, IPv4" udp_try s1 "$CAM4" 7000 0.4
check_not "nor IPv6" udp_try s1 "$CAM6" 7000 0.4
end "$witness"
check_eq "the camera's interface saw no packet after the stop" true \
	"$([ "$(last_ms cam1 "host $S4 or host $S6 or host $NVR4 or host $NVR6")" -le "$stopped" ] && echo true)"
daemon_start dataplane
check "and all flows return with it, by themselves" wait_for 15 all_run "${FLOWS[@]}"
