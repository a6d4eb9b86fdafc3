#!/bin/bash
# 8. A software certificate is revoked: exactly the devices whose attestation names that digest move to remediation, where
#    they reach the update server and nothing else; the others do not notice.
# transports: socket stack
. "$(dirname "$0")/lib.sh"
world_up s08
certify "$DIGEST_A" 1
certify "$DIGEST_B" 2
camera_make cam1 11 "$DIGEST_A"
camera_make cam2 12 "$DIGEST_A"
camera_make cam3 13 "$DIGEST_B"
sensor_make s1 14
cert_make w1 "URI:$(id_of camera/w1)"
vouch camera/w1 "$DIGEST_A"
echo_both tcp core "$NVR4" "$NVR6" 1883
echo_both udp core "$NVR4" "$NVR6" 5000
for kind in tcp udp; do echo_both "$kind" core "$UPD4" "$UPD6" 443; done
in_both cam1 cam1 camera/cam1
ended=("$LAST4" "$LAST6")
device_in cam2 cam2 camera/cam2
ended+=("$LAST")
device_in w1 w1 camera/w1 "$WIFI4"
ended+=("$LAST")
in_both cam3 cam3 camera/cam3
stay=("$LAST4" "$LAST6")
device_in s1 s1 sensor/s1
stay+=("$LAST")
udp_flows cam1 "$NVR4" "$NVR6" 5000 cam1
udp_flow cam2 "$NVR4" 5000 cam2
udp_flow w1 "$NVR4" 5000 w1
udp_flows cam3 "$NVR4" "$NVR6" 5000 cam3
tcp_flow s1 "$NVR4" 1883 s1
check "all flows run" wait_for 5 all_run cam1 cam1-v6 cam2 w1 cam3 cam3-v6 s1
for a in "$UPD4" "$UPD6"; do
	check_not "a camera in its own segment may not reach the update server, $a" tcp_try cam1 "$a" 443 0.5
done
lost=$(flow_lost cam3) lost6=$(flow_lost cam3-v6)
standings() { ctl_json devices '[.devices[] | (.device | split("/") | last) + "=" + .standing] | sort | join(" ")'; }
check_eq "everybody has full standing" "cam1=full cam2=full cam3=full s1=full w1=full" "$(standings)"

receipt=$(ctl software revoke "sha256:$DIGEST_A" --reason CVE-2026-1234)
say "        $receipt"
check_match "the receipt: their 4 sessions ended, none untracked" \
	'^revision [0-9]+ in force on gw1 in [0-9]+ µs: 4 sessions and [3-9] flows closed, 0 untracked' "$receipt"
check_eq "exactly the devices with that digest are in remediation" \
	"cam1=remediation cam2=remediation cam3=full s1=full w1=remediation" "$(standings)"
check "their flows stop" all_stopped cam1 cam1-v6 cam2 w1
for pid in "${ended[@]}"; do check "a session of theirs has ended" wait_for 3 not_running "$pid"; done
check_match "with the alert access_denied" 'alert access denied' "$(log_of tls-cam1)"
for a in "$UPD4" "$UPD6"; do
	check "in remediation the update server is reached, $a" tcp_try cam1 "$a" 443
	check "with UDP too, $a" udp_try cam1 "$a" 443
done
check "so it is by the second device" tcp_try cam2 "$UPD4" 443
check "and by the one on the kernel path" tcp_try w1 "$UPD4" 443
check_not "not the recorder" tcp_try cam1 "$NVR4" 1883 0.5
check_not "nor on the kernel path" tcp_try w1 "$NVR4" 1883 0.5
check_match "sallyctl why names the software" 'software' "$(ctl why "$(id_of camera/cam1)")"

check "the others' flows go on" all_run cam3 cam3-v6 s1
check "and have lost nothing" wait_for 3 flow_lost_at_most cam3 "$lost"
check "nor in IPv6" wait_for 3 flow_lost_at_most cam3-v6 "$lost6"
for pid in "${stay[@]}"; do check_not "a session of theirs has not ended" not_running "$pid"; done
check "the camera's relays" session_echoes cam3 "$GW4"
check "and the sensor's" session_echoes s1 "$GW4"

# ---- repaired -----------------------------------------------------------------------------------
device_in cam1 cam1 camera/cam1
held=$LAST
check_not "a session in remediation relays nothing" tls_answers cam1 cam1
vouch camera/cam1 "$DIGEST_B"
check_eq "attested with certified software, a device is back" full "$(standing_of camera/cam1)"
check "its flows run again by themselves" wait_for 5 all_run cam1 cam1-v6
check "the session that nobody relayed ended with the change" wait_for 3 not_running "$held"
check "and a new one relays" tls_answers cam1 cam1
check_eq "the others still are where they were" "cam1=full cam2=remediation cam3=full s1=full w1=remediation" "$(standings)"
