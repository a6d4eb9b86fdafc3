#!/bin/bash
# 28. TCP as it is outside of a laboratory: frames lost, repeated, overtaken, small windows, small frames, connections reset
#     in every state. What passes is whole, and nothing of what ended stays behind.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s28
certify "$DIGEST_A"
echo_both tcp core "$NVR4" "$NVR6" 1883
camera_make cam1 11 "$DIGEST_A"
camera_make cam2 12 "$DIGEST_A"
camera_make cam3 13 "$DIGEST_A"

bulk() { # NS HOST BYTES [WINDOW]
	in_ns "$1" timeout 60 python3 "$LIB/traffic.py" tls-bulk "$2" 8883 "$D/pki" "$1" "${@:3}"
}
must "a clean wire carries a session" 10 tls_answers cam1 cam1
check "10 MB there and back over a clean wire" bulk cam1 "$GW4" 10485760
check "the same over IPv6" bulk cam1 "$GW6" 10485760
check "1 MB into a window of 2 kB" bulk cam1 "$GW4" 1048576 2048

wire_put cam2 --loss 1 --repeat 2 --late 5
wire=$LAST
must "a bad wire carries a session" 10 tls_answers cam2 cam2
check "1 MB there and back over a bad wire" bulk cam2 "$GW4" 1048576
check "the same over IPv6" bulk cam2 "$GW6" 1048576
end "$wire"
say "  $(tail -1 "$D/wire-cam2.out")"
check_match "the wire was bad" 'lost=[1-9].* repeated=[1-9].* late=[1-9]' "$(tail -1 "$D/wire-cam2.out")"

in_ns cam3 ip link set eth0 mtu 576
capture sw p-gw small 'host 10.7.0.13 and tcp port 8883'
check "1 MB to and from a device with frames of 576 bytes" bulk cam3 "$GW4" 1048576
check_match "the witness saw it" '^[1-9][0-9]' "$(captured small | wc -l)"
check_eq "no larger frame goes to it" 0 "$(captured small | awk '{ for (i = 1; i < NF; i++) if ($i == "length" && $(i + 1) + 0 > 536) n++ } END { print n + 0 }')"

resets=0
for when in connected hello flight finished open full half; do
	for host in "$GW4" "$GW6"; do
		check "reset: $when, $host" in_ns cam1 timeout 20 python3 "$LIB/traffic.py" tls-reset "$host" 8883 "$D/pki" cam1 "$when"
		resets=$((resets + 1))
	done
done
check_eq "resets" 14 "$resets"
check "no session of theirs stays" wait_for 5 has_sessions camera/cam1 0
check "the next one gets in" tls_answers cam1 cam1
upstream_closed() { [ "$(in_ns core ss -Htn state established "sport = :1883" | wc -l)" = 0 ]; }
check "nor a connection to the upstream" wait_for 5 upstream_closed
