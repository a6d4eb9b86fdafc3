#!/usr/bin/env python3
"""pcap.py FLOWS DEVICES DIRECTION GATEWAY-MAC FILE: the rig's IPv4 flows as a pcap for Pktgen-DPDK, DPDK's pcap PMD, or
any generator that plays one. DIRECTION: up (from the devices) or down (back to them). The numbering is that of
../frames.h; enrol and admit the devices with ../feed.c, or bind them as your site does."""
import socket
import struct
import sys

NETWORKS, SPORT, DPORT, DPORTS = 32, 10000, 5000, 100
ROUTER = bytes.fromhex("0202000000fe")


def checksum(head):
    total = sum(struct.unpack("!10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(f, devices, up, gateway):
    d = f % devices
    n = d + 256
    mac = struct.pack("!HBBBB", 0x0201, 0, d >> 16 & 255, d >> 8 & 255, d & 255)
    device = struct.pack("!BBH", 10, 64 + (n >> 16 & 63), n & 0xFFFF)
    server = bytes([10, 32, f % (NETWORKS - 1), 1 + f // (NETWORKS - 1) % 250])
    ends = [(device, SPORT + f // devices), (server, DPORT + f % DPORTS)]
    src, dst = ends if up else ends[::-1]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 46, 0, 0x4000, 64, socket.IPPROTO_UDP, 0, src[0], dst[0])
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    return gateway + (mac if up else ROUTER) + b"\x08\x00" + ip + struct.pack("!HHHH", src[1], dst[1], 26, 0) + bytes(18)


def main():
    if len(sys.argv) != 6 or sys.argv[3] not in ("up", "down"):
        sys.exit(__doc__)
    flows, devices, up = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "up"
    gateway = bytes.fromhex(sys.argv[4].replace(":", ""))
    if not 0 < devices <= flows or flows // devices > 50000 or devices > 200000 or len(gateway) != 6:
        sys.exit("pcap.py: flows, devices or MAC address out of range")
    step = 7919 if flows % 7919 else 7907  # a prime: neighbours in the file are none in a table
    with open(sys.argv[5], "wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for i in range(flows):
            data = frame(i * step % flows, devices, up, gateway)
            out.write(struct.pack("<IIII", 0, i, len(data), len(data)) + data)


main()
