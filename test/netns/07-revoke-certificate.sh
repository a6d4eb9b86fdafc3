#!/bin/bash
# 7. A certificate is revoked while its device talks: a running UDP flow, a running TCP flow, traffic on the kernel path and
#    an idle TLS session all end, in both families; captures on both sides show the last packets. Another device does not notice.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s07
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
camera_make cam2 12 "$DIGEST_A"
CAM4=10.7.0.11 CAM6=fd07::11
for port in 1883 554; do echo_both tcp core "$NVR4" "$NVR6" "$port"; done
echo_both udp core "$NVR4" "$NVR6" 5000
in_both cam1 cam1 camera/cam1
idle4=$LAST4 idle6=$LAST6
in_both cam2 cam2 camera/cam2
other4=$LAST4 other6=$LAST6
for d in cam1 cam2; do
	udp_flows "$d" "$NVR4" "$NVR6" 5000 "$d-udp"
	tcp_flows "$d" "$NVR4" "$NVR6" 554 "$d-tcp"
done
END=(cam1-udp cam1-udp-v6 cam1-tcp cam1-tcp-v6)
STAY=(cam2-udp cam2-udp-v6 cam2-tcp cam2-tcp-v6)
check "flows of both devices run, UDP and TCP, in both families" wait_for 5 all_run "${END[@]}" "${STAY[@]}"
ping_large() { in_ns "$1" ping -n -c 1 -W 1 -s 3000 "$2"; }
check "and the kernel path (fragments) is open" ping_large cam1 "$NVR4"
lost=$(($(flow_lost cam2-udp) + $(flow_lost cam2-udp-v6)))
flows_of() { ctl_json flows "[.flows[] | select(.device_src == \"$(id_of "camera/$1")\")] | length"; }
check_eq "the dataplane has its four flows, and the ping's" 5 "$(flows_of cam1)"

capture core eth0 core "host $CAM4 or host $CAM6"
core=$LAST
capture cam1 eth0 device inbound
device=$LAST
both_captured() { [ "$(seen core "src host $CAM4")" -gt 10 ] && [ "$(seen device "src host $NVR6")" -gt 10 ]; }
must "both sides see the flows" 5 both_captured

receipt=$(ctl revoke "$(id_of camera/cam1)" --reason stolen)
done_ms=$(now_ms)
say "        $receipt"
check_match "sallyctl revoke prints the receipt: 2 sessions, 5 flows, none untracked" \
	'^revision [0-9]+ in force on gw1 in [0-9]+ µs: 2 sessions and 5 flows closed, 0 untracked' "$receipt"
check "all its flows stop, and are not let in again" all_stopped "${END[@]}"
check_not "the kernel path is closed too" ping_large cam1 "$NVR4"
check "the idle session ended, IPv4" wait_for 3 not_running "$idle4"
check "the idle session ended, IPv6" wait_for 3 not_running "$idle6"
check_match "with the alert certificate_revoked, IPv4" 'alert certificate revoked' "$(log_of tls-cam1)"
check_match "with the alert certificate_revoked, IPv6" 'alert certificate revoked' "$(log_of tls-cam1-v6)"

end "$core" "$device"
# The agent writes its line when all enforcement points have answered: the clocks of captures and log are one.
begun=$(log_ms agent 'revision [0-9]+: revoke') closed=$(log_ms agent 'revision [0-9]+ in force .*flows_closed=5')
check_eq "the receipt came when it was in force" true "$([ "$closed" -le "$done_ms" ] && echo true)"
for a in "$CAM4" "$CAM6"; do
	last=$(last_ms core "src host $a")
	say "        last packet of $a on the core side: $((last - begun)) ms after the decision arrived, in force after $((closed - begun)) ms"
	check_eq "no packet of $a on the core side after that" true "$([ "$last" -le "$((closed + 1))" ] && echo true)"
	check_eq "it was there until then" true "$([ "$last" -ge "$((done_ms - 1000))" ] && echo true)"
done
for a in "$NVR4" "$NVR6"; do
	last=$(last_ms device "src host $a")
	check_eq "no packet of $a to the device after that" true "$([ "$last" -le "$((closed + 1))" ] && echo true)"
done

check_eq "its standing is revoked" revoked "$(standing_of camera/cam1)"
again=$(tls cam1 cam1 "$GW4" -ign_eof)
check_match "and it does not get in again" 'alert (certificate revoked|access denied)' "$again"
check_match "sallyctl why names the revocation" 'revoked' "$(ctl why "$(id_of camera/cam1)")"
counted() { [ "$(drops revoked)" -gt 0 ]; }
check "the drops are counted under \"revoked\"" wait_for 3 counted

check "the other device's flows go on" all_run "${STAY[@]}"
others_lost() { [ $(($(flow_lost cam2-udp) + $(flow_lost cam2-udp-v6))) -le "$lost" ]; }
check "and have lost nothing" wait_for 3 others_lost
check_not "its session has not ended, IPv4" not_running "$other4"
check_not "its session has not ended, IPv6" not_running "$other6"
check "and relays" session_echoes cam2 "$GW4"
check "in IPv6 too" session_echoes cam2-v6 "$GW6"
