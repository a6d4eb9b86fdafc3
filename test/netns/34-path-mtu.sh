#!/bin/bash
# 34. A router on the way has a smaller MTU than both ends: its ICMP reaches the TLS worker that has the session, which sends
#     smaller segments; towards an upstream, and towards a device behind a router. Routes with an MTU of their own, too.
TRANSPORT=stack
FAR4=10.30.0.10 FAR6=fd30::10
ROUTES_CFG='{ to = "10.30.0.0/24"; via = "10.20.0.10"; }, { to = "fd30::/64"; via = "fd20::10"; }'
POLICY_FILE=$(dirname "$0")/segments-far.cfg
. "$(dirname "$0")/lib.sh"
listeners_more() {
	local tls="certificate = \"$D/pki/gw.pem\"; key = \"$D/pki/gw.key\"; ca = \"$D/pki/ca.pem\"; crl = \"$D/pki/ca.crl\";"
	say ", { name = \"far\"; transport = \"stack\"; address = \"$GW4\"; port = 8884; upstream = \"$FAR4:1883\"; $LISTENER_EXTRA $tls },"
	say "  { name = \"far6\"; transport = \"stack\"; address = \"$GW6\"; port = 8884; upstream = \"[$FAR6]:1883\"; $LISTENER_EXTRA $tls }"
}
world_up s34

# core is a router now, and its other link carries 1,300 bytes; whoever is there says in his SYN that he takes 1,460
ns_make far
link_pair core eth1 far eth0
in_ns core sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
in_ns core ip addr add 10.30.0.1/24 dev eth1
in_ns core ip addr add fd30::1/64 dev eth1
in_ns far ip addr add "$FAR4/24" dev eth0
in_ns far ip addr add "$FAR6/64" dev eth0
# as a device it has other addresses: what is known of the way to the upstream must not help
in_ns far ip addr add 10.30.0.11/24 dev eth0
in_ns far ip addr add fd30::11/64 dev eth0
in_ns far ip route add default via 10.30.0.1 src 10.30.0.11 advmss 1460
in_ns far ip -6 route add default via fd30::1 src fd30::11 advmss 1440
in_ns core ip link set eth1 mtu 1300
in_ns far ip link set eth0 mtu 1300

certify "$DIGEST_A"
echo_both tcp far "$FAR4" "$FAR6" 1883
echo_both tcp core "$NVR4" "$NVR6" 1883
camera_make cam1 11 "$DIGEST_A"
cert_make farcam "URI:$(id_of camera/farcam)"
vouch camera/farcam "$DIGEST_A"
cp "$D/pki/farcam.pem" "$D/pki/far.pem" && cp "$D/pki/farcam.key" "$D/pki/far.key"

bulk() { # NS HOST PORT BYTES
	in_ns "$1" timeout 60 python3 "$LIB/traffic.py" tls-bulk "$2" "$3" "$D/pki" "$1" "$4"
}
narrowed() { grep -ho 'narrowed=[0-9]*' "$D/tls-proxy.log" | tail -1; }
capture core eth0 router 'icmp or icmp6'
capture far eth0 far 'tcp'
capture core eth0 wire 'tcp'
must "a session passes" 15 tls_answers cam1 cam1

# ---- towards an upstream ------------------------------------------------------------------------
check "4 MB there and back, the upstream behind a router of 1,300 bytes" bulk cam1 "$GW4" 8884 4194304
check "the router said so" test "$(seen router "icmp[0] == 3 and icmp[1] == 4 and src host $NVR4")" -gt 0
check "the next session knows" bulk cam1 "$GW4" 8884 100000
check "4 MB over IPv6" bulk cam1 "$GW6" 8884 4194304
check "the router said so" test "$(seen router 'icmp6 and ip6[40] == 2')" -gt 0
check "segments of 1,300 bytes went there" test "$(seen far "ip and src host $UP4 and greater 1314")" -gt 0
check_eq "and nothing in pieces" 0 "$(seen far 'ip[6:2] & 0x3fff != 0')"
check "IPv6, too" test "$(seen far "ip6 and src host $UP6 and greater 1314")" -gt 0
check "a few messages were enough" test "$(seen router 'icmp[0] == 3 or (icmp6 and ip6[40] == 2)')" -lt 100

# ---- towards a device behind the router -----------------------------------------------------------
check "4 MB there and back, the device behind the router" bulk far "$GW4" 8883 4194304
check "the router told the listener's address" test "$(seen router "icmp[0] == 3 and icmp[1] == 4 and dst host $GW4")" -gt 0
check "over IPv6" bulk far "$GW6" 8883 4194304

# ---- a route of the gateway's own -----------------------------------------------------------------
in_ns gw ip route add 10.20.0.10/32 dev sp-up mtu 1200
capture core eth0 narrow "tcp and src host $UP4"
large() { tcpdump -n -r "$D/narrow.pcap" 'greater 1215' 2>/dev/null | wc -l; }
check "1 MB there and back over a route with an MTU of 1,200" bulk cam1 "$GW4" 8883 1048576
heeded() { [ "$(drops tls_too_big)" -gt 0 ]; }
check "what was too big is counted" wait_for 5 heeded
check_eq "and did not leave" 0 "$(large)"
check "what left was as large as the route takes" test "$(seen narrow 'greater 1214')" -gt 0

daemon_stop tls-proxy
check_match "the worker counts connections that it narrowed" 'narrowed=[1-9]' "$(narrowed)"
