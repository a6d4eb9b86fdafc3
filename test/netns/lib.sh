# shellcheck shell=bash
# shellcheck disable=SC2034 # variables for the scripts that source this
# lib.sh: one gateway, its devices and its servers in network namespaces; sourced by the lab and by every scenario.
#
#   d1 d2 d3 ... --veth-- switch (bridge, isolated ports) --veth dev0-- gateway --veth up0-- core (servers)
#   w1 (kernel-only port) ----------------------------------veth wifi0-- gateway
#
# Everything that a run makes carries its prefix ($P) or lies in its folder ($D); world_down removes exactly that.
# Processes are ended by pid. Waiting is always for a condition.
set -u
LIB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TOP=$(cd "$LIB/../.." && pwd)
B=${B:-build}
case $B in /*) ;; *) B=$TOP/$B ;; esac
export PATH="$B:$B/tools:/usr/sbin:/sbin:/usr/bin:/bin:$PATH"

GW4=10.7.0.1 GW6=fd07::1       # gateway, device side
UP4=10.20.0.1 UP6=fd20::1      # gateway, uplink side
NVR4=10.20.0.10 NVR6=fd20::10  # the recorder: rtsp, mqtt, udp
UPD4=10.20.0.80 UPD6=fd20::80  # the update server
WIFI4=10.9.0.1 WIFI6=fd09::1   # gateway, kernel-only port

say() { printf '%s\n' "$*"; }
die() {
	printf 'FATAL: %s\n' "$*" >&2
	exit 1
}

# ---- checks -------------------------------------------------------------------------------------
CHECKS=0 FAILED=0
pass() {
	CHECKS=$((CHECKS + 1))
	say "  ok    $1"
}
fail() {
	CHECKS=$((CHECKS + 1))
	FAILED=$((FAILED + 1))
	say "  FAIL  $1"
	[ -z "${2:-}" ] || printf '%s\n' "$2" | sed 's/^/        | /'
}
# check WHAT COMMAND...: it must succeed
check() {
	local what=$1 out
	shift
	if out=$("$@" 2>&1); then pass "$what"; else fail "$what" "$* => $out"; fi
}
# check_not WHAT COMMAND...: it must fail
check_not() {
	local what=$1 out
	shift
	if out=$("$@" 2>&1); then fail "$what" "$* => $out"; else pass "$what"; fi
}
check_eq() { # WHAT WANT GOT
	if [ "$2" = "$3" ]; then pass "$1"; else fail "$1" "want '$2', got '$3'"; fi
}
check_match() { # WHAT REGEX TEXT
	if printf '%s' "$3" | grep -qE -- "$2"; then pass "$1"; else fail "$1" "want /$2/ in: $3"; fi
}
# wait_for SECONDS COMMAND...: until it succeeds; fails when the time is over
wait_for() {
	local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "${EPOCHREALTIME/./}" -lt "$end" ] || return 1
		sleep 0.05
	done
}
must() { # WHAT SECONDS COMMAND...: set-up that everything else rests on
	local what=$1 s=$2
	shift 2
	wait_for "$s" "$@" || die "$what: $*"
}
now_ms() { say $((${EPOCHREALTIME/./} / 1000)); }

# ---- namespaces ---------------------------------------------------------------------------------
in_ns() { # NAME COMMAND...
	local ns=$P$1
	shift
	ip netns exec "$ns" "$@"
}
# Run in the background; its pid in $LAST, its output in $D/NAME.log. Ended by world_down or `end PID`.
PIDS=()
spawn() { # NS NAME COMMAND...
	local ns=$1 name=$2
	shift 2
	ip netns exec "$P$ns" "$@" >"$D/$name.log" 2>&1 </dev/null &
	LAST=$!
	PIDS+=("$LAST")
}
end() { # PID...: TERM, and KILL if it will not
	local p i
	for p in "$@"; do
		# Whoever gets this number next is not ours to end.
		for i in "${!PIDS[@]}"; do [ "${PIDS[i]}" != "$p" ] || unset "PIDS[i]"; done
		kill "$p" 2>/dev/null || continue
		wait_for 3 not_running "$p" || kill -KILL "$p" 2>/dev/null
		wait "$p" 2>/dev/null
	done
}
not_running() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

link_pair() { # NS IF NS IF: a veth whose frames look as on a wire
	ip link add "$2" netns "$P$1" type veth peer name "$4" netns "$P$3" || die "veth $2 $4"
	local side
	for side in "$1 $2" "$3 $4"; do
		# shellcheck disable=SC2086 # namespace and interface
		set -- $side
		in_ns "$1" ethtool -K "$2" rx off tx off sg off tso off gso off gro off txvlan off rxvlan off \
			>/dev/null 2>&1
		in_ns "$1" ip link set "$2" up
	done
}
ns_make() {
	ip netns add "$P$1" || die "namespace $P$1"
	in_ns "$1" ip link set lo up
	in_ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
		net.ipv6.conf.default.accept_ra=0
}

# A device behind the switch: NAME NUMBER [VLAN]. Its addresses are .NUMBER; peers are reached through the gateway.
device_make() {
	local d=$1 n=$2 vlan=${3:-} dev=eth0
	ns_make "$d"
	link_pair "$d" eth0 sw "p-$d"
	in_ns sw ip link set "p-$d" master br0
	in_ns sw bridge link set dev "p-$d" isolated on
	if [ -n "$vlan" ]; then
		in_ns "$d" ip link add link eth0 name "eth0.$vlan" type vlan id "$vlan"
		in_ns "$d" ip link set "eth0.$vlan" up
		dev=eth0.$vlan
		in_ns "$d" ip addr add "10.7.$vlan.$n/24" dev "$dev"
		in_ns "$d" ip addr add "fd07:$vlan::$n/128" dev "$dev"
		in_ns "$d" ip -6 route add "fd07:$vlan::1" dev "$dev"
		in_ns "$d" ip route add default via "10.7.$vlan.1"
		in_ns "$d" ip -6 route add default via "fd07:$vlan::1"
	else
		in_ns "$d" ip addr add "10.7.0.$n/24" dev eth0
		in_ns "$d" ip addr add "fd07::$n/128" dev eth0
		in_ns "$d" ip -6 route add "$GW6" dev eth0
		in_ns "$d" ip route add default via "$GW4"
		in_ns "$d" ip -6 route add default via "$GW6"
	fi
}

# wire_put DEVICE OPTIONS...: a bad cable between the device and the switch; its pid in $LAST, its report in $D/wire-DEVICE.out
# once it was ended
wire_put() {
	local d=$1
	shift
	in_ns sw ip link set "p-$d" nomaster
	link_pair sw "x-$d" sw "y-$d"
	in_ns sw ip link set "y-$d" master br0
	in_ns sw bridge link set dev "y-$d" isolated on
	ip netns exec "${P}sw" "$B/tools/bad-wire" "p-$d" "x-$d" "$@" >"$D/wire-$d.out" 2>"$D/wire-$d.log" &
	LAST=$!
	PIDS+=("$LAST")
	must "the wire" 5 grep -q ready "$D/wire-$d.out"
}

net_up() {
	local ns
	for ns in gw sw core; do ns_make "$ns"; done
	in_ns sw ip link add br0 type bridge
	in_ns sw ip link set br0 up
	link_pair gw dev0 sw p-gw
	in_ns sw ip link set p-gw master br0
	link_pair gw up0 core eth0
	in_ns core ip addr add "$NVR4/24" dev eth0
	in_ns core ip addr add "$UPD4/24" dev eth0
	in_ns core ip addr add "$NVR6/64" dev eth0
	in_ns core ip addr add "$UPD6/64" dev eth0
	in_ns core ip route add default via "$UP4"
	in_ns core ip -6 route add default via "$UP6" src "$NVR6"
	ns_make w1
	link_pair gw wifi0 w1 eth0
	in_ns w1 ip addr add 10.9.0.21/24 dev eth0
	in_ns w1 ip addr add fd09::21/64 dev eth0
	in_ns w1 ip route add default via "$WIFI4"
	in_ns w1 ip -6 route add default via "$WIFI6"
}

# ---- certificates -------------------------------------------------------------------------------
# pki_make: CAs, the gateway's certificate, an empty revocation list
pki_make() {
	mkdir -p "$D/pki"
	(
		cd "$D/pki" || exit 1
		for ca in ca other-ca; do
			openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $ca.key -out $ca.pem \
				-subj "/CN=plant-7 $ca" -days 30 -addext keyUsage=critical,keyCertSign,cRLSign
		done
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout gw.key -out gw.csr -subj /CN=gw1
		printf 'subjectAltName=IP:%s,IP:%s,IP:%s,IP:%s,IP:10.7.20.1,DNS:gw1\nextendedKeyUsage=serverAuth\n' \
			"$GW4" "$GW6" "$WIFI4" "$WIFI6" >gw.ext
		openssl x509 -req -in gw.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile gw.ext -out gw.pem
		touch index.txt
		echo 01 >crlnumber
		cat >ca.cnf <<-CNF
			[ca]
			default_ca = d
			[d]
			database = index.txt
			crlnumber = crlnumber
			default_md = sha256
			default_crl_days = 30
		CNF
		openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.pem -out ca.crl
		chmod 644 ./*.crl ca.pem
	) >"$D/pki.log" 2>&1 || {
		cat "$D/pki.log" >&2
		die "certificates"
	}
}
# cert_make NAME SAN [CA] [DAYS] [EXTRA EXTENSION LINES]: NAME.pem, NAME.key; DAYS may be negative or "future"
cert_make() {
	local name=$1 san=$2 ca=${3:-ca} days=${4:-20} ext=${5:-} from to
	[ -n "$ext" ] || ext=$'keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth'
	from=$(date -u -d '-2 days' +%Y%m%d%H%M%SZ)
	case $days in
	future) from=$(date -u -d '+2 days' +%Y%m%d%H%M%SZ) to=$(date -u -d '+9 days' +%Y%m%d%H%M%SZ) ;;
	*) to=$(date -u -d "$days days" +%Y%m%d%H%M%SZ) ;;
	esac
	[ "$days" != -1 ] || from=$(date -u -d '-9 days' +%Y%m%d%H%M%SZ)
	(
		cd "$D/pki" || exit 1
		[ -e "$name.key" ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$name.key"
		openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
		printf 'subjectAltName=%s\n%s\n' "$san" "$ext" >"$name.ext"
		mkdir -p "new-$ca"
		[ -e "$ca-index.txt" ] || : >"$ca-index.txt"
		cat >"$ca-sign.cnf" <<-CNF
			[ca]
			default_ca = d
			[d]
			database = $ca-index.txt
			rand_serial = yes
			new_certs_dir = new-$ca
			default_md = sha256
			policy = p
			unique_subject = no
			[p]
			commonName = supplied
		CNF
		openssl ca -batch -notext -config "$ca-sign.cnf" -keyfile "$ca.key" -cert "$ca.pem" -in "$name.csr" \
			-startdate "$from" -enddate "$to" -extfile "$name.ext" -out "$name.pem"
	) >"$D/pki-$name.log" 2>&1 || {
		cat "$D/pki-$name.log" >&2
		die "certificate $name"
	}
}
crl_revoke() { # NAME: into the list; the workers read it after `daemon_hup tls-proxy`
	(
		cd "$D/pki" || exit 1
		openssl ca -config ca.cnf -keyfile ca.key -cert ca.pem -revoke "$1.pem"
		openssl ca -config ca.cnf -gencrl -keyfile ca.key -cert ca.pem -out ca.crl
		chmod 644 ca.crl
	) >"$D/pki-crl.log" 2>&1 || die "revocation list"
}

# ---- the gateway --------------------------------------------------------------------------------
# A scenario may change what is written by setting these before world_up.
VLANS=${VLANS:-} UP_EXTRA=${UP_EXTRA:-}
TRANSPORT=${TRANSPORT:-socket}
LISTENER_EXTRA=${LISTENER_EXTRA:-proxy_protocol = false;}
GATEWAY_EXTRA=${GATEWAY_EXTRA:-}
METRICS_EXTRA=${METRICS_EXTRA:-}
TLS_WORKERS=${TLS_WORKERS:-1} TLS_EXTRA=${TLS_EXTRA:-}
LIMITS=${LIMITS:-}
DATAPLANE_EXTRA=${DATAPLANE_EXTRA:-}
POLICY_FILE=${POLICY_FILE:-$LIB/segments.cfg}

listeners_more() { :; } # ", { ... }" for the list of listeners

config_write() {
	cat >"$D/gateway.cfg" <<-CFG
		gateway = { name = "gw1"; run_dir = "$D/run"; state_dir = "$D/state"; segments = "$D/segments.cfg";
		  user = "nobody"; devices_max = 1000; strangers = [ "ping" ]; kernel_lease_s = 4; $GATEWAY_EXTRA };
		dataplane = { lcores = "${LCORES:-1}"; memory_mb = ${MEMORY_MB:-128}; hugepages = false; flows_max = 16384; pickup_ms = 5000; $DATAPLANE_EXTRA };
		limits = { $LIMITS };
		tls = { workers = $TLS_WORKERS; $TLS_EXTRA };
		ports = (
		  { name = "dev"; side = "device"; devargs = "${DEV_DEVARGS:-net_af_xdp0,iface=dev0}"; isolated = true;
		    addresses = [ "$GW4/24", "$GW6/64" ]; $VLANS },
		  { name = "up"; side = "uplink"; devargs = "${UP_DEVARGS:-net_af_xdp1,iface=up0}"; addresses = [ "$UP4/24", "$UP6/64" ]; $UP_EXTRA },
		  { name = "wifi"; side = "device"; kernel = "wifi0"; addresses = [ "$WIFI4/24", "$WIFI6/64" ]; } );
		listeners = (
		  { name = "mqtt"; transport = "$TRANSPORT"; address = "$GW4"; port = 8883; upstream = "$NVR4:1883"; $LISTENER_EXTRA
		    certificate = "$D/pki/gw.pem"; key = "$D/pki/gw.key"; ca = "$D/pki/ca.pem"; crl = "$D/pki/ca.crl"; },
		  { name = "mqtt6"; transport = "$TRANSPORT"; address = "$GW6"; port = 8883; upstream = "[$NVR6]:1883"; $LISTENER_EXTRA
		    certificate = "$D/pki/gw.pem"; key = "$D/pki/gw.key"; ca = "$D/pki/ca.pem"; crl = "$D/pki/ca.crl"; },
		  { name = "mqtt-wifi"; address = "$WIFI4"; port = 8883; upstream = "$NVR4:1883"; $LISTENER_EXTRA
		    certificate = "$D/pki/gw.pem"; key = "$D/pki/gw.key"; ca = "$D/pki/ca.pem"; crl = "$D/pki/ca.crl"; },
		  { name = "mqtt6-wifi"; address = "$WIFI6"; port = 8883; upstream = "[$NVR6]:1883"; $LISTENER_EXTRA
		    certificate = "$D/pki/gw.pem"; key = "$D/pki/gw.key"; ca = "$D/pki/ca.pem"; crl = "$D/pki/ca.crl"; } $(listeners_more) );
		${ROUTES_CFG:+routes = ( $ROUTES_CFG );}
		controller = { socket = "$D/run/decisions.sock"; public_key = "$D/controller/controller.pub"; };
		metrics = { port = 9464; $METRICS_EXTRA };
	CFG
	cp "$POLICY_FILE" "$D/segments.cfg"
}

# runit looks after the daemons, as systemd does on a real box.
service_make() { # NAME COMMAND...
	local name=$1
	shift
	mkdir -p "$D/sv/$name"
	{
		echo '#!/bin/sh'
		echo "exec 2>>'$D/$name.log'"
		printf 'exec'
		printf " '%s'" "$@"
		echo
	} >"$D/sv/$name/run"
	# Its exit code, or the signal that ended it.
	cat >"$D/sv/$name/finish" <<-SH
		#!/bin/sh
		echo "$name \$1 \$2" >>"$D/ends"
	SH
	chmod 755 "$D/sv/$name/run" "$D/sv/$name/finish"
}
daemon_pid() { sv status "$D/sv/$1" | sed -n 's/^run:.*(pid \([0-9]*\)).*/\1/p'; }
daemon_up() { [ -n "$(daemon_pid "$1")" ]; }
daemon_hup() { sv hup "$D/sv/$1" >/dev/null; }
daemon_stop() { sv -w 5 force-stop "$D/sv/$1" >/dev/null; }
daemon_start() { sv -w 5 start "$D/sv/$1" >/dev/null; }

tls_service() { if [ "$1" -eq 0 ]; then say tls-proxy; else say "tls-proxy-$1"; fi; } # its name
tls_services_make() {
	local n
	for ((n = 0; n < TLS_WORKERS; n++)); do
		service_make "$(tls_service "$n")" sallyport-tls-proxy -c "$D/gateway.cfg" --worker "$n"
	done
}

daemons_start() {
	mkdir -p "$D/run" "$D/state" "$D/sv"
	: >>"$D/ends"
	chmod 755 "$D" "$D/run"
	sallyport-controller --init "$D/controller" >"$D/init.log" 2>&1 || die "controller: $(cat "$D/init.log")"
	service_make controller sallyport-controller --dir "$D/controller" --api "$D/run/controller.sock" \
		--decisions "$D/run/decisions.sock" --heartbeat-s 1 --lease-s 5
	service_make agent sallyport-agent -c "$D/gateway.cfg"
	service_make dataplane sallyport-dataplane --agent "$D/run/agent.sock"
	tls_services_make
	ip netns exec "${P}gw" runsvdir "$D/sv" >"$D/runsvdir.log" 2>&1 </dev/null &
	RUNSVDIR=$!
	must "services start" 5 test -e "$D/sv/agent/supervise/ok"
	must "the gateway is ready" 30 gw_ready
}
gw_ready() { [ "$(ctl_json status '.dataplane.ready and .controller.connected and (.tls_workers | length > 0)')" = true ]; }

ctl() { sallyctl --agent "$D/run/api.sock" --controller "$D/run/controller.sock" "$@"; }
ctl_json() { # COMMAND... JQ-FILTER
	local filter=${*: -1}
	set -- "${@:1:$#-1}"
	ctl --json "$@" 2>/dev/null | jq -r "$filter"
}
drops() { ctl_json status ".drops.\"$1\" // 0"; }
kernel_count() { in_ns gw nft -j list counters table inet sallyport 2>/dev/null | jq -r ".nftables[].counter | select(.name == \"$1\") | .packets"; }
log_of() { cat "$D/$1.log"; }
log_has() { grep -qE -- "$2" "$D/$1.log"; }

# ---- the whole world ----------------------------------------------------------------------------
# world_up PREFIX: everything but devices and servers. P and D are set from here on.
world_up() {
	P=$1-$$-
	D=$(mktemp -d "/tmp/$1.XXXXXX")
	RUNSVDIR=
	trap world_exit EXIT
	trap 'exit 130' INT TERM HUP PIPE
	net_up
	pki_make
	config_write
	daemons_start
}
# The supervisor goes first: it would start again what is ended under it. It ends its services with TERM.
ends_are() { [ "$(wc -l <"$D/ends")" -ge "$1" ]; }
daemons_stop() {
	local p s pids=() ended
	ended=$(wc -l <"$D/ends")
	for s in "$D"/sv/*; do
		p=$(daemon_pid "${s##*/}")
		[ -z "$p" ] || pids+=("$p")
	done
	kill -HUP "$RUNSVDIR" 2>/dev/null
	wait "$RUNSVDIR" 2>/dev/null
	for p in "${pids[@]}"; do wait_for 5 not_running "$p"; done
	wait_for 5 ends_are $((ended + ${#pids[@]}))
	RUNSVDIR=
}
world_down() {
	local ns p
	[ -z "${RUNSVDIR:-}" ] || daemons_stop
	[ "${#PIDS[@]}" -eq 0 ] || kill "${PIDS[@]}" 2>/dev/null
	for p in "${PIDS[@]}"; do wait_for 1 not_running "$p"; done
	# What still runs in our namespaces was started here: by pid, TERM and then KILL.
	for ns in $(ip netns list | awk -v p="$P" 'index($1, p) == 1 { print $1 }'); do
		for p in $(ip netns pids "$ns"); do kill -KILL "$p" 2>/dev/null; done
		ip netns del "$ns"
	done
	rm -rf "$D"
}
world_dump() { # what an engineer needs to see of a failure
	local f
	for f in "$D"/*.log; do
		[ -s "$f" ] || continue
		say "---- ${f##*/} (end)"
		tail -n "${DUMP_LINES:-25}" "$f"
	done
}
# Under the sanitizers a report in any daemon's log is a failure, also one at its end.
sanitizers_silent() { ! grep -lE 'ERROR: (Address|Leak)Sanitizer|runtime error:' "$D"/*.log; }
# Nor has any of them done what its filter of system calls does not let it do (SIGSYS), or crashed.
nobody_crashed() { ! grep -E ' -1 (4|6|7|8|11|31|1[35][0-9])$' "$D/ends"; }
world_exit() {
	local code=$?
	trap - EXIT
	trap '' INT TERM HUP PIPE # a second signal must not leave half of it behind
	# Of a `read -t` that a signal has ended bash leaves the alarm on, which would end us: another one takes it off.
	read -r -t 1 </dev/null
	if [ -n "${RUNSVDIR:-}" ] && [ -z "${KEEP:-}" ]; then
		daemons_stop
		check "no sanitizer report" sanitizers_silent
		check "no daemon crashed" nobody_crashed
	fi
	if [ "$FAILED" -gt 0 ] || [ "$code" -ne 0 ]; then world_dump; fi
	if [ -n "${KEEP:-}" ]; then say "kept: $D, namespaces $P*"; else world_down; fi
	if [ "$code" -eq 0 ] && [ "$CHECKS" -eq 0 ]; then
		say "no check was made"
		code=1
	fi
	[ "$FAILED" -eq 0 ] || code=1
	exit "$code"
}

# ---- devices and their controller's word --------------------------------------------------------
DIGEST_A=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
DIGEST_B=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
id_of() { say "spiffe://plant-7/$1"; } # camera/cam1

# vouch PATH DIGEST [FOR]: enrol, and attest with a certified digest
vouch() {
	ctl enrol "$(id_of "$1")" >/dev/null || die "enrol $1"
	[ -z "${2:-}" ] || ctl attest "$(id_of "$1")" --digest "sha256:$2" --tier affirming --for "${3:-1h}" >/dev/null ||
		die "attest $1"
}
certify() { ctl software certify --digest "sha256:$1" --name fw --version "${2:-1}" --for 90d >/dev/null || die certify; }

# camera_make NAME NUMBER DIGEST: a device that meets everything, with its certificate
camera_make() {
	device_make "$1" "$2" "${4:-}"
	cert_make "$1" "URI:$(id_of "camera/$1")"
	vouch "camera/$1" "$3"
}

# tls NS NAME [HOST] [OPENSSL OPTIONS...]: one handshake; output on stdout; ends by itself
tls() {
	local ns=$1 name=$2 host=${3:-$GW4}
	shift 2
	[ $# -eq 0 ] || shift
	case $host in *:*) host=[$host] ;; esac
	in_ns "$ns" timeout 10 openssl s_client -connect "$host:8883" -CAfile "$D/pki/ca.pem" -cert "$D/pki/$name.pem" \
		-key "$D/pki/$name.key" -verify_return_error -quiet -no_ign_eof "$@" </dev/null 2>&1
}
# tls_hold NS NAME [HOST]: a session that stays open until `end $LAST`; its pid in $LAST, output in $D/tls-NAME.log
tls_hold() {
	local ns=$1 name=$2 host=${3:-$GW4}
	case $host in *:*) host=[$host] ;; esac
	mkfifo "$D/tls-$name.fifo.$host" 2>/dev/null
	# the shell behind keeps the fifo open for writing: s_client sees no end of input
	# shellcheck disable=SC2016
	ip netns exec "$P$ns" bash -c 'exec 3<>"$1"; shift; exec "$@" <&3' _ "$D/tls-$name.fifo.$host" \
		openssl s_client -connect "$host:8883" -CAfile "$D/pki/ca.pem" -cert "$D/pki/$name.pem" \
		-key "$D/pki/$name.key" -verify_return_error -brief >"$D/tls-$name.log" 2>&1 &
	LAST=$!
	PIDS+=("$LAST")
}
sessions_of() { ctl_json devices ".devices[] | select(.device == \"$(id_of "$1")\") | .sessions"; }
standing_of() { ctl_json devices ".devices[] | select(.device == \"$(id_of "$1")\") | .standing"; }
segment_of() { ctl_json devices ".devices[] | select(.device == \"$(id_of "$1")\") | .segment"; }
has_sessions() { [ "$(sessions_of "$1")" = "$2" ]; }
has_standing() { [ "$(standing_of "$1")" = "$2" ]; }
# device_in NS NAME PATH [HOST]: knock, and stay in
device_in() {
	tls_hold "$1" "$2" "${4:-$GW4}"
	must "$2 gets in" 10 has_sessions "$3" "${5:-1}"
}

# ---- servers and traffic ------------------------------------------------------------------------
# tcp_sink NS ADDR PORT: answers every line with "got: LINE"
tcp_echo() {
	spawn "$1" "tcp-echo-$1-$3" python3 "$LIB/traffic.py" tcp-echo "$2" "$3"
	must "tcp server" 5 in_ns "$1" python3 "$LIB/traffic.py" listening tcp "$3"
}
udp_echo() {
	spawn "$1" "udp-echo-$1-$3" python3 "$LIB/traffic.py" udp-echo "$2" "$3"
	must "udp server" 5 in_ns "$1" python3 "$LIB/traffic.py" listening udp "$3"
}
# One exchange: succeeds if the answer comes within a second
tcp_try() { in_ns "$1" python3 "$LIB/traffic.py" tcp-try "$2" "$3" "${4:-1.5}"; }
udp_try() { in_ns "$1" python3 "$LIB/traffic.py" udp-try "$2" "$3" "${4:-1.5}"; }
# worker_cpu_pct PID SECONDS: share of one core that the busiest packet worker of this dataplane takes meanwhile, in percent
worker_cpu_ns() { # PID: one figure a worker
	local t
	for t in /proc/"$1"/task/*; do
		case $(cat "$t/comm") in rte-worker-* | lcore-worker-*) cut -d' ' -f1 "$t/schedstat" ;; esac
	done
}
worker_cpu_pct() {
	local before after from to
	before=$(worker_cpu_ns "$1") from=${EPOCHREALTIME/./}
	sleep "$2" # the time that is measured, not a wait
	after=$(worker_cpu_ns "$1") to=${EPOCHREALTIME/./}
	paste <(printf '%s\n' "$before") <(printf '%s\n' "$after") |
		awk -v us=$((to - from)) '{ p = ($2 - $1) / us / 10; if (p > max) max = p } END { printf "%.1f\n", max }'
}
ping_try() { in_ns "$1" ping -n -c 1 -W 1 "$2"; }
# A flow that runs until it is ended and writes "SENT RECEIVED LAST_MS" to $D/NAME.flow all the time
udp_flow() { spawn "$1" "$4" python3 "$LIB/traffic.py" udp-flow "$2" "$3" "$D/$4.flow"; }
tcp_flow() { spawn "$1" "$4" python3 "$LIB/traffic.py" tcp-flow "$2" "$3" "$D/$4.flow"; }
flow_received() { awk '{print $2}' "$D/$1.flow" 2>/dev/null || say 0; }
flow_last_ms() { awk '{print $3}' "$D/$1.flow" 2>/dev/null || say 0; }
flow_runs() { local a; a=$(flow_received "$1"); [ "${a:-0}" -gt 0 ] && wait_for 2 flow_beyond "$1" "$a"; }
flow_beyond() { [ "$(flow_received "$1")" -gt "$2" ]; }
# No answer for SECONDS (default 1) although it goes on asking
flow_stopped() {
	local a s
	# three questions first: an answer that was on its way is not counted against the gateway
	s=$(awk '{print $1}' "$D/$1.flow")
	wait_for 5 flow_sent_beyond "$1" $((s + 3)) || return 1
	a=$(flow_received "$1") s=$(awk '{print $1}' "$D/$1.flow")
	wait_for 5 flow_sent_beyond "$1" $((s + ${2:-20})) && [ "$(flow_received "$1")" = "$a" ]
}
flow_sent_beyond() { [ "$(awk '{print $1}' "$D/$1.flow")" -gt "$2" ]; }
# capture NS IF NAME FILTER...: an outside witness; read it with `captured NAME`
capture() {
	local ns=$1 ifc=$2 name=$3
	shift 3
	# at once: a packet that waits in the kernel's buffer would be no witness
	spawn "$ns" "capture-$name" tcpdump -n -U --immediate-mode -i "$ifc" -w "$D/$name.pcap" "$@"
	must "capture" 5 grep -q 'listening on' "$D/capture-$name.log"
}
captured() { tcpdump -n -tt -r "$D/$1.pcap" 2>/dev/null; }
tcp_connects() { in_ns "$1" nc -z -w 1 "$2" "$3"; }
# One line to the upstream and back through the session
tls_answers() { # NS NAME [HOST]
	local host=${3:-$GW4}
	case $host in *:*) host=[$host] ;; esac
	# shellcheck disable=SC2016 # for the inner shell
	in_ns "$1" timeout 5 bash -c '
		coproc c { exec openssl s_client -connect "$1:8883" -CAfile "$2/ca.pem" -cert "$2/$3.pem" -key "$2/$3.key" \
			-verify_return_error -quiet -no_ign_eof 2>/dev/null; }
		echo "hello $$" >&"${c[1]}"
		read -r -t 4 line <&"${c[0]}" && [ "$line" = "hello $$" ]
		code=$?
		kill "$c_PID" 2>/dev/null
		exit $code' _ "$host" "$D/pki" "$2"
}

# ---- both families at once ----------------------------------------------------------------------
# echo_both tcp|udp NS ADDR4 ADDR6 PORT: an echo server on each address
echo_both() {
	local a
	for a in "$3" "$4"; do
		spawn "$2" "$1-echo-$2-$5-${a//:/_}" python3 "$LIB/traffic.py" "$1-echo" "$a" "$5"
		must "$1 server at $a" 5 in_ns "$2" python3 "$LIB/traffic.py" "$1-try" "$a" "$5" 0.3
	done
}
# sensor_make NAME NUMBER: a device that needs no attestation, with its certificate
sensor_make() {
	device_make "$1" "$2"
	cert_make "$1" "URI:$(id_of "sensor/$1")"
	vouch "sensor/$1"
}
# in_both NS NAME PATH [HOST4 HOST6]: a session, so a binding, in each family; pids in $LAST4 $LAST6, output in
# $D/tls-NAME.log and $D/tls-NAME-v6.log
in_both() {
	local ext
	for ext in pem key; do ln -sf "$2.$ext" "$D/pki/$2-v6.$ext"; done
	device_in "$1" "$2" "$3" "${4:-$GW4}" 1
	LAST4=$LAST
	device_in "$1" "$2-v6" "$3" "${5:-$GW6}" 2
	# shellcheck disable=SC2034 # for scenarios
	LAST6=$LAST
}
# session_says NAME HOST TEXT...: a line into a session of tls_hold
session_says() {
	local name=$1 host=$2 fifo
	shift 2
	case $host in *:*) host=[$host] ;; esac
	exec {fifo}<>"$D/tls-$name.fifo.$host" || return 1
	printf '%s\n' "$*" >&"$fifo"
	exec {fifo}>&-
}
# session_echoes NAME HOST: one line to the upstream and back through a session of tls_hold
session_echoes() {
	local line="again $((RANDOM * 32768 + RANDOM))"
	session_says "$1" "$2" "$line" || return 1
	wait_for 3 grep -qx "$line" "$D/tls-$1.log"
}
# Running flows in both families: NS ADDR4 ADDR6 PORT NAME gives NAME and NAME-v6
udp_flows() { udp_flow "$1" "$2" "$4" "$5" && udp_flow "$1" "$3" "$4" "$5-v6"; }
tcp_flows() { tcp_flow "$1" "$2" "$4" "$5" && tcp_flow "$1" "$3" "$4" "$5-v6"; }
# all_run FLOW...: every one gets answers; all_stopped FLOW...: none does, at the same time
all_run() {
	local f
	for f in "$@"; do flow_runs "$f" || return 1; done
}
all_asked() { # N FLOW...: each asked N times more than when SENT was taken
	local n=$1 f
	shift
	for f in "$@"; do flow_sent_beyond "$f" $((${SENT[$f]} + n)) || return 1; done
}
all_stopped() {
	local f
	declare -A SENT GOT
	for f in "$@"; do SENT[$f]=$(awk '{print $1}' "$D/$f.flow"); done
	# as in flow_stopped: three questions, so that an answer on its way does not count
	wait_for 5 all_asked 3 "$@" || return 1
	for f in "$@"; do GOT[$f]=$(flow_received "$f"); done
	wait_for 5 all_asked 25 "$@" || return 1
	for f in "$@"; do [ "$(flow_received "$f")" = "${GOT[$f]}" ] || return 1; done
}
flow_lost() { awk '{print $1 - $2}' "$D/$1.flow"; }
flow_lost_at_most() { [ "$(flow_lost "$1")" -le "$2" ]; } # wait for it: an answer may be on its way

# ---- time ---------------------------------------------------------------------------------------
# last_ms NAME FILTER...: when the capture saw the last such packet, in ms since 1970; 0 if none. first_ms: the first
last_ms() { captured_ms tail "$@"; }
first_ms() { captured_ms head "$@"; }
captured_ms() {
	local end=$1 name=$2 at
	shift 2
	at=$(tcpdump -n -tt -r "$D/$name.pcap" "$@" 2>/dev/null | "$end" -n 1 | cut -d' ' -f1)
	[ -n "$at" ] || at=0.000
	say "${at%.*}$(printf '%.3s' "${at#*.}")"
}
seen() { # NAME FILTER...: how many such packets
	local name=$1
	shift
	tcpdump -n -r "$D/$name.pcap" "$@" 2>/dev/null | wc -l
}
log_ms() { # DAEMON REGEX: the time of the last such line, in ms since 1970; 0 if there is none
	local at
	at=$(grep -E -- "$2" "$D/$1.log" | tail -1 | cut -d' ' -f1)
	[ -n "$at" ] || at=@0
	date -u -d "$at" +%s%3N
}
