#!/bin/bash
# 3. An admitted device publishes through the gateway to a real broker; and a server that understands the PROXY protocol
#    version 2 sees who it is.
LISTENER_EXTRA='proxy_protocol = true;'
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s03
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"

# HAProxy takes the header, as it would in front of any broker, and hands the bytes to mosquitto.
cat >"$D/haproxy.cfg" <<-CFG
	global
	  log stdout format raw local0
	defaults
	  mode tcp
	  log global
	  timeout connect 5s
	  timeout client 30s
	  timeout server 30s
	frontend mqtt
	  bind $NVR4:1883 accept-proxy
	  bind [$NVR6]:1883 accept-proxy
	  log-format "from=%[src] port=%[src_port] to=%[dst] %ts"
	  default_backend broker
	backend broker
	  server broker $NVR4:1884
CFG
printf 'listener 1884 %s\nallow_anonymous true\nlog_dest file %s\nlog_type all\nuser nobody\n' "$NVR4" "$D/broker.log" \
	>"$D/mosquitto.conf"
: >"$D/broker.log"
chmod 666 "$D/broker.log"
spawn core mosquitto mosquitto -c "$D/mosquitto.conf"
must "mosquitto" 5 in_ns core python3 "$LIB/traffic.py" listening tcp 1884
spawn core haproxy haproxy -f "$D/haproxy.cfg" -db
haproxy=$LAST
must "haproxy" 5 in_ns core python3 "$LIB/traffic.py" listening tcp 1883
spawn core subscriber mosquitto_sub -h "$NVR4" -p 1884 -t 'plant/#' -v
must "subscriber" 5 grep -q 'Sending SUBACK' "$D/broker.log"

publish() { # HOST MESSAGE
	in_ns cam1 timeout 10 mosquitto_pub -h "$1" -p 8883 --cafile "$D/pki/ca.pem" --cert "$D/pki/cam1.pem" \
		--key "$D/pki/cam1.key" -t plant/cam1 -m "$2" -q 1
}
check "publish over IPv4" publish "$GW4" four
check "publish over IPv6" publish "$GW6" six
check "the broker delivered the first" wait_for 5 grep -q '^plant/cam1 four$' "$D/subscriber.log"
check "the broker delivered the second" wait_for 5 grep -q '^plant/cam1 six$' "$D/subscriber.log"
check "HAProxy took the device's address from the header" wait_for 5 grep -q 'from=10.7.0.11 .*to=10.7.0.1' "$D/haproxy.log"
check "the same in IPv6" wait_for 5 grep -q 'from=fd07::11 .*to=fd07::1' "$D/haproxy.log"
end "$haproxy"

# All of the header: an independent decoder behind the same listener.
spawn core proxy-dump python3 "$LIB/traffic.py" proxy-dump "$NVR4" 1883 "$D/proxy.txt"
must "proxy-dump" 5 in_ns core python3 "$LIB/traffic.py" listening tcp 1883
check "the relay answers" tls_answers cam1 cam1
must "a header came" 5 test -s "$D/proxy.txt"
bulk() { in_ns cam1 timeout 60 python3 "$LIB/traffic.py" tls-bulk "$GW4" 8883 "$D/pki" cam1 "$1"; }
check "what comes in one segment with the end of the handshake is relayed" bulk 1000
check "16 MB through full buffers come back unchanged" bulk 16777216
header=$(head -1 "$D/proxy.txt")
sha=$(openssl x509 -in "$D/pki/cam1.pem" -outform DER | sha256sum | cut -d' ' -f1)
check_match "addresses" 'src=10\.7\.0\.11 dst=10\.7\.0\.1 .* dport=8883' "$header"
check_match "a verified client certificate" 'ssl\.client=7 ssl\.verify=0' "$header"
check_match "TLS version and common name" 'ssl\.21=TLSv1\.3 ssl\.22=cam1' "$header"
check_match "identity" "e0=$(id_of camera/cam1)( |\$)" "$header"
check_match "segment and standing" 'e1=cameras e2=full' "$header"
check_match "the certificate's SHA-256" "e3=$sha" "$header"
