#!/bin/bash
# 5. The same policy holds on the kernel path, shown by the counters of the nftables plane: fragments, ICMP errors, and an
#    interface that DPDK cannot take. What works of fragments: a flow whose first question was in fragments, both ways.
#    Not a fragmented answer to a question that was whole: the kernel, which puts fragments together, has not seen it.
. "$(dirname "$0")/lib.sh"
world_up s05
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
sensor_make s1 12
W4=10.9.0.21 W6=fd09::21
cert_make w1 "URI:$(id_of camera/w1)"
vouch camera/w1 "$DIGEST_A"
echo_both tcp core "$NVR4" "$NVR6" 1883
echo_both tcp core "$NVR4" "$NVR6" 22
for a in "$NVR4" "$NVR6"; do
	spawn core "udp-sized-${a//:/_}" python3 "$LIB/traffic.py" udp-sized "$a" 5000
	must "udp server at $a" 5 in_ns core python3 "$LIB/traffic.py" udp-answer "$a" 5000 0.3 10
done
echo_both udp core "$NVR4" "$NVR6" 6000
for port in 7000 7001; do echo_both udp w1 "$W4" "$W6" "$port"; done
echo_both udp s1 10.7.0.12 fd07::12 7000
echo_both tcp w1 "$W4" "$W6" 8080
in_both cam1 cam1 camera/cam1
in_both s1 s1 sensor/s1

traffic() { # NS COMMAND...
	local ns=$1
	shift
	in_ns "$ns" python3 "$LIB/traffic.py" "$@"
}
# counts COUNTER AT-LEAST COMMAND...: the command's result, and the counter must have grown by so much meanwhile
counts() {
	local name=$1 n=$2 before code=0
	before=$(kernel_count "$1")
	shift 2
	"$@" || code=1
	[ $(($(kernel_count "$name") - before)) -ge "$n" ] || {
		say "counter $name: $before, then $(kernel_count "$name")"
		return 2
	}
	return "$code"
}
# refused COUNTER COMMAND...: the command fails, and the counter says who refused it
refused() {
	local code=0
	counts "$1" 1 "${@:2}" || code=$?
	[ "$code" -eq 1 ]
}
ping_large() { in_ns "$1" ping -n -c 1 -W 1 -s 3000 "$2"; }

# ---- fragments ----------------------------------------------------------------------------------
capture core eth0 core 'ip or ip6'
core=$LAST
before=$(drops denied)
for a in "$NVR4" "$NVR6"; do
	check "a ping of 3000 bytes is answered, by way of the kernel, $a" counts forwarded 2 ping_large cam1 "$a"
	check "so is UDP of 4000 bytes, $a" counts forwarded 2 traffic cam1 udp-large "$a" 5000 1 4000
	check_not "not UDP of 4000 bytes to another port, $a" traffic cam1 udp-large "$a" 6000 0.4 4000
	check_not "nor the sensor's ping of 3000 bytes, $a" ping_large s1 "$a"
	check "a whole question gets a whole answer, $a" traffic cam1 udp-answer "$a" 5000 1 1000
done
# The port is in the first fragment alone: the dataplane judges that one, and without it the kernel makes no packet.
denied() { [ $(($(drops denied) - before)) -ge "$1" ]; }
check "the first fragments of these died as denied" wait_for 4 denied 4
check_match "what was allowed is in fragments on the wire" '^[1-9]' "$(seen core 'src host 10.7.0.11 and ip[6:2] & 0x3fff != 0')"
check_match "in IPv6 too" '^[1-9]' "$(seen core 'src host fd07::11 and ip6[6] = 44')"
check_eq "no fragment of the sensor is" 0 "$(seen core 'src host 10.7.0.12 and icmp or src host fd07::12 and ip6[6] = 44')"

# ---- ICMP errors --------------------------------------------------------------------------------
check_eq "a device learns that a port is unreachable, from the server" "3 3 $NVR4" "$(traffic cam1 udp-error "$NVR4" 5050 2 64)"
check_eq "the same in IPv6" "1 4 $NVR6" "$(traffic cam1 udp-error "$NVR6" 5050 2 64)"
check_eq "and that the hop limit was exceeded, from the gateway" "11 0 $GW4" "$(traffic cam1 udp-error "$NVR4" 5000 2 1)"
check_eq "the same in IPv6" "3 0 $GW6" "$(traffic cam1 udp-error "$NVR6" 5000 2 1)"

# ---- a kernel-only interface --------------------------------------------------------------------
for a in "$NVR4" "$NVR6"; do
	check "a stranger there reaches no network, $a" refused stranger traffic w1 udp-answer "$a" 5000 0.5 10
done
check "but the listener" tcp_connects w1 "$WIFI4" 8883
in_both w1 w1 camera/w1 "$WIFI4" "$WIFI6"
check "a session there relays" session_echoes w1 "$WIFI4"
check "and in IPv6" session_echoes w1-v6 "$WIFI6"
check_eq "the binding has that port" "wifi wifi" \
	"$(ctl_json bindings "[.bindings[] | select(.device == \"$(id_of camera/w1)\") | .port] | join(\" \")")"
for a in "$NVR4" "$NVR6"; do
	check "admitted, it reaches the recorder, $a" counts forwarded 2 traffic w1 udp-answer "$a" 5000 1.5 1000
	check "with TCP, $a" counts forwarded 5 tcp_try w1 "$a" 1883
	check "in fragments, $a" counts forwarded 2 traffic w1 udp-large "$a" 5000 1.5 4000
	check "and not another UDP port, $a" refused denied traffic w1 udp-large "$a" 6000 0.5 100
	check "nor TCP, $a" refused denied tcp_try w1 "$a" 22 0.5
done
for a in "$W4" "$W6"; do
	check "the recorder opens tcp/8080 to it, from a DPDK port, $a" counts forwarded 5 tcp_try core "$a" 8080
	check "a sensor behind a DPDK port triggers it, $a" counts forwarded 2 udp_try s1 "$a" 7000
	check "and may not use another port, $a" refused denied udp_try s1 "$a" 7001 0.5
done
for a in 10.7.0.12 fd07::12; do
	check "it opens nothing to the sensor, $a" refused denied udp_try w1 "$a" 7000 0.5
done
check_eq "it learns of an unreachable port" "3 3 $NVR4" "$(traffic w1 udp-error "$NVR4" 5050 2 64)"
check_eq "the same in IPv6" "1 4 $NVR6" "$(traffic w1 udp-error "$NVR6" 5050 2 64)"
end "$core"
check_eq "the core saw no packet of what was denied" 0 \
	"$(seen core "(host $W4 or host $W6 or host 10.7.0.11 or host fd07::11) and (udp port 6000 or tcp port 22)")"
