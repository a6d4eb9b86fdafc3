#!/bin/bash
# 31. What packaged TLS clients get, of three libraries: every version, group and kind of key that is promised, and nothing
#     that is not; a chain as long as it may be; a stapled OCSP response; no compression, no renegotiation, no early data.
# transports: socket stack
# shellcheck disable=SC2094 # a client's input waits for its output
LIB=$(cd "$(dirname "$0")" && pwd)
. "$LIB/lib.sh"
eval "pki_base() $(declare -f pki_make | tail -n +2)"
pki_make() {
	pki_base
	cert_make front "DNS:gw1,IP:$GW4" ca 20 extendedKeyUsage=serverAuth
	(
		cd "$D/pki" || exit 1
		openssl ocsp -issuer ca.pem -cert front.pem -reqout front.req
		openssl ocsp -index ca-index.txt -rsigner ca.pem -rkey ca.key -CA ca.pem -reqin front.req -respout front.ocsp -ndays 2
		chmod 644 front.ocsp
	) >"$D/pki-ocsp.log" 2>&1 || die "OCSP response"
}
listeners_more() {
	printf ', { name = "both"; transport = "%s"; address = "%s"; port = 8884; upstream = "%s:1883"; tls12 = true; ocsp = "%s"; certificate = "%s"; key = "%s"; ca = "%s"; }\n' \
		"$TRANSPORT" "$GW4" "$NVR4" "$D/pki/front.ocsp" "$D/pki/front.pem" "$D/pki/front.key" "$D/pki/ca.pem"
	printf ', { name = "web"; transport = "%s"; address = "%s"; port = 8885; upstream = "%s:8080"; tls12 = true; certificate = "%s"; key = "%s"; ca = "%s"; }\n' \
		"$TRANSPORT" "$GW4" "$NVR4" "$D/pki/gw.pem" "$D/pki/gw.key" "$D/pki/ca.pem"
}
eval "config_base() $(declare -f config_write | tail -n +2)"
config_write() { # sensors may reach a web server too
	config_base
	sed -i 's|\(name = "sensor-mqtt";.*service = \)"tcp/1883"|\1[ "tcp/1883", "tcp/8080" ]|' "$D/segments.cfg"
}
world_up s31
device_make d1 11
tcp_echo core "$NVR4" 1883
mkdir "$D/www"
head -c 300000 /dev/urandom >"$D/www/file"
printf 'daemon off; user root; pid %s; error_log %s; events {}\nhttp { access_log off; client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s; server { listen %s:8080; root %s; } }\n' \
	"$D/web.pid" "$D/web-error.log" "$D/tmp1" "$D/tmp2" "$D/tmp3" "$D/tmp4" "$D/tmp5" "$NVR4" "$D/www" >"$D/web.conf"
spawn core web nginx -c "$D/web.conf" -e "$D/web-error.log"
must "web server" 5 in_ns core python3 "$LIB/traffic.py" listening tcp 8080

SAN=URI:$(id_of sensor/s1)
key_make() { # NAME GENPKEY-OPTIONS...: a certificate of the device with such a key
	openssl genpkey -out "$D/pki/$1.key" "${@:2}" 2>>"$D/keys.log" || die "key $1"
	cert_make "$1" "$SAN"
}
cert_make plain "$SAN"
key_make p384 -algorithm EC -pkeyopt ec_paramgen_curve:P-384
key_make ed25519 -algorithm ED25519
key_make rsa2048 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
key_make rsa1024 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
CA_EXT=$'basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign'
above=ca
for k in 1 2 3 4 5 6; do
	cert_make "int$k" "DNS:int$k" "$above" 20 "$CA_EXT"
	above=int$k
	cert_make "leaf$k" "$SAN" "$above"
	for ((j = k; j > 0; j--)); do cat "$D/pki/int$j.pem"; done >"$D/pki/chain$k.pem"
done
vouch sensor/s1

client() { # PORT CERTIFICATE OPTIONS...: everything that s_client says, and what the upstream answers to a line
	: >"$D/client.log" # or what stands there of the client before is taken for the answer, and this one hangs up
	in_ns d1 timeout 10 openssl s_client -connect "$GW4:$1" -CAfile "$D/pki/ca.pem" -verify_return_error -cert "$D/pki/$2.pem" \
		-key "$D/pki/$2.key" "${@:3}" < <(
			say "hello"
			wait_for 5 grep -q '^hello$' "$D/client.log"
		) >"$D/client.log" 2>&1
	cat "$D/client.log"
}
works() { # WHAT REGEX PORT CERTIFICATE OPTIONS...: data goes there and back, over what the regular expression says
	local out
	out=$(client "${@:3}")
	check_match "$1" "$2" "$out"
	check_match "$1: the upstream answers" '^hello$' "$out"
}
fails() { # WHAT REGEX PORT CERTIFICATE OPTIONS...
	local out
	out=$(client "${@:3}")
	check_match "$1" "$2" "$out"
	check_eq "$1: nothing from the upstream" "" "$(grep '^hello$' <<<"$out")"
}
must "the device is admitted" 10 eval 'client 8883 plain | grep -q "^hello\$"'

# ---- versions, suites, groups ----
for suite in TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256; do
	works "TLS 1.3 with $suite" "^New, TLSv1.3, Cipher is $suite" 8883 plain -ciphersuites "$suite"
done
for group in X25519:X25519 P-256:prime256v1 P-384:secp384r1; do
	works "TLS 1.3 over ${group%:*}" "Server Temp Key: .*${group#*:}" 8883 plain -groups "${group%:*}"
done
fails "no group in common" 'alert handshake failure|bad key share' 8883 plain -groups X448
for suite in AES128-GCM-SHA256 AES256-GCM-SHA384 CHACHA20-POLY1305; do
	works "TLS 1.2 with ECDHE and $suite" "^New, TLSv1.2, Cipher is ECDHE-ECDSA-$suite" 8884 plain -tls1_2 -cipher "ECDHE-ECDSA-$suite"
done
fails "TLS 1.2 where it is not configured" 'alert protocol version' 8883 plain -tls1_2
fails "TLS 1.2 with CBC" 'alert handshake failure' 8884 plain -tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256
fails "TLS 1.2 without forward secrecy" 'alert handshake failure' 8884 plain -tls1_2 -cipher AES128-GCM-SHA256
fails "TLS 1.1" 'alert protocol version' 8884 plain -tls1_1 -cipher 'ALL:@SECLEVEL=0'

# ---- keys and chains ----
for name in p384 ed25519 rsa2048; do
	works "a device's $name key" '^New, TLSv1.3' 8883 "$name"
	works "a device's $name key in TLS 1.2" '^New, TLSv1.2' 8884 "$name" -tls1_2
done
fails "an RSA key of 1,024 bits" 'alert' 8883 rsa1024 -cipher '@SECLEVEL=0:ALL'
check "the log says why" wait_for 5 log_has tls-proxy 'handshake refused .*why="key too small"'
works "two CAs between" '^New, TLSv1.3' 8884 leaf2 -cert_chain "$D/pki/chain2.pem"
fails "six CAs between" 'alert (handshake failure|bad certificate)' 8884 leaf6 -cert_chain "$D/pki/chain6.pem"
fails "one of them missing" 'alert unknown ca' 8884 leaf2 -cert_chain "$D/pki/chain1.pem"

# ---- what comes with a handshake, and after it ----
out=$(client 8884 plain -status)
check_match "a stapled OCSP response" 'OCSP Response Status: successful' "$out"
check_match "that says good" 'Cert Status: good' "$out"
out=$(client 8884 plain -tls1_2 -comp)
check_match "no compression" 'Compression: NONE' "$out"
check_match "renegotiation is secure, or not at all" 'Secure Renegotiation IS' "$out"
check_not "no ticket in TLS 1.2" grep -q 'TLS session ticket:' <<<"$out"
out=$(client 8884 plain)
check_match "no early data" 'Max Early Data: 0|Early data was not sent' "$out"
renegotiates() { # the client asks anew in an open session
	in_ns d1 timeout 10 openssl s_client -connect "$GW4:8884" -CAfile "$D/pki/ca.pem" -tls1_2 -cert "$D/pki/plain.pem" \
		-key "$D/pki/plain.key" < <(
			say "hello"
			wait_for 5 grep -q '^hello$' "$D/anew.log"
			say "R"
			wait_for 5 grep -qE 'alert|error|closed' "$D/anew.log"
			say "again"
		) >"$D/anew.log" 2>&1
	cat "$D/anew.log"
}
out=$(renegotiates)
check_match "a client that negotiates anew asks" 'RENEGOTIATING' "$out"
check_match "and is refused" 'alert handshake failure|alert no renegotiation' "$out"
check_eq "nothing of it reaches the upstream" "" "$(grep '^again$' <<<"$out")"

# ---- others ----
gnutls() { # PRIORITIES
	in_ns d1 timeout 10 gnutls-cli --x509cafile "$D/pki/ca.pem" --x509certfile "$D/pki/plain.pem" --x509keyfile "$D/pki/plain.key" \
		--priority "$1" -p 8884 --verify-hostname gw1 "$GW4" < <(
			say "hello"
			wait_for 5 grep -q '^hello$' "$D/gnutls.log"
		) >"$D/gnutls.log" 2>&1
	cat "$D/gnutls.log"
}
for v in 1.3 1.2; do
	out=$(gnutls "NORMAL:-VERS-ALL:+VERS-TLS$v")
	check_match "GnuTLS, TLS $v" "Description: \(TLS$v" "$out"
	check_match "GnuTLS, TLS $v: the upstream answers" '^hello$' "$out"
done
check_not "GnuTLS, TLS 1.1" grep -q 'Description' <<<"$(gnutls 'NORMAL:-VERS-ALL:+VERS-TLS1.1')"
for v in 1.3 1.2; do
	check "curl, TLS $v" in_ns d1 curl -sS -m 20 "--tlsv$v" --tls-max "$v" --cacert "$D/pki/ca.pem" --cert "$D/pki/plain.pem" \
		--key "$D/pki/plain.key" -o "$D/got" "https://$GW4:8885/file"
	check "curl, TLS $v: what came is what there is" cmp "$D/got" "$D/www/file"
done
out=$(in_ns d1 timeout 30 openssl s_time -connect "$GW4:8885" -CAfile "$D/pki/ca.pem" -cert "$D/pki/plain.pem" -key "$D/pki/plain.key" \
	-verify 1 -new -time 2 -www /file 2>&1)
check_match "s_time: session after session" '^[1-9][0-9]+ connections in [0-9.]+s' "$out"
check_eq "s_time: none fails" "" "$(grep -iE 'error|fail' <<<"$out")"
all_ended() { [ "$(sessions_of sensor/s1)" = 0 ]; }
check "no session is left" wait_for 10 all_ended
