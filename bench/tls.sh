#!/bin/bash
# tls RUNS [quick]: sessions through the gateway, beside nginx and HAProxy by turns (tls-rig.sh). Prints one line a measure
# for bench/run on standard output; what happens goes to standard error.
set -u
exec 3>&1 1>&2
RUNS=$1 QUICK=${2:-}
. "$(dirname "$0")/tls-rig.sh"
# Sessions of a sample; its time in ms where it is one of messages or bulk; idle sessions; revocations
if [ -n "$QUICK" ]; then defaults=(1000 150 150 1500 50); else defaults=(10000 2000 1000 100000 500); fi
DEVICES=${DEVICES:-${defaults[0]}} CYCLES=${CYCLES:-${defaults[1]}} MS=${MS:-${defaults[2]}}
IDLE=${IDLE:-${defaults[3]}} REVOCATIONS=${REVOCATIONS:-${defaults[4]}}
IDLE_WIRED=$((IDLE > 10000 ? IDLE : 10000)) # it takes no longer
OPEN=${OPEN:-$DEVICES} # sessions while devices are revoked, one each
TALKING=1000           # devices that exchange messages
read -ra SERVERS <<<"${SERVERS:-gw ngx hap}"
declare -A SAMPLES

# emit NAME UNIT STATISTIC GOAL SAMPLES [REFERENCE SAMPLES]: samples with commas between; none, no line
emit() {
	local ref=${6:-} refs=${7:-}
	[ -n "$5" ] || return 0
	[ -n "$refs" ] || ref=
	printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "${5#,}" "$ref" "${refs#,}" >&3
}
samples() { # NAME: nothing if there are none
	local v=${SAMPLES[$1]:-}
	printf '%s' "${v#,}"
}
calc() { awk "BEGIN { printf \"%.4f\", $1 }" || die "cannot be computed: $1"; }
note() { SAMPLES[$1]+=,$2; } # NAME VALUE

# ---- processor time -----------------------------------------------------------------------------
# User and system time of all threads, in ns.
cpu_of() { # PID...
	local p
	for p; do cat "/proc/$p/task/"*/schedstat; done | awk '{ s += $1 } END { printf "%.0f", s }'
}
# What the dataplane does: CPU time of its workers and of its thread for wake-ups, cycles of rounds with packets, all cycles,
# and the time in us
dataplane_look() {
	local pid t
	pid=$(daemon_pid dataplane)
	for t in "/proc/$pid/task/"*; do
		case $(<"$t/comm") in
		rte-worker-* | lcore-worker-*) say "worker $(<"$t/schedstat")" ;;
		vhost-events) say "wake $(<"$t/schedstat")" ;;
		esac
	done | awk '{ s[$1] += $2 } END { printf "%.0f %.0f ", s["worker"], s["wake"] }'
	ctl_json stats lcores '[([.lcores[].busy_cycles] | add), ([.lcores[].total_cycles] | add), .at_us] | join(" ")'
}
# Between two looks, in ns: rounds with packets, so that idle polling is left out; not more than the CPU gave, for the clock
# of cycles goes on when a worker has to wait for its core
dataplane_ns() { # LOOK LOOK
	awk -v a="$1" -v b="$2" 'BEGIN { split(a, x); split(b, y); cpu = y[1] - x[1]
		busy = (y[3] - x[3]) * 1000 * (y[5] - x[5]) / (y[4] - x[4])
		printf "%.0f", (busy < cpu ? busy : cpu) + y[2] - x[2] }'
}
in_path() { [ "$1" = gw ] && [ "$TRANSPORT" = stack ]; }
# shellcheck disable=SC2046 # pids
server_ns() { cpu_of $(server_pids "$1"); }

# PERF=FOLDER: a profile of the server during each sample, which costs time itself: for finding, not for measuring
perf_begin() { # NAME
	local pids
	pids=$(server_pids "${1%%-*}")
	! in_path "${1%%-*}" || pids+=,$(daemon_pid dataplane)
	PERF_N=$((PERF_N + 1))
	perf record -q -F 1999 -g -p "${pids//$'\n'/,}" -o "$PERF/$1-$PERF_N.data" &
	PERF_PID=$!
	PIDS+=("$PERF_PID")
	must "perf runs" 5 test -s "$PERF/$1-$PERF_N.data"
}
PERF_N=0

# spent SERVER COMMAND...: CPU_NS of the server (DATAPLANE_NS of it), AGENT_NS, and the generator's ANSWER
spent() {
	local s=$1 agent=0 pid was now
	shift
	pid=$([ "$s" != gw ] || daemon_pid agent)
	[ -z "$pid" ] || agent=$(cpu_of "$pid")
	DATAPLANE_NS=0
	! in_path "$s" || was=$(dataplane_look)
	[ -z "${PERF:-}" ] || perf_begin "$s-$1"
	CPU_NS=$(server_ns "$s")
	ANSWER=$(load "$s" "$@") || die "$s: $*"
	CPU_NS=$(calc "$(server_ns "$s") - $CPU_NS")
	[ -z "${PERF:-}" ] || end "$PERF_PID"
	if in_path "$s"; then
		now=$(dataplane_look)
		DATAPLANE_NS=$(dataplane_ns "$was" "$now")
		CPU_NS=$(calc "$CPU_NS + $DATAPLANE_NS")
	fi
	[ -z "$pid" ] || AGENT_NS=$(calc "$(cpu_of "$pid") - $agent")
}
answered() { word_of "$1" <<<"$ANSWER"; }

# The TLS library alone, on the server's core: one more sample of each of its measures
FLOORS=(floor_handshake_us floor_client_handshake_us floor_handshake_x25519_us floor_message_us floor_bulk_mb_per_s)
floor_sample() {
	local f
	taskset -c "$SERVER_CPU" chrt -r 1 "$B/bench/tls_floor" "$D/pki/ca.pem" "$D/pki/ca.key" "$D/pki/gw.pem" "$D/pki/gw.key" 1 >"$D/floor" ||
		die "tls_floor"
	for f in "${FLOORS[@]}"; do note "$f" "$(awk -F'\t' -v f="$f" '$1 == f { print $5 }' "$D/floor")"; done
}

# ---- handshakes ---------------------------------------------------------------------------------
# A session from SYN to the last FIN: handshake, admission, upstream connection, greeting from it, close_notify both ways.
cycle() { # LABEL SERVER LISTENER GROUP N
	spent "$2" cycle "$(target "$3" "$4")" "$5" 32
	note "$1" "$(calc "$CPU_NS / 1000 / $(answered "done")")"
	[ "$2" != gw ] || note "agent_$1" "$(calc "$AGENT_NS / 1000 / $(answered "done")")"
	! in_path "$2" || note "dataplane_$1" "$(calc "$DATAPLANE_NS / 1000 / $(answered "done")")"
}
HANDSHAKES=(handshake_us handshake_us_10k_revoked handshake_us_100k_revoked)
sessions_of() { # SERVER LISTENER: of a sample; others than a wired gateway need milliseconds with long lists
	local by=1
	wired "$1" || by=$(($2 == 0 ? 1 : $2 == 1 ? 2 : 10))
	say $((CYCLES / by))
}
handshakes() {
	local i k s label floor
	for ((i = 0; i < RUNS; i++)); do
		for k in 0 1 2; do
			floor_sample
			floor=${SAMPLES[floor_handshake_us]##*,}
			cycle "${HANDSHAKES[k]}" gw "$k" mlkem768 "$(sessions_of gw "$k")"
			floor_sample # the machine's speed changes meanwhile
			note "ratio_${HANDSHAKES[k]}" "$(calc "${SAMPLES[${HANDSHAKES[k]}]##*,} / (($floor + ${SAMPLES[floor_handshake_us]##*,}) / 2)")"
			for s in "${SERVERS[@]}"; do cycle "x25519_${HANDSHAKES[k]}_$s" "$s" "$k" x25519 "$(sessions_of "$s" "$k")"; done
		done
	done
	for label in "${HANDSHAKES[@]}"; do
		emit "$label" us median "<= 210" "${SAMPLES[$label]}" floor "${SAMPLES[floor_handshake_us]}"
		emit "${label/us/vs_floor}" ratio median "<= 1.2" "${SAMPLES[ratio_$label]}"
		emit "${label/us/x25519_us}" us median "" "${SAMPLES[x25519_${label}_gw]}" nginx "$(samples "x25519_${label}_ngx")"
		emit "${label/us/x25519_us}_haproxy" us median "" "$(samples "x25519_${label}_hap")"
		say "$label: ${SAMPLES[$label]#,}; X25519: ${SAMPLES[x25519_${label}_gw]#,}, nginx $(samples "x25519_${label}_ngx"), haproxy $(samples "x25519_${label}_hap")"
	done
	emit handshake_agent_us us median "" "${SAMPLES[agent_handshake_us]}"
	! in_path gw || emit handshake_dataplane_us us median "" "${SAMPLES[dataplane_handshake_us]}"
	for label in "${FLOORS[@]}"; do
		s=us
		[ "$label" != floor_bulk_mb_per_s ] || s=MB/s
		emit "$label" "$s" median "" "${SAMPLES[$label]}"
	done
	say "floor: ${SAMPLES[floor_handshake_us]#,}; X25519: ${SAMPLES[floor_handshake_x25519_us]#,}"
}

# ---- messages and bulk --------------------------------------------------------------------------
# Sessions 0 to TALKING exchange messages; BULK after them upload.
BULK=8
sessions_open() {
	local s
	for s in "${SERVERS[@]}"; do load "$s" open "$(target 0 x25519)" 0 $((TALKING + BULK)) 64 >/dev/null; done
	pass "$((TALKING + BULK)) sessions are open at each server"
}
# The last sample beside nginx's of the same turn
versus() { # LABEL
	[ -z "${SAMPLES[${1}_ngx]:-}" ] || note "ratio_$1" "$(calc "${SAMPLES[${1}_gw]##*,} / ${SAMPLES[${1}_ngx]##*,}")"
}
messages() { # LABEL SESSIONS GOAL
	local i s label=$1
	for ((i = 0; i < RUNS; i++)); do
		for s in "${SERVERS[@]}"; do
			spent "$s" messages 0 "$2" 256 "$MS"
			note "${label}_$s" "$(calc "$(answered "done") * 1e9 / $CPU_NS")"
			note "${label}_wall_$s" "$(answered per_second)"
			note "${label}_p99_$s" "$(answered p99_us)"
			! in_path "$s" || note "${label}_dataplane" "$(calc "$DATAPLANE_NS / 1000 / $(answered "done")")"
		done
		versus "$label"
	done
	emit "$label" 1/s median "$3" "${SAMPLES[${label}_gw]}" nginx "$(samples "${label}_ngx")"
	emit "${label}_haproxy" 1/s median "" "$(samples "${label}_hap")"
	emit "${label/_per_s/_vs_nginx}" ratio median "${3:+>= 3.3}" "$(samples "ratio_$label")"
	emit "${label}_wall" 1/s median "" "${SAMPLES[${label}_wall_gw]}" nginx "$(samples "${label}_wall_ngx")"
	emit "${label}_p99_us" us median "" "${SAMPLES[${label}_p99_gw]}" nginx "$(samples "${label}_p99_ngx")"
	! in_path gw || emit "${label}_dataplane_us" us median "" "${SAMPLES[${label}_dataplane]}"
	say "$label: ${SAMPLES[${label}_gw]#,} (by the clock ${SAMPLES[${label}_wall_gw]#,}), nginx $(samples "${label}_ngx"), haproxy $(samples "${label}_hap")"
}
bulk() {
	local i s
	for ((i = 0; i < RUNS; i++)); do
		for s in "${SERVERS[@]}"; do
			spent "$s" bulk "$TALKING" $((TALKING + BULK)) "$MS"
			note "bulk_$s" "$(calc "$(answered bytes) * 1e3 / $CPU_NS")"
			note "bulk_wall_$s" "$(answered mb_per_s)"
			! in_path "$s" || note bulk_dataplane "$(calc "100 * $DATAPLANE_NS / $CPU_NS")"
		done
		versus bulk
	done
	emit bulk_mb_per_s MB/s median ">= 800" "${SAMPLES[bulk_gw]}" nginx "$(samples "bulk_ngx")"
	emit bulk_mb_per_s_haproxy MB/s median "" "$(samples "bulk_hap")"
	emit bulk_mb_per_s_wall MB/s median "" "${SAMPLES[bulk_wall_gw]}" nginx "$(samples "bulk_wall_ngx")"
	emit bulk_vs_nginx ratio median "" "$(samples ratio_bulk)"
	! in_path gw || emit bulk_dataplane_share % median "" "${SAMPLES[bulk_dataplane]}"
	say "bulk: ${SAMPLES[bulk_gw]#,} MB/s (by the clock ${SAMPLES[bulk_wall_gw]#,}), nginx $(samples "bulk_ngx"), haproxy $(samples "bulk_hap")"
}

# ---- a flood ------------------------------------------------------------------------------------
# Sessions at half of what they can, while strangers begin handshakes as fast as they are answered.
half_of() { tr , '\n' <<<"${1#,}" | sort -n | awk '{ v[NR] = $1 } END { printf "%.0f", v[int((NR + 1) / 2)] / 2 }'; }
flood() {
	local i s by rate still busy given_up=
	for ((i = 0; i < RUNS; i++)); do
		for s in gw ${SAMPLES[messages_per_s_wall_ngx]:+ngx}; do
			[ "$s" != "$given_up" ] || continue
			rate=$(half_of "${SAMPLES[messages_per_s_wall_$s]}")
			still=$(load "$s" messages 0 "$TALKING" 256 "$MS" "$rate" | word_of per_second)
			by=flood_$s
			! wired "$s" || by=$s
			load "$by" flood "$(target 0 x25519)" 256 >/dev/null
			# Sessions that stand still for ten seconds are lost: none of their messages came through
			busy=$(load "$s" messages 0 "$TALKING" 256 "$MS" "$rate" | word_of per_second)
			[ -n "$busy" ] || given_up=$s
			ANSWER=$(load "$by" calm)
			note "flood_$s" "$(calc "100 * ${busy:-0} / $still")"
			note "flood_handshakes_$s" "$(answered per_second)"
		done
	done
	emit messages_under_flood % median ">= 90" "${SAMPLES[flood_gw]}" nginx "$(samples "flood_ngx")"
	emit flood_handshakes_per_s 1/s median "" "${SAMPLES[flood_handshakes_gw]}" nginx "$(samples "flood_handshakes_ngx")"
	say "flood: ${SAMPLES[flood_gw]#,} % beside ${SAMPLES[flood_handshakes_gw]#,} handshakes a second; nginx $(samples "flood_ngx") % beside $(samples "flood_handshakes_ngx")"
}

# ---- memory -------------------------------------------------------------------------------------
pss_kb() { # PID...
	local p
	for p; do cat "/proc/$p/smaps_rollup"; done | awk '$1 == "Pss:" { s += $2 } END { print s }'
}
# What the kernel holds for sockets: caches of the objects that a socket in an epoll set has, and buffers
sockets_kb() {
	awk '$1 ~ /^(TCP|sock_inode_cache|filp|dentry|eventpoll_epi|eventpoll_pwq|tcp_bind_bucket)$/ { s += $3 * $4 / 1024 } END { printf "%.0f", s }' /proc/slabinfo
}
buffers_kb() { awk '/^TCP:/ { print $11 * 4 }' /proc/net/sockstat; }
# shellcheck disable=SC2016 # for awk
sockets_in() { in_ns "$1" awk '/^TCP:/ { print $3 }' /proc/net/sockstat; }
# Idle memory goes back in steps: until two looks agree.
# shellcheck disable=SC2046 # pids
settled() { # SERVER
	local was=$PSS
	PSS=$(pss_kb $(all_pids "$1"))
	[ -n "$was" ] && [ "$((PSS > was ? PSS - was : was - PSS))" -le $((was / 500)) ]
}
# shellcheck disable=SC2046 # pids
memory_of() { # SERVER: KB of its processes, of the kernel's for its share of all sockets (server, devices, sink), sockets
	local s=$1 own
	PSS=
	wait_for 15 settled "$s"
	if wired "$s"; then
		say "$PSS 0 0 0 0" # no sockets
		return
	fi
	own=$(sockets_in "$s")
	say "$PSS $(sockets_kb) $(buffers_kb) $own $((own + $(sockets_in "$s-dev") + $(sockets_in "$s-up")))"
}
PER_LOAD=15000 # sessions of a generator process that uses sockets
idle_of() { # SERVER SESSIONS
	local s=$1 n=$2 j k=1 was now per open=0 loads=("$1")
	if ! wired "$s"; then
		k=$(((n + PER_LOAD - 1) / PER_LOAD)) loads=()
		for ((j = 0; j < k; j++)); do
			load_up "many${j}_$s" "$s"
			loads+=("many${j}_$s")
		done
	fi
	was=$(memory_of "$s")
	for ((j = 0; j < k; j++)); do
		load "${loads[j]}" open "$(target 3 x25519 "$MANY_PORTS")" $((j * PER_LOAD)) "$((j + 1 < k ? (j + 1) * PER_LOAD : n))" 64 >/dev/null
	done
	now=$(memory_of "$s")
	for j in "${loads[@]}"; do open=$((open + $(load "$j" count | word_of open))); done
	check_eq "idle sessions of $s are open" "$n" "$open"
	per=$(awk -v a="$was" -v b="$now" -v n="$n" 'BEGIN { split(a, x); split(b, y); d = y[5] - x[5]
		user = (y[1] - x[1]) * 1024 / n
		kernel = d > 0 ? ((y[2] - x[2]) + (y[3] - x[3])) * 1024 * (y[4] - x[4]) / d / n : 0
		printf "%.0f %.0f %.0f", user + kernel, user, kernel }')
	read -ra per <<<"$per"
	note "idle_$s" "${per[0]}"
	note "idle_user_$s" "${per[1]}"
	note "idle_n_$s" "$n"
	say "idle sessions of $s: $n, ${per[0]} bytes each: ${per[1]} in processes, ${per[2]} in the kernel"
	for j in "${loads[@]}"; do
		load "$j" drop >/dev/null
		# The wire's generator begins anew: what it has kept of so many would slow down what follows.
		load_down "$j"
		! wired "$s" || load_up "$j" "$s"
	done
}
idle() {
	local s n limit
	# A process has so many descriptors; the gateway's socket transport and nginx and HAProxy need two a session.
	limit=$((($(ulimit -Hn) - 1000) / 2))
	for s in "${SERVERS[@]}"; do
		n=$IDLE
		! wired "$s" || n=$IDLE_WIRED
		in_path "$s" || [ "$n" -le "$limit" ] || n=$limit
		idle_of "$s" "$n"
	done
	emit idle_session_bytes bytes median "<= 12288" "${SAMPLES[idle_gw]}" nginx "$(samples "idle_ngx")"
	emit idle_session_bytes_haproxy bytes median "" "$(samples "idle_hap")"
	emit idle_session_process_bytes bytes median "" "${SAMPLES[idle_user_gw]}" nginx "$(samples "idle_user_ngx")"
	emit idle_sessions sessions median ">= 100000" "${SAMPLES[idle_n_gw]}" nginx "$(samples "idle_n_ngx")"
}

# ---- revocation ---------------------------------------------------------------------------------
revocation() {
	local limit=$((($(ulimit -Hn) - 1000) / 2)) n=$OPEN by=gw
	[ "$TRANSPORT" = stack ] || [ "$n" -le "$limit" ] || n=$limit
	load gw drop >/dev/null # its sessions hold descriptors
	if ! wired gw; then
		by=revoked_gw
		load_up "$by" gw
	fi
	load "$by" open "$(target 3 x25519 "$MANY_PORTS")" 0 "$n" 64 >/dev/null
	on_watch "$by"
	decide revoke 0 "$REVOCATIONS" 20 >"$D/revoked" || die "devices cannot be revoked"
	load "$by" ended 0 "$REVOCATIONS" | tr ' /' '\n ' | sed 1d | paste -d' ' "$D/revoked" - >"$D/ends"
	[ "$(wc -l <"$D/ends")" = "$REVOCATIONS" ] || die "not all revocations were seen"
	# shellcheck disable=SC2016 # for awk
	check "every session of a revoked device was told certificate_revoked" awk '$3 == 0 || $4 != 44 { bad = 1 } END { exit bad }' "$D/ends"
	SAMPLES[close]=$(awk '{ printf ",%d", $3 - $1 }' "$D/ends")
	SAMPLES[receipt]=$(awk '{ printf ",%d", $2 }' "$D/ends")
	check_eq "the other sessions are open" "$((n - REVOCATIONS))" "$(load "$by" count | word_of open)"
	emit revoke_to_close_us us median "" "${SAMPLES[close]}"
	emit revoke_to_close_us_p99 us p99 "<= 1000" "${SAMPLES[close]}"
	emit revoke_receipt_us us median "" "${SAMPLES[receipt]}"
	emit revoke_open_sessions sessions median "" "$n"
	say "revocation with $n sessions open: $(sort -n -k1 <(awk '{ print $3 - $1 }' "$D/ends") | awk '{ v[NR] = $1 } END { print "median", v[int((NR + 1) / 2)], "us, most", v[NR] }')"
}

# ---- all of it ------------------------------------------------------------------------------------
P=tls-$$-
D=$(mktemp -d "/dev/shm/tls.XXXXXX") # in memory: a decision's way to the disk is not what is measured here
RUNSVDIR=
trap world_exit EXIT
trap 'exit 130' INT TERM HUP PIPE
taskset -p -c 0 $$ >/dev/null
ulimit -n "$(ulimit -Hn)"
started=$SECONDS
pki_make
for n in "${REVOKED[@]}"; do crl_of "$n"; done
gateway_up
for s in "${SERVERS[@]}"; do
	case $s in
	ngx) nginx_up ;;
	hap) haproxy_up ;;
	esac
	ends_up "$s"
	if [ "$s" != hap ] && ! wired "$s"; then
		load_up "flood_$s" "$s"
		on_idle "flood_$s"
	fi
done
pass "${SERVERS[*]}: up"
for part in ${PARTS:-idle handshakes sessions_open messages bulk flood revocation}; do
	case $part in
	messages)
		messages messages_per_s "$TALKING" ">= 400000"
		messages messages_per_s_32 32 ""
		;;
	*) "$part" ;;
	esac
done
pass "all measured in $((SECONDS - started)) s"
