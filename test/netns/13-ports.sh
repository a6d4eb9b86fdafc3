#!/bin/bash
# 13. Any DPDK port works by its devargs alone: the uplink as AF_PACKET, and as memif with dpdk-testpmd behind it, which
#     carries the frames to the core.
. "$(dirname "$0")/lib.sh"

forwarded_some() { [ "$(ctl_json status .dataplane.forwarded)" -gt 0 ]; }
flows_pass() { # WHAT
	check "$1: UDP by the fast path, IPv4" udp_try cam1 "$NVR4" 5000
	check "$1: TCP, IPv6" tcp_try cam1 "$NVR6" 554
	check_not "$1: what no rule allows is denied" tcp_try cam1 "$NVR4" 555 0.7
	check "$1: the fast path counted them" wait_for 5 forwarded_some
}
uplink_is_up() { [ "$(ctl_json status '.dataplane.ports[1].link')" = up ]; }
# The port is another one: the dataplane is started anew by its supervisor, the agent by hand.
uplink_becomes() { # DEVARGS
	daemon_stop dataplane
	daemon_stop agent
	sed -i "s|devargs = \"[^\"]*\"; addresses = \[ \"$UP4|devargs = \"$1\"; addresses = [ \"$UP4|" "$D/gateway.cfg"
	daemon_start agent
	daemon_start dataplane
}

UP_DEVARGS=net_af_packet0,iface=up0
world_up s13
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
udp_echo core "$NVR4" 5000
tcp_echo core "$NVR6" 554
tcp_echo core "$NVR4" 555
tcp_echo core "$NVR4" 1883
tcp_echo core "$NVR6" 1883
device_in cam1 cam1 camera/cam1
device_in cam1 cam1 camera/cam1 "$GW6" 2
flows_pass AF_PACKET

uplink_becomes "net_memif0,role=server,id=0,socket=$D/memif.sock,socket-abstract=no"
must "the dataplane listens" 15 test -S "$D/memif.sock"
spawn gw testpmd dpdk-testpmd --no-huge --no-shconf --no-pci -m 128 -l 0,1 --file-prefix "testpmd-$$" \
	--vdev "net_memif0,role=client,id=0,socket=$D/memif.sock,socket-abstract=no" \
	--vdev net_af_packet0,iface=up0 -- --forward-mode=io --auto-start --stats-period 1 --total-num-mbufs=4096
must "the gateway is ready again" 15 gw_ready
must "the memif link is up" 15 uplink_is_up
# another port has another MAC address: the core asks again
in_ns core ip neigh flush dev eth0
must "the device is still in" 10 has_standing camera/cam1 full
flows_pass memif
