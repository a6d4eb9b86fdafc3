#!/bin/bash
# 27. DTLS: packaged clients of three libraries reach a CoAP server through mTLS over UDP; who has no certificate, or a
#     revoked one, does not; a device with a connection ID goes on from another address, and is bound there and nowhere
#     else; a flood of hellos costs nothing.
# transports: socket stack
POLICY_FILE=$(cd "$(dirname "$0")" && pwd)/segments-dtls.cfg
LIMITS='strangers = { packets = 0; packets_each = 0; };'
TLS_WORKERS=2 # of which the second rests until its turn
. "$(dirname "$0")/lib.sh"
dtls_listener() { # NAME ADDRESS PORT UPSTREAM EXTRA
	printf ', { transport = "%s"; name = "%s"; protocol = "dtls"; tls12 = true; address = "%s"; port = %s; %s %s\n' "$TRANSPORT" "$@"
	printf '    certificate = "%s/gw.pem"; key = "%s/gw.key"; ca = "%s/ca.pem"; crl = "%s/ca.crl"; }\n' \
		"$D/pki" "$D/pki" "$D/pki" "$D/pki"
}
listeners_more() {
	dtls_listener coap "$GW4" 5684 "upstream = \"$NVR4:5683\";" ""
	dtls_listener coap6 "$GW6" 5684 "upstream = \"[$NVR6]:5683\";" ""
	dtls_listener echo "$GW4" 5685 "upstream = \"$NVR4:5000\";" ""
	dtls_listener small "$GW4" 5686 "upstreams = ( { address = \"$NVR4:5000\"; }, { address = \"[$NVR6]:5000\"; } );" "aes_ccm = true;"
}
world_up s27
worker1=$(tls_service 1)
daemon_stop "$worker1"
for n in 1 2 3 4; do sensor_make "s$n" $((10 + n)); done
device_make m1 31
cert_make m1 "URI:$(id_of meter/m1)"
vouch meter/m1
device_make x1 66
cert_make x1 "URI:$(id_of sensor/x1)" other-ca
for a in "$NVR4" "$NVR6"; do
	spawn core "coap-${a//:/_}" coap-server-notls -A "$a"
done
must "CoAP server" 5 in_ns core python3 "$LIB/traffic.py" listening udp 5683
udp_echo core "$NVR4" 5000
udp_echo core "$NVR6" 5000
dtls_log() { sed -n "/$1/p" "$D/tls-proxy.log"; }

# ---- packaged clients ---------------------------------------------------------------------------
coap_get() { # CLIENT NS NAME HOST RESOURCE
	local host=$4
	case $host in *:*) host=[$host] ;; esac
	in_ns "$2" timeout 10 "$1" -B 6 -C "$D/pki/ca.pem" -c "$D/pki/$3.pem" -j "$D/pki/$3.key" -m get \
		"coaps://$host:5684$5" 2>&1
}
for client in coap-client-openssl coap-client-gnutls; do
	for host in "$GW4" "$GW6"; do
		check_match "$client gets a resource by $host" 'test server made with libcoap' \
			"$(coap_get $client s1 s1 "$host" /)"
	done
	check_match "$client gets a larger one, in blocks" 'rt="ticks"|ct=0' "$(coap_get $client s1 s1 "$GW4" /.well-known/core)"
done
check_match "the worker names the device, the version and the cipher" \
	'session begins listener=coap device=.*sensor/s1 segment=sensors .*tls=DTLSv1.2 cipher=ECDHE-ECDSA-AES.*GCM' "$(dtls_log 'session begins')"
bound_to() { [ "$(ctl_json bindings ".bindings[] | select(.ip == \"$2\") | .device")" = "$(id_of "$1")" ]; }
check "the handshake bound the device's address" wait_for 3 bound_to sensor/s1 10.7.0.11
check "in both families" wait_for 3 bound_to sensor/s1 fd07::11
check "and the fast path lets its flows pass" udp_try s1 "$NVR4" 5000

hold() { # NS NAME COMMAND...: a client until `end $LAST`; lines go in by line_to, output to $D/dtls-NAME.log
	local ns=$1 name=$2
	shift 2
	mkfifo "$D/dtls-$name.fifo" 2>/dev/null
	# the shell behind keeps the fifo open for writing: the client sees no end of input
	# shellcheck disable=SC2016
	ip netns exec "$P$ns" bash -c 'exec 3<>"$1"; shift; exec "$@" <&3' _ "$D/dtls-$name.fifo" "$@" \
		>"$D/dtls-$name.log" 2>&1 &
	LAST=$!
	PIDS+=("$LAST")
}
s_client() { # NS NAME PORT [OPTIONS...]
	local ns=$1 name=$2 port=$3
	shift 3
	hold "$ns" "$name" openssl s_client -dtls1_2 -connect "$GW4:$port" -CAfile "$D/pki/ca.pem" -verify_return_error \
		-brief "$@"
}
line_to() { # NAME LINE
	local fifo
	exec {fifo}<>"$D/dtls-$1.fifo" || return 1
	printf '%s\n' "$2" >&"$fifo"
	exec {fifo}>&-
}
echoes() { # NAME LINE: said again until it comes back, for a datagram may be lost
	line_to "$1" "$2" && wait_for 1 grep -qx "$2" "$D/dtls-$1.log"
}
s_client s2 s2 5685 -cert "$D/pki/s2.pem" -key "$D/pki/s2.key"
check "openssl s_client: a line there and back" wait_for 10 echoes s2 "hello over datagrams"
hold s4 s4 gnutls-cli --udp --x509cafile="$D/pki/ca.pem" --x509certfile="$D/pki/s4.pem" --x509keyfile="$D/pki/s4.key" \
	--verify-hostname=gw1 --mtu=1200 -p 5685 "$GW4"
check "gnutls-cli: the same" wait_for 10 echoes s4 "and of another library"
end "$LAST"

# ---- devices that have nothing but AES-CCM, and two servers -------------------------------------
capture core eth0 servers 'udp dst port 5000'
servers=$LAST
for n in 5685 5686; do
	s_client s4 "ccm$n" "$n" -cert "$D/pki/s4.pem" -key "$D/pki/s4.key" -cipher ECDHE-ECDSA-AES128-CCM8
	ccm[n]=$LAST
done
check "CCM_8 where the listener takes it" wait_for 10 echoes ccm5686 "with short tags"
check "and nowhere else" wait_for 8 grep -qi 'alert' "$D/dtls-ccm5685.log"
end "${ccm[@]}"
hold s4 ccm gnutls-cli --udp --x509cafile="$D/pki/ca.pem" --x509certfile="$D/pki/s4.pem" --x509keyfile="$D/pki/s4.key" \
	--priority 'NONE:+VERS-DTLS1.2:+AES-128-CCM-8:+AEAD:+ECDHE-ECDSA:+SIGN-ECDSA-SHA256:+GROUP-SECP256R1:+CTYPE-X509' \
	--verify-hostname=gw1 --mtu=1200 -p 5686 "$GW4"
check "gnutls-cli: the same, with CCM_8" wait_for 10 echoes ccm "of another library"
end "$LAST"
servers_seen() { [ "$(seen servers ip)" -gt 0 ] && [ "$(seen servers ip6)" -gt 0 ]; }
check "of two sessions each server has one" wait_for 3 servers_seen
end "$servers"
check_match "the worker names the cipher" 'session begins listener=small .*cipher=ECDHE-ECDSA-AES128-CCM-8' "$(dtls_log 'session begins')"

s_client s4 again 5685 -cert "$D/pki/s4.pem" -key "$D/pki/s4.key"
check "a session that wants to negotiate anew" wait_for 10 echoes again "first"
n=$(dtls_log 'session begins' | wc -l)
line_to again R
ended() { grep -q 'session ends device=.*sensor/s4 .*why="Duplicate HandShake' "$D/agent.log"; }
check "is ended" wait_for 5 ended
check_eq "and no other begins with it" "$n" "$(dtls_log 'session begins' | wc -l)"
end "$LAST"

# ---- who may not --------------------------------------------------------------------------------
capture core eth0 core 'udp port 5683 or udp port 5000'
s_client x1 x1 5685 -cert "$D/pki/x1.pem" -key "$D/pki/x1.key"
x1=$LAST
check "a certificate of another CA is refused" wait_for 8 grep -qi 'alert' "$D/dtls-x1.log"
end "$x1"
s_client x1 none 5685
none=$LAST
check "none at all, too" wait_for 8 grep -qi 'alert' "$D/dtls-none.log"
end "$none"
check_match "and the log says why" 'handshake refused listener=echo peer=10.7.0.66 .*unknown CA' "$(dtls_log 'handshake refused')"
coap_get coap-client-openssl m1 m1 "$GW4" / >"$D/held.log"
check_eq "a device whose segment may not reach the server gets no answer" 0 "$(grep -c 'test server' "$D/held.log")"
check_match "its session is held, and ends with its first datagram" 'its segment may not reach the upstream' "$(cat "$D/agent.log" "$D/tls-proxy.log")"
check_eq "of all these the servers saw nothing" 0 "$(seen core "udp port 5683 or udp port 5000")"

# ---- revocation ---------------------------------------------------------------------------------
check "the open session still answers" wait_for 5 echoes s2 "still here"
some_seen() { [ "$(seen core "udp port 5000")" -gt 0 ]; }
check "and the capture sees it" wait_for 3 some_seen
upstream_sockets() { in_ns gw ss -Huna dst "$NVR4:5000" | wc -l; }
if [ "$TRANSPORT" = socket ]; then
	sockets=$(upstream_sockets)
	check_match "its worker holds a socket to the server" '^[1-9]' "$sockets"
else
	sockets=1
	check_eq "of the kernel's sockets its worker holds none to the server" 0 "$(upstream_sockets)"
fi
ctl revoke "$(id_of sensor/s2)" >"$D/revoke.log"
check_match "the receipt counts the session" '1 session' "$(cat "$D/revoke.log")"
check "the device is told" wait_for 3 grep -qi 'certificate revoked' "$D/dtls-s2.log"
one_less() { [ "$(upstream_sockets)" = $((sockets - 1)) ]; }
check "and the way to the server is gone" wait_for 3 one_less
after=$(seen core "udp port 5000")
line_to s2 "nobody hears this"
line_to s2 "nor this"
check_not "it does not get in again" grep -q 'test server' <<<"$(coap_get coap-client-openssl s2 s2 "$GW4" /)"
check_match "for it is revoked" 'handshake refused listener=coap peer=10.7.0.12 .*why="[^"]*revoked' "$(dtls_log 'handshake refused')"
check_eq "nothing more reached the server" "$after" "$(seen core "udp port 5000")"

# ---- a device that moves ------------------------------------------------------------------------
in_ns s3 ip addr add 10.7.0.113/24 dev eth0
mover() { # NAME OPTIONS...
	local name=$1
	shift
	hold s3 "$name" dtls-device "$@" "$GW4" 5685 "$D/pki/ca.pem" "$D/pki/s3.pem" "$D/pki/s3.key"
}
says() { line_to "$1" "say $2" && wait_for 1 grep -qx "got $2" "$D/dtls-$1.log"; }
unbound() { [ -z "$(ctl_json bindings ".bindings[] | select(.ip == \"$1\") | .device")" ]; }
n_before=$(sessions_of sensor/s3)
for v in "" --v13; do
	name=mover$v
	# shellcheck disable=SC2086 # none, or one
	mover "$name" $v --bind 10.7.0.13
	pid=$LAST
	check "connection ID ${v:---v12}: open" wait_for 5 grep -q 'open DTLSv1.[23] cid=1' "$D/dtls-$name.log"
	check "${v:---v12}: there and back" wait_for 5 says "$name" "one"
	check "${v:---v12}: bound where it is" wait_for 3 bound_to sensor/s3 10.7.0.13
	line_to "$name" "move 10.7.0.113"
	check "${v:---v12}: from another address the same session goes on" wait_for 5 says "$name" "two"
	check "${v:---v12}: bound there now" wait_for 3 bound_to sensor/s3 10.7.0.113
	check "${v:---v12}: and not where it was" wait_for 3 unbound 10.7.0.13
	check_eq "${v:---v12}: one session" $((n_before + 1)) "$(sessions_of sensor/s3)"
	line_to "$name" "move 10.7.0.13"
	check "${v:---v12}: and back again" wait_for 5 says "$name" "three"
	check "${v:---v12}: unbound where it was for a while" wait_for 3 unbound 10.7.0.113
	line_to "$name" end
	wait_for 3 not_running "$pid"
	check "${v:---v12}: its good-bye ends the session" wait_for 3 has_sessions sensor/s3 "$n_before"
done
mover stayer --no-cid --bind 10.7.0.13
check "without connection ID: open" wait_for 5 grep -q 'open DTLSv1.2 cid=0' "$D/dtls-stayer.log"
check "there and back" wait_for 5 says stayer one
line_to stayer "move 10.7.0.113"
check_not "another address is a stranger's" says stayer two
check "it is not bound" unbound 10.7.0.113
line_to stayer "move 10.7.0.13"
line_to stayer end

# ---- two workers --------------------------------------------------------------------------------
# The kernel chooses between them by address and port, so about every second move leads to the wrong one; the dataplane
# reads the connection ID.
workers() { [ "$(ctl_json status '.tls_workers | length')" = "$1" ]; }
must "a worker" 5 workers 1
daemon_start "$worker1"
must "a second worker" 10 workers 2
n_before=$(sessions_of sensor/s3)
mover wanderer --v13 --bind 10.7.0.13
check "a device with two workers: open" wait_for 5 grep -q 'open DTLSv1.3 cid=1' "$D/dtls-wanderer.log"
for n in 1 2 3 4 5 6 7 8; do
	line_to wanderer "move 10.7.0.$((n % 2 == 1 ? 113 : 13))"
	check "move $n: the same session goes on" wait_for 5 says wanderer "step-$n"
done
check_eq "with one session" $((n_before + 1)) "$(sessions_of sensor/s3)"
line_to wanderer end
check "that ends" wait_for 3 has_sessions sensor/s3 "$n_before"
check "both workers run" workers 2
daemon_stop "$worker1"

# ---- a flood ------------------------------------------------------------------------------------
proxy=$(daemon_pid tls-proxy)
memory_kb() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$proxy/status"; }
X=$(in_ns x1 cat /sys/class/net/eth0/address) GW=$(in_ns gw cat /sys/class/net/sp-dev/address)
before=$(memory_kb)
spawn x1 flood python3 "$LIB/traffic.py" flood eth0 hello 3000 6 "smac=$X" "dmac=$GW" src=10.7.0.66 "dst=$GW4" dport=5684
flood=$LAST
capture x1 eth0 answers 'udp src port 5684'
answered() { [ "$(seen answers 'udp src port 5684')" -ge "$1" ]; }
must "the flood is answered" 5 answered 500
check_match "a device gets in meanwhile" 'test server made with libcoap' "$(coap_get coap-client-openssl s1 s1 "$GW4" /)"
check "while the flood goes on" kill -0 "$flood"
wait "$flood"
check_match "hellos sent" '^[1-9][0-9]{3,}$' "$(cat "$D/flood.log")"
check_eq "the worker is the same" "$proxy" "$(daemon_pid tls-proxy)"
grown=$(($(memory_kb) - before))
# The address sanitizer keeps what was freed.
grep -qa __asan_init "$B/sallyport-tls-proxy" ||
	check "and has not grown by more than 1 MB for it ($grown kB)" [ "$grown" -le 1024 ]
