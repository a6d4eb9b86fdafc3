#!/bin/bash
# 25. What a TLS listener shows and takes, with packaged clients: no resumption, no old version; a reload that brings
#     certificates, a listener's keys and a new listener while devices knock and a session lives; a bad file changes nothing.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s25
device_make d1 11
tcp_echo core "$NVR4" 1883
cert_make plain "URI:$(id_of sensor/s1)"
cert_make named "DNS:mqtt.example" ca 20 'extendedKeyUsage=serverAuth'
cert_make next "DNS:gw.example" ca 20 'extendedKeyUsage=serverAuth'
vouch sensor/s1

shown() { # ARGUMENTS of s_client: the common name of the certificate that comes
	tls_open "$@" | sed -n 's/^subject=.*CN *= *//p' | head -1
}
tls_open() { # as a device that hangs up at once, with everything that openssl says
	in_ns d1 timeout 10 openssl s_client -connect "$GW4:8883" -CAfile "$D/pki/ca.pem" -cert "$D/pki/plain.pem" \
		-key "$D/pki/plain.key" "$@" </dev/null 2>&1
}
lines() { wc -l <"$D/tls-proxy.log"; }
since() { tail -n "+$(($1 + 1))" "$D/tls-proxy.log" | grep -qE -- "$2"; }
hup() { # REGEX that its log must have then
	local at
	at=$(lines)
	daemon_hup tls-proxy
	must "the worker has read everything again" 10 since "$at" "$1"
}

# ---- the protocol ----
tls_open -sess_out "$D/session" >"$D/first.log"
check_match "a whole handshake, hybrid group" '^New, TLSv1.3' "$(cat "$D/first.log")"
check_not "no ticket was given" grep -q 'Post-Handshake New Session Ticket' "$D/first.log"
if [ -s "$D/session" ]; then
	check_match "a client with a saved session shakes hands anew" '^New, TLSv1.3' "$(tls_open -sess_in "$D/session")"
fi
check_match "TLS 1.2 is refused" 'protocol version|alert' "$(tls_open -tls1_2)"

# ---- who reads keys ----
chmod 600 "$D/pki/gw.key"
chown root "$D/pki/gw.key"
worker=$(daemon_pid tls-proxy)
opener=$(pgrep -P "$worker" -x tls-opener)
check_match "the worker has no privileges" '^CapEff:.0000000000000000$' "$(grep CapEff "/proc/$worker/status")"
check_match "its opener may read, and nothing else" '^CapEff:.0000000000000004$' "$(grep CapEff "/proc/$opener/status")"

# ---- a reload under traffic ----
device_in d1 plain sensor/s1
knock_all() { # until the file appears; each handshake must succeed
	while [ ! -e "$D/enough" ]; do
		tls_open | grep -q '^Verify return code: 0' || say "refused" >>"$D/refused"
		say "knocked" >>"$D/knocked"
	done
}
: >"$D/refused"
: >"$D/knocked"
knock_all &
knocker=$!
knocked() { [ "$(wc -l <"$D/knocked")" -ge "$1" ]; }
must "somebody knocks" 20 knocked 1
cp "$D/pki/next.pem" "$D/pki/gw.pem"
cp "$D/pki/next.key" "$D/pki/gw.key"
hup "reloaded listener=mqtt6-wifi"
check_eq "the new certificate is shown" next "$(shown)"
sed -i "s|{ name = \"mqtt\"; |&alpn = [ \"mqtt\" ]; certificates = ( { names = [ \"mqtt.example\" ]; certificate = \"$D/pki/named.pem\"; key = \"$D/pki/named.key\"; } ); |" "$D/gateway.cfg"
hup "reloaded listener=mqtt6-wifi"
check_eq "a listener's new keys: SNI chooses" named "$(shown -servername mqtt.example)"
check_eq "and another name gets the default" next "$(shown -servername else.example)"
check_match "ALPN in common" 'ALPN protocol: mqtt' "$(tls_open -alpn mqtt)"
check_match "none in common: no_application_protocol" 'alert no application protocol' "$(tls_open -alpn h2)"
n=$(wc -l <"$D/knocked")
check "it went on knocking" wait_for 20 knocked $((n + 2))
: >"$D/enough"
wait "$knocker"
check_eq "nobody was refused meanwhile" "" "$(cat "$D/refused")"
check "the session from before lives, and relays" session_echoes plain "$GW4"

# ---- a bad file ----
head -c 100 "$D/pki/next.pem" >"$D/pki/gw.pem"
hup "reload, everything stays as it was: .*gw.pem"
check_eq "the old certificate is still shown" next "$(shown)"
cp "$D/pki/next.pem" "$D/pki/gw.pem"
sed -i 's/alpn = \[ "mqtt" \]/alpn = [ "" ]/' "$D/gateway.cfg"
hup 'reload, everything stays as it was: .*alpn'
check_match "and ALPN is as before" 'ALPN protocol: mqtt' "$(tls_open -alpn mqtt)"

# ---- the end ----
daemon_stop tls-proxy
check "the opener ends with its worker" wait_for 5 not_running "$opener"
