#!/bin/bash
# 21. Ports are added and removed, cables are pulled, interfaces vanish: flows between the other ports lose no packet, no
#     process is started anew, and what is wrong in gateway.cfg changes nothing.
. "$(dirname "$0")/lib.sh"

MEMORY_MB=256
world_up s21
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
tcp_echo core "$NVR4" 1883
udp_echo core "$NVR4" 5000
server=$LAST
device_in cam1 cam1 camera/cam1
ns_make ext
link_pair gw ext0 ext eth0
in_ns ext ip addr add 10.30.0.10/24 dev eth0

ports() { ctl_json port list '[.ports[] | "\(.index):\(.name):\(.present)"] | join(" ")'; }
ports_are() { [ "$(ports)" = "$1" ]; }
ext_line='  { name = "ext"; side = "uplink"; devargs = "net_af_xdp7,iface=ext0"; addresses = [ "10.30.0.1/24" ]; },'
ext_write() { sed -i "/name = \"dev\"; side/i\\$ext_line" "$D/gateway.cfg"; } # before the others
ext_unwrite() { sed -i '/name = "ext"/d' "$D/gateway.cfg"; }
pids() { say "$(daemon_pid agent) $(daemon_pid dataplane)"; }
three='0:dev:true 1:up:true 2:wifi:true'

check "sallyctl port list shows the ports of gateway.cfg" wait_for 5 ports_are "$three"
check_match "with driver, shadow and link" 'dev +device +net_af_xdp +up +([0-9a-f]{2}:){5}[0-9a-f]{2} +sp-dev +untagged' "$(ctl port list)"
daemons=$(pids)
udp_flow cam1 "$NVR4" 5000 video
must "a flow runs between two ports" 5 flow_runs video

# ---- a third port, twice ------------------------------------------------------------------------
ext_write
for i in 1 2; do
	check_match "$i: port add" 'port ext: added' "$(ctl port add ext 2>&1)"
	check "$i: it has the free index, the others keep theirs" wait_for 5 ports_are "$three 3:ext:true"
	check "$i: the box answers there" wait_for 5 ping_try ext 10.30.0.1
	check_match "$i: port remove" 'port ext: removed; gateway.cfg still has it' "$(ctl port remove ext 2>&1)"
	check "$i: it is gone from the list" wait_for 5 ports_are "$three"
	check_not "$i: the box does not answer there" ping_try ext 10.30.0.1
	check_not "$i: nor is its shadow there" in_ns gw ip link show sp-ext
	check_match "$i: and nftables holds its interface shut" ext0 "$(in_ns gw nft list set inet sallyport raw_ifs)"
done
check "the flow between the others lost no packet" wait_for 2 flow_lost_at_most video 0
check_eq "no process was started anew" "$daemons" "$(pids)"

# ---- what is wrong changes nothing --------------------------------------------------------------
check_match "a port that is there" 'is there already' "$(ctl port add dev 2>&1)"
check_match "a port that gateway.cfg does not have" 'has no port "nope"' "$(ctl port add nope 2>&1)"
check_match "a port that is not there cannot be removed" 'no port "nope"' "$(ctl port remove nope 2>&1)"
check_match "a port with a listener's address cannot be removed" 'listener "mqtt" has its address' "$(ctl port remove dev 2>&1)"
sed -i 's/net_af_xdp7,iface=ext0/net_af_xdp7,iface=none0/' "$D/gateway.cfg"
check_match "devargs that do not work are named" 'port ext: .*none0.*nothing has changed' "$(ctl port add ext 2>&1 | tr '\n' ' ')"
check "and the ports are as before" wait_for 5 ports_are "$three"
check_not "none0 is not held shut: it was never a port" grep -q none0 <(in_ns gw nft list set inet sallyport raw_ifs)
sed -i 's/net_af_xdp7,iface=none0/net_af_xdp7,iface=ext0/; s/side = "uplink"; devargs = "net_af_xdp7/side = "downlink"; devargs = "net_af_xdp7/' "$D/gateway.cfg"
check_match "an error in gateway.cfg is named with its line" 'gateway.cfg:[0-9]+: .*side' "$(ctl port add ext 2>&1)"
daemon_hup agent
check "and SIGHUP refuses it too" wait_for 5 log_has agent 'everything stays as it was: .*side'
sed -i 's/side = "downlink"/side = "uplink"/' "$D/gateway.cfg"
check_eq "the ports are as before" "$three" "$(ports)"
check "the flow lost no packet" wait_for 2 flow_lost_at_most video 0

# ---- SIGHUP, and an agent that starts anew ------------------------------------------------------
daemon_hup agent
check "SIGHUP adds the port that gateway.cfg has more" wait_for 10 ports_are "$three 3:ext:true"
check "the box answers there" wait_for 5 ping_try ext 10.30.0.1
dp=$(daemon_pid dataplane)
daemon_stop agent
daemon_start agent
must "the agent is back" 15 gw_ready
check "a new agent knows the ports by their indices" wait_for 5 ports_are "$three 3:ext:true"
check "the flow runs on" flow_runs video
check_eq "the dataplane went on" "$dp" "$(daemon_pid dataplane)"
ext_unwrite
daemon_hup agent
check "SIGHUP removes the port that gateway.cfg has not any more" wait_for 10 ports_are "$three"
check_not "the box does not answer there" ping_try ext 10.30.0.1
check "the flow lost no packet" wait_for 2 flow_lost_at_most video 0
check_eq "the dataplane went on" "$dp" "$(daemon_pid dataplane)"

# ---- a kernel-only port -------------------------------------------------------------------------
check_match "a kernel-only port with a listener stays too" 'listener "mqtt-wifi"' "$(ctl port remove wifi 2>&1)"
sed -i '/name = "dev"; side/i\  { name = "kern"; side = "uplink"; kernel = "ext0"; addresses = [ "10.30.0.1/24" ]; },' "$D/gateway.cfg"
check_match "a kernel-only port is added" 'port kern: added' "$(ctl port add kern 2>&1)"
check "the box answers there" wait_for 5 ping_try ext 10.30.0.1
check_match "and removed" 'port kern: removed' "$(ctl port remove kern 2>&1)"
check_not "with its address" grep -q 10.30.0.1 <(in_ns gw ip addr show dev ext0)

# ---- cables -------------------------------------------------------------------------------------
link_is() { [ "$(ctl_json port list ".ports[] | select(.name == \"$1\") | .link")" = "$2" ]; }
pull() { # NS IF PORT
	in_ns "$1" ip link set "$2" down
	check "$3: the pulled cable shows" wait_for 4 link_is "$3" down
	check "$3: the flow stops" flow_stopped video
	in_ns "$1" ip link set "$2" up
	if [ "$1" = core ]; then # its routes went with the link, and the server with a packet that it could not answer
		in_ns core ip route add default via "$UP4"
		end "$server"
		udp_echo core "$NVR4" 5000
	fi
	local at back
	at=$(now_ms)
	if wait_for 5 flow_runs video; then back=$(($(now_ms) - at)); else back=99999; fi
	check "$3: the flow is back within 2 s of the cable ($back ms)" test "$back" -lt 2000
	check "$3: the link shows up" wait_for 4 link_is "$3" up
}
pull sw p-gw dev
pull core eth0 up
up0_is_up() { in_ns gw ip link show up0 | grep -q 'state UP'; }
in_ns gw ip link set up0 down # somebody's mistake on the box itself
check "an interface of a port that is set down is set up again" wait_for 4 up0_is_up
check "and the flow runs" wait_for 4 flow_runs video
