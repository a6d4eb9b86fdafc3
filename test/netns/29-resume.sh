#!/bin/bash
# 29. Resumption: a device comes back with a ticket, once, and is judged anew all the same. After a revocation of any kind, a
#     quarantine, another policy, a reload without its CA, nothing that it says with its ticket reaches the upstream.
# transports: socket stack
LISTENER_EXTRA='proxy_protocol = false; resumption_s = 600;'
TLS_WORKERS=2 # of which the second rests until its turn
. "$(dirname "$0")/lib.sh"
world_up s29
worker1=$(tls_service 1)
daemon_stop "$worker1"
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
for n in 1 2 3 4 5 6; do sensor_make "s$n" $((20 + n)); done
echo_both tcp core "$NVR4" "$NVR6" 1883

visit_over() { grep -qx "$3" "$D/visit-$2.log" || not_running "$1"; }
visit() { # NAME OPTIONS...: one line to the upstream and back; what openssl says is in $D/visit-NAME.log
	local name=$1 line="visit $RANDOM$RANDOM" fifo pid code=1
	shift
	mkfifo "$D/visit.in" 2>/dev/null
	exec {fifo}<>"$D/visit.in"
	in_ns "$name" openssl s_client -connect "${HOST:-$GW4}:8883" -CAfile "$D/pki/ca.pem" -cert "$D/pki/$name.pem" \
		-key "$D/pki/$name.key" "$@" <"$D/visit.in" >"$D/visit-$name.log" 2>&1 &
	pid=$!
	PIDS+=("$pid")
	echo "$line" >&"$fifo"
	wait_for 3 visit_over "$pid" "$name" "$line"
	grep -qx "$line" "$D/visit-$name.log" && code=0
	end "$pid"
	exec {fifo}>&-
	rm -f "$D/visit.in"
	return $code
}
how() { sed -nE 's/^(New|Reused), TLSv1.3.*/\1/p' "$D/visit-$1.log"; }
begins() { grep -cE "session begins .*$(id_of "$1") .*resumed=$2 " "$D/tls-proxy.log"; }
ticket() { # NAME: of a whole handshake, in $D/NAME.ticket
	rm -f "$D/$1.ticket"
	visit "$1" -sess_out "$D/$1.ticket" || return 1
	[ "$(how "$1")" = New ] && [ -s "$D/$1.ticket" ]
}

# ---- what it is good for ------------------------------------------------------------------------
check "a device gets in, and a ticket" ticket s1
check "it comes back with it" visit s1 -sess_in "$D/s1.ticket" -sess_out "$D/s1.next"
check_eq "by resumption" Reused "$(how s1)"
check_eq "and the worker says so" 1 "$(begins sensor/s1 1)"
check "once more with the next" visit s1 -sess_in "$D/s1.next"
check_eq "by resumption" Reused "$(how s1)"
check "a ticket that was used: it gets in" visit s1 -sess_in "$D/s1.ticket"
check_eq "by a whole handshake" New "$(how s1)"

must "a ticket" 3 ticket s1
check "a hello that must be said twice (HelloRetryRequest)" visit s1 -sess_in "$D/s1.ticket" -groups P-521:X25519
check_eq "by resumption" Reused "$(how s1)"
must "a ticket" 3 ticket s1
check "another server name: it gets in" visit s1 -sess_in "$D/s1.ticket" -servername elsewhere.example
check_eq "by a whole handshake" New "$(how s1)"
HOST="[$GW6]" check "another listener: it gets in" visit s1 -sess_in "$D/s1.ticket"
check_eq "by a whole handshake" New "$(how s1)"
openssl sess_id -in "$D/s1.ticket" -noout -text >"$D/s1.text" 2>&1
check_match "the ticket says how long it is good for" 'lifetime hint: (600|59[0-9])' "$(cat "$D/s1.text")"
daemon_stop tls-proxy
daemon_start tls-proxy
must "the worker is back" 20 gw_ready
check "a worker that was started again: it gets in" wait_for 10 visit s1 -sess_in "$D/s1.ticket"
check_eq "by a whole handshake" New "$(how s1)"

workers() { [ "$(ctl_json status '.tls_workers | length')" = "$1" ]; }
daemon_start "$worker1"
must "a second worker" 10 workers 2
passes=0 resumed=0
cp "$D/s1.ticket" "$D/s6.ticket" # of another device, and of a worker that is gone
for n in 1 2 3 4 5 6 7 8; do
	rm -f "$D/s6.next"
	visit s6 -sess_in "$D/s6.ticket" -sess_out "$D/s6.next" && passes=$((passes + 1))
	[ "$(how s6)" = Reused ] && resumed=$((resumed + 1))
	[ -s "$D/s6.next" ] && mv "$D/s6.next" "$D/s6.ticket"
done
check_eq "two workers: whichever a ticket comes to, the device gets in" 8 "$passes"
say "        $resumed of 8 by resumption"
daemon_stop "$worker1"
must "one worker again" 10 workers 1

# ---- what it is not good for --------------------------------------------------------------------
for n in 1 2 3 4 5 6; do must "a ticket of s$n" 3 ticket "s$n"; done
must "a ticket of cam1" 3 ticket cam1
check "the camera comes back with it" visit cam1 -sess_in "$D/cam1.ticket" -sess_out "$D/cam1.next"
check_eq "by resumption" Reused "$(how cam1)"
capture core eth0 core 'tcp port 1883 and tcp[tcpflags] & tcp-push != 0'
upstream_got() { seen core 'dst port 1883'; }
some_got() { [ "$(upstream_got)" -gt 0 ]; }
check "a device is served" visit s6
check "and the capture sees it" wait_for 3 some_got
silent() { # NAME HANDSHAKE WHY [TICKET]: with its ticket it reaches nobody
	local before name=$1 how=$2
	shift
	before=$(upstream_got)
	check_not "$2: nothing comes back" visit "$name" -sess_in "$D/${3:-$name.ticket}"
	check_eq "$2: the handshake" "$how" "$(how "$name")"
	check_eq "$2: and nothing reached the upstream" "$before" "$(upstream_got)"
}

ctl revoke "$(id_of sensor/s1)" >/dev/null
silent s1 Reused "certificate revoked by the controller"
check_match "the device is told" 'alert certificate revoked|alert access denied' "$(cat "$D/visit-s1.log")"
check_match "the worker says whom it refused" "handshake refused .*$(id_of sensor/s1) " "$(cat "$D/tls-proxy.log")"
ctl quarantine "$(id_of sensor/s2)" >/dev/null
silent s2 Reused "quarantined"
ctl software revoke "sha256:$DIGEST_A" >/dev/null
silent cam1 Reused "its software revoked" cam1.next
check "it is in remediation, where nothing is relayed" has_standing camera/cam1 remediation
sed 's|san = "spiffe://plant-7/sensor/\*"|san = "spiffe://plant-7/sensor/s1"|; s|san = "spiffe://plant-7/plc/\*"|san = "spiffe://plant-7/sensor/s3"|; s|requires = { attestation = "affirming"; software = "certified"; }; },$|},|' \
	"$LIB/segments.cfg" >"$D/other.cfg"
ctl policy apply "$D/other.cfg" >"$D/policy.log" 2>&1 || die "policy: $(cat "$D/policy.log")"
silent s3 Reused "another segment"
check_eq "it is in that one" plcs "$(segment_of sensor/s3)"
ctl policy apply "$LIB/segments.cfg" >/dev/null || die policy
check "and back, when the policy is" visit s3

must "a ticket of s4" 3 ticket s4
crl_revoke s4
at=$(wc -l <"$D/tls-proxy.log")
since() { tail -n "+$((at + 1))" "$D/tls-proxy.log" | grep -qE -- "$1"; }
daemon_hup tls-proxy
must "the list was read" 10 since 'reloaded listener=mqtt6-wifi'
silent s4 New "revoked by a list"
check_match "told so" 'alert certificate revoked' "$(cat "$D/visit-s4.log")"
must "a ticket of s5" 3 ticket s5
cp "$D/pki/ca.pem" "$D/pki/kept.pem"
cp "$D/pki/other-ca.pem" "$D/pki/ca.pem"
(cd "$D/pki" && openssl ca -config ca.cnf -gencrl -keyfile other-ca.key -cert other-ca.pem -out ca.crl) 2>"$D/pki-crl.log" ||
	die "revocation list"
at=$(wc -l <"$D/tls-proxy.log")
daemon_hup tls-proxy
must "the other CA was read" 10 since 'reloaded listener=mqtt6-wifi'
silent s5 New "its CA is not trusted any more"
check_match "the worker says why" "handshake refused .*unknown CA" "$(cat "$D/tls-proxy.log")"
