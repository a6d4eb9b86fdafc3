#!/bin/bash
# packet-rate RUNS: the gateway's rates over the rig (rig.sh). Prints one line a measure for bench/run on standard output;
# what happens goes to standard error.
set -u
exec 3>&1 1>&2
. "$(dirname "$0")/rig.sh"
RUNS=$1
MS=${MS:-300} # of one measurement
UDP_MS=15000 # longer than UDP_S, with a round of ageing
UDP_S=10
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

rig_up rate
testpmd_up
gen_up "$(gateway_target)" "$(macswap_target)"
gen macs gateway "$(rig_mac dev)" "$(rig_mac up)" >/dev/null
gen macs macswap 02:00:00:00:00:01 02:00:00:00:00:02 >/dev/null
feed_up

say "1,000 devices"
devices_load 0 1000 v4 v6 >/dev/null
flows 1k 1000 1000 v4 64 ">= 0.50"
flows 1k_ipv6 1000 1000 v6 64 ""
flows 1k_imix 1000 1000 v4 imix ""
