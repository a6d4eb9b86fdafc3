#!/bin/bash
# 10. kill -9 of each process under traffic: nothing passes that was not allowed before, and service returns by itself.
#     With all processes dead, nothing crosses the box.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s10
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
camera_make cam3 13 "$DIGEST_A"
device_make d2 66
cert_make wcam "URI:$(id_of camera/wcam)"
vouch camera/wcam "$DIGEST_A"
for a in "$NVR4" "$NVR6"; do
	spawn core "mqtt-${a//:/_}" python3 "$LIB/traffic.py" tcp-echo "$a" 1883
done
echo_both udp core "$NVR4" "$NVR6" 5000
echo_both udp core "$UPD4" "$UPD6" 443
echo_both tcp core "$NVR4" "$NVR6" 554
echo_both tcp cam1 10.7.0.11 fd07::11 8080

in_both cam1 cam1 camera/cam1
session4=$LAST4 session6=$LAST6
in_both w1 wcam camera/wcam "$WIFI4" "$WIFI6"
device_in cam3 cam3 camera/cam3
udp_flow cam3 "$NVR4" 5000 revoked
must "the camera to be revoked is served" 10 flow_runs revoked
ctl revoke "$(id_of camera/cam3)" --reason stolen >"$D/revoke.log" 2>&1
check "the camera is revoked before any crash" has_standing camera/cam3 revoked
check "and its flow has ended" flow_stopped revoked

# Who keeps trying all the time: the revoked camera, a stranger, a camera where it may not go; the core towards a stranger.
wrong='(udp or tcp) and (host 10.7.0.66 or host fd07::66 or host 10.7.0.13 or host 10.20.0.80 or host fd20::80)'
capture core eth0 wrong -Q in "$wrong"
capture d2 eth0 to-stranger -Q in 'src net 10.20.0.0/24 or src net fd20::/64'
udp_flows d2 "$NVR4" "$NVR6" 5000 stranger
udp_flows cam1 "$UPD4" "$UPD6" 443 forbidden
udp_flows w1 "$UPD4" "$UPD6" 443 forbidden-w1
udp_flow core 10.7.0.66 5000 to-stranger
# shellcheck disable=SC2016 # for the inner shell
spawn d2 knock bash -c 'while :; do nc -z -w 1 "$1" 554; nc -z -w 1 "$2" 554; done' _ "$NVR4" "$NVR6"

# Who is served.
allowed=(u u-v6 t t-v6)
udp_flows cam1 "$NVR4" "$NVR6" 5000 u
tcp_flows cam1 "$NVR4" "$NVR6" 554 t
udp_flows w1 "$NVR4" "$NVR6" 5000 w
must "the cameras are served" 10 all_run "${allowed[@]}" w w-v6
check "the core reaches the camera's web page" tcp_try core 10.7.0.11 8080

tries() { awk '{ n += $1 } END { print n }' "$D"/{stranger,forbidden,forbidden-w1}{,-v6}.flow "$D/revoked.flow"; }
nothing_wrong() { # WHEN: the witnesses saw none of all that was tried
	check_eq "$1: nothing reached the core that may not" 0 "$(seen wrong)"
	check_eq "$1: nothing reached the stranger" 0 "$(seen to-stranger)"
}
another_pid() { [ -n "$(daemon_pid "$1")" ] && [ "$(daemon_pid "$1")" != "$2" ]; }
crash() { # DAEMON: kill -9; back, by itself, and in step
	local pid
	pid=$(daemon_pid "$1")
	kill -KILL "$pid" || die "kill $1"
	check "$1 killed: it is started again" wait_for 10 another_pid "$1" "$pid"
	check "$1 killed: the gateway is whole again" wait_for 20 gw_ready
}
declare -A lost sent
note() {
	local f
	for f in "${allowed[@]}"; do
		lost[$f]=$(flow_lost "$f")
		sent[$f]=$(awk '{print $1}' "$D/$f.flow")
	done
}
undisturbed() { # DAEMON: over the crash and half a second more, next to nothing got lost
	local f
	for f in "${allowed[@]}"; do
		wait_for 10 flow_sent_beyond "$f" $((sent[$f] + 75))
		check "$1 killed: flow $f lost nothing" wait_for 2 flow_lost_at_most "$f" $((lost[$f] + 2))
	done
}

# ---- each alone ---------------------------------------------------------------------------------
before=$(tries)
note
crash agent
undisturbed agent
check "agent killed: TLS sessions live on" session_echoes cam1 "$GW4"
check "agent killed: and it knows them again" wait_for 5 has_sessions camera/cam1 2
check_eq "agent killed: the revoked camera stays revoked" revoked "$(standing_of camera/cam3)"
check_match "agent killed: the revoked camera is not let in" 'alert|error' "$(tls cam3 cam3 "$GW4" -ign_eof)"
check "agent killed: the kernel path serves its camera" all_run w w-v6
nothing_wrong "agent killed"

note
crash controller
undisturbed controller
ctl enrol "$(id_of sensor/new)" >"$D/enrol.log" 2>&1
check "controller killed: it decides again" has_standing sensor/new unknown
check "controller killed: TLS sessions live on" session_echoes cam1 "$GW4"
nothing_wrong "controller killed"

note
crash tls-proxy
undisturbed tls-proxy
# The kernel resets its sockets; of the stack the next process does, at the next byte.
ends() { # PID NAME HOST
	[ "$TRANSPORT" = socket ] || session_says "$2" "$3" still there || return 1
	not_running "$1"
}
check "tls-proxy killed: its sessions end" wait_for 5 ends "$session4" cam1 "$GW4"
check "tls-proxy killed: in both families" wait_for 5 ends "$session6" cam1-v6 "$GW6"
check "tls-proxy killed: the camera comes in again at once" tls_answers cam1 cam1
check "tls-proxy killed: over IPv6 too" tls_answers cam1 cam1 "$GW6"
check_match "tls-proxy killed: the revoked camera is not let in" 'alert|error' "$(tls cam3 cam3 "$GW4" -ign_eof)"
nothing_wrong "tls-proxy killed"

crash dataplane
check "dataplane killed: UDP comes back" wait_for 10 all_run u u-v6
check "dataplane killed: TCP is picked up mid-stream" wait_for 10 all_run t t-v6
check "dataplane killed: the core reaches the camera's web page" tcp_try core 10.7.0.11 8080
check "dataplane killed: the camera comes in again" tls_answers cam1 cam1
check "dataplane killed: the kernel path serves its camera" all_run w w-v6
nothing_wrong "dataplane killed"
check "all the time they went on trying" test $(($(tries) - before)) -gt 1000

# ---- all at once --------------------------------------------------------------------------------
wants_down() { sv status "$D/sv/$1" | grep -q 'want down'; }
daemons=(dataplane tls-proxy agent controller)
pids=()
for d in "${daemons[@]}"; do
	pids+=("$(daemon_pid "$d")")
	sv once "$D/sv/$d" >/dev/null # not to be started again
	must "runit leaves $d down" 5 wants_down "$d"
done
kill -KILL "${pids[@]}" || die "kill ${pids[*]}"
for p in "${pids[@]}"; do must "process $p is dead" 5 not_running "$p"; done
capture core eth0 dead -Q in '(udp or tcp) and (net 10.7.0.0/24 or net fd07::/64)'
capture cam1 eth0 dead-cam1 -Q in 'src net 10.20.0.0/24 or src net fd20::/64'
check "all dead: the fast path's flows stand still" all_stopped "${allowed[@]}"
check "all dead: the kernel-only port is shut when the agent's lease ends" wait_for 8 all_stopped w w-v6
capture core eth0 dead-w1 -Q in '(udp or tcp) and (net 10.9.0.0/24 or net fd09::/64)'
check_not "all dead: no new connection, IPv4" tcp_try cam1 "$NVR4" 554 0.5
check_not "all dead: no new connection, IPv6" tcp_try cam1 "$NVR6" 554 0.5
check_not "all dead: no new connection on the kernel-only port" tcp_try w1 "$NVR4" 554 0.5
check_not "all dead: none from the core to a camera" tcp_try core 10.7.0.11 8080 0.5
check_not "all dead: no ping across" ping_try cam1 "$NVR4"
check "all dead: flows on the kernel-only port stand still" all_stopped w w-v6
check_eq "all dead: nothing crossed from the DPDK port" 0 "$(seen dead)"
check_eq "all dead: nothing crossed towards the camera" 0 "$(seen dead-cam1)"
check_eq "all dead: nothing crossed from the kernel-only port" 0 "$(seen dead-w1)"
for d in "${daemons[@]}"; do check_eq "all dead: $d is down" "" "$(daemon_pid "$d")"; done

for d in "${daemons[@]}"; do daemon_start "$d"; done
check "started again: the gateway is ready" wait_for 30 gw_ready
check "started again: UDP comes back" wait_for 15 all_run u u-v6
check "started again: new TCP connections, IPv4" wait_for 10 tcp_try cam1 "$NVR4" 554
check "started again: new TCP connections, IPv6" wait_for 10 tcp_try cam1 "$NVR6" 554
check "started again: also on the kernel-only port" wait_for 15 all_run w w-v6
check "started again: the camera comes in" tls_answers cam1 cam1
check_eq "started again: the revoked camera stays revoked" revoked "$(standing_of camera/cam3)"
check_match "started again: the revoked camera is not let in" 'alert|error' "$(tls cam3 cam3 "$GW4" -ign_eof)"
nothing_wrong "at the end"

# The witnesses were awake: what does cross, they see.
in_ns gw nc -u -w 1 "$UPD4" 443 <<<"awake" >/dev/null
awake() { [ "$(seen "$1" "${@:2}")" -gt 0 ]; }
check "the witness at the core sees what arrives" wait_for 3 awake wrong
check "the witness of the dead box sees what crosses the living one" wait_for 3 awake dead
check "the one of the kernel-only port too" wait_for 3 awake dead-w1
