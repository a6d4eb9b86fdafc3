#!/bin/bash
# 26. Behind a listener stand several upstreams, or TLS, or a reader of the PROXY protocol: real servers say what they saw.
# transports: socket stack
LIB=$(cd "$(dirname "$0")" && pwd)
POLICY_FILE=$LIB/segments-upstream.cfg
. "$LIB/lib.sh"
eval "pki_base() $(declare -f pki_make | tail -n +2)"
pki_make() {
	pki_base
	cert_make web DNS:web.plant-7 ca 20 extendedKeyUsage=serverAuth
	cert_make gw-client DNS:gw1 ca 20 extendedKeyUsage=clientAuth
}
GATEWAY_EXTRA='drain_s = 30;'
listeners_more() { # NAME PORT REST, one a line
	local name port rest
	while read -r name port rest; do
		printf ', { name = "%s"; transport = "%s"; address = "%s"; port = %s; %s certificate = "%s"; key = "%s"; ca = "%s"; }\n' \
			"$name" "$TRANSPORT" "$GW4" "$port" "$rest" "$D/pki/gw.pem" "$D/pki/gw.key" "$D/pki/ca.pem"
	done <<-LISTENERS
		several 8884 upstreams = ( { address = "$NVR4:9001"; }, { address = "$NVR4:9002"; } ); upstream_check = { interval_s = 1; timeout_s = 1; rise = 2; fall = 2; };
		tls 8885 upstream = "$NVR4:9003"; upstream_tls = { ca = "$D/pki/ca.pem"; name = "web.plant-7"; certificate = "$D/pki/gw-client.pem"; key = "$D/pki/gw-client.key"; }; proxy_protocol = true; proxy_tlvs = [ ];
		misnamed 8886 upstream = "$NVR4:9003"; upstream_tls = { ca = "$D/pki/ca.pem"; name = "other.plant-7"; }; proxy_protocol = true; proxy_tlvs = [ ];
		told 8887 upstream = "$NVR4:9004"; proxy_protocol = true; proxy_tlvs = [ "ssl", "certificate", "authority", "unique_id", "identity", "segment", "crc32c" ];
		broker 8889 upstream = "$NVR4:9005"; upstream_tls = { ca = "$D/pki/ca.pem"; name = "web.plant-7"; certificate = "$D/pki/gw-client.pem"; key = "$D/pki/gw-client.key"; };
	LISTENERS
}
world_up s26
camera_make cam1 11 "$DIGEST_A"

nginx_run() { # NAME SERVER-BLOCK: its pid in $LAST
	mkdir -p "$D/nginx-$1"
	printf 'daemon off; pid %s; error_log %s info; events {}\nhttp { access_log off; client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s; server { %s } }\n' \
		"$D/nginx-$1/pid" "$D/nginx-$1/error.log" "$D/nginx-$1/a" "$D/nginx-$1/b" "$D/nginx-$1/c" "$D/nginx-$1/d" \
		"$D/nginx-$1/e" "$2" >"$D/nginx-$1/conf"
	spawn core "nginx-$1" nginx -c "$D/nginx-$1/conf" -e "$D/nginx-$1/error.log"
}
# shellcheck disable=SC2016 # nginx's variables
{
	nginx_run one "listen $NVR4:9001; return 200 one;"
	one=$LAST
	nginx_run two "listen $NVR4:9002; return 200 two;"
	nginx_run tls "listen $NVR4:9003 ssl proxy_protocol; ssl_protocols TLSv1.3; ssl_certificate $D/pki/web.pem; ssl_certificate_key $D/pki/web.key;
		ssl_client_certificate $D/pki/ca.pem; ssl_verify_client on;"' return 200 "from=$proxy_protocol_addr name=$ssl_server_name by=$ssl_client_s_dn $ssl_protocol";'
}
cat >"$D/haproxy.cfg" <<-CFG
	global
	  log stdout format raw local0
	defaults
	  mode tcp
	  log global
	  timeout connect 5s
	  timeout client 30s
	  timeout server 30s
	frontend told
	  bind $NVR4:9004 accept-proxy
	  log-format "from=%[src] name=%[fc_pp_authority] id=%[fc_pp_unique_id]"
	  default_backend one
	backend one
	  server one $NVR4:9002
CFG
spawn core haproxy haproxy -f "$D/haproxy.cfg" -db
printf 'listener 9005 %s\ncafile %s\ncertfile %s\nkeyfile %s\nrequire_certificate true\nuse_identity_as_username true\nlog_dest file %s\nlog_type all\nuser root\n' \
	"$NVR4" "$D/pki/ca.pem" "$D/pki/web.pem" "$D/pki/web.key" "$D/broker.log" >"$D/mosquitto.conf"
: >"$D/broker.log"
spawn core mosquitto mosquitto -c "$D/mosquitto.conf"
for port in 9001 9002 9003 9004 9005; do
	must "server $port" 10 in_ns core python3 "$LIB/traffic.py" listening tcp "$port"
done

get() { # PORT [CURL-OPTION...]
	local port=$1
	shift
	in_ns cam1 curl -sS -m 10 --cacert "$D/pki/ca.pem" --cert "$D/pki/cam1.pem" --key "$D/pki/cam1.key" "$@" \
		"https://$GW4:$port/" 2>&1
}
must "the first session" 10 get 8884 -f
answers() { for _ in 1 2 3 4 5 6 7 8; do get 8884; done | fold -w3 | sort | uniq -c | awk '{ print $2 $1 }' | paste -sd' '; }
in_turn() { [ "$(answers)" = "one4 two4" ]; }
# The worker was there before its upstreams, and may have found them down.
check "eight sessions in turn" wait_for 15 in_turn

end "$one"
check_eq "one is gone: no device hears of it" two8 "$(answers)"
upstream_is() { [ "$(ctl_json upstreams ".upstreams[] | select(.listener == \"several\" and .port == $1) | .state")" = "$2" ]; }
check "so does sallyctl upstreams" wait_for 10 upstream_is 9001 down
check_match "with the last error" 'Connection refused' "$(ctl_json upstreams '.upstreams[] | select(.port == 9001) | .last_error')"
check "the other one is up" upstream_is 9002 up
check "the log says who is down, and why" wait_for 10 log_has tls-proxy 'upstream down listener=several upstream=10\.20\.0\.10 port=9001 up=1 why='
before=$(grep -c 'upstream refused' "$D/tls-proxy.log")
check_eq "nobody tries it any more" two8 "$(answers)"
check_eq "the log agrees" "$before" "$(grep -c 'upstream refused' "$D/tls-proxy.log")"
nginx_run one "listen $NVR4:9001; return 200 one;"
check "it is back, and found" wait_for 15 log_has tls-proxy 'upstream up listener=several upstream=10\.20\.0\.10 port=9001 up=2'
check "and gets its share again" wait_for 15 in_turn

out=$(get 8885)
check_match "nginx behind TLS saw the device's address" 'from=10\.7\.0\.11 ' "$out"
check_match "the name that was asked for, the gateway's certificate, TLS 1.3" 'name=web\.plant-7 by=CN=gw-client TLSv1\.3' "$out"
check_not "a server with another name gets nothing" get 8886
check "the log says so" log_has tls-proxy 'upstream refused .*listener=misnamed .*why="the certificate is for another name"'

check_eq "through HAProxy" two "$(get 8887)"
id=$(grep 'session begins listener=told' "$D/tls-proxy.log" | tail -1 | grep -oE ' id=[0-9a-f-]+' | cut -d= -f2)
check "HAProxy took a header with the device's certificate and a checksum" wait_for 5 grep -q "from=10.7.0.11 " "$D/haproxy.log"
named() {
	in_ns cam1 curl -sS -m 10 --cacert "$D/pki/ca.pem" --cert "$D/pki/cam1.pem" --key "$D/pki/cam1.key" --resolve "gw1:8887:$GW4" \
		https://gw1:8887/
}
check_eq "by its name" two "$(named)"
check "HAProxy took the name that the device asked for" wait_for 5 grep -q 'from=10.7.0.11 name=gw1 ' "$D/haproxy.log"
check_match "its unique id is that of our log" "id=$(printf %s "$id" | od -An -tx1 | tr -d ' \n' | tr a-f A-F)|id=$id" "$(cat "$D/haproxy.log")"

check "mosquitto behind TLS takes a message" in_ns cam1 timeout 10 mosquitto_pub -h "$GW4" -p 8889 --cafile "$D/pki/ca.pem" \
	--cert "$D/pki/cam1.pem" --key "$D/pki/cam1.key" -t plant/cam1 -m hello -q 1
check "from the gateway's certificate" grep -q "u'gw-client'" "$D/broker.log"

# A worker that is to end lets a transfer finish.
spawn core slow python3 "$LIB/traffic.py" tcp-echo "$NVR4" 1883
must "echo" 5 in_ns core python3 "$LIB/traffic.py" listening tcp 1883
tls_hold cam1 cam1
held=$LAST
must "a session is open" 10 has_sessions camera/cam1 1
worker=$(daemon_pid tls-proxy)
kill "$worker"
check "it ends, when its sessions have ended" wait_for 5 log_has tls-proxy 'ending: nobody new'
check_not "nobody new gets in meanwhile" in_ns cam1 timeout 2 bash -c "exec 3<>/dev/tcp/$GW4/8884"
check_not "it waits for the one who is here" wait_for 1 not_running "$worker"
end "$held"
check "then it goes" wait_for 5 not_running "$worker"
check "and its successor serves" wait_for 15 get 8884
