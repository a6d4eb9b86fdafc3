#!/bin/bash
# 32. Frames of 9,000 bytes: a device and an upstream with jumbo frames, beside devices with 1,500 and 576; then an uplink
#     with 1,500, where each leg of a session has its own segment size. The witnesses say what went over the wires.
TRANSPORT=stack
AF=framesz=9216,blocksz=36864
DEV_DEVARGS=net_af_packet0,iface=dev0,$AF UP_DEVARGS=net_af_packet1,iface=up0,$AF
VLANS="mtu = 9000;" UP_EXTRA="mtu = 9000;" MEMORY_MB=192
. "$(dirname "$0")/lib.sh"
mtu() { in_ns "$1" ip link set "$2" mtu "$3"; } # NS IF MTU
net_more() { # what lies between
	mtu sw br0 9000 && mtu sw p-gw 9000 && mtu core eth0 9000
}
world_up s32
net_more
certify "$DIGEST_A"
echo_both tcp core "$NVR4" "$NVR6" 1883
camera_make cam1 11 "$DIGEST_A"
camera_make cam2 12 "$DIGEST_A"
camera_make cam3 13 "$DIGEST_A"
mtu sw p-cam1 9000 && mtu cam1 eth0 9000
mtu cam3 eth0 576

bulk() { # NS HOST BYTES
	in_ns "$1" timeout 60 python3 "$LIB/traffic.py" tls-bulk "$2" 8883 "$D/pki" "$1" "$3"
}
# the largest IPv4 packet of those that fit the filter
largest() { # CAPTURE FILTER...
	local name=$1
	shift
	tcpdump -n -v -r "$D/$name.pcap" "$@" 2>/dev/null | sed -n 's/.* proto TCP (6), length \([0-9]*\)).*/\1/p' | sort -n | tail -1
}
# the largest segment that the gateway offers: those of its SYNs in a capture
offers() { tcpdump -n -r "$D/$1.pcap" "src host $2" 2>/dev/null | sed -n 's/.*Flags \[S.*mss \([0-9]*\),.*/\1/p' | sort -u; }
must "a session passes" 15 tls_answers cam1 cam1
check "the log says what memory large buffers take" log_has dataplane 'packet buffers pool=mbufs-large buffers=[0-9]+ .*memory=[0-9]+ MB'
say "        $(grep -ho 'packet buffers.*' "$D/dataplane.log" "$D/tls-proxy.log" | tr '\n' ';')"
check_match "the gateway's port has the MTU" 'mtu 9000' "$(in_ns gw ip link show dev0)"
check_match "and so has its shadow" 'mtu 9000' "$(in_ns gw ip link show sp-dev)"

capture sw p-gw device 'tcp port 8883'
capture core eth0 upstream 'tcp port 1883'
check "10 MB there and back, a device with 9,000" bulk cam1 "$GW4" 10485760
check "the same over IPv6" bulk cam1 "$GW6" 10485760
check "1 MB there and back, a device with 1,500" bulk cam2 "$GW4" 1048576
check "the same over IPv6" bulk cam2 "$GW6" 1048576
check "1 MB there and back, a device with 576" bulk cam3 "$GW4" 1048576
check_eq "frames of 9,000 bytes came from the device" 9000 "$(largest device src host 10.7.0.11)"
check_eq "and went to it" 9000 "$(largest device dst host 10.7.0.11)"
check_eq "and to the upstream" 9000 "$(largest upstream dst host "$NVR4")"
check_eq "and came from it" 9000 "$(largest upstream src host "$NVR4")"
check_eq "those to the device with 1,500 are no larger" 1500 "$(largest device dst host 10.7.0.12)"
check_eq "nor those to the device with 576" 576 "$(largest device dst host 10.7.0.13)"
check_eq "the gateway offers that to devices" 8960 "$(offers device "$GW4")"
check_eq "and to the upstream" 8960 "$(offers upstream "$UP4")"
check "IPv6 frames were as large" test "$(seen device 'ip6 and greater 9014')" -gt 0

# ---- by the kernel ------------------------------------------------------------------------------
check "a ping of 9,000 bytes is answered by the kernel, over the shadow" in_ns cam1 ping -n -c 1 -W 2 -s 8972 -M "do" "$GW4"
check "over IPv6" in_ns cam1 ping -n -c 1 -W 2 -s 8952 -M "do" "$GW6"

# ---- legs with different sizes --------------------------------------------------------------------
sed -i 's/mtu = 9000; },$/mtu = 1500; },/' "$D/gateway.cfg"
check_match "the uplink becomes one with 1,500" 'mtu = 1500' "$(grep 'name = "up"' "$D/gateway.cfg")"
mtu core eth0 1500
check_match "it is removed" 'removed' "$(ctl port remove up 2>&1)"
in_ns gw ip link set up0 mtu 1500
check_match "and added" 'added' "$(ctl port add up 2>&1)"
daemon_hup tls-proxy
must "a session passes" 15 tls_answers cam1 cam1
capture sw p-gw device2 'tcp port 8883'
capture core eth0 upstream2 'tcp port 1883'
check "10 MB there and back" bulk cam1 "$GW4" 10485760
check "the same over IPv6" bulk cam1 "$GW6" 10485760
check_eq "with 9,000 bytes to the device" 9000 "$(largest device2 dst host 10.7.0.11)"
check_eq "and 1,500 to the upstream" 1500 "$(largest upstream2 dst host "$NVR4")"
check_eq "the gateway offers 9,000 to devices" 8960 "$(offers device2 "$GW4")"
check_eq "and 1,500 to the upstream" 1460 "$(offers upstream2 "$UP4")"
check_eq "nothing was too big" 0 "$(drops tls_too_big)"

# ---- a worker that began with small buffers ---------------------------------------------------------
daemon_stop tls-proxy
sed -i 's/mtu = 9000;/mtu = 1500;/' "$D/gateway.cfg"
daemon_start tls-proxy
must "a session passes" 15 tls_answers cam1 cam1
sed -i '/name = "dev"/,/addresses/s/mtu = 1500;/mtu = 9000;/' "$D/gateway.cfg"
check_match "a port has larger frames: the reload says what the worker cannot do" 'listeners in force.*TLS worker 0: a port has mtu = 9000, and this worker.s packets stay at 1500 bytes: restart it' "$(ctl reload 2>&1)"
check "and so does its log" log_has tls-proxy 'warn.*a port has mtu = 9000'
check "a session passes" tls_answers cam1 cam1
capture sw p-gw device3 'tcp port 8883'
check "1 MB there and back" bulk cam1 "$GW4" 1048576
check_eq "with 1,500 bytes to the device" 1500 "$(largest device3 dst host 10.7.0.11)"
check_eq "and that is what the gateway offers" 1460 "$(offers device3 "$GW4")"
daemon_stop tls-proxy
daemon_start tls-proxy
must "a session passes" 15 tls_answers cam1 cam1
check_not "restarted, it falls short of nothing" grep -q 'TLS worker' <<<"$(ctl reload 2>&1)"
capture sw p-gw device4 'tcp port 8883'
check "1 MB there and back" bulk cam1 "$GW4" 1048576
check_eq "with 9,000 bytes to the device" 9000 "$(largest device4 dst host 10.7.0.11)"
