#!/bin/bash
# 11. A policy change stops the flows that the new policy forbids and costs the others no packet; a broken file changes
#     nothing and says where it is broken; whoever changes the nft table finds it restored, and an alarm raised.
. "$(dirname "$0")/lib.sh"
world_up s11
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
sensor_make s1 21
cert_make wcam "URI:$(id_of camera/wcam)"
vouch camera/wcam "$DIGEST_A"
echo_both udp core "$NVR4" "$NVR6" 5000
echo_both udp core "$NVR4" "$NVR6" 5050
echo_both udp core "$UPD4" "$UPD6" 443
echo_both tcp core "$NVR4" "$NVR6" 554
echo_both tcp core "$NVR4" "$NVR6" 1883
echo_both udp cam1 10.7.0.11 fd07::11 7000
in_both cam1 cam1 camera/cam1
in_both s1 s1 sensor/s1
sensor4=$LAST4 sensor6=$LAST6
in_both w1 wcam camera/wcam "$WIFI4" "$WIFI6"

kept=(u u-v6 t t-v6 trigger trigger-v6 w w-v6)
gone=(u5000 u5000-v6 t554 t554-v6 w5000 w5000-v6)
udp_flows cam1 "$NVR4" "$NVR6" 5050 u
tcp_flows cam1 "$NVR4" "$NVR6" 1883 t
udp_flows s1 10.7.0.11 fd07::11 7000 trigger
udp_flows w1 "$NVR4" "$NVR6" 5050 w
udp_flows cam1 "$NVR4" "$NVR6" 5000 u5000
tcp_flows cam1 "$NVR4" "$NVR6" 554 t554
udp_flows w1 "$NVR4" "$NVR6" 5000 w5000
must "all is served under the first policy" 15 all_run "${kept[@]}" "${gone[@]}"
check "the camera's session reaches its upstream" session_echoes cam1 "$GW4"
check "the sensor's session reaches its upstream" session_echoes s1 "$GW4"

# ---- another policy -----------------------------------------------------------------------------
# Video keeps one range, sensors lose the broker.
sed -e 's|service = \[ "tcp/554", "udp/5000-5100" \]|service = "udp/5050-5100"|' -e '/name = "sensor-mqtt"/d' \
	"$D/segments.cfg" >"$D/tighter.cfg"
declare -A lost sent
for f in "${kept[@]}"; do
	lost[$f]=$(flow_lost "$f")
	sent[$f]=$(awk '{print $1}' "$D/$f.flow")
done
epoch=$(ctl_json status .policy.epoch)
receipt=$(ctl policy apply "$D/tighter.cfg" 2>&1)
check_eq "policy apply says it is in force" 0 "$?"
check_match "the receipt says what it closed: the sensor's sessions and the camera's four flows" \
	': 2 sessions and 4 flows closed, 0 untracked' "$receipt"
check_eq "the policy is another one" "$((epoch + 1)) decision" "$(ctl_json status '"\(.policy.epoch) \(.policy.source)"')"
check "what it forbids has stopped, on both paths, IPv4 and IPv6" all_stopped "${gone[@]}"
for f in "${kept[@]}"; do
	wait_for 10 flow_sent_beyond "$f" $((sent[$f] + 100))
	check "flow $f lost no packet over the change" wait_for 2 flow_lost_at_most "$f" "${lost[$f]}"
done
check "the camera's session is the same and goes on" session_echoes cam1 "$GW4"
check "the same over IPv6" session_echoes cam1-v6 "$GW6"
check "the sensor's session, without an upstream now, has ended" wait_for 3 not_running "$sensor4"
check "the same over IPv6" wait_for 3 not_running "$sensor6"
check_not "and a new one does not reach it" tls_answers s1 s1

# ---- broken files -------------------------------------------------------------------------------
state() { ctl_json status '"\(.policy.epoch) \(.policy.sha256) \(.controller.revision)"'; }
good=$(state)
broken() { # WHAT FILE REGEX: neither sallyctl nor the controller takes it
	local out answer
	out=$(ctl policy apply "$2" 2>&1)
	check_eq "$1: sallyctl exits with 4" 4 "$?"
	check_match "$1: sallyctl says where" "$3" "$out"
	# past sallyctl's own check, as another client would
	answer=$(jq -cRs '{cmd: "policy_apply", file: "broken.cfg", text: .}' "$2" | timeout 10 nc -U -N "$D/run/controller.sock")
	check_eq "$1: the controller refuses it" "false invalid" "$(jq -r '"\(.ok) \(.code)"' <<<"$answer")"
	check_match "$1: the controller says where" "$3" "$(jq -r '.errors | join("\n")' <<<"$answer")"
	check_eq "$1: nothing has changed" "$good" "$(state)"
}
line=$(grep -n 'name = "update"' "$D/tighter.cfg" | cut -d: -f1)
sed 's/from = "remediation"/from = "remediatoin"/' "$D/tighter.cfg" >"$D/broken.cfg"
broken "a segment that is none" "$D/broken.cfg" "^broken.cfg:$line: from: "
head -c -4 "$D/tighter.cfg" >"$D/broken.cfg"
broken "a cut file" "$D/broken.cfg" "^broken.cfg:[1-9][0-9]*: "
{
	echo 'segments = ('
	for i in {1..599}; do echo "{ name = \"s$i\"; },"; done
	echo '{ name = "s600"; } );'
	echo 'rules = ( { name = "all"; from = "any"; to = "any"; service = "tcp/1"; } );'
} >"$D/broken.cfg"
broken "more than a plane can hold" "$D/broken.cfg" "^broken.cfg:602: all: more than [0-9]+ entries"
echo '# nothing' >"$D/broken.cfg"
broken "a file without segments" "$D/broken.cfg" "^broken.cfg: segments: "
check "what was served is served" all_run "${kept[@]}"

# ---- back ---------------------------------------------------------------------------------------
check "the first policy again" ctl policy apply "$D/segments.cfg"
check "what it allows comes back" wait_for 10 all_run u5000 u5000-v6 w5000 w5000-v6
check "the sensor's sessions too" tls_answers s1 s1

# ---- somebody else at the table -----------------------------------------------------------------
# Without what counts or runs out; elements in order.
table() {
	in_ns gw nft -j list table inet sallyport | jq -S '[.nftables[] | del(.. | .handle?, .packets?, .bytes?, .expires?, .timeout?)
		| if .set.elem? then .set.elem |= sort else . end | if .map.elem? then .map.elem |= sort else . end]'
}
table >"$D/table.good"
restored() { table >"$D/table.now" 2>/dev/null && cmp -s "$D/table.good" "$D/table.now"; }
check "the table is as it was a moment ago" restored
alarms() { log_of agent | grep -c 'ALARM tampered'; }
newest_alarm() { ctl_json status '.alarms[0] | "\(.kind) \(.text)"'; }
alarm_more() { [ "$(alarms)" -gt "$1" ]; }
# A camera where it may not go, and a stranger's address, on the kernel-only port.
in_ns w1 ip addr add 10.9.0.66/24 dev eth0
udp_flows w1 "$UPD4" "$UPD6" 443 forbidden
spawn w1 stranger socat -u SYSTEM:'while echo x; do sleep 0.05; done' "UDP4-SENDTO:$NVR4:5050,bind=10.9.0.66"
spawn cam1 forbidden-cam1 python3 "$LIB/traffic.py" udp-flow "$UPD4" 443 "$D/forbidden-cam1.flow"
must "the forbidden ones try" 5 flow_sent_beyond forbidden-v6 5
wrong='udp and (host 10.9.0.66 or host 10.20.0.80 or host fd20::80)'
capture core eth0 wrong -Q in "$wrong"
tamper() { # OPEN|SHUT WHAT NFT-COMMAND: seen, repaired, told. OPEN: it may let packets through until it is repaired
	local n out open=$1 what=$2
	shift 2
	n=$(alarms)
	out=$(in_ns gw nft "$@" 2>&1) || die "nft $*: $out"
	if wait_for 1 restored; then
		pass "$what: the table is back within a second"
	else
		fail "$what: the table is back within a second" "$(diff "$D/table.good" "$D/table.now" | head -20)"
	fi
	check "$what: the log has an alarm" wait_for 1 alarm_more "$n"
	check_match "$what: sallyctl status has it" '^tampered nftables: .* by nft .pid [0-9]+.; restored$' "$(newest_alarm)"
	# What the core got until now came while the table was open; from here on nothing may.
	if [ "$open" = open ]; then
		end "$LAST"
		capture core eth0 wrong -Q in "$wrong"
	fi
	wait_for 3 flow_sent_beyond forbidden $(($(awk '{print $1}' "$D/forbidden.flow") + 15)) || die "no traffic"
	check_eq "$what: nothing forbidden passes" 0 "$(seen wrong)"
}
tamper shut "table flushed" flush table inet sallyport
tamper shut "bindings flushed" flush set inet sallyport bound4
tamper open "accept rule inserted" insert rule inet sallyport forward accept
tamper open "stranger made a camera" add element inet sallyport segment4 "{ 10.9.0.66 : $(ctl_json segments '.segments[] | select(.name == "cameras") | .id') }"
tamper open "chain's policy set to accept" add chain inet sallyport forward '{ policy accept; }'
tamper open "table deleted" delete table inet sallyport
tamper open "ruleset flushed" flush ruleset
# A policy comes as the difference to the one before it: also where that is not what stands in the table any more.
for what in "flush map inet sallyport verdicts" "flush table inet sallyport" "delete table inet sallyport"; do
	in_ns gw nft "$what" || die "nft $what"
	check "a policy right after: $what" ctl policy apply "$D/tighter.cfg"
	check "what it forbids has stopped, on both paths" all_stopped u5000 u5000-v6 w5000 w5000-v6
	check "the first policy again" ctl policy apply "$D/segments.cfg"
	check "the table is as it was before" wait_for 2 restored
	check "what it allows comes back" wait_for 10 all_run u5000 u5000-v6 w5000 w5000-v6
done
check "what is allowed runs on both paths" all_run "${kept[@]}"
in_ns gw nc -u -w 1 "$UPD4" 443 <<<"awake" >/dev/null
awake() { [ "$(seen wrong)" -gt 0 ]; }
check "the witness sees what arrives" wait_for 3 awake
