#!/bin/bash
# 2. Handshakes are refused, each with its reason in the log: no certificate, unknown CA, expired, not yet valid, wrong
#    key usage, revoked by CRL, not enrolled, attestation missing, software not certified.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s02
device_make d1 11
tcp_echo core "$NVR4" 1883

cert_make plain "URI:$(id_of sensor/s1)"
cert_make stranger "URI:$(id_of sensor/s1)" other-ca
cert_make old "URI:$(id_of sensor/s1)" ca -1
cert_make young "URI:$(id_of sensor/s1)" ca future
cert_make server "URI:$(id_of sensor/s1)" ca 20 $'keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth'
cert_make agree "URI:$(id_of sensor/s1)" ca 20 $'keyUsage=critical,keyAgreement\nextendedKeyUsage=clientAuth'
cert_make two "URI:$(id_of sensor/s1),URI:$(id_of sensor/s2)"
cert_make listed "URI:$(id_of sensor/s1)"
cert_make unknown "URI:$(id_of sensor/nobody)"
cert_make elsewhere "URI:spiffe://plant-8/sensor/s1"
cert_make meter "URI:$(id_of meter/m1)"
cert_make plc "URI:$(id_of plc/p1)"
vouch sensor/s1
vouch meter/m1
vouch plc/p1 "$DIGEST_B"
ctl enrol spiffe://plant-8/sensor/s1 >/dev/null

refused() { # WHAT CERTIFICATE REASON [ALERT]
	local lines out
	lines=$(wc -l <"$D/tls-proxy.log")
	if [ "$2" = none ]; then
		out=$(in_ns d1 timeout 10 openssl s_client -connect "$GW4:8883" -CAfile "$D/pki/ca.pem" -ign_eof </dev/null 2>&1)
	else
		out=$(tls d1 "$2" "$GW4" -ign_eof)
	fi
	check_match "$1: the client gets an alert" 'alert|error' "$out"
	logged() { tail -n "+$((lines + 1))" "$D/tls-proxy.log" | grep -qE "handshake refused .*why=\"$3"; }
	check "$1: logged as \"$3\"" wait_for 3 logged "$@"
}
refused "no certificate" none "no certificate"
refused "unknown CA" stranger "unknown CA"
refused "expired" old "certificate expired"
refused "not yet valid" young "certificate not yet valid"
refused "extended key usage of a server" server "wrong key usage: no clientAuth"
refused "key usage without signatures" agree "wrong key usage: no digitalSignature"
refused "two URI names" two "the certificate has more than one URI name"
crl_revoke listed
daemon_hup tls-proxy
must "the list is read again" 5 log_has tls-proxy "reloaded listener=mqtt6"
refused "revoked by the list" listed "certificate revoked .CRL."
refused "not enrolled" unknown "the device is not enrolled"
refused "in no segment" elsewhere "no segment has such a member"
refused "attestation missing" meter "no attestation result"
refused "software not certified" plc "its software is not certified"

check "and a good one gets in" tls_answers d1 plain
check_eq "nobody else was bound" "$(id_of sensor/s1)" "$(ctl_json bindings '[.bindings[].device] | unique | join(" ")')"
check_match "the reasons are counted" 'handshakes_refused_total\{reason="unknown CA' \
	"$(in_ns gw curl -s http://127.0.0.1:9464/metrics)"

# The list reaches who is in already: session and flows.
device_in d1 plain sensor/s1
tcp_flow d1 "$NVR4" 1883 listed
must "a flow of the sensor runs" 5 flow_runs listed
crl_revoke plain
daemon_hup tls-proxy
check "a new list that names its certificate ends its flow" flow_stopped listed
check "its session got the alert" wait_for 3 grep -q 'alert certificate revoked' "$D/tls-plain.log"
check_match "and it stands for nothing until it shows another" '^unknown$' "$(standing_of sensor/s1)"
