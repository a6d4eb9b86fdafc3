# shellcheck shell=bash
# peers.sh: other programs over the rig, for PEERS=1; sourced by packet-rate.sh. Each forwards the same flows under an
# equivalent policy with connection tracking, on the worker's core, and rests while others are measured.
#   ovs  OVS-DPDK on the same kind of ports: 1,984 rules (64 groups of devices by address, 31 networks, a range of ports)
#   nft  Linux forwarding between two veth pairs: sets, a verdict map, conntrack; softirqs on the worker's core
PEERS_MS=500

peers_install() {
	[ -x /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk ] && return
	say "PEERS=1: installing openvswitch-switch-dpdk"
	apt-get install -y --no-install-recommends openvswitch-switch openvswitch-switch-dpdk >"$D/apt.log" 2>&1 ||
		die "cannot install openvswitch-switch-dpdk: $(tail -3 "$D/apt.log")"
}

# ---- OVS-DPDK -----------------------------------------------------------------------------------
ovs_rules() {
	local s k
	say 'table=0,priority=10,ip,udp,actions=ct(table=1,zone=1)'
	say 'table=1,priority=20,ct_state=+trk+est,in_port=1,ip,actions=output:2'
	say 'table=1,priority=20,ct_state=+trk+est,in_port=2,ip,actions=output:1'
	for ((s = 0; s < 64; s++)); do
		for ((k = 0; k < 31; k++)); do
			say "table=1,priority=10,ct_state=+trk+new,in_port=1,udp,nw_src=0.0.0.$s/0.0.0.63,nw_dst=10.32.$k.0/24,tp_dst=4992/0xff80,actions=ct(commit,zone=1),output:2"
		done
	done
}
ovs_ctl() { in_ns ovs "$@"; }
ovs_up() {
	local i
	ns_make ovs
	export OVS_RUNDIR=$D/ovs OVS_LOGDIR=$D/ovs OVS_DBDIR=$D/ovs OVS_SYSCONFDIR=$D/ovs
	mkdir "$D/ovs"
	ovsdb-tool create "$D/ovs/conf.db" /usr/share/openvswitch/vswitch.ovsschema || die "OVS: no database"
	spawn ovs ovsdb ovsdb-server --remote="punix:$D/ovs/db.sock" --pidfile="$D/ovs/db.pid" "$D/ovs/conf.db"
	must "ovsdb-server is up" 5 test -S "$D/ovs/db.sock"
	ovs_ctl ovs-vsctl --db="unix:$D/ovs/db.sock" --no-wait -- init -- set Open_vSwitch . other_config:dpdk-init=true \
		other_config:dpdk-lcore-mask=0x1 other_config:pmd-cpu-mask="$(printf '0x%x' $((1 << WORKER_CPU)))" \
		other_config:dpdk-socket-mem=1024 "other_config:dpdk-extra=--no-pci --in-memory --no-telemetry" \
		-- add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure || die "OVS: not configured"
	for i in 0 1; do
		ovs_ctl ovs-vsctl --db="unix:$D/ovs/db.sock" --no-wait add-port br0 "v$i" -- set Interface "v$i" type=dpdk \
			"options:dpdk-devargs=net_vhost$i,iface=$D/ovs$i.sock" "ofport_request=$((i + 1))"
	done
	spawn ovs vswitchd /usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk "unix:$D/ovs/db.sock" --pidfile="$D/ovs/v.pid"
	OVS_PID=$LAST
	must "OVS-DPDK is up" 20 test -S "$D/ovs1.sock"
	ovs_rules >"$D/ovs/rules"
	must "OVS takes its rules" 20 ovs_ctl ovs-ofctl add-flows br0 "$D/ovs/rules"
	ovs_ctl ovs-appctl -t "$D/ovs/ovs-vswitchd-dpdk.$OVS_PID.ctl" dpctl/ct-set-maxconns 3000000 >/dev/null || die "OVS: connections"
	rig_pin_worker "$OVS_PID"
}
ovs_target() { say "ovs=wire:net_virtio_user4,path=$D/ovs0.sock,$VIRTIO+net_virtio_user5,path=$D/ovs1.sock,$VIRTIO"; }
ovs_runs() { kill -CONT "$OVS_PID"; }
ovs_rests() { kill -STOP "$OVS_PID"; }

# ---- nftables -----------------------------------------------------------------------------------
nft_rules() {
	local s k
	printf "%s\n" 'table ip bench {' 'map segment { type ipv4_addr : mark; elements = {'
	for ((s = 0; s < 64; s++)); do printf "%s\n" "0.0.0.$s : $((s + 1)),"; done
	printf "%s\n" '} }' 'set nets { type ipv4_addr; flags interval; elements = {'
	for ((k = 0; k < 31; k++)); do printf "%s\n" "10.32.$k.0/24,"; done
	printf "%s\n" '} }' 'map verdict { type mark . inet_service : verdict; flags interval; elements = {'
	for ((s = 1; s <= 64; s++)); do printf "%s\n" "$s . 5000-5099 : accept,"; done
	printf "%s\n" '} }' 'chain forward {' 'type filter hook forward priority 0; policy drop;' 'ct state established accept' \
		'ct state new iifname "n0" ip daddr @nets meta mark set ip saddr & 0.0.0.63 map @segment meta mark . udp dport vmap @verdict' \
		'}' '}'
}
# Tracked connections are counted a namespace, but their limit and their table are the machine's: enough for all flows.
CONNTRACK=/proc/sys/net/netfilter/nf_conntrack
conntrack_set() { # MAX BUCKETS
	echo "$1" >"${CONNTRACK}_max"
	echo "$2" >"${CONNTRACK}_buckets"
}
conntrack_raise() {
	CONNTRACK_WAS=($(<"${CONNTRACK}_max") $(<"${CONNTRACK}_buckets")) || die "no connection tracking in this kernel"
	conntrack_set 3000000 1048576
}
nft_up() {
	local i
	ns_make nft
	conntrack_raise
	for i in 0 1; do
		ip link add "${P//-/}$i" type veth peer name "n$i" netns "${P}nft" || die "veth"
		ethtool -K "${P//-/}$i" tx off rx off >/dev/null 2>&1
		ip link set "${P//-/}$i" up
		in_ns nft ip link set "n$i" up
		in_ns nft sh -c "echo $(printf '%x' $((1 << WORKER_CPU))) >/sys/class/net/n$i/queues/rx-0/rps_cpus"
	done
	in_ns nft sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
		net.netfilter.nf_conntrack_udp_timeout=600 net.netfilter.nf_conntrack_udp_timeout_stream=600 net.core.netdev_max_backlog=4096 2>"$D/nft-sysctl.log"
	in_ns nft ip addr add 10.60.0.1/24 dev n0
	in_ns nft ip addr add "$RIG_UP4/24" dev n1
	in_ns nft ip neigh replace 10.60.0.2 lladdr 02:01:00:00:00:00 dev n0 nud permanent
	in_ns nft ip neigh replace "$RIG_NEXT4" lladdr "$RIG_ROUTER" dev n1 nud permanent
	in_ns nft ip route add 10.64.0.0/10 via 10.60.0.2
	in_ns nft ip route add default via "$RIG_NEXT4"
	nft_rules | in_ns nft nft -f - || die "nftables: rules"
}
nft_down() {
	local i
	[ -z "${CONNTRACK_WAS:-}" ] || conntrack_set "${CONNTRACK_WAS[@]}"
	for i in 0 1; do ip link del "${P//-/}$i" 2>/dev/null; done
}
nft_target() { say "nft=hop:net_af_packet0,iface=${P//-/}0+net_af_packet1,iface=${P//-/}1"; }
nft_mac() { in_ns nft cat "/sys/class/net/n$1/address"; }

# ---- measuring ----------------------------------------------------------------------------------
peers_up() {
	peers_install
	ovs_up
	nft_up
}
peers_macs() {
	gen macs ovs 02:00:00:00:00:01 02:00:00:00:00:02 >/dev/null
	gen macs nft "$(nft_mac 0)" "$(nft_mac 1)" >/dev/null
	ovs_rests
}
core_idle() { awk -v c="cpu$WORKER_CPU" '$1 == c { print $5 + $6 }' /proc/stat; } # ticks of 10 ms
# Mpps, and how busy the core was meanwhile: below a hundred, the generator's way over AF_PACKET was the limit
nft_rate() {
	local was mpps
	was=$(core_idle)
	mpps=$(rate nft "$PEERS_MS")
	awk -v m="$mpps" -v i="$(($(core_idle) - was))" -v ms="$PEERS_MS" 'BEGIN { printf "%s %.0f", m, 100 - 1000 * i / ms }'
}
# peers_versus LABEL GOAL-OVS GOAL-NFT: the present flows, by turns with the gateway
peers_versus() {
	local i ours ovs nft=()
	ovs_runs
	gen prime ovs >/dev/null
	ovs_rests
	gen prime nft 0.2 >/dev/null
	gen_alone
	for ((i = 0; i < RUNS; i++)); do
		ours=$(rate gateway "$MS")
		ovs_runs
		ovs=$(rate ovs "$PEERS_MS")
		ovs_rests
		read -ra nft <<<"$(nft_rate)"
		note "ovs_$1" "$ovs"
		note "nft_$1" "${nft[0]}"
		note "nft_core_$1" "${nft[1]}"
		note "vs_ovs_$1" "$(ratio "$ours" "$ovs")"
		note "vs_nft_$1" "$(ratio "$ours" "${nft[0]}")"
	done
	gen_shares
	emit "ovs_$1" Mpps median "" "${SAMPLES[ovs_$1]}"
	emit "nft_$1" Mpps median "" "${SAMPLES[nft_$1]}"
	emit "nft_$1_core" % median "" "${SAMPLES[nft_core_$1]}"
	emit "rate_$1_vs_ovs" ratio median "$2" "${SAMPLES[vs_ovs_$1]}"
	emit "rate_$1_vs_nft" ratio median "$3" "${SAMPLES[vs_nft_$1]}"
	say "peers $1: ovs ${SAMPLES[ovs_$1]#,} nft ${SAMPLES[nft_$1]#,}"
}
