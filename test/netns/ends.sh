# shellcheck shell=bash
# ends.sh: sessions that end, row by row; sourced by the scenarios of it, which set WORLD.
LISTENER_EXTRA="proxy_protocol = false; handshake_timeout_s = 2; idle_timeout_s = 3; half_closed_timeout_s = 2; connect_timeout_s = 2;"
GATEWAY_EXTRA='drain_s = 2;'
. "$(dirname "$0")/lib.sh"
world_up "$WORLD"
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
spawn core upstream python3 "$LIB/ends.py" upstream "$NVR4" 1883 "$D/up"
must "the upstream" 5 in_ns core python3 "$LIB/traffic.py" listening tcp 1883
must "a session passes" 10 tls_answers cam1 cam1
capture sw p-gw device 'tcp port 8883'
capture core eth0 upstream 'tcp port 1883'

# ---- what a row does ------------------------------------------------------------------------------
cut() { in_ns "$1" nft -f - <<<"table inet cut { chain i { type filter hook input priority 0; tcp dport $2 drop; tcp sport $2 drop; }; chain o { type filter hook output priority 0; tcp dport $2 drop; tcp sport $2 drop; }; }"; }
mend() { in_ns "$1" nft delete table inet cut 2>/dev/null; }
listeners_count() { ctl_json listeners '[.listeners[] | .sessions + .handshakes + .leaving] | add'; }
up_sockets() { in_ns core ss -Htn state established "sport = :1883" | wc -l; }
over() { [ -n "$(why)" ] && [ "$(listeners_count)" = 0 ] && { [ "$(sessions_of camera/cam1)" = 0 ] || [ -z "$(sessions_of camera/cam1)" ]; }; }
is_there() { [ -e "$D/dev.there" ]; }
device_done() { not_running "$DEVICE"; }
agent_signal() { kill "-$1" "$(daemon_pid agent)"; }
# What the gateway said on a leg since the row began: F of its FINs, R of its resets, - of neither. A reset does not count
# where each end has acknowledged the other's FIN: the last acknowledgement came twice, because a FIN was sent again or the
# network repeats, and TCP answers so where it has forgotten the connection (RFC 9293, 3.5.2).
leg() { # CAPTURE GATEWAY-ADDRESS FILTER
	tcpdump -n -tt -S -r "$D/$1.pcap" "tcp and $3" 2>/dev/null | awk -v from="$BEGAN" -v gw="$2." '
		$1 < from { next }
		{
			sub(":$", "", $5)
			ours = index($3, gw) == 1
			c = ours ? $3 " " $5 : $5 " " $3
			me = c (ours ? " gw" : " peer"); other = c (ours ? " peer" : " gw")
			end = ack = ""
			for (i = 8; i < NF; i++) {
				if ($i == "seq") { n = split($(i + 1), at, /[:,]/); end = at[n - 1] }
				if ($i == "ack") ack = $(i + 1) + 0
			}
		}
		ours && $7 ~ /R/ && !(acked[c " gw"] && acked[c " peer"]) { r = "R" }
		ours && $7 ~ /F/ { f = "F" }
		$7 ~ /F/ { fin[me] = (end + 1) % 4294967296 }
		ack != "" && (other in fin) && ack == fin[other] { acked[other] = 1 }
		END { print (f r == "") ? "-" : f r }'
}
packets() { # CAPTURE [FILTER]: the end of the row, for whoever reads of its failure
	tcpdump -n -tt -r "$D/$1.pcap" "${2:-}" 2>/dev/null | awk -v from="$BEGAN" '$1 >= from' | tail -n 16
}
why() { cat "$D/tls-proxy.log" "$D/agent.log" | sed -n 's/.*\(handshake refused\|session ends\|session cut\|no upstream\|upstream refused\).*why="\([^"]*\)".*/\2/p' | sort -u | paste -sd'|'; }

begin() { # STATE
	rm -f "$D"/dev.* "$D"/up.do "$D"/up.deaf "$D"/up.keep "$D"/up.flood
	: >"$D/tls-proxy.log"
	: >"$D/agent.log"
	BEGAN=${EPOCHREALTIME}
	SPORT=$((SPORT + 1))
	case $1 in
	full) : >"$D/up.deaf" ;;
	half | notified) : >"$D/up.keep" ;;
	flooded) : | tee "$D/up.keep" >"$D/up.flood" ;;
	admission) agent_signal STOP ;;
	connecting) cut core 1883 ;;
	esac
}
device_begins() { # STATE
	local state=$1
	case $state in
	admission | connecting) state=finished ;;
	drain | closing) state=open ;;
	esac
	ip netns exec "${P}cam1" python3 "$LIB/ends.py" device "$GW4" 8883 "$D/pki" cam1 "$SPORT" "$state" "$D/dev" >"$D/dev.heard" 2>"$D/dev.err" &
	DEVICE=$!
	PIDS+=("$DEVICE")
	wait_for 10 is_there || fail "$1: the device came there" "$(cat "$D/dev.err")"
}
other_half() { [ -s "$D/dev.word" ]; }
leaves() { [ "$(ctl_json listeners '[.listeners[] | .leaving] | add')" = 1 ]; }
gateway_closed() { grep -q 'why="idle"' "$D/agent.log" || [ -n "$(tcpdump -n -r "$D/device.pcap" "src host $GW4 and dst port $SPORT and tcp[tcpflags] & tcp-fin != 0" 2>/dev/null)" ]; }
device_resets() { [ -n "$(tcpdump -n -r "$D/device.pcap" "dst host $GW4 and src port $SPORT and tcp[tcpflags] & tcp-rst != 0" 2>/dev/null)" ]; }
reach() { # STATE: what the other end, or the engineer, does for it
	case $1 in
	other-half)
		say fin >"$D/up.do"
		wait_for 5 other_half || fail "$1: the device heard of it" "$(cat "$D/dev.err")"
		rm -f "$D/up.do"
		;;
	drain)
		sed -i '/name = "mqtt";/s/port = 8883/port = 8899/' "$D/gateway.cfg"
		ctl reload >"$D/reload.out" 2>&1
		wait_for 5 leaves || fail "$1: it drains" "$(cat "$D/reload.out")"
		;;
	closing) wait_for 6 gateway_closed || fail "$1: the gateway closes" "" ;;
	esac
}
act() { # STATE SIDE HOW
	case $2-$3 in
	device-silence)
		cut cam1 8883
		say stop >"$D/dev.do"
		;;
	device-*) say "$3" >"$D/dev.do" ;;
	upstream-silence)
		[ "$1" = connecting ] || cut core 1883
		say hear >"$D/dev.do"
		;;
	upstream-*)
		mend core
		say "$3" >"$D/up.do"
		say hear >"$D/dev.do"
		;;
	esac
}
tidy() { # STATE
	mend cam1
	mend core
	if [ "$1" = drain ]; then
		sed -i '/name = "mqtt";/s/port = 8899/port = 8883/' "$D/gateway.cfg"
		ctl reload >"$D/reload.out" 2>&1
	fi
}
SPORT=41000 ROWS=0
# Of each row: what the gateway says on the two legs, what the device hears, and why, as patterns; and by when it is over.
row() { # STATE SIDE HOW DEVICE-LEG UPSTREAM-LEG HEARD WITHIN_S WHY: legs, what was heard and why as patterns
	local what="$1, $2: $3" from=${EPOCHREALTIME/./} dev up heard reason ms
	ROWS=$((ROWS + 1))
	begin "$1"
	device_begins "$1"
	reach "$1"
	act "$1" "$2" "$3"
	if [ "$1" = admission ]; then # answered only when all is over
		if [ "$3" = rst ]; then wait_for 5 device_resets; else wait_for 8 log_has tls-proxy 'handshake refused'; fi
		agent_signal CONT
	fi
	wait_for "$7" over || fail "$what: it is over within $7 s" "$(ctl listeners)"
	wait_for 3 device_done || end "$DEVICE"
	ms=$(((${EPOCHREALTIME/./} - from) / 1000))
	tidy "$1"
	dev=$(leg device "$GW4" "port $SPORT") up=$(leg upstream "$UP4" "port 1883")
	heard=$(cat "$D/dev.heard") reason=$(why)
	if [[ $dev =~ ^($4)$ && $up =~ ^($5)$ && $heard =~ ^($6)$ && $reason =~ ^($8)$ ]]; then
		pass "$what: $ms ms, device leg $dev, upstream leg $up, heard $heard: $reason"
	else
		fail "$what" "$ms ms, device leg $dev ($4), upstream leg $up ($5), heard '$heard' ($6): $reason ($8)
$(packets device "port $SPORT")
$(packets upstream)"
	fi
}

# ---- what is left when all rows are through ----------------------------------------------------------
no_sockets() { [ "$(up_sockets)" = 0 ]; }
descriptors() { find "/proc/$(daemon_pid tls-proxy)/fd" | wc -l; }
few_descriptors() { [ "$(descriptors)" -le "$FDS" ]; }
must "it is over" 10 wait_for 5 no_sockets
FDS=$(descriptors)
nothing_left() {
	rm -f "$D"/up.*
	check "no connection to the upstream is left" wait_for 10 no_sockets
	check "nor a descriptor of the worker's" wait_for 5 few_descriptors
	check_eq "nor a session" 0 "$(listeners_count)"
	check "a new one gets in" wait_for 10 tls_answers cam1 cam1
	daemon_stop tls-proxy
	[ "$TRANSPORT" = socket ] || check_match "and of $ROWS connections with the device the stack has few, whose peer is silent" 'stack: .* connections=[0-4];' "$(grep -h 'stack: in=' "$D/tls-proxy.log")"
}
