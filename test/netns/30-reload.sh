#!/bin/bash
# 30. Listeners come, change, move and go by `sallyctl reload` or a SIGHUP, in all processes or in none: nobody who knocks at
#     one that stays is refused, and no session of it ends; one that is gone leaves no trace once its sessions have drained.
# transports: socket stack
TLS_WORKERS=2 GATEWAY_EXTRA='drain_s = 3;'
. "$(dirname "$0")/lib.sh"
world_up s30
for n in 1 2; do sensor_make "s$n" $((10 + n)); done
echo_both tcp core "$NVR4" "$NVR6" 1883
must "both workers are there" 10 test "$(ctl_json status '.tls_workers | length')" = 2
pids() { for s in agent dataplane tls-proxy tls-proxy-1; do daemon_pid "$s"; done; }
daemons=$(pids)

listener() { # NAME PORT UPSTREAM EXTRA: as gateway.cfg has it
	printf '  { name = "%s"; transport = "%s"; address = "%s"; port = %s; upstream = "%s"; %s proxy_protocol = false; certificate = "%s/gw.pem"; key = "%s/gw.key"; ca = "%s/ca.pem"; crl = "%s/ca.crl"; },\n' \
		"$1" "$TRANSPORT" "$GW4" "$2" "$3" "${4:-}" "$D/pki" "$D/pki" "$D/pki" "$D/pki"
}
put() { sed -i "/^listeners = (/a\\$(listener "$@")" "$D/gateway.cfg"; } # into the file
cut_out() { sed -i "/^  { name = \"$1\";/d" "$D/gateway.cfg"; }
reload() { ctl reload 2>&1 | tr '\n' ' '; }
at() { # PORT NS NAME: a line to the upstream and back at that port
	# shellcheck disable=SC2016 # for the inner shell
	in_ns "$2" timeout 5 bash -c '
		coproc c { exec openssl s_client -connect "$1" -CAfile "$2/ca.pem" -cert "$2/$3.pem" -key "$2/$3.key" \
			-verify_return_error -quiet -no_ign_eof 2>/dev/null; }
		echo "hello $$" >&"${c[1]}"
		read -r -t 4 line <&"${c[0]}" && [ "$line" = "hello $$" ]
		code=$?
		kill "$c_PID" 2>/dev/null
		exit $code' _ "$GW4:$1" "$D/pki" "$3"
}
hold() { # PORT NS NAME: a session there, its lines by ~/say
	mkfifo "$D/hold-$1"
	# shellcheck disable=SC2016 # for the inner shell
	spawn "$2" "held-$1" bash -c 'exec 3<>"$1"; shift; exec "$@" <&3' _ "$D/hold-$1" openssl s_client -connect "$GW4:$1" \
		-CAfile "$D/pki/ca.pem" -cert "$D/pki/$3.pem" -key "$D/pki/$3.key" -verify_return_error -quiet -no_ign_eof
}
held_echoes() { # PORT
	local line="held $RANDOM$RANDOM"
	# shellcheck disable=SC2016 # for the inner shell
	timeout 2 bash -c 'printf "%s\n" "$1" >"$2"' _ "$line" "$D/hold-$1" || return 1
	wait_for 3 grep -qx "$line" "$D/held-$1.log"
}
verdict() { ctl_json why 10.7.0.11 "$GW4" "tcp/$1" '.verdict // .dataplane.verdict // "none"'; }
in_nft() { in_ns gw nft list table inet sallyport | grep -q "$GW4 . tcp . $1"; }
upstreams_at() { in_ns core ss -Htn state established "sport = :1883" "src [$1]" | wc -l; }

# ---- somebody knocks all the time, and a session goes on ----------------------------------------
device_in s1 s1 sensor/s1
knock_all() {
	while [ ! -e "$D/enough" ]; do
		at 8883 s2 s2 || say "refused at $(date +%T.%N)" >>"$D/refused"
		say knocked >>"$D/knocked"
		sleep 0.1 # its pace, not a wait
	done
}
: >"$D/refused"
: >"$D/knocked"
knock_all &
knocker=$!
PIDS+=("$knocker")
knocked() { [ "$(wc -l <"$D/knocked")" -ge "$1" ]; }
knocks_more() { wait_for 20 knocked $(($(wc -l <"$D/knocked") + $1)); }
stays() { # WHAT
	check "$1: somebody got in meanwhile" knocks_more 2
	check_eq "$1: nobody was refused" "" "$(cat "$D/refused")"
	check "$1: the session goes on" session_echoes s1 "$GW4"
	check_eq "$1: no process was started anew" "$daemons" "$(pids)"
}
must "somebody knocks" 20 knocked 1
check_match "nothing has changed: nothing happens" '0 added, 0 changed, 0 removed' "$(reload)"
stays "a reload of the same"

# ---- what an engineer sees ------------------------------------------------------------------------
listener_has() { [ "$(ctl_json listeners ".listeners[] | select(.name == \"$1\") | $2")" = true ]; }
check "sallyctl listeners: who is in" wait_for 5 listener_has mqtt '.state == "listening" and .sessions >= 1 and .begun >= 2 and .admitted >= 2'
check "by each worker" listener_has mqtt '(.workers | length) == 2'
check_eq "both workers" 2 "$(ctl_json listeners '[.workers[] | select(.pid > 0)] | length')"
check_match "as a table" '^mqtt +10.7.0.1:8883 +tls +'"$TRANSPORT"' +listening' "$(ctl listeners | grep '^mqtt ')"
upstream_has() { [ "$(ctl_json upstreams ".upstreams[] | select(.listener == \"$1\") | $2")" = true ]; }
check "sallyctl upstreams: where they go" wait_for 5 upstream_has mqtt '.state == "up" and .connections >= 1 and .connected >= 2 and .last_error == null'
check_match "as a table" '^mqtt +10.20.0.10:1883 +up ' "$(ctl upstreams | grep '^mqtt ')"
metric() { in_ns gw curl -s http://127.0.0.1:9464/metrics | grep -E "^sallyport_$1"; }
check "metrics of listeners" wait_for 5 metric 'listener_sessions\{listener="mqtt",worker="[01]"\} [1-9]'
check "of upstreams" metric 'upstream_up\{listener="mqtt",worker="[01]",upstream="10.20.0.10:1883"\} 1'

# ---- a listener comes -----------------------------------------------------------------------------
check_not "nobody listens at 8884" at 8884 s1 s1
put more 8884 "$NVR4:1883"
check_match "it is added" '1 added, 0 changed, 0 removed' "$(reload)"
check "it takes devices" at 8884 s1 s1
check_eq "the dataplane knows it" listener "$(verdict 8884)"
check "so does nftables" in_nft 8884
stays "added"

# ---- it moves, and what stays changes -------------------------------------------------------------
hold 8884 s1 s1
must "a session at the old port" 10 held_echoes 8884
was=$(upstreams_at "$NVR6")
cut_out more
put more 8885 "$NVR4:1883"
sed -i "/name = \"mqtt\";/s|upstream = \"$NVR4:1883\"|upstream = \"[$NVR6]:1883\"|; s/name = \"mqtt6\";/& handshake_timeout_s = 7;/" "$D/gateway.cfg"
check_match "moved, and two others changed" '1 added, 2 changed, 1 removed' "$(reload)"
check "the new port takes devices" at 8885 s1 s1
check "the session at the old one may finish" held_echoes 8884
check_not "nobody new gets in there" at 8884 s2 s2
upstream_moved() { [ "$(upstreams_at "$NVR6")" -gt "$was" ]; }
hold 8883 s1 s1
must "a new session at the port that stays" 10 held_echoes 8883
check "goes to the new upstream" upstream_moved
stays "moved"
check_match "who leaves is shown" '8884 +tls +'"$TRANSPORT"' +closing' "$(ctl listeners)"
drained() { grep -q 'its listener was removed' "$D/agent.log" && ! in_nft 8884; }
check "the old port's session ends when drain_s is over, and nftables forgets the port" wait_for 12 drained
not_listener() { [ "$(verdict 8884)" != listener ]; }
check "so does the dataplane" wait_for 3 not_listener
check_not "nobody gets in at the old port" at 8884 s2 s2
stays "drained"

# ---- DTLS -------------------------------------------------------------------------------------------
dtls_shakes() { # PORT: a handshake that the device ends at once
	in_ns s2 timeout 5 openssl s_client -dtls1_2 -connect "$GW4:$1" -CAfile "$D/pki/ca.pem" -cert "$D/pki/s2.pem" \
		-key "$D/pki/s2.key" -verify_return_error </dev/null 2>&1 | grep -q '^-----BEGIN CERTIFICATE'
}
put coap 5684 "$NVR4:1883" 'protocol = "dtls"; tls12 = true;'
check_match "a DTLS listener is added" '1 added, 0 changed, 0 removed' "$(reload)"
check "it takes devices" wait_for 5 dtls_shakes 5684
cut_out coap
put coap 5684 "$NVR4:1883" 'protocol = "dtls"; tls12 = true; idle_timeout_s = 30;'
check_match "its keys change" '0 added, 1 changed, 0 removed' "$(reload)"
check "it takes devices with them" wait_for 5 dtls_shakes 5684
cut_out coap
put coap 5685 "$NVR4:1883" 'protocol = "dtls"; tls12 = true;'
check_match "it moves" '1 added, 0 changed, 1 removed' "$(reload)"
check "it takes devices there" wait_for 5 dtls_shakes 5685
check_not "and none where it was" dtls_shakes 5684
cut_out coap
check_match "it goes" '0 added, 0 changed, 1 removed' "$(reload)"
check_not "for good" dtls_shakes 5685
stays "DTLS"

# ---- what is wrong changes nothing ----------------------------------------------------------------
cp "$D/gateway.cfg" "$D/good.cfg"
wrong() { # WHAT REGEX
	check_match "$1" "$2" "$(reload)"
	check_match "$1: and nothing has changed" 'nothing has changed' "$(reload)"
	cp "$D/good.cfg" "$D/gateway.cfg"
	check "$1: 8885 is as before" at 8885 s1 s1
	check_not "$1: 8886 is nobody's" in_nft 8886
}
put other 8886 "$NVR4:1883" 'alpn = [ "" ];'
wrong "a bad key is named with its line" 'gateway.cfg:[0-9]+: .*alpn'
put other 8886 "$NVR4:1883"
sed -i '/name = "other"/s|gw.key|none.key|' "$D/gateway.cfg"
wrong "a key file that is not there" 'TLS worker [01]: .*none.key'
put other 8886 "$NVR4:1883"
sed -i 's/flows_max = 16384/flows_max = 32768/' "$D/gateway.cfg"
wrong "what needs a restart is named" 'dataplane.flows_max: cannot change while the gateway runs'
put other 8886 "$NVR4:1883"
sed -i 's/workers = 2/workers = 1/' "$D/gateway.cfg"
wrong "so is the number of workers" 'tls.workers: cannot change'
if [ "$TRANSPORT" = socket ]; then
	spawn gw taken nc -l "$GW4" 8886
	must "somebody has the port" 5 in_ns gw sh -c 'ss -Hltn "sport = :8886" | grep -q .'
	put other 8886 "$NVR4:1883"
	wrong "an address in use" 'TLS worker [01]: listener other: .*8886: Address already in use'
	end "$LAST"
else
	put other 8886 "10.99.0.1:1883"
	wrong "an upstream that no port of the fast path leads to" 'gateway.cfg:?[0-9]*: .*other'
fi
stays "refused"

# ---- SIGHUP, to whichever process -----------------------------------------------------------------
put other 8886 "$NVR4:1883"
daemon_hup tls-proxy-1
check "SIGHUP to one worker reaches all" wait_for 10 at 8886 s1 s1
check "and the agent" in_nft 8886
cut_out other
daemon_hup agent
gone() { ! in_nft "$1" && [ "$(verdict "$1")" != listener ]; }
check "SIGHUP to the agent removes it again" wait_for 12 gone 8886
stays "SIGHUP"

# ---- a worker that missed it ----------------------------------------------------------------------
daemon_stop agent
cut_out more
daemon_start agent
must "the agent is back" 15 gw_ready
in_step() { log_has agent 'reloaded: .* listeners in force' && ! at 8885 s1 s1; }
check "an agent with another gateway.cfg has the workers follow" wait_for 15 in_step
check "a session of the listener that stays goes on" held_echoes 8883

# ---- the last ---------------------------------------------------------------------------------------
: >"$D/enough"
wait "$knocker"
sed -i '/name = "mqtt6";/,/crl = /d' "$D/gateway.cfg"
check_match "a listener of the first hour is removed" '0 added, 0 changed, 1 removed' "$(reload)"
gone_v6() { ! in_ns gw nft list table inet sallyport | grep -q "$GW6 . tcp . 8883"; }
check "nftables forgets it" wait_for 12 gone_v6
