#!/bin/bash
# 12. Decisions that are forged, replayed, reordered, truncated or signed by another key change nothing and are reported;
#     a revocation survives a restart of everything, and an older copy of the controller's log does not bring it back.
. "$(dirname "$0")/lib.sh"
world_up s12
certify "$DIGEST_A"
camera_make cam1 11 "$DIGEST_A"
camera_make cam2 12 "$DIGEST_A"
echo_both udp core "$NVR4" "$NVR6" 5000
echo_both tcp core "$NVR4" "$NVR6" 1883
in_both cam1 cam1 camera/cam1
device_in cam2 cam2 camera/cam2
udp_flows cam1 "$NVR4" "$NVR6" 5000 u
must "camera 1 is served" 10 all_run u u-v6

revision() { ctl_json status .controller.revision; }
at_revision() { [ "$(revision)" = "$1" ]; }
answers() { ctl_json status .uptime_s | grep -q '^[0-9]'; }

# Three decisions that the gateway has not seen yet: what an attacker on the way can hold back, change and shuffle.
has=$(revision)
daemon_stop agent
ctl enrol "$(id_of sensor/late1)" >"$D/late.log" 2>&1
ctl quarantine "$(id_of camera/cam1)" --reason drill >>"$D/late.log" 2>&1
ctl enrol "$(id_of sensor/late2)" >>"$D/late.log" 2>&1
daemon_stop controller
cp -a "$D/controller" "$D/controller.old"
daemon_start agent
must "the agent answers" 10 answers
must "the camera's sessions are known again" 10 has_sessions camera/cam1 2
check_eq "the gateway lacks three decisions" "$has" "$(revision)"
check_eq "the log has them" "$((has + 3))" \
	"$(sqlite3 "$D/controller.old/decisions.db" 'select max(revision) from entries')"

standings() {
	ctl_json devices '[.devices[] | [.device, .standing, .segment, .reason, .revision] | join("|")] | sort | join("\n")'
	ctl_json status '"\(.policy.sha256) \(.controller.revision)"'
}
standings >"$D/standings.good"
unchanged() { standings | cmp -s "$D/standings.good" -; }
alarms_since() { ctl_json status ".alarms[] | select(.at >= $1) | \"\(.kind): \(.text)\""; }
has_alarm() { alarms_since "$1" | grep -qE -- "^$2"; }
kinds_since() { alarms_since "$1" | cut -d: -f1 | sort -u | paste -sd' '; }
another_pid() { [ -n "$(daemon_pid "$1")" ] && [ "$(daemon_pid "$1")" != "$2" ]; }
lost=$(flow_lost u)

# attack NAME KINDS MODE...: a fresh agent, which finds a false controller at the socket. KINDS of alarms, no other.
attack() {
	local name=$1 kinds=$2 agent evil modes=() m
	shift 2
	for m in "$@"; do modes+=(--mode "$m"); done
	agent=$(daemon_pid agent)
	SINCE=$(now_ms)
	kill -KILL "$agent"
	spawn gw "evil-$name" evil-controller --decisions "$D/run/decisions.sock" --log "$D/controller.old/decisions.db" \
		"${modes[@]}" --wait-s 30
	evil=$LAST
	must "the agent is started again" 10 another_pid agent "$agent"
	must "the agent took the bait" 10 grep -q '^sent' "$D/evil-$name.log"
	must "the agent answers" 10 answers
	check_match "$name: the gateway says what it has" "^subscribe gateway=gw1 revision=$has\$" "$(head -2 "$D/evil-$name.log")"
	for m in "$@"; do check "$name: ${WHAT[$m]}" wait_for 5 has_alarm "$SINCE" "${ALARM[$m]}"; done
	check_eq "$name: no other alarm" "$kinds" "$(kinds_since "$SINCE")"
	check "$name: nothing has changed" wait_for 3 unchanged
	check_not "$name: no receipt for what was sent" grep -qE "^receipt revision=($((has + 1))|$((has + 2))|$((has + 3)))" \
		"$D/evil-$name.log"
	end "$evil"
}
declare -A WHAT ALARM
what() { WHAT[$1]=$2 ALARM[$1]=$3; }
what forged "one bit of a decision changed" 'signature: entry refused: signature does not verify'
what foreign-key "a decision signed by another key" 'signature: entry refused: signed by another key'
what foreign-snapshot "a snapshot signed by another key" 'signature: snapshot refused: signed by another key'
what foreign-heartbeat "a heartbeat signed by another key" 'signature: heartbeat refused: signed by another key'
what truncated "a decision cut in half" 'malformed: entry refused: '
what garbage "a frame that is none" "malformed: from the controller's socket: not a frame"
what cut-stream "a stream cut inside a frame" "malformed: the controller's stream is truncated"
what huge "a frame of 4 GiB" "malformed: the controller's stream is truncated or malformed"
what replayed "decisions of the past, again" 'replayed: revision 1 came again'
what reordered "decisions in another order" "hole: revision $((has + 3)) refused: a revision is missing"
what hole "decisions without the first" "hole: revision $((has + 2)) refused: a revision is missing"
attack changed "malformed signature" foreign-key forged foreign-snapshot foreign-heartbeat truncated garbage cut-stream
attack shuffled "hole malformed replayed" replayed reordered huge
attack withheld hole hole
lease_over() { [ "$(ctl_json status .controller.lease_left_s)" = 0 ]; }
check "none of them has moved the lease: it has run out" wait_for 10 lease_over

# A whole controller, with a key of its own.
sallyport-controller --init "$D/rogue" >"$D/rogue-init.log" 2>&1 || die "rogue controller"
since=$(now_ms)
spawn gw rogue sallyport-controller --dir "$D/rogue" --api "$D/run/rogue.sock" --decisions "$D/run/decisions.sock" \
	--heartbeat-s 1 --lease-s 5
rogue=$LAST
must "the rogue controller is up" 10 test -S "$D/run/rogue.sock"
must "the gateway is connected to it" 10 grep -q "gateway gw1 is at revision $has, which is not in this log" "$D/rogue.log"
check_not "another controller: its decision does not come in force" \
	sallyctl --controller "$D/run/rogue.sock" --timeout 1 enrol "$(id_of camera/evil)"
check "another controller: alarm \"signature\"" wait_for 5 has_alarm "$since" 'signature: .* signed by another key'
check_eq "another controller: no other alarm" signature "$(kinds_since "$since")"
check "another controller: changes nothing" unchanged
end "$rogue"
check "the camera's flow has lost nothing to all this" wait_for 2 flow_lost_at_most u $((lost + 2))
check "its TLS session lives" session_echoes cam1 "$GW4"

# ---- the real controller goes on ----------------------------------------------------------------
daemon_start controller
check "the real controller's decisions arrive" wait_for 15 at_revision $((has + 3))
check "and are in force" wait_for 3 has_standing camera/cam1 quarantine
check "the gateway vouches again" wait_for 5 gw_ready
check "the next one comes at once" ctl restore "$(id_of camera/cam1)"
check "camera 1 is served again" wait_for 5 all_run u u-v6

# ---- a revocation is for good -------------------------------------------------------------------
udp_flow cam2 "$NVR4" 5000 u2
must "camera 2 is served" 5 flow_runs u2
check "camera 2 is revoked" ctl revoke "$(id_of camera/cam2)" --reason stolen
head=$(revision)
check "its flow ends" flow_stopped u2
still_revoked() { # WHEN
	check_eq "$1: camera 2 is revoked" revoked "$(standing_of camera/cam2)"
	check_match "$1: its handshake gets an alert" 'alert|error' "$(tls cam2 cam2 "$GW4" -ign_eof)"
	check_match "$1: for that reason" 'why="[^"]*revoked' "$(log_of tls-proxy | grep 'handshake refused' | tail -1)"
	check "$1: its flow gets no answer" flow_stopped u2
}
still_revoked "before"
daemons=(dataplane tls-proxy agent controller)
for d in "${daemons[@]}"; do daemon_stop "$d"; done
for d in "${daemons[@]}"; do check_eq "$d is down" "" "$(daemon_pid "$d")"; done
for d in "${daemons[@]}"; do daemon_start "$d"; done
must "the gateway is ready" 30 gw_ready
check_eq "after a restart of everything: the same revision" "$head" "$(revision)"
check "after a restart of everything: camera 1 is served" wait_for 10 all_run u u-v6
still_revoked "after a restart of everything"

# ---- the controller's folder of before ----------------------------------------------------------
daemon_stop controller
mv "$D/controller" "$D/controller.true"
cp -a "$D/controller.old" "$D/controller"
since=$(now_ms)
daemon_start controller
check "an old copy of the log: alarm \"rollback\"" wait_for 15 has_alarm "$since" \
	"rollback: the controller is at revision $((has + 3)), we are at $head"
check_eq "an old copy of the log: no other alarm" rollback "$(kinds_since "$since")"
check_eq "an old copy of the log: the gateway stays at its revision" "$head" "$(revision)"
still_revoked "an old copy of the log"
# It decides on: another history, signed by the true key, which outruns the gateway's revision in the end.
check_not "another history: its decision does not come in force" \
	ctl --timeout 1 attest "$(id_of camera/cam2)" --digest "sha256:$DIGEST_A" --tier affirming --for 1h
check_eq "another history: the gateway stays at its revision" "$head" "$(revision)"
for n in 1 2 3; do ctl --timeout 1 enrol "$(id_of sensor/fork$n)" >>"$D/fork.log" 2>&1; done
check "another history: its snapshot is taken once it is newer" wait_for 10 at_revision $((has + 7))
still_revoked "another history"
agent=$(daemon_pid agent)
kill -KILL "$agent"
must "the agent is started again" 10 another_pid agent "$agent"
must "the gateway is ready" 20 gw_ready
still_revoked "after one more restart of the agent"
check_not "no daemon complains of a damaged store" log_has agent 'ALARM store'
