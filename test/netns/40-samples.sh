#!/bin/bash
# 40. The benchmark's choice of quiet samples: made by looks alone, and told only where there are enough. Needs no root.
. "$(dirname "$0")/lib.sh"
. "$TOP/bench/rig.sh"
SERVER_CPU=0
. "$TOP/bench/tls-samples.sh"
[ -x "$B/bench/tls_floor" ] || die "build it first: make bench"
P=s40-$$-
D=$(mktemp -d /tmp/s40.XXXXXX)
RUNSVDIR=
trap world_exit EXIT
trap 'exit 130' INT TERM HUP PIPE

# ---- 1. which samples are quiet: NAME FULL SAMPLES LOOKS WANTED
while IFS='|' read -r name full samples looks want; do
	check_eq "$name" "$want" "$(quiet_of "$full" "$samples" "$looks")"
done <<'ROWS'
all at full speed|1000|,5,7,6|,1000,1001,1050|,5,7,6
5 % slower still is, more is not|1000|,1,2,3|,1050,1051,1049|,1,3
one that nobody looked at is not|1000|,1,2|,0,1000|,2
looks choose, not the sample|1000|,900000,1,2|,1000,2000,2000|,900000
quicker than full speed is quiet too|1000|,1,2|,700,1100|,1
none is|1000|,1,2|,1100,1200|
ROWS

# ---- 2. full speed: the look that one in a hundred came up to
of() { seq -f ',%g' "$1" "$2" | tr -d '\n'; }
check_eq "of 100 looks the least" 1001 "$(full_speed "$(of 1001 1100)")"
check_eq "of 200 the second" 1002 "$(full_speed "$(of 1001 1200)")"
check_eq "of 101 the second, nearest rank" 1002 "$(full_speed "$(of 1001 1101)")"
check_eq "of one that one" 77 "$(full_speed ,77)"

# ---- 3. what is told
SAMPLES[look_ns]=,1000,1000,2000
LOOK=1000
for v in 5 6 7 8 9; do note many "$v"; done
LOOK=2000
for v in 90 91 92 93; do
	note many "$v"
	note few "$v"
done
LOOK=0
note other 3
emit_both many us median "<= 9" many beside few
emit_both few us median "" few
emit other bytes median "" other
emit nothing us median "" nothing
emit_all >"$D/told" 2>"$D/why"
line() { awk -F'\t' -v n="$1" '$1 == n' "$D/told"; }
check_eq "all samples, with their looks" "many,us,median,<= 9,5 6 7 8 9 90 91 92 93,beside,90 91 92 93,1000 1000 1000 1000 1000 2000 2000 2000 2000" \
	"$(line many | tr ',\t' ' ,')"
check_eq "the quiet ones; of the reference too few are" "many_quiet,us,median,<= 9,5 6 7 8 9,,," "$(line many_quiet | tr ',\t' ' ,')"
check_eq "too few: no figure" "" "$(line few_quiet)"
check_match "but a line that says so" '^few: 0 of 4 samples were quiet' "$(cat "$D/why")"
check_eq "no looks where nobody looked" "other,bytes,median,,3,,," "$(line other | tr ',\t' ' ,')"
check_eq "no samples, no line" "" "$(line nothing)"
check_eq "full speed is told from all looks" "look_ns,ns,p1,,1000 1000 2000,,," "$(line look_ns | tr ',\t' ' ,')"

# ---- 4. who looks
mkdir "$D/pki"
(
	cd "$D/pki" || exit 1
	new=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2)
	"${new[@]}" -keyout ca.key -out ca.pem -subj /CN=ca &&
		"${new[@]}" -keyout gw.key -out gw.pem -subj /CN=gw -CA ca.pem -CAkey ca.key
) 2>"$D/pki.log" || die "keys"
talker FLOOR "$B/bench/tls_floor" "$D/pki/ca.pem" "$D/pki/ca.key" "$D/pki/gw.pem" "$D/pki/gw.key"
answer_of "$FLOOR_OUT" 10 >/dev/null || die "tls_floor: $(cat "$D/FLOOR.log")"
ask() {
	say "$*" >&"$FLOOR_IN"
	IFS= read -r -t 20 -u "$FLOOR_OUT" ANSWER
}
for bad in '' 'handshakes' 'handshakes rsa 3' 'handshakes x25519 0' 'messages -1' 'bulk 9999999999' 'watch 0' 'watch 10 10' 'seen 1' 'no such'; do
	ask "$bad"
	check_match "refused: '$bad'" '^error ' "$ANSWER"
done
ask messages 100
check_match "it is still there" '^ok us=[0-9.]+$' "$ANSWER"
ask bulk 10
check_match "it moves records" '^ok mb_per_s=[1-9]' "$ANSWER"
# As many looks as there is time for, until somebody asks
looks_are() {
	ask watch 1000
	! read -r -t "$WAIT" -u "$FLOOR_OUT" _ || return 1
	ask seen
	WAIT=0.4
	[[ $ANSWER =~ ^ok(\ [1-9][0-9]*){3,}$ ]]
}
WAIT=0.05
must "it looks" 20 looks_are
check_match "looks are in ns" '^ok( [1-9][0-9]{3,6}){3,}$' "$ANSWER"
ask seen
check_eq "nobody looks any more" ok "$ANSWER"
