# shellcheck shell=bash
# shellcheck disable=SC2034 # variables for the scripts that source this
# tls-samples.sh: what the TLS benchmark keeps of a measure, sourced by tls.sh: its samples, and beside each how slow the
# machine was meanwhile. A virtual machine's host gives and takes half of its speed within tens of milliseconds, so a
# tls_floor on each core looks at it all the time a sample takes: each 10 ms a few checks of a signature, 1 % of the core. A
# look is the time of one check. The generator's core counts too: a server that waits for it wakes up more often.
declare -A SAMPLES LOOKS # of a label, with a comma before each; a look of 0: nobody looked
LOOK=0                   # the mean of the last sample's looks on the slower of both cores, in ns
LOOK_EACH_US=10000
QUIET_PCT=5      # a sample is quiet if its looks are in the mean within so much of full speed,
FULL_SPEED_PCT=1 # which so many of a hundred looks of the whole run came up to,
QUIET_LEAST=5    # and so many make a figure
EMITS=()

calc() { awk "BEGIN { printf \"%.4f\", $1 }" || die "cannot be computed: $1"; }
note() { # LABEL VALUE: a sample
	SAMPLES[$1]+=,$2
	LOOKS[$1]+=,$LOOK
}

# ---- the floor ----------------------------------------------------------------------------------
# Before all that is measured, at the same core: what it takes is not in the processes' own time.
floor_up() {
	local tls_floor=("$B/bench/tls_floor" "$D/pki/ca.pem" "$D/pki/ca.key" "$D/pki/gw.pem" "$D/pki/gw.key")
	talker FLOOR taskset -c "$SERVER_CPU" chrt -r 2 "${tls_floor[@]}"
	talker BESIDE taskset -c "$LOAD_CPU" chrt -r 2 "${tls_floor[@]}"
	answer_of "$FLOOR_OUT" 10 >/dev/null || die "tls_floor: $(cat "$D/FLOOR.log")"
	answer_of "$BESIDE_OUT" 10 >/dev/null || die "tls_floor: $(cat "$D/BESIDE.log")"
}
floor_ask() { # FD-IN FD-OUT LOG COMMAND...: its answer's words to FLOOR
	FLOOR=
	say "${*:4}" >&"$1"
	IFS= read -r -t 20 -u "$2" FLOOR
	[ "${FLOOR%% *}" = ok ] || die "tls_floor ${*:4}: ${FLOOR:-no answer} $(cat "$D/$3.log")"
	FLOOR=${FLOOR#ok}
}
floor() { floor_ask "$FLOOR_IN" "$FLOOR_OUT" FLOOR "$@"; }     # on the server's core
beside() { floor_ask "$BESIDE_IN" "$BESIDE_OUT" BESIDE "$@"; } # on the other
watch_begin() {
	floor watch "$LOOK_EACH_US"
	beside watch "$LOOK_EACH_US"
}
looks_take() { # the mean to LOOK if it is slower than that
	local ns n=0 sum=0
	for ns in $FLOOR; do
		sum=$((sum + ns)) n=$((n + 1))
	done
	[ "$n" -gt 0 ] || die "nobody looked at the machine's speed"
	[ "$LOOK" -ge $((sum / n)) ] || LOOK=$((sum / n))
	SAMPLES[look_ns]+=${FLOOR// /,}
}
watch_end() {
	LOOK=0
	floor seen
	looks_take
	beside seen
	looks_take
}
# The TLS library alone: one more sample of each of its measures
FLOORS=(floor_handshake_us floor_client_handshake_us floor_handshake_x25519_us floor_message_us floor_bulk_mb_per_s)
floor_value() { # KEY
	[[ $FLOOR =~ $1=([^ ]+) ]] || die "tls_floor did not tell $1: $FLOOR"
	VALUE=${BASH_REMATCH[1]}
}
floor_handshakes() { # the server's time to SERVER_US
	LOOK=0
	floor handshakes mlkem768 50
	floor_value client_us
	note floor_client_handshake_us "$VALUE"
	floor_value server_us
	note floor_handshake_us "$VALUE"
	SERVER_US=$VALUE
}
floor_sample() {
	LOOK=0
	floor handshakes x25519 50
	floor_value server_us
	note floor_handshake_x25519_us "$VALUE"
	floor messages 4000
	floor_value us
	note floor_message_us "$VALUE"
	floor bulk 400
	floor_value mb_per_s
	note floor_bulk_mb_per_s "$VALUE"
}

# ---- what is told -------------------------------------------------------------------------------
# For bench/run, when all is measured: only then is it known what full speed is.
emit() { # NAME UNIT STATISTIC GOAL LABEL [REFERENCE LABEL]: a label without samples, no line
	EMITS+=("$(printf '%s\t' all "$@")")
}
emit_both() { # the same: of all samples, and of the quiet ones alone
	emit "$@"
	EMITS+=("$(printf '%s\t' quiet "$@")")
}
# quiet_of FULL-NS SAMPLES LOOKS: those that were taken at full speed. Looks alone decide, never the sample itself.
quiet_of() {
	paste <(tr , '\n' <<<"${2#,}") <(tr , '\n' <<<"${3#,}") |
		awk -v most="$(($1 * (100 + QUIET_PCT)))" '$2 > 0 && $2 * 100 <= most { printf ",%s", $1 }'
}
full_speed() { # LOOKS: nearest rank
	tr , '\n' <<<"${1#,}" | sort -n | awk -v pct="$FULL_SPEED_PCT" '{ v[NR] = $1 }
		END { n = NR * pct / 100; print v[int(n) + (n > int(n))] }'
}
count_of() { tr -cd , <<<"$1" | wc -c; } # SAMPLES
# Name, unit, statistic, goal, samples, reference, its samples, looks
emit_line() {
	local ref=$6 refs=${7#,}
	[ -n "$refs" ] || ref=
	printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "${5#,}" "$ref" "$refs" "${8#,}"
}
emit_quiet() { # FULL-NS NAME UNIT STATISTIC GOAL LABEL REFERENCE LABEL
	local v refs=
	v=$(quiet_of "$1" "${SAMPLES[$6]}" "${LOOKS[$6]}") || die "no choice of samples for $2"
	if [ "$(count_of "$v")" -lt "$QUIET_LEAST" ]; then
		say "$2: $(count_of "$v") of $(count_of "${SAMPLES[$6]}") samples were quiet, too few for $2_quiet" >&2
		return
	fi
	[ -z "$8" ] || refs=$(quiet_of "$1" "${SAMPLES[$8]:-}" "${LOOKS[$8]:-}")
	[ "$(count_of "$refs")" -ge "$QUIET_LEAST" ] || refs=
	emit_line "$2_quiet" "$3" "$4" "$5" "$v" "$7" "$refs" ""
}
emit_all() {
	local line which name unit stat goal label ref reflabel full=0 looks
	if [ -n "${SAMPLES[look_ns]:-}" ]; then
		full=$(full_speed "${SAMPLES[look_ns]}")
		emit_line look_ns ns "p$FULL_SPEED_PCT" "" "${SAMPLES[look_ns]}" "" "" ""
	fi
	for line in "${EMITS[@]}"; do
		# a tab alone would make one of two
		IFS=$'\x1f' read -r which name unit stat goal label ref reflabel _ <<<"${line//$'\t'/$'\x1f'}"
		[ -n "${SAMPLES[$label]:-}" ] || continue
		if [ "$which" = quiet ]; then
			emit_quiet "$full" "$name" "$unit" "$stat" "$goal" "$label" "$ref" "$reflabel"
			continue
		fi
		looks=${LOOKS[$label]:-}
		[[ $looks == *[1-9]* ]] || looks=
		emit_line "$name" "$unit" "$stat" "$goal" "${SAMPLES[$label]}" "$ref" "${SAMPLES[${reflabel:-none}]:-}" "$looks"
	done
}
tell() { # NAME LABEL...: median, least and most of each that has samples
	local label out=
	for label in "${@:2}"; do
		[ -n "${SAMPLES[$label]:-}" ] || continue
		out+="  $label $(tr , '\n' <<<"${SAMPLES[$label]#,}" | sort -n |
			awk '{ v[NR] = $1 } END { printf "%.5g (%.5g-%.5g)", v[int((NR + 1) / 2)], v[1], v[NR] }')"
	done
	say "$1:$out"
}
