#!/bin/bash
# 9. An attestation result expires with no event at all while the agent is stopped: the dataplane and the TLS worker read
#    the clock themselves, and the kernel path, which cannot know more, shuts with its lease. Then the agent wakes up, and the device is in remediation.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s09
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
camera_make cam2 12 "$DIGEST_A"
CAM4=10.7.0.11 CAM6=fd07::11
for port in 1883 554; do echo_both tcp core "$NVR4" "$NVR6" "$port"; done
echo_both udp core "$NVR4" "$NVR6" 5000
echo_both tcp core "$UPD4" "$UPD6" 443
in_both cam1 cam1 camera/cam1
session4=$LAST4 session6=$LAST6
device_in cam2 cam2 camera/cam2
other=$LAST
udp_flows cam1 "$NVR4" "$NVR6" 5000 udp
tcp_flows cam1 "$NVR4" "$NVR6" 554 tcp
udp_flow cam2 "$NVR4" 5000 other
FLOWS=(udp udp-v6 tcp tcp-v6)
check "flows run, UDP and TCP, in both families" wait_for 5 all_run "${FLOWS[@]}" other
ping_large() { in_ns "$1" ping -n -c 1 -W 1 -s 3000 "$2"; }
check "and the kernel path (fragments) is open" ping_large cam2 "$NVR4"
lost=$(flow_lost other)
capture core eth0 core "host $CAM4 or host $CAM6"
core=$LAST
capture cam1 eth0 device "inbound and (src host $NVR4 or src host $NVR6)"
device=$LAST
capture cam1 eth0 session inbound and tcp src port 8883
session=$LAST

# ---- a result that is good for six seconds -----------------------------------------------------
early=$(($(now_ms) + 6000))
ctl attest "$(id_of camera/cam1)" --digest "sha256:$DIGEST_A" --tier affirming --for 6s >/dev/null || die attest
late=$(($(now_ms) + 6000))
agent=$(daemon_pid agent)
kill -STOP "$agent"
stopped() { grep -q '^State:[[:space:]]*T' "/proc/$agent/status"; }
check "the agent is stopped" wait_for 1 stopped
check "the flows go on without it" all_run "${FLOWS[@]}" other
check_eq "all that was before the expiry" true "$([ "$(now_ms)" -lt "$early" ] && echo true)"
past() { [ "$(now_ms)" -gt $((late + 300)) ]; }
must "the moment passes" 10 past
check "the flows have stopped" all_stopped "${FLOWS[@]}"
check "the idle session has ended, IPv4" wait_for 2 not_running "$session4"
check "the idle session has ended, IPv6" wait_for 2 not_running "$session6"
check_not "a new connection of the device has no answer" tcp_try cam1 "$NVR4" 554 0.5
check "the agent is still stopped" stopped
check "another device's flow goes on" flow_runs other
check_not "and its session has not ended" not_running "$other"
check "and relays" session_echoes cam2 "$GW4"
shut=$(kernel_count no_lease)
check_not "the kernel path, which cannot ask for a lease, has shut" ping_large cam2 "$NVR4"
check_eq "and counted it" true "$([ "$(kernel_count no_lease)" -gt "$shut" ] && echo true)"
check "its flow has lost nothing" wait_for 3 flow_lost_at_most other "$lost"
end "$core" "$device" "$session"

# The expiry lies between $early and $late. within TOLERANCE-MS AT-MS; on_time AT-MS
within() { [ "$2" -ge $((early - $1)) ] && [ "$2" -le $((late + $1)) ]; }
on_time() { [ "$1" -ge "$early" ] && [ "$1" -le $((late + 1000)) ]; }
for a in "$CAM4" "$CAM6"; do
	for proto in udp tcp; do
		last=$(last_ms core "src host $a and $proto")
		say "        last $proto packet of $a on the core side $((last - early)) ms after the expiry (which is known to $((late - early)) ms)"
		check "it is within a quarter of a second of the expiry" within 250 "$last"
	done
done
check "so is the last packet to the device" within 250 "$(last_ms device)"
for host in "$GW4" "$GW6"; do
	ended=$(first_ms session "src host $host")
	say "        the session at $host began to end $((ended - early)) ms after the expiry"
	check "that is within a second, and not before" on_time "$ended"
done
check_match "with the alert certificate_expired" 'alert certificate expired' "$(log_of tls-cam1)"
check_match "in IPv6 too" 'alert certificate expired' "$(log_of tls-cam1-v6)"

# ---- the agent goes on --------------------------------------------------------------------------
kill -CONT "$agent"
check "then the device is in remediation" wait_for 5 has_standing camera/cam1 remediation
check_eq "of the same agent" "$agent" "$(daemon_pid agent)"
check "where it reaches the update server" wait_for 5 tcp_try cam1 "$UPD4" 443 0.5
check "in IPv6 too" wait_for 5 tcp_try cam1 "$UPD6" 443 0.5
check_not "and not the recorder" tcp_try cam1 "$NVR4" 554 0.5
check_match "sallyctl why names the attestation" 'attestation.*expired|EXPIRED' "$(ctl why "$(id_of camera/cam1)")"
check "the kernel path is open again" wait_for 3 ping_large cam2 "$NVR4"
check_eq "the other device has its full standing" full "$(standing_of camera/cam2)"
