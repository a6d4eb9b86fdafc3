#!/bin/bash
# 6. Frames with an admitted device's IP, MAC or VLAN from anybody else are dropped and counted; the real device does not
#    notice. A frame that has MAC, IP and VLAN of the victim right and enters by the same port is the access switch's to
#    stop (port security): here it keeps the victim's MAC at its port, as such switches do.
VLANS='vlans = ( { id = 20; addresses = [ "10.7.20.1/24", "fd07:20::1/64" ]; } );'
. "$(dirname "$0")/lib.sh"
world_up s06
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
sensor_make s1 12
device_make x1 66
CAM4=10.7.0.11 CAM6=fd07::11 S4=10.7.0.12 S6=fd07::12
mac_of() { in_ns "$1" cat "/sys/class/net/$2/address"; }
GW=$(mac_of gw dev0) CAM=$(mac_of cam1 eth0) S=$(mac_of s1 eth0) X=$(mac_of x1 eth0)
in_ns sw bridge fdb replace "$CAM" dev p-cam1 master static sticky
in_ns sw bridge fdb replace "$S" dev p-s1 master static sticky
echo_both tcp core "$NVR4" "$NVR6" 1883
for port in 5000 5050; do echo_both udp core "$NVR4" "$NVR6" "$port"; done
in_both cam1 cam1 camera/cam1
cam4=$LAST4
in_both s1 s1 sensor/s1
udp_flows cam1 "$NVR4" "$NVR6" 5000 video
check "the victim's flows run" wait_for 5 all_run video video-v6
lost=$(flow_lost video) lost6=$(flow_lost video-v6)
capture core eth0 core udp port 5050
core=$LAST

frame() { # NS KIND KEY=VALUE...: to the gateway unless said otherwise
	in_ns "$1" python3 "$LIB/traffic.py" frame eth0 "$2" "dmac=$GW" dport=5050 "${@:3}"
}
# The agent reads the counters about once a second: each of these sends three frames, drops_check compares the sums.
declare -A BEFORE SENT
drops_begin() {
	local r
	for r in spoofed unknown_vlan reverse_path; do BEFORE[$r]=$(drops "$r") SENT[$r]=0; done
}
dropped() { # REASON COMMAND...
	for _ in 1 2 3; do "${@:2}" || die "frame: $*"; done
	SENT[$1]=$((${SENT[$1]} + 3))
}
grown() { [ $(($(drops "$1") - ${BEFORE[$1]})) -ge "${SENT[$1]}" ]; }
drops_check() { # REASON WHAT
	wait_for 4 grown "$1"
	check_eq "$2: ${SENT[$1]} frames, all dropped as \"$1\"" "${SENT[$1]}" "$(($(drops "$1") - ${BEFORE[$1]}))"
}
in_core() { [ "$(seen core "$@")" -gt 0 ]; }

# The frames are good ones: the victim's own pass.
for pair in "$CAM4 $NVR4" "$CAM6 $NVR6"; do
	read -r src dst <<<"$pair"
	must "a frame as below, of the victim itself" 3 frame cam1 udp "smac=$CAM" "src=$src" "dst=$dst"
done
check "the victim's own such frame reaches the recorder" wait_for 3 in_core "src host $CAM4"
check "in IPv6 too" wait_for 3 in_core "src host $CAM6"
end "$core"
capture core eth0 spoofed udp port 5050
core=$LAST

# ---- packets ------------------------------------------------------------------------------------
drops_begin
for pair in "$CAM4 $NVR4 $S4" "$CAM6 $NVR6 $S6"; do
	read -r src dst own <<<"$pair"
	# the victim's IP, from a device and from a stranger
	dropped spoofed frame s1 udp "smac=$S" "src=$src" "dst=$dst"
	dropped spoofed frame x1 udp "smac=$X" "src=$src" "dst=$dst"
	# its MAC, with the attacker's own IP
	dropped spoofed frame s1 udp "smac=$CAM" "src=$own" "dst=$dst"
	# its MAC and IP, in another VLAN of the port, and in one that the port has not
	dropped spoofed frame s1 udp "smac=$CAM" "src=$src" "dst=$dst" vlan=20
	dropped unknown_vlan frame s1 udp "smac=$CAM" "src=$src" "dst=$dst" vlan=99
done
dropped spoofed frame x1 udp "smac=$X" "src=$CAM4" "dst=$GW4" dport=8883
dropped reverse_path in_ns core python3 "$LIB/traffic.py" frame eth0 udp "smac=$(mac_of core eth0)" \
	"dmac=$(mac_of gw up0)" "src=$CAM4" "dst=$S4" dport=7000
drops_check spoofed "the victim's IP, MAC, or both in another VLAN"
drops_check unknown_vlan "a VLAN that the port has not"
drops_check reverse_path "the victim's IP from the uplink"

# ---- claims for the victim's address ------------------------------------------------------------
neighbour() { in_ns gw ip neigh show "$1" dev sp-dev | grep -o 'lladdr [^ ]*'; }
must "the box knows the victim's MAC" 3 ping_try gw "$CAM4"
must "in IPv6 too" 3 ping_try gw "$CAM6"
drops_begin
# ARP (RFC 826): to the box, under the victim's MAC, to everybody
dropped spoofed frame s1 arp "smac=$S" "ip=$CAM4" "mac=$S"
dropped spoofed frame s1 arp "smac=$CAM" "ip=$CAM4" "mac=$S"
dropped spoofed frame x1 arp "smac=$X" "ip=$CAM4" "mac=$X" dmac=ff:ff:ff:ff:ff:ff
drops_check spoofed "ARP: the victim's IP is at the attacker's MAC"
drops_begin
# neighbour advertisements (RFC 4861): from the attacker's own IP, and from the victim's
dropped spoofed frame s1 na "smac=$S" "ip=$CAM6" "mac=$S" "src=$S6" "dst=$GW6"
dropped spoofed frame x1 na "smac=$X" "ip=$CAM6" "mac=$X" "src=$CAM6" "dst=$GW6"
drops_check spoofed "neighbour advertisements for the victim's IP"
check_eq "the kernel's neighbour table has the victim's MAC" "lladdr $CAM" "$(neighbour "$CAM4")"
check_eq "in IPv6 too" "lladdr $CAM" "$(neighbour "$CAM6")"

# ---- another interface --------------------------------------------------------------------------
before=$(kernel_count spoofed)
for pair in "$CAM4 $NVR4" "$CAM6 $NVR6"; do
	read -r src dst <<<"$pair"
	in_ns w1 python3 "$LIB/traffic.py" frame eth0 udp "smac=$CAM" "dmac=$(mac_of gw wifi0)" "src=$src" "dst=$dst" dport=5050
done
check_eq "the victim's MAC and IP on a kernel-only interface: dropped as spoofed there" 2 \
	"$(($(kernel_count spoofed) - before))"

# ---- the real device ----------------------------------------------------------------------------
check "the victim's flow goes on" flow_runs video
check "in IPv6 too" flow_runs video-v6
check "and has lost nothing" wait_for 3 flow_lost_at_most video "$lost"
check "nor in IPv6" wait_for 3 flow_lost_at_most video-v6 "$lost6"
check_eq "its session stands" 2 "$(sessions_of camera/cam1)"
check_not "and has not ended meanwhile" not_running "$cam4"
check "and relays" session_echoes cam1 "$GW4"
end "$core"
check_eq "no spoofed packet reached the core" 0 "$(seen spoofed)"
