-- rate.lua: Pktgen-DPDK over two NICs, against a gateway between them. Port 0 faces its device port, port 1 its uplink.
--   pktgen -l 0-4 -n 4 -a NIC0 -a NIC1 -- -P -m "[1:2].0, [3:4].1" -s 0:up.pcap -s 1:down.pcap -f rate.lua
-- Prints a line a step: what was offered in percent of the line, and what came back, in Mpps.
package.path = package.path .. ";?.lua;/usr/local/share/pktgen/?.lua;/usr/share/pktgen/?.lua"
require("Pktgen")

local PRIME_PCT = 2 -- of the line: slow enough that every first packet is admitted
local STEPS_PCT = { 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100 }
local SECONDS = 10

local function received_mpps()
	local rate = pktgen.portStats("0-1", "rate")
	return rate[0].pkts_rx / 1e6, rate[1].pkts_rx / 1e6
end

local function step(pct, ports, seconds)
	pktgen.set(ports, "rate", pct)
	pktgen.start(ports)
	pktgen.delay(seconds * 1000 // 2)
	local down, up = received_mpps() -- in the middle: neither start nor end is in it
	pktgen.delay(seconds * 1000 // 2)
	pktgen.stop(ports)
	pktgen.delay(500)
	return down, up
end

pktgen.screen("off")
pktgen.pcap("all", "on")
step(PRIME_PCT, "0", SECONDS) -- devices open; a reply before its request would be refused
for _, pct in ipairs(STEPS_PCT) do
	local down, up = step(pct, "0-1", SECONDS)
	printf("offered_pct=%d up_mpps=%.3f down_mpps=%.3f sum_mpps=%.3f\n", pct, up, down, up + down)
end
pktgen.quit()
