#!/bin/bash
# 1. A stranger reaches only the listener; everything else from it is dropped and counted by reason.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s01
device_make d1 66
tcp_echo core "$NVR4" 554
tcp_echo core "$NVR6" 555
udp_echo core "$NVR4" 5000
udp_echo core "$NVR6" 5001
capture core eth0 core ip or ip6

for gw in "$GW4" "$GW6"; do
	check "a stranger reaches the listener at $gw" tcp_connects d1 "$gw" 8883
	check "a stranger may ping the box at $gw (strangers = [ \"ping\" ])" ping_try d1 "$gw"
	check_not "not another port of the box at $gw" tcp_connects d1 "$gw" 9464
	check_not "not SSH of the box at $gw" tcp_connects d1 "$gw" 22
done
before=$(drops stranger)
check_not "TCP to a network, IPv4" tcp_try d1 "$NVR4" 554 0.7
check_not "TCP to a network, IPv6" tcp_try d1 "$NVR6" 555 0.7
check_not "UDP to a network, IPv4" udp_try d1 "$NVR4" 5000 0.5
check_not "UDP to a network, IPv6" udp_try d1 "$NVR6" 5001 0.5
check_not "ping to a network, IPv4" ping_try d1 "$NVR4"
check_not "ping to a network, IPv6" ping_try d1 "$NVR6"
counted() { [ "$(drops stranger)" -ge $((before + 6)) ]; }
check "the drops are counted under \"stranger\"" wait_for 5 counted
end "$LAST"
check_eq "no packet of the stranger reached the core" 0 "$(captured core | grep -cE '10\.7\.0\.66|fd07::66')"
check_match "metrics count them too" 'sallyport_dropped_packets_total\{reason="stranger"\} [1-9]' \
	"$(in_ns gw curl -s http://127.0.0.1:9464/metrics)"
