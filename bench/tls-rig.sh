# shellcheck shell=bash
# shellcheck disable=SC2034 # variables for the scripts that source this
# tls-rig.sh: the rig of the TLS benchmark, sourced by tls.sh. For each server under test three namespaces of the same make,
# with the same addresses and the same frames (offloads are off):
#
#   core 0: SERVER-dev: tls_load ==veth== core 1: SERVER ==veth== core 0: SERVER-up: tls_sink
#
# SERVER is gw (the whole gateway), ngx (nginx) or hap (HAProxy). Agent and controller are on core 0. Devices are enrolled by
# the controller and admitted by the agent, as any device is.
. "$(dirname "${BASH_SOURCE[0]}")/rig.sh"

SERVER4=10.64.0.1                        # devices are 10.64.1.0 and on, in 10.64.0.0/14
UP_SERVER=10.20.0.1 UP_SINK=10.20.0.2
TLS_PORT=8880                            # + 0, 1, 2: 0, 10,000 and 100,000 revoked; + 3 and on: many sessions
MANY_PORTS=8                             # an upstream port each: one has 64,000 connections from one address at most
SINK_PORT=7000
SERVER_CPU=1                             # of the server under test
LOAD_CPU=0                               # of everything else
GW4=$SERVER4 GW6=fd07::1 WIFI4=10.9.0.1  # names in the server's certificate, by pki_make
TRANSPORT=${TRANSPORT:-socket}
WIRE= # the gateway's generator speaks frames to its vhost-user ports, and is its upstream too
if [ "$TRANSPORT" = wire ]; then
	WIRE=1
	TRANSPORT=stack
fi
REVOKED=(0 10000 100000)
# Split rings: a look at a packed one takes and gives back 32 buffers, however few frames are there. Of 512 descriptors, as
# many NICs have: with 1,024 the gateway copies each frame into memory that has left all caches, with 256 some are lost.
WIRE_VIRTIO=queue_size=512,mrg_rxbuf=0,in_order=1
WIRE_MAC=02:00:00:00:01 # and the side, as in tls_wire.h
LISTENERS=$((${#REVOKED[@]} + MANY_PORTS))

wired() { [ -n "$WIRE" ] && [ "$1" = gw ]; } # SERVER
net_for() { # SERVER
	local ns=$1 n
	for n in "$ns" "$ns-dev" "$ns-up"; do
		ns_make "$n"
		in_ns "$n" sysctl -qw net.ipv4.ip_local_port_range="1024 65535" net.ipv4.tcp_tw_reuse=1 \
			net.ipv4.tcp_max_syn_backlog=65535 net.core.somaxconn=65535
	done
	link_pair "$ns" dev0 "$ns-dev" eth0
	link_pair "$ns" up0 "$ns-up" eth0
	in_ns "$ns-up" ip addr add "$UP_SINK/24" dev eth0
	in_ns "$ns-dev" ip addr add 10.64.0.2/24 dev eth0
	for n in 10.64.1.0/24 10.64.2.0/23 10.64.4.0/22 10.64.8.0/21 10.64.16.0/20 10.64.32.0/19 10.64.64.0/18 \
		10.64.128.0/17 10.65.0.0/16; do
		in_ns "$ns-dev" ip route add local "$n" dev lo || die "addresses of devices"
	done
}
# Devices and strangers as neighbours that need no ARP: the kernel keeps only a thousand that do, in all namespaces.
# neighbours SERVER INTERFACE [MAC]
neighbours() {
	local mac=${3:-}
	[ -n "$mac" ] || mac=$(in_ns "$1-dev" cat /sys/class/net/eth0/address)
	awk -v n="$DEVICES" -v mac="$mac" -v dev="$2" 'BEGIN { for (d = 256; d < n + 512; d++)
		printf "neigh replace 10.%d.%d.%d lladdr %s dev %s nud permanent\n", 64 + int(d / 65536), int(d / 256) % 256, d % 256, mac, dev }' >"$D/neigh"
	in_ns "$1" ip -batch "$D/neigh" || die "neighbours of $1"
}

# crl_of N: a list of the CA with N certificates revoked, none of them a device's
crl_of() {
	(
		cd "$D/pki" || exit 1
		awk -v n="$1" 'BEGIN { srand(7); for (i = 0; i < n; i++)
			printf "R\t400101000000Z\t260101000000Z\t%08X%08X%08X%08X\tunknown\t/CN=x\n", 1 + rand() * 2147483646,
				rand() * 4294967295, rand() * 4294967295, i }' >"many-$1"
		echo 'unique_subject = no' >"many-$1.attr"
		sed "s/^database = .*/database = many-$1/" ca.cnf >"ca-$1.cnf"
		openssl ca -config "ca-$1.cnf" -gencrl -keyfile ca.key -cert ca.pem -out "crl-$1.pem"
		chmod 644 "crl-$1.pem"
	) >"$D/crl.log" 2>&1 || die "revocation list: $(tail -3 "$D/crl.log")"
}
crl_path() { # LISTENER: its revocation list
	say "$D/pki/crl-${REVOKED[$(($1 < ${#REVOKED[@]} ? $1 : 1))]}.pem"
}
upstream_of() { # LISTENER
	say "$UP_SINK:$((SINK_PORT + ($1 < ${#REVOKED[@]} ? 0 : $1 - ${#REVOKED[@]})))"
}

# The stack takes memory for as many sessions as its listeners may have.
sessions_max() { # LISTENER
	local n=$((IDLE_WIRED > OPEN ? IDLE_WIRED : OPEN))
	say $(($1 < ${#REVOKED[@]} ? 10000 : n / MANY_PORTS + 1000))
}
tls_config() {
	local i dev='kernel = "dev0"' up='kernel = "up0"'
	[ "$TRANSPORT" = socket ] || HUGEPAGES=true
	[ "$TRANSPORT" = socket ] || dev='devargs = "net_af_xdp0,iface=dev0"' up='devargs = "net_af_xdp1,iface=up0"'
	[ -z "$WIRE" ] || dev="devargs = \"net_vhost0,iface=$D/dev.sock\"" up="devargs = \"net_vhost1,iface=$D/up.sock\""
	{
		cat <<-CFG
			gateway = { name = "gw1"; run_dir = "$D/run"; state_dir = "$D/state"; segments = "$D/segments.cfg";
			  user = "nobody"; devices_max = 16384; log_level = "${LOG_LEVEL:-warn}"; };
			dataplane = { lcores = "$SERVER_CPU"; memory_mb = ${MEMORY_MB:-256}; hugepages = ${HUGEPAGES:-false}; flows_max = 524288; };
			limits = { device = { new_flows = 0; flows = 0; kernel_packets = 0; tls_packets = 0; };
			  networks = { flows_pct = 0; };
			  strangers = { packets = 0; packets_each = 0; new_flows = 0; new_flows_each = 0; }; };
			ports = ( { name = "dev"; side = "device"; $dev; addresses = [ "$SERVER4/14" ]; },
			  { name = "up"; side = "uplink"; $up; addresses = [ "$UP_SERVER/24" ]; } );
			controller = { socket = "$D/run/decisions.sock"; public_key = "$D/controller/controller.pub"; };
			metrics = { port = 9464; };
			listeners = (
		CFG
		for ((i = 0; i < LISTENERS; i++)); do
			cat <<-CFG
				  { name = "l$i"; address = "$SERVER4"; port = $((TLS_PORT + i)); upstream = "$(upstream_of "$i")";
				    transport = "$TRANSPORT"; handshakes_max = 10000; sessions_max = $(sessions_max "$i"); crl = "$(crl_path "$i")";
				    certificate = "$D/pki/gw.pem"; key = "$D/pki/gw.key"; ca = "$D/pki/ca.pem"; }$([ "$((i + 1))" = "$LISTENERS" ] || say ,)
			CFG
		done
		say ');'
	} >"$D/gateway.cfg"
	cat >"$D/segments.cfg" <<-CFG
		segments = ( { name = "devices"; members = ( { san = "spiffe://bench/device/*"; } ); } );
		networks = ( { name = "upstream"; prefixes = [ "$UP_SINK/32" ]; } );
		rules = ( { from = "devices"; to = "upstream"; service = "tcp/$SINK_PORT-$((SINK_PORT + MANY_PORTS))"; } );
	CFG
}

# What is measured keeps its core, whatever else runs on the machine.
on_core() { # CPU PID...
	local cpu=$1 p
	shift
	for p; do
		taskset -a -p -c "$cpu" "$p" >/dev/null
		chrt -a -r -p 1 "$p" >/dev/null
	done
}
# Fair to each other, but not to what else runs on the machine
ahead_of_others() { # PID...
	local p t
	for p; do
		for t in "/proc/$p/task/"*; do renice -n -20 -p "${t##*/}" >/dev/null; done
	done
}
decide() { "$B/bench/tls_decide" "$D/run/controller.sock" "$D/run/trust" "$@"; }

gateway_up() {
	local dev=dev0
	if [ -n "$WIRE" ]; then ns_make gw; else net_for gw; fi
	tls_config
	daemons_start
	[ "$TRANSPORT" = socket ] || dev=sp-dev
	neighbours gw "$dev" ${WIRE:+"$WIRE_MAC:00"}
	[ -z "$WIRE" ] || in_ns gw ip neigh replace "$UP_SINK" lladdr "$WIRE_MAC:01" dev sp-up nud permanent
	decide enrol 0 "$DEVICES" || die "devices cannot be enrolled"
	on_core 0 "$(daemon_pid agent)" "$(daemon_pid controller)"
	if [ "$TRANSPORT" = socket ]; then
		on_core "$SERVER_CPU" "$(daemon_pid tls-proxy)"
	else # both of the path's processes on one core: they must give way to each other
		taskset -a -p -c "$SERVER_CPU" "$(daemon_pid tls-proxy)" >/dev/null
		ahead_of_others "$(daemon_pid tls-proxy)" "$(daemon_pid dataplane)"
	fi
}
server_pids() { # SERVER: the processes that its sessions are in
	case $1 in
	gw) daemon_pid tls-proxy ;;
	*) say "${SERVER_PID[$1]}" ;;
	esac
}
all_pids() { # SERVER: the processes that know of a session
	case $1 in
	gw) for p in tls-proxy agent dataplane controller; do daemon_pid "$p"; done ;;
	*) say "${SERVER_PID[$1]}" ;;
	esac
}
declare -A SERVER_PID

# ---- the other two ------------------------------------------------------------------------------
peer_net() {
	net_for "$1"
	in_ns "$1" ip addr add "$SERVER4/14" dev dev0
	in_ns "$1" ip addr add "$UP_SERVER/24" dev up0
	neighbours "$1" dev0
}
nginx_up() {
	local i
	peer_net ngx
	mkdir "$D/nginx"
	cat "$D/pki/gw.pem" >"$D/pki/chain.pem"
	{
		cat <<-CFG
			load_module /usr/lib/nginx/modules/ngx_stream_module.so;
			user root; worker_processes 1;  pid $D/nginx/pid; error_log $D/nginx.log crit;
			events { multi_accept on; worker_connections $(ulimit -Hn); }
			stream {
			  access_log off; tcp_nodelay on; proxy_timeout 1h;
			  ssl_certificate $D/pki/gw.pem; ssl_certificate_key $D/pki/gw.key; ssl_protocols TLSv1.3;
			  ssl_ciphers HIGH; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; ssl_ecdh_curve X25519;
			  ssl_session_tickets off; ssl_session_cache off; ssl_conf_command NumTickets 0;
			  ssl_verify_client on; ssl_verify_depth 4; ssl_client_certificate $D/pki/ca.pem;
		CFG
		for ((i = 0; i < LISTENERS; i++)); do
			say "  server { listen $SERVER4:$((TLS_PORT + i)) ssl backlog=65535; ssl_crl $(crl_path "$i"); proxy_pass $(upstream_of "$i"); }"
		done
		say '}'
	} >"$D/nginx/nginx.conf"
	spawn ngx nginx-start nginx -p "$D/nginx" -c "$D/nginx/nginx.conf" -e "$D/nginx.log" -g 'daemon off;'
	NGINX_MASTER=$LAST
	must "nginx is up" 20 nginx_worker
	SERVER_PID[ngx]=$(nginx_worker)
	on_core "$SERVER_CPU" "${SERVER_PID[ngx]}"
}
nginx_worker() { pgrep -P "$NGINX_MASTER"; }
haproxy_up() {
	local i
	peer_net hap
	cat "$D/pki/gw.pem" "$D/pki/gw.key" >"$D/pki/haproxy.pem"
	{
		cat <<-CFG
			global
			  nbthread 1
			  maxconn $(($(ulimit -Hn) / 2 - 200))
			  tune.ssl.default-dh-param 2048
			  ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets
			  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
			  tune.ssl.cachesize 0
			  nosplice
			defaults
			  mode tcp
			  timeout connect 5s
			  timeout client 1h
			  timeout server 1h
			  maxconn $(($(ulimit -Hn) / 2 - 200))
		CFG
		for ((i = 0; i < LISTENERS; i++)); do
			say "listen l$i"
			say "  bind $SERVER4:$((TLS_PORT + i)) backlog 65535 ssl crt $D/pki/haproxy.pem curves X25519 ca-file $D/pki/ca.pem verify required crl-file $(crl_path "$i")"
			say "  server up $(upstream_of "$i")"
		done
	} >"$D/haproxy.cfg"
	spawn hap haproxy haproxy -db -f "$D/haproxy.cfg"
	SERVER_PID[hap]=$LAST
	must "HAProxy listens" 20 listens hap
	on_core "$SERVER_CPU" "${SERVER_PID[hap]}"
}
listens() { in_ns "$1" ss -Hltn "sport = :$TLS_PORT" | grep -q LISTEN; }

# ---- devices and the upstream ---------------------------------------------------------------------
# load_up NAME SERVER: a generator with the server's devices
load_up() {
	local out=LOAD_$1_OUT pid=LOAD_$1_PID
	if wired "$2"; then
		wire_up "$1"
		return
	fi
	talker "LOAD_$1" ip netns exec "$P$2-dev" "$B/bench/tls_load" "$D/pki/ca.pem" "$D/pki/ca.key" "$DEVICES"
	answer_of "${!out}" 10 >/dev/null || die "tls_load: $(cat "$D/LOAD_$1.log")"
	on_core 0 "${!pid}"
}
# One process is the devices and the upstream.
wire_up() { # NAME
	local out=LOAD_$1_OUT
	talker "LOAD_$1" "$B/bench/tls_load" "$D/pki/ca.pem" "$D/pki/ca.key" "$DEVICES" -l 0 --in-memory --single-file-segments -m 512 \
		--no-pci --no-telemetry --log-level=error --vdev "net_virtio_user0,path=$D/dev.sock,$WIRE_VIRTIO" \
		--vdev "net_virtio_user1,path=$D/up.sock,$WIRE_VIRTIO" -- "$SERVER4" "$UP_SINK" "$SINK_PORT" "$(rig_mac dev)" "$(rig_mac up)"
	answer_of "${!out}" 20 >/dev/null || die "tls_load: $(cat "$D/LOAD_$1.log")"
	out=LOAD_$1_PID
	renice -n -10 -p "${!out}" >/dev/null
}
load_down() {
	local pid=LOAD_$1_PID in=LOAD_$1_IN out=LOAD_$1_OUT
	end "${!pid}"
	in=${!in} out=${!out}
	exec {in}>&- {out}>&-
	rm "$D/LOAD_$1.in" "$D/LOAD_$1.out"
}
# A generator that must leave its core to the others
on_idle() {
	local pid=LOAD_$1_PID
	chrt -o -p 0 "${!pid}"
}
ends_up() { # SERVER: generator and sinks
	local i n=$MANY_PORTS
	! wired "$1" || n=0
	for ((i = 0; i < n; i++)); do
		spawn "$1-up" "sink-$1-$i" "$B/bench/tls_sink" "$UP_SINK" $((SINK_PORT + i))
		on_core 0 "$LAST"
	done
	load_up "$1" "$1"
}
# One that is the witness of an end: it must not wait for those whose work it is a witness of, on the same core
on_watch() {
	local pid=LOAD_$1_PID
	chrt -a -r -p 2 "${!pid}"
}
load_ask() { # NAME COMMAND...
	local in=LOAD_$1_IN
	shift
	say "$*" >&"${!in}"
}
load_answer() {
	local out=LOAD_$1_OUT pid=LOAD_$1_PID end=$((SECONDS + 300)) line part=
	until IFS= read -r -t 1 -u "${!out}" line; do
		part+=$line # the time was over in the middle of it
		[ "$SECONDS" -lt "$end" ] || die "tls_load takes too long"
		! not_running "${!pid}" || die "tls_load ended: $(cat "$D/LOAD_$1.log")"
	done
	line=$part$line
	[ "${line%% *}" = ok ] || die "$line"
	say "${line#ok}"
}
load() { # NAME COMMAND...: the answer's words
	load_ask "$@"
	load_answer "$1" || die "tls_load $* ($(cat "$D/LOAD_$1.log"))"
}
target() { say "$SERVER4:$((TLS_PORT + $1))+${3:-1}/$2"; } # LISTENER GROUP [PORTS]
