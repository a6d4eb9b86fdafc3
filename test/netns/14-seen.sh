#!/bin/bash
# 14. What is seen from outside: counters of rules, segment pairs and devices equal what tcpdump counted, to the packet
#     and the byte, while flows live, after they have ended and after another policy.
METRICS_EXTRA='devices = true;'
. "$(dirname "$0")/lib.sh"
world_up s14
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
sensor_make s1 12
CAM4=10.7.0.11 S4=10.7.0.12
echo_both udp core "$NVR4" "$NVR6" 5000
echo_both udp cam1 "$CAM4" fd07::11 7000
for port in 554 1883; do echo_both tcp core "$NVR4" "$NVR6" "$port"; done
device_in cam1 cam1 camera/cam1
device_in s1 s1 sensor/s1

# packets and bytes (of IP, as counted) of a capture: "PACKETS BYTES"
witness() { # NAME FILTER...
	local name=$1
	shift
	tcpdump -n -v -r "$D/$name.pcap" "$@" 2>/dev/null |
		sed -n 's/^.* IP (.*, length \([0-9]*\))$/\1/p' | awk '{ n++; b += $1 } END { print n + 0, b + 0 }'
}
rule() { # NAME JQ-EXPRESSION: of what the rule let pass
	ctl_json stats rules "[.rules[] | select(.rule == \"$1\" and .verdict == \"allowed\")][0] // {packets: 0, bytes: 0, flows: 0, open: 0} | $2"
}
pair() { # FROM TO JQ-EXPRESSION
	ctl_json stats pairs "[.pairs[] | select(.from == \"$1\" and .to == \"$2\")][0] // {packets: 0, bytes: 0, refused: 0} | $3"
}
device() { # PATH JQ-EXPRESSION
	ctl_json stats devices --device "$(id_of "$1")" ".devices[0] | $2"
}

# ---- counters are what an outside witness counted ------------------------------------------------
capture core eth0 core "host $CAM4 and (udp port 5000 or tcp port 554)"
core=$LAST
capture cam1 eth0 cam1 "host $S4 and udp port 7000"
cam=$LAST
for _ in 1 2 3 4 5 6 7; do must "an answer from the recorder" 5 udp_try cam1 "$NVR4" 5000; done
for _ in 1 2 3; do must "a TCP answer from the recorder" 5 tcp_try cam1 "$NVR4" 554; done
for _ in 1 2 3 4 5; do must "an answer from the camera" 5 udp_try s1 "$CAM4" 7000; done
video_seen() { [ "$(rule video '"\(.packets) \(.bytes)"')" = "$(witness core)" ]; }
check "rule video: packets and bytes are tcpdump's, of live flows" wait_for 5 video_seen
trigger_seen() { [ "$(rule trigger '"\(.packets) \(.bytes)"')" = "$(witness cam1)" ]; }
check "rule trigger too" wait_for 5 trigger_seen
read -r packets bytes <<<"$(witness core)"
check_match "the witness saw the packets" '^[1-9][0-9]*$' "$packets"
check_eq "rule video counts its flows" 10 "$(rule video .flows)"
check_eq "the pair cameras > nvr has the same" "$packets $bytes" "$(pair cameras nvr '"\(.packets) \(.bytes)"')"
read -r more more_bytes <<<"$(witness cam1)"
check_eq "the camera has the sum of both" "$((packets + more)) $((bytes + more_bytes))" \
	"$(device camera/cam1 '"\(.packets) \(.bytes)"')"
check_eq "the sensor has its own" "$more $more_bytes" "$(device sensor/s1 '"\(.packets) \(.bytes)"')"

# ---- refusals -----------------------------------------------------------------------------------
capture cam1 eth0 refused "src host $CAM4 and udp dst port 6000"
refused=$LAST
for _ in 1 2 3 4 5 6; do check_not "another port is refused" udp_try cam1 "$NVR4" 6000 0.1; done
refused_seen() { [ "$(pair cameras nvr .reasons.denied)" = "$(witness refused | cut -d' ' -f1)" ]; }
check "cameras > nvr denied: as many as the camera sent" wait_for 5 refused_seen
check_eq "and the camera's refused packets" 6 "$(device camera/cam1 .refused)"
check_match "people can read it" 'cameras +nvr .* denied 6' "$(ctl stats pairs)"

# ---- flows --------------------------------------------------------------------------------------
check_eq "the largest flow is found, by rule" video \
	"$(ctl_json flows --rule video --top 1 --by bytes '.flows | map(.rule) | join(" ")')"
check_eq "flows of a segment" "trigger" \
	"$(ctl_json flows --segment sensors '[.flows[] | select(.state != "diverted") | .rule] | unique | join(" ")')"
check_eq "an unknown rule is an error" 1 "$(ctl flows --rule nosuch >/dev/null 2>&1; echo $?)"

# ---- another policy -----------------------------------------------------------------------------
{ sed -e '/name = "mqtt"; from/i\  { name = "first"; from = "meters"; to = "nvr"; service = "tcp/1"; },' "$D/segments.cfg"; } \
	>"$D/moved.cfg"
must "the rules move" 5 ctl policy apply "$D/moved.cfg"
check "counters go on under the rule's name" video_seen
must "an answer from the recorder" 5 udp_try cam1 "$NVR4" 5000
check "and count on" wait_for 5 video_seen

# ---- ports and lcores ---------------------------------------------------------------------------
check_match "a core's load" '^[0-9.]+ [0-9.]+ [0-9.]+$' \
	"$(ctl_json stats lcores '.lcores[0] | select(.packets > 0) | "\(.busy_pct) \(.cycles_per_packet) \(.burst_fill)"')"
check_eq "ports" "dev up wifi" "$(ctl_json stats ports '[.ports[].name] | join(" ")')"
check_match "rates" 'PACKETS' "$(ctl stats --rate)"
check_eq "no such part" 2 "$(ctl stats nosuch >/dev/null 2>&1; echo $?)"
end "$core" "$cam" "$refused"

# ---- top ----------------------------------------------------------------------------------------
udp_flow cam1 "$NVR4" 5000 steady
steady=$LAST
must "a flow runs" 5 flow_runs steady
top=$(ctl top --once)
check_match "top --once: cores, ports, the rule and the device" 'CORE.*PORT.*video.*camera/cam1' "$(tr '\n' ' ' <<<"$top")"
# 50 questions and answers a second, and the machine may be slow
check_match "about a hundred packets a second of this flow" '^([2-9][0-9]|1[0-9][0-9])$' \
	"$(ctl_json top --once '.flows[] | select(.dport == 5000 and .state == "established") | .packets')"
end "$steady"
top_on_terminal() { # SIGNAL ("": keys come by standard input): on a terminal; its output in $D/top.out
	# shellcheck disable=SC2016 # for the inner shell
	TERM=xterm timeout 10 script -qec "stty rows 40 cols 120; before=\$(stty -g); \
		{ [ -z '$1' ] || timeout --foreground -s '$1' 2 sallyctl --agent '$D/run/api.sock' top; } ; \
		[ -n '$1' ] || sallyctl --agent '$D/run/api.sock' top; \
		[ \"\$(stty -g)\" = \"\$before\" ] && echo 'the terminal is as it was'" /dev/null >"$D/top.out" 2>&1
}
{ wait_for 5 grep -q 'q quit' "$D/top.out" && printf 'p' && wait_for 5 grep -q 'REFUSED/S' "$D/top.out" && printf 'q'; } |
	top_on_terminal ""
check "top on a terminal: keys, and q ends it" grep -q 'q quit' "$D/top.out"
check "and gives the terminal back" grep -q 'the terminal is as it was' "$D/top.out"
check "it left the alternate screen" grep -q $'\x1b\\[?1049l' "$D/top.out"
for signal in TERM INT HUP; do
	: >"$D/top.out"
	wait_for 8 grep -q 'the terminal is as it was' "$D/top.out" | top_on_terminal "$signal"
	check "also on SIG$signal" grep -q 'the terminal is as it was' "$D/top.out"
done

# ---- metrics ------------------------------------------------------------------------------------
metric() { in_ns gw curl -s http://127.0.0.1:9464/metrics | awk -v name="$1" '$1 == name { print $2 }'; }
metric_is() { [ "$(metric "$1")" = "$2" ]; }
read -r packets bytes <<<"$(rule trigger '"\(.packets) \(.bytes)"')"
check "rule_packets_total is what stats says" \
	wait_for 5 metric_is 'sallyport_rule_packets_total{rule="trigger",from="sensors",to="cameras"}' "$packets"
check_eq "and the bytes" "$bytes" "$(metric 'sallyport_rule_bytes_total{rule="trigger",from="sensors",to="cameras"}')"
check_eq "refusals by pair" 6 "$(metric 'sallyport_pair_refused_packets_total{from="cameras",to="nvr",reason="denied"}')"
check_eq "a device's counters" "$packets" "$(metric "sallyport_device_packets_total{device=\"$(id_of sensor/s1)\"}")"
metrics=$(in_ns gw curl -s http://127.0.0.1:9464/metrics)
check_eq "every sample's family has its help and type" "" \
	"$(awk '/^# HELP/ { h[$3] = 1 } /^# TYPE/ { t[$3] = 1 } /^[^#]/ { sub(/[{ ].*/, ""); if (!h[$0] || !t[$0]) print }' <<<"$metrics")"
check_eq "and is in the reference" "" "$(comm -13 <(sallyport-agent --metrics | awk '{ print $1 }' | sort) \
	<(awk '/^# TYPE/ { print $3 }' <<<"$metrics" | sort))"

# ---- telemetry ----------------------------------------------------------------------------------
SOCKET=$D/run/dpdk/sp-gw1/dpdk_telemetry.v2
check "DPDK's telemetry socket is in the run folder" test -S "$SOCKET"
check_eq "and only root can reach it" "700 0" "$(stat -c '%a %u' "${SOCKET%/*}")"
telemetry() { # QUERY: its answer
	printf '%s\n' "$1" | RUNTIME_DIRECTORY=$D/run dpdk-telemetry.py -f sp-gw1 2>/dev/null | sed -n '/^{"\/sallyport/p'
}
check_eq "lcores" 0 "$(telemetry /sallyport/lcores | jq -r '.[] | join(" ")')"
check_match "a core's counters" '^[1-9]' "$(telemetry /sallyport/lcores,0 | jq -r '.[].packets')"
check_eq "ports" "dev up wifi" "$(telemetry /sallyport/ports | jq -r '.[] | join(" ")')"
check_match "a port's counters" '^[1-9]' "$(telemetry /sallyport/ports,dev | jq -r '.[].rx_packets')"
check_eq "reasons" "$(drops denied)" "$(telemetry /sallyport/reasons | jq -r '.[].denied')"
check_match "totals" '^[1-9]' "$(telemetry /sallyport/stats | jq -r '.[].forwarded')"
for bad in lcores,1 lcores,-1 lcores,x lcores,99999999999999999999 ports,nosuch; do
	check_eq "nothing for $bad" null "$(telemetry "/sallyport/$bad" | jq -r '.[]')"
done

# ---- trace --------------------------------------------------------------------------------------
# trace NAME FILTER...: traces one packet in the background; its JSON in $D/trace-NAME.log
trace() {
	local name=$1
	shift
	sallyctl --agent "$D/run/api.sock" --json trace -n 1 --for 20s "$@" >"$D/trace-$name.log" 2>"$D/trace-$name.err" </dev/null &
	TRACE=$!
	PIDS+=("$TRACE")
	must "the trace is armed" 5 grep -q tracing "$D/trace-$name.err"
}
traced() { jq -r "$2" "$D/trace-$1.log"; } # NAME JQ-EXPRESSION
trace_done() { wait_for 5 not_running "$TRACE"; }
why() { ctl_json why "$@"; } # SRC DST SERVICE JQ-EXPRESSION

trace allowed src "$CAM4" dst "$NVR4" udp/5000
udp_try cam1 "$NVR4" 5000
check "a trace ends with its packet" trace_done
check_eq "an allowed packet" "forwarded none video dev" "$(traced allowed '"\(.verdict) \(.reason) \(.rule) \(.port)"')"
check_match "its rule by file and line" 'segments|moved.*:[0-9]+: "video"' "$(traced allowed '.stages[] | select(.stage == "rule") | .text')"
check_eq "it went through all stages" "receive parse guard route flow admission rule rewrite end" \
	"$(traced allowed '[.stages[].stage] | join(" ")')"
check_eq "why agrees" "allow none" "$(why "$CAM4" "$NVR4" udp/5000 '"\(.verdict) \(.reason)"')"
check_eq "and names the same rule" video "$(why "$CAM4" "$NVR4" udp/5000 .packet.rule)"

trace other proto tcp dport 1
check_eq "one trace at a time" 1 "$(ctl trace drop >/dev/null 2>&1; echo $?)"
end "$TRACE"
trace denied src "$CAM4" drop
check_not "denied" udp_try cam1 "$NVR4" 6001 0.2
trace_done
check_eq "a denied packet" "dropped denied" "$(traced denied '"\(.verdict) \(.reason)"')"
check_eq "why agrees, in the same words" "$(traced denied .text)" "$(why "$CAM4" "$NVR4" udp/6001 .packet.text)"
check_eq "and by the same reason" "deny denied" "$(why "$CAM4" "$NVR4" udp/6001 '"\(.verdict) \(.reason)"')"

mac_of() { in_ns "$1" cat "/sys/class/net/$2/address"; }
trace spoofed reason spoofed
in_ns s1 python3 "$LIB/traffic.py" frame eth0 udp "smac=$(mac_of s1 eth0)" "dmac=$(mac_of gw dev0)" "src=$CAM4" \
	"dst=$NVR4" dport=5000
trace_done
check_eq "a spoofed packet" "dropped spoofed $CAM4" "$(traced spoofed '"\(.verdict) \(.reason) \(.src)"')"
check_match "and where the address is bound" "bound to $(id_of camera/cam1)" "$(traced spoofed '.stages[] | select(.stage == "guard") | .text')"

device_make x1 66
trace stranger host 10.7.0.66 udp/5000
check_not "a stranger's packet" udp_try x1 "$NVR4" 5000 0.2
trace_done
check_eq "a stranger" "dropped stranger" "$(traced stranger '"\(.verdict) \(.reason)"')"
check_eq "why agrees" "deny stranger" "$(why 10.7.0.66 "$NVR4" udp/5000 '"\(.verdict) \(.reason)"')"

trace noroute src "$CAM4" dst 192.0.2.1
check_not "nobody there" udp_try cam1 192.0.2.1 5000 0.2
trace_done
check_eq "no route" "dropped no_route" "$(traced noroute '"\(.verdict) \(.reason)"')"
check_eq "why agrees" "deny no_route" "$(why "$CAM4" 192.0.2.1 udp/5000 '"\(.verdict) \(.reason)"')"

# revoked: the flow that runs is traced at the packet that dies
udp_flow cam1 "$NVR4" 5001 live
echo_both udp core "$NVR4" "$NVR6" 5001
check "a flow runs" flow_runs live
trace revoked src "$CAM4" reason revoked
must "revoke" 5 ctl revoke "$(id_of camera/cam1)"
check "its next packet is traced" trace_done
check_eq "revoked" "dropped revoked" "$(traced revoked '"\(.verdict) \(.reason)"')"
check_eq "why agrees" "deny revoked" "$(why "$CAM4" "$NVR4" udp/5001 '"\(.verdict) \(.reason)"')"
check_eq "a filter that is none" 2 "$(ctl trace nosuch >/dev/null 2>&1; echo $?)"
check_eq "a port that is none" 1 "$(ctl trace port nosuch >/dev/null 2>&1; echo $?)"
