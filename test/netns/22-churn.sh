#!/bin/bash
# 22. 10,000 routes and 100,000 neighbours, 1,000 changes of each a second: the dataplane has what the kernel has within a
#     second of the last change, and a flow that has nothing to do with them loses no packet.
. "$(dirname "$0")/lib.sh"

MEMORY_MB=256
DATAPLANE_EXTRA='neighbours_max = 131072;'
ROUTES=10000 NEIGHS=100000 SECONDS_OF_CHURN=${SECONDS_OF_CHURN:-6}
world_up s22
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
tcp_echo core "$NVR4" 1883
udp_echo core "$NVR4" 5000
device_in cam1 cam1 camera/cam1
udp_flow cam1 "$NVR4" 5000 video
must "a flow runs" 5 flow_runs video

dp() { ctl_json status ".dataplane.$1"; }
dp_has() { [ "$(dp routes)" = "$1" ] && [ "$(dp neighbours)" -ge "$2" ] && [ "$(dp neighbours)" -le $(($2 + 8)) ]; }
batch() { in_ns gw ip -batch "$D/$1"; }
python3 - "$D" "$ROUTES" "$NEIGHS" "$SECONDS_OF_CHURN" <<'PY'
import sys
d, routes, neighs, seconds = sys.argv[1], *map(int, sys.argv[2:])
route = lambda i, via=10: f"100.{64 + i // 65536}.{i // 256 % 256}.{i % 256}/32 via 10.20.0.{via}"
neigh = lambda i, mac: f"11.{i // 65536}.{i // 256 % 256}.{i % 256} lladdr 02:00:00:00:{mac:02x}:01 dev sp-up nud permanent"
write = lambda name, lines: open(f"{d}/{name}", "w").write("\n".join(lines) + "\n")
write("routes", (f"route add {route(i)}" for i in range(routes)))
write("neighs", (f"neigh add {neigh(i, 1)}" for i in range(neighs)))
# A tenth of a second: 50 routes go and come, 100 neighbours have another address.
for t in range(seconds * 10):
    lines = []
    for k in range(50):
        i = (t * 50 + k) % routes
        lines += [f"route del {route(i)}", f"route add {route(i, 80)}"]
        lines += [f"neigh replace {neigh((t * 100 + 2 * k + x) % neighs, t % 250 + 2)}" for x in range(2)]
    write(f"churn{t}", lines)
write("last", [f"route del {route(i)}" for i in range(routes - 500, routes)]
      + [f"neigh del 11.0.0.{i} dev sp-up" for i in range(100)])
PY

base=$(dp routes) neighs=$(dp neighbours)
check "$ROUTES routes and $NEIGHS neighbours are put into the kernel" batch routes
check "all of them" batch neighs
start=$(now_ms)
check "the dataplane has as many" wait_for 20 dp_has $((base + ROUTES)) $((neighs + NEIGHS))
say "  after the last was in the kernel: $(($(now_ms) - start)) ms, of which up to 1,000 are the status's own"
check "the flow lost no packet" wait_for 2 flow_lost_at_most video 0

cpu=$(worker_cpu_pct "$(daemon_pid dataplane)" 2)
start=$(now_ms)
for ((t = 0; t < SECONDS_OF_CHURN * 10; t++)); do
	batch "churn$t" || break
	rest=$((start + (t + 1) * 100 - $(now_ms)))
	[ "$rest" -le 0 ] || sleep "0.$(printf '%03d' "$rest")" # the rate, not a wait for something
	[ "$t" -ne 20 ] || {
		worker_cpu_pct "$(daemon_pid dataplane)" 2 >"$D/busy" &
		PIDS+=($!)
	}
done
took=$(($(now_ms) - start))
check_eq "every change was taken by the kernel" $((SECONDS_OF_CHURN * 10)) "$t"
check "and now the last ones" batch last
check "the dataplane is in step within a second (and the status's own)" wait_for 2 dp_has $((base + ROUTES - 500)) $((neighs + NEIGHS - 100))
say "  $((SECONDS_OF_CHURN * 2000)) changes in $took ms; worker's share of its core: $cpu % before, $(cat "$D/busy") % meanwhile"
check "the flow lost no packet" wait_for 2 flow_lost_at_most video 0
check "and still runs" flow_runs video

# ---- the addresses themselves, not only their number ---------------------------------------------
must "a route into nowhere" 2 in_ns gw ip route replace blackhole "$NVR4/32"
check "a flow follows a new route at once: none passes" flow_stopped video
must "the route goes" 2 in_ns gw ip route del blackhole "$NVR4/32"
check "and passes again when it goes" wait_for 2 flow_runs video
check_eq "no process was started anew: the log has one start" 1 "$(log_of dataplane | grep -c ' running ')"
