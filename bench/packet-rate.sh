#!/bin/bash
# packet-rate RUNS: the gateway's rates over the rig (rig.sh). Prints one line a measure for bench/run on standard output;
# what happens goes to standard error.
set -u
exec 3>&1 1>&2
. "$(dirname "$0")/rig.sh"
RUNS=$1
MS=${MS:-300} # of one measurement
BIG=${BIG:-100000} # devices
NEW_FLOWS=1000000
WINDOW_MS=${WINDOW_MS:-1000} # of a measurement with the agent at work; that many devices are revoked in it
TURNS=${TURNS:-$((3 * RUNS))} # of those: what a busy machine does to one of a pair shows in their spread
declare -A SAMPLES

# emit NAME UNIT STATISTIC GOAL SAMPLES [REFERENCE SAMPLES]: samples with commas between
emit() { printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "${5#,}" "${6:-}" "$(printf %s "${7:-}" | sed 's/^,//')" >&3; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b <= 0) exit 1; printf "%.4f", a / b }'; }
note() { SAMPLES[$1]+=,$2; } # NAME VALUE
rate() { gen rate "$@" | word_of mpps; } # TARGET MS ...

macswap_rate() {
	testpmd start
	rate macswap "$MS"
	testpmd stop
}
# versus_macswap LABEL GOAL: the present flows through the gateway and through testpmd by turns; the ratio is a pair's
versus_macswap() {
	local i ours ref
	gen_alone
	for ((i = 0; i < RUNS; i++)); do
		ours=$(rate gateway "$MS") ref=$(macswap_rate)
		note "rate_$1" "$ours"
		note "macswap_$1" "$ref"
		note "ratio_$1" "$(ratio "$ours" "$ref")"
	done
	gen_shares
	emit "rate_$1" Mpps median "" "${SAMPLES[rate_$1]}" macswap "${SAMPLES[macswap_$1]}"
	emit "rate_$1_vs_macswap" ratio median "$2" "${SAMPLES[ratio_$1]}"
	say "rate_$1: ${SAMPLES[rate_$1]#,} Mpps, macswap ${SAMPLES[macswap_$1]#,}"
}
# flows LABEL N DEVICES FAMILY FRAMES GOAL: all of them open, then against macswap
flows() {
	gen flows "$2" "$3" "$4" "$5" 10000 >/dev/null
	gen prime gateway >/dev/null
	versus_macswap "$1" "$6"
}

# ---- the gateway's own counters -----------------------------------------------------------------
status_field() { ctl_json status "$1"; }
# Everything that died for a reason which the policy, the trust table or the flow table gives; not what found a ring full
policy_drops() { status_field '[.drops | to_entries[] | select(.key != "tx_full" and .key != "kernel_full") | .value] | add // 0'; }
flows_now() { status_field .dataplane.flows; }
flows_below() { [ "$(flows_now)" -lt "$1" ]; }

PEERS=${PEERS:-}
[ -z "$PEERS" ] || . "$(dirname "$0")/peers.sh"

rig_up rate
testpmd_up
targets=("$(gateway_target)" "$(macswap_target)")
if [ -n "$PEERS" ]; then
	peers_up
	targets+=("$(ovs_target)" "$(nft_target)")
fi
gen_up "${targets[@]}"
gen macs gateway "$(rig_mac dev)" "$(rig_mac up)" >/dev/null
gen macs macswap 02:00:00:00:00:01 02:00:00:00:00:02 >/dev/null
[ -z "$PEERS" ] || peers_macs
feed_up

started=$SECONDS
say "1,000 devices"
devices_load 0 1000 v4 v6 >/dev/null
flows 1k 1000 1000 v4 64 ">= 0.50"
[ -z "$PEERS" ] || peers_versus 1k "" ""
flows 1k_ipv6 1000 1000 v6 64 ""
flows 1k_imix 1000 1000 v4 imix ""

# ---- at work ------------------------------------------------------------------------------------
# The agent needs the generator's core, so time tells little here: what counts is packets a busy cycle of the worker.
counter() { in_ns gw curl -s http://127.0.0.1:9464/metrics | awk -v n="sallyport_$1" '$1 == n { printf "%.0f", $2 }'; }
forwarded_reaches() { [ "$(counter forwarded_packets_total)" -ge "$1" ]; }
# window MS [FEED COMMAND...]: prints packets a thousand busy cycles, and Mpps
window() {
	local ms=$1 f0 b0 answer got
	shift
	f0=$(counter forwarded_packets_total) b0=$(counter worker_busy_cycles_total)
	[ $# -eq 0 ] || feed_ask "$@"
	answer=$(gen rate gateway "$ms")
	[ $# -eq 0 ] || feed_answer >"$D/fed"
	got=$(word_of received <<<"$answer")
	must "the counters follow" 10 forwarded_reaches $((f0 + got))
	awk -v f="$(($(counter forwarded_packets_total) - f0))" -v b="$(($(counter worker_busy_cycles_total) - b0))" \
		-v m="$(word_of mpps <<<"$answer")" 'BEGIN { printf "%.4f %s", 1000 * f / b, m }'
}
# disturbed NAME MS FEED COMMAND...: with it and without by turns; {at} and {to} in the command are devices to use up
disturbed() {
	local name=$1 ms=$2 i still busy before at=$SPARE args
	shift 2
	for ((i = 0; i < TURNS; i++)); do
		read -ra still <<<"$(window "$ms")"
		before=$(policy_drops)
		args=("${@//\{at\}/$at}")
		args=("${args[@]//\{to\}/$((at + ms))}")
		read -ra busy <<<"$(window "$ms" "${args[@]}")"
		[[ $* != *"{at}"* ]] || at=$((at + ms))
		note "$name" "$(awk -v a="${busy[0]}" -v b="${still[0]}" 'BEGIN { printf "%.2f", 100 * a / b }')"
		note "${name}_time" "$(awk -v a="${busy[1]}" -v b="${still[1]}" 'BEGIN { printf "%.2f", 100 * a / b }')"
		note "${name}_lost" $(($(policy_drops) - before))
		note "${name}_per_s" "$(word_of per_second <"$D/fed")"
	done
	SPARE=$at
	emit "rate_under_$name" % median ">= 97" "${SAMPLES[$name]}"
	emit "rate_under_${name}_time" % median "" "${SAMPLES[${name}_time]}"
	emit "lost_under_$name" packets median "<= 0" "${SAMPLES[${name}_lost]}"
	emit "${name}_per_s" 1/s median "$GOAL" "${SAMPLES[${name}_per_s]}"
	say "$name: ${SAMPLES[$name]#,} % (${SAMPLES[${name}_per_s]#,} a second, lost ${SAMPLES[${name}_lost]#,})"
}
SPARE=$BIG
devices_load "$BIG" $((BIG + TURNS * WINDOW_MS)) v4
gen flows 1000 1000 v4 64 10000 >/dev/null
gen prime gateway >/dev/null
GOAL=">= 100" disturbed policy_churn "$WINDOW_MS" churn 100 "$WINDOW_MS"
GOAL=">= 950" disturbed revocations "$WINDOW_MS" revoke '{at}' '{to}' 1000 50

# ---- a flood ------------------------------------------------------------------------------------
# Half of what the core can do is admitted flows; strangers fill the other half.
flood() {
	local i half answer
	half=$(tr , '\n' <<<"${SAMPLES[rate_1k]#,}" | awk '{ s += $1 } END { print s / NR / 2 }')
	gen_alone
	for ((i = 0; i < RUNS; i++)); do
		answer=$(gen rate gateway 1000 "$half" "$half")
		note flood "$(awk -v a="$(word_of mpps <<<"$answer")" -v b="$half" 'BEGIN { printf "%.2f", 100 * a / b }')"
		note flood_strangers "$(word_of strangers_mpps <<<"$answer")"
	done
	gen_shares
	emit rate_under_flood % median ">= 90" "${SAMPLES[flood]}"
	emit flood_strangers Mpps median "" "${SAMPLES[flood_strangers]}"
	say "flood: ${SAMPLES[flood]#,} % beside ${SAMPLES[flood_strangers]#,} Mpps of strangers"
}
flood

# ---- 100,000 devices ----------------------------------------------------------------------------
say "$BIG devices"
devices_load 1000 "$BIG" v4
flows 100k 100000 "$BIG" v4 64 ""
[ -z "$PEERS" ] || peers_versus 100k "" ""

# One flow's first packet each, of a million flows that nobody answers: they are forgotten again before the next turn.
new_flows() {
	local i answer base
	base=$(($(flows_now) + 5000))
	gen_alone
	for ((i = 0; i < RUNS; i++)); do
		gen flows "$NEW_FLOWS" "$BIG" v4 64 $((20000 + 500 * i)) >/dev/null
		answer=$(gen open gateway)
		[ "$(word_of received <<<"$answer")" -ge $((NEW_FLOWS * 98 / 100)) ] || die "new flows were refused: $answer"
		note new_flows "$(awk -v m="$(word_of mpps <<<"$answer")" 'BEGIN { print m * 1e6 }')"
		gen_shares # whoever tells how many flows there are needs time too
		must "new flows are forgotten" 180 flows_below "$base"
		gen_alone
	done
	gen_shares
	emit new_flows_per_s_rig 1/s median ">= 1000000" "${SAMPLES[new_flows]}"
	say "new flows: ${SAMPLES[new_flows]#,} a second"
}
new_flows
flows 1m 1000000 "$BIG" v4 64 ">= 0.30"
[ -z "$PEERS" ] || peers_versus 1m ">= 5" ">= 25"

# ---- revocation at full rate --------------------------------------------------------------------
# A hundred devices, one flow each, so that each has a packet about every 20 us; one after another is revoked.
revocation() {
	local n=100
	gen flows "$n" "$n" v4 64 10000 >/dev/null
	gen prime gateway >/dev/null
	gen_ask stamped gateway $((n * 20 + 500))
	feed revoke 0 "$n" 50 1 >/dev/null
	gen_answer >/dev/null
	SAMPLES[to_last]=,$(paste -d' ' <(gen last 0 "$n" | tr -s ' ' '\n' | sed 1d) <(feed changed 0 "$n" | tr -s ' ' '\n' | sed 1d) |
		awk '{ d = $1 - $2; if (NR > 1) printf ","; printf "%d", (d > 0 ? d : 0) }')
	emit revoke_to_last_packet_us_rig us median "" "${SAMPLES[to_last]}"
	emit revoke_to_last_packet_us_rig_p99 us p99 "" "${SAMPLES[to_last]}"
	say "revocation to last packet: ${SAMPLES[to_last]#,} us"
}
revocation
pass "all measured in $((SECONDS - started)) s"
