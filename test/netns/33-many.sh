#!/bin/bash
# 33. Thousands of devices at once, each with its own certificate and words: nobody hears another's, the sessions of those who
#     are revoked end and no other, and what they took is given back.
#     DEVICES=N: how many.
# transports: socket stack
LIB=$(cd "$(dirname "$0")" && pwd)
DEVICES=${DEVICES:-5000} REVOKED=50
LISTENER_EXTRA='handshakes_max = 1000; sessions_max = 6000;'
LIMITS='device = { new_flows = 0; flows = 0; kernel_packets = 0; tls_packets = 0; }; networks = { flows_pct = 0; };
	strangers = { packets = 0; packets_each = 0; new_flows = 0; new_flows_each = 0; };'
POLICY_FILE=$LIB/segments-many.cfg
. "$LIB/lib.sh"
GW4=10.64.0.1 # the devices are 10.64.1.0 and on
eval "config_base() $(declare -f config_write | tail -n +2)"
config_write() {
	config_base
	sed -i "s|\"$GW4/24\"|\"$GW4/14\"|; s|devices_max = 1000|devices_max = 6000|; s|flows_max = 16384|flows_max = 65536|" "$D/gateway.cfg"
}
world_up s33
ns_make many
link_pair many eth0 sw p-many
in_ns sw ip link set p-many master br0
in_ns sw bridge link set dev p-many isolated on
in_ns many ip addr add 10.64.0.9/24 dev eth0
for net in 10.64.1.0/24 10.64.2.0/23 10.64.4.0/22 10.64.8.0/21 10.64.16.0/20; do
	in_ns many ip route add local "$net" dev lo || die "addresses of devices"
done
# as neighbours that need no ARP: the kernel keeps only a thousand that do, in all namespaces
awk -v n="$DEVICES" -v mac="$(in_ns many cat /sys/class/net/eth0/address)" 'BEGIN { for (d = 256; d < n + 256; d++)
	printf "neigh replace 10.64.%d.%d lladdr %s dev sp-dev nud permanent\n", int(d / 256), d % 256, mac }' >"$D/neigh"
in_ns gw ip -batch "$D/neigh" || die "neighbours"
[ -x "$B/bench/tls_decide" ] || die "no $B/bench/tls_decide: make bench"
"$B/bench/tls_decide" "$D/run/controller.sock" "$D/run/trust" enrol 0 "$DEVICES" || die "devices cannot be enrolled"
spawn core echo "$B/tools/many-devices" echo "$NVR4" 1883
must "the upstream" 5 grep -q listens "$D/echo.log"

rss_kb() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
descriptors() { find "/proc/$1/fd" | wc -l; }
said() { grep -qx "$*" "$D/many.log"; }
upstreams() { in_ns core ss -Htn state established 'sport = :1883' | wc -l; }
worker=$(daemon_pid tls-proxy)
before_kb=$(rss_kb "$worker") before_fds=$(descriptors "$worker")

mkfifo "$D/many.fifo"
# shellcheck disable=SC2016 # for the inner shell: it keeps the fifo open for writing
spawn many many bash -c 'exec "$1" "$2/ca.pem" "$2/ca.key" "$3" 8883 "$4" <"$5"' _ "$B/tools/many-devices" "$D/pki" "$GW4" "$DEVICES" "$D/many.fifo"
many=$LAST
exec {fifo}>"$D/many.fifo"
start=$(now_ms)
check "$DEVICES devices are in at once" wait_for 60 said open "$DEVICES"
check "each got its own words back" wait_for 20 said echoed "$DEVICES"
say "        after $(($(now_ms) - start)) ms; the worker takes $((($(rss_kb "$worker") - before_kb) / DEVICES)) kB for each"
check_eq "so many connections has the upstream" "$DEVICES" "$(upstreams)"
check_not "nobody was ended" grep -q ended "$D/many.log"

: >"$D/revoked"
for ((n = 0; n < REVOKED; n++)); do
	d=$((n * (DEVICES / REVOKED) + 7))
	say "ended $d" >>"$D/revoked"
	ctl revoke "spiffe://bench/device/$d" --reason test >/dev/null || die "revoke $d"
done
ended() { [ "$(grep -c ended "$D/many.log")" -ge "$REVOKED" ]; }
check "$REVOKED are revoked: so many sessions end" wait_for 10 ended
echo again >&"$fifo"
check "all others are still heard, each by its own words" wait_for 20 said echoed $((DEVICES - REVOKED))
check_eq "and exactly the revoked ones have ended" "$(sort "$D/revoked")" "$(grep ended "$D/many.log" | sort)"
left() { [ "$(upstreams)" = "$1" ]; }
check "so have their connections to the upstream" wait_for 5 left $((DEVICES - REVOKED))

exec {fifo}>&-
check "all say good-bye" wait_for 30 not_running "$many"
check "nothing stays at the upstream" wait_for 20 left 0
closed() { [ "$(descriptors "$worker")" -le "$before_fds" ]; }
check "nor a descriptor of the worker" wait_for 20 closed
returned() { [ $(($(rss_kb "$worker") - before_kb)) -lt 20000 ]; }
# a sanitizer keeps what was freed
case $B in *asan*) ;; *) check "its memory is given back" wait_for 30 returned ;; esac
say "        $before_kb kB before, $(rss_kb "$worker") kB afterwards"
check_eq "it is the same process" "$worker" "$(daemon_pid tls-proxy)"
