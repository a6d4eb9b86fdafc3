# shellcheck shell=bash
# shellcheck disable=SC2034 # variables for the scripts that source this
# rig.sh: the packet-rate rig, sourced by packet-rate.sh and by a scenario of test/netns:
#
#   core 0: gen ==virtio-user/vhost-user== core 1: the gateway's worker          (target "gateway")
#               ==virtio-user/vhost-user== core 1: dpdk-testpmd, macswap         (target "macswap", stopped between turns)
#
# The gateway is whole: agent, dataplane, controller and a TLS worker in a network namespace. feed.c loads it.
# A coprocess each for gen and feed: `gen COMMAND...`, `feed COMMAND...` print the answer's words after "ok".
. "$(dirname "${BASH_SOURCE[0]}")/../test/netns/lib.sh"

RIG_DEV4=10.127.255.254 RIG_DEV6=fd01::1
RIG_UP4=10.2.0.1 RIG_UP6=fd02::1
RIG_NEXT4=10.2.0.254 RIG_NEXT6=fd02::fe
RIG_ROUTER=02:02:00:00:00:fe
RIG_PORT=8883
VIRTIO=queue_size=512,packed_vq=1,mrg_rxbuf=0,in_order=1
# A TLS listener's certificate, made by pki_make
GW4=$RIG_DEV4 GW6=$RIG_DEV6
WORKER_CPU=1 # the generator, and everything else, is on CPU 0
FLOWS_MAX=${FLOWS_MAX:-2100000} DEVICES_MAX=${DEVICES_MAX:-131072} MEMORY_MB=${MEMORY_MB:-1024}
HUGEPAGES=${HUGEPAGES:-true} GEN_MEMORY=${GEN_MEMORY:---in-memory --single-file-segments -m 512}

rig_config() {
	local i family
	{
		cat <<-CFG
			gateway = { name = "rig"; run_dir = "$D/run"; state_dir = "$D/state"; segments = "$D/segments.cfg";
			  user = "nobody"; devices_max = $DEVICES_MAX; log_level = "warn"; };
			dataplane = { lcores = "$WORKER_CPU"; memory_mb = $MEMORY_MB; hugepages = $HUGEPAGES; flows_max = $FLOWS_MAX;
			  udp_s = 600; udp_unanswered_s = 2; };
			limits = { strangers = { packets = 1000000; new_flows = 1000000; }; }; // all devices knock at once
			ports = (
			  { name = "dev"; side = "device"; devargs = "net_vhost0,iface=$D/dev.sock"; isolated = true;
			    addresses = [ "$RIG_DEV4/10", "$RIG_DEV6/64" ]; },
			  { name = "up"; side = "uplink"; devargs = "net_vhost1,iface=$D/up.sock";
			    addresses = [ "$RIG_UP4/24", "$RIG_UP6/64" ]; } );
			routes = ( { to = "0.0.0.0/0"; via = "$RIG_NEXT4"; }, { to = "::/0"; via = "$RIG_NEXT6"; } );
			controller = { socket = "$D/run/decisions.sock"; public_key = "$D/controller/controller.pub"; };
			metrics = { port = 9464; };
		CFG
		for family in 4 6; do
			i=RIG_DEV$family
			[ "$family" = 4 ] && printf 'listeners = (' || printf ','
			printf ' { name = "l%s"; address = "%s"; port = %s; upstream = "10.2.0.2:1883"; proxy_protocol = false;\n' \
				"$family" "${!i}" "$RIG_PORT"
			printf '  certificate = "%s"; key = "%s"; ca = "%s"; crl = "%s"; }' "$D/pki/gw.pem" "$D/pki/gw.key" \
				"$D/pki/ca.pem" "$D/pki/ca.crl"
		done
		echo ' );'
	} >"$D/gateway.cfg"
	"$B/bench/feed" policy >"$D/segments.cfg"
}

# A worker that polls keeps its core, whatever else runs on the machine.
rig_pin_worker() { # PID: its polling thread
	local t
	for t in "/proc/$1/task"/*; do
		case $(cat "$t/comm" 2>/dev/null) in rte-worker* | lcore-worker* | pmd-*) chrt -f -p 1 "${t##*/}" >/dev/null ;; esac
	done
}

# The generator is the router behind the uplink, and does not answer ARP.
rig_neighbours() {
	in_ns gw ip neigh replace "$RIG_NEXT4" lladdr "$RIG_ROUTER" dev sp-up nud permanent
	in_ns gw ip -6 neigh replace "$RIG_NEXT6" lladdr "$RIG_ROUTER" dev sp-up nud permanent
}

# rig_up NAME: the gateway, without devices. P and D are set from here on.
rig_up() {
	P=$1-$$-
	# in memory: what a decision's way to the disk takes is not what is measured here
	D=$(mktemp -d "/dev/shm/$1.XXXXXX")
	RUNSVDIR=
	trap rig_exit EXIT
	trap 'exit 130' INT TERM HUP PIPE
	taskset -p -c 0 $$ >/dev/null
	ns_make gw
	pki_make
	rig_config
	daemons_start
	rig_neighbours
	rig_pin_worker "$(daemon_pid dataplane)"
}
# A generator that is killed in its polling leaves nothing behind; what else runs is world_exit's.
rig_exit() {
	local code=$?
	trap '' INT TERM HUP PIPE
	end ${GEN_PID:+"$GEN_PID"} ${FEED_PID:+"$FEED_PID"}
	! declare -F nft_down >/dev/null || nft_down
	(exit "$code")
	world_exit
}
rig_mac() { in_ns gw cat "/sys/class/net/sp-$1/address"; } # dev or up: the port's, which is its shadow's

# testpmd_up: the ceiling over the same ports; `testpmd start` and `testpmd stop` begin and end its polling
testpmd_up() {
	mkfifo "$D/testpmd.fifo"
	exec {TESTPMD}<>"$D/testpmd.fifo"
	spawn gw testpmd sh -c "exec stdbuf -oL dpdk-testpmd -l 0,$WORKER_CPU --in-memory --no-pci --no-telemetry -m 256 \
		--vdev net_vhost0,iface=$D/swap0.sock --vdev net_vhost1,iface=$D/swap1.sock -- -i --forward-mode=macswap \
		--nb-cores=1 --total-num-mbufs=4096 <'$D/testpmd.fifo'"
	TESTPMD_PID=$LAST
	must "dpdk-testpmd is up" 20 grep -q 'testpmd>' "$D/testpmd.log"
	rig_pin_worker "$TESTPMD_PID"
}
# Its prompt comes back when the order was carried out.
testpmd_prompts() { grep -o 'testpmd>' "$D/testpmd.log" | wc -l; }
testpmd_beyond() { [ "$(testpmd_prompts)" -gt "$1" ]; }
testpmd() { # start|stop
	local n
	n=$(testpmd_prompts)
	say "$1" >&"$TESTPMD"
	must "dpdk-testpmd: $1" 5 testpmd_beyond "$n"
}

# talker NAME COMMAND...: a program that answers lines by lines; to fd ${NAME}_IN, from fd ${NAME}_OUT, pid ${NAME}_PID
talker() {
	local name=$1 in out
	shift
	rm -f "$D/$name.in" "$D/$name.out"
	mkfifo "$D/$name.in" "$D/$name.out"
	# opened for both, so that neither open waits and no end of file is seen too early
	exec {in}<>"$D/$name.in" {out}<>"$D/$name.out"
	"$@" <"$D/$name.in" >"$D/$name.out" 2>"$D/$name.log" &
	printf -v "${name}_PID" %s $!
	PIDS+=("$!")
	printf -v "${name}_IN" %s "$in"
	printf -v "${name}_OUT" %s "$out"
}
# gen_up TARGET...: as in gen.c
gen_up() {
	# shellcheck disable=SC2086 # options
	talker GEN "$B/bench/gen" -l 0 $GEN_MEMORY --no-pci --no-telemetry --log-level=error -- "$@"
	gen_answer >/dev/null || die "gen: $(cat "$D/GEN.log")"
}
gateway_target() { say "gateway=route:net_virtio_user0,path=$D/dev.sock,$VIRTIO+net_virtio_user1,path=$D/up.sock,$VIRTIO"; }
macswap_target() { say "macswap=swap:net_virtio_user2,path=$D/swap0.sock,$VIRTIO+net_virtio_user3,path=$D/swap1.sock,$VIRTIO"; }
# The kernel's other work waits while the generator has its core to itself; with the agent at work it must share.
gen_alone() { chrt -f -p 1 "$GEN_PID"; }
gen_shares() { chrt -o -p 0 "$GEN_PID"; }

answer_of() { # FD SECONDS
	local line
	read -r -t "$2" -u "$1" line || die "no answer in $2 s"
	case $line in
	'ok'*) say "${line#ok}" ;;
	*) die "${line:-hung up}" ;;
	esac
}
gen_answer() { answer_of "$GEN_OUT" 120; }
gen_ask() { say "$*" >&"$GEN_IN"; }
gen() {
	gen_ask "$@"
	gen_answer || die "gen: $*"
}
feed_up() {
	talker FEED "$B/bench/feed" "$D/run/controller.sock" "$D/run/agent.sock" "$D/run/trust" "$D/gateway.cfg"
	feed_answer >/dev/null || die "feed: $(cat "$D/FEED.log")"
}
feed_ask() { say "$*" >&"$FEED_IN"; }
feed_answer() { answer_of "$FEED_OUT" 600; }
feed() {
	feed_ask "$@"
	feed_answer || die "feed: $* ($(cat "$D/FEED.log"))"
}
word_of() { # KEY: its value in the answer on standard input
	sed -n "s/.*\\b$1=\\([^ ]*\\).*/\\1/p"
}
bindings_now() { ctl_json status '.dataplane.bindings // 0'; }
bindings_are() { [ "$(bindings_now)" = "$1" ]; }
# devices_load FROM TO [v4|v6...]: enrolled, seen, and admitted. The gateway forgets whose frames it saw after a while.
devices_load() {
	local from=$1 to=$2 at families listener family had
	shift 2
	families=("${@:-v4}")
	had=$(bindings_now)
	feed enrol "$from" "$to" >/dev/null
	for ((at = from; at < to; at += 5000)); do
		for family in "${families[@]}"; do
			listener=RIG_DEV${family#v}
			gen knock gateway "$at" "$((at + 5000 < to ? at + 5000 : to))" "${!listener}" "$RIG_PORT" >/dev/null
			feed admit "$at" "$((at + 5000 < to ? at + 5000 : to))" "$family" >/dev/null
		done
	done
	must "all devices are bound" 5 bindings_are $((had + (to - from) * ${#families[@]}))
}
