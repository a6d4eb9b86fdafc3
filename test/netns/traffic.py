#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small servers and clients for the scenarios; the outside end of what crosses the gateway.

tcp-echo ADDR PORT | udp-echo ADDR PORT | listening tcp|udp PORT
tcp-try ADDR PORT SECONDS | udp-try ADDR PORT SECONDS       exit 0 if the answer came
udp-flow ADDR PORT FILE | tcp-flow ADDR PORT FILE           50 a second; FILE: "SENT RECEIVED LAST_MS"
udp-many ADDR PORT FLOWS FILE | tcp-many ADDR PORT FLOWS FILE   the same over many flows in turn, 250 a second
udp-large ADDR PORT SECONDS BYTES | udp-answer ADDR PORT SECONDS BYTES   fragments to ADDR | fragments back
udp-sized ADDR PORT                                         answers with as many bytes as the text asks for
udp-error ADDR PORT SECONDS HOPS                            prints "TYPE CODE FROM" of the ICMP error that came back
frame IF KIND KEY=VALUE...                                  one raw frame: KIND udp, arp or na (raw_frame)
flood IF KIND PER_S SECONDS KEY=VALUE...                    raw frames: KIND syn, ack, udp or arp (flood); prints how many
udp-count ADDR PORT FILE | udp-blast ADDR PORT SECONDS PER_S BYTES   counts "PACKETS IP_BYTES MS" | sends at a pace
udp-ports ADDR FROM TO                                      opens a flow to each port, one every 25 ms; prints how many
                                                            were answered
tls-bulk ADDR PORT FOLDER NAME BYTES [WINDOW]               there and back; first with Finished, then a half-close;
                                                            with a receive buffer of so many bytes
tls-reset ADDR PORT FOLDER NAME WHEN                        RST when connected, hello, flight, finished, open, full or
                                                            half (closed); exit 0 if it came so far
proxy-dump ADDR PORT FILE                                   accepts PROXY v2, writes what it says, then echoes
"""
import os
import select
import socket
import ssl
import struct
import sys
import time


def family(addr):
    return socket.AF_INET6 if ":" in addr else socket.AF_INET


def listener(addr, port, kind):
    s = socket.socket(family(addr), kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family(addr) == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((addr, int(port)))
    return s


def tcp_echo(addr, port):
    s = listener(addr, port, socket.SOCK_STREAM)
    s.listen(64)
    clients = set()
    while True:
        ready, _, _ = select.select([s] + list(clients), [], [])
        for c in ready:
            if c is s:
                clients.add(s.accept()[0])
                continue
            try:
                data = c.recv(65536)
                if data:
                    c.sendall(data)
                    continue
            except OSError:
                pass
            clients.discard(c)
            c.close()


def udp_echo(addr, port):
    s = listener(addr, port, socket.SOCK_DGRAM)
    while True:
        data, who = s.recvfrom(65536)
        s.sendto(data, who)


def listening(proto, port):
    want = "%04X" % int(port)
    for name in (proto, proto + "6"):
        with open("/proc/net/" + name, encoding="ascii") as f:
            for line in f.readlines()[1:]:
                field = line.split()
                if field[1].endswith(":" + want) and (proto == "udp" or field[3] == "0A"):
                    return 0
    return 1


def tcp_try(addr, port, seconds):
    try:
        with socket.create_connection((addr, int(port)), float(seconds)) as s:
            s.sendall(b"hello\n")
            return 0 if s.recv(100) == b"hello\n" else 1
    except OSError as e:
        print(e)
        return 1


def udp_try(addr, port, seconds):
    s = socket.socket(family(addr), socket.SOCK_DGRAM)
    s.settimeout(float(seconds))
    try:
        s.sendto(b"hello", (addr, int(port)))
        return 0 if s.recv(100) == b"hello" else 1
    except OSError as e:
        print(e)
        return 1


def udp_ask(addr, port, seconds, question, want):
    s = socket.socket(family(addr), socket.SOCK_DGRAM)
    s.settimeout(float(seconds))
    try:
        s.sendto(question, (addr, int(port)))
        return 0 if len(s.recv(65536)) == want else 1
    except OSError as e:
        print(e)
        return 1


def udp_large(addr, port, seconds, size):
    return udp_ask(addr, port, seconds, b"x" * int(size), int(size))


def udp_answer(addr, port, seconds, size):
    return udp_ask(addr, port, seconds, size.encode("ascii"), int(size))


def udp_sized(addr, port):
    s = listener(addr, port, socket.SOCK_DGRAM)
    while True:
        data, who = s.recvfrom(65536)
        s.sendto(data if len(data) > 5 else b"x" * int(data), who)


def udp_error(addr, port, seconds, hops):
    """The error queue of ip(7) and ipv6(7): struct sock_extended_err, then the address of who sent the error."""
    v6 = family(addr) == socket.AF_INET6
    level, hop_opt, err_opt = (41, 16, 25) if v6 else (0, 2, 11)
    s = socket.socket(family(addr), socket.SOCK_DGRAM)
    s.setsockopt(level, err_opt, 1)
    s.setsockopt(level, hop_opt, int(hops))
    s.connect((addr, int(port)))
    s.send(b"hello")
    poll = select.poll()
    poll.register(s, 0)
    if not poll.poll(float(seconds) * 1000):
        return 1
    for at, kind, data in s.recvmsg(2000, 512, socket.MSG_ERRQUEUE)[1]:
        if (at, kind) == (level, err_opt):
            sender = data[24:40] if v6 else data[20:24]
            print(data[5], data[6], socket.inet_ntop(family(addr), sender))
            return 0
    return 1


def checksum(data):
    total = sum(struct.unpack(">%dH" % (len(data + b"\0") // 2), (data + b"\0")[:(len(data) + 1) // 2 * 2]))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff


def over_ip(src, dst, proto, hops, body, sum_at):
    fam = family(src)
    ends = socket.inet_pton(fam, src) + socket.inet_pton(fam, dst)
    pseudo = ends + struct.pack(">II", len(body), proto)
    body = body[:sum_at] + struct.pack(">H", checksum(pseudo + body)) + body[sum_at + 2:]
    if fam == socket.AF_INET6:
        return 0x86dd, struct.pack(">IHBB", 0x60000000, len(body), proto, hops) + ends + body
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, hops, proto, 0) + ends
    return 0x0800, head[:10] + struct.pack(">H", checksum(head)) + head[12:] + body


def raw_frame(ifname, kind, *pairs):
    """smac, dmac; vlan; src, dst, dport (udp); ip, mac (arp: an unasked answer; na: an unasked advertisement)"""
    k = dict(p.split("=", 1) for p in pairs)
    smac, dmac = (bytes.fromhex(k[m].replace(":", "")) for m in ("smac", "dmac"))
    if kind == "udp":
        body = b"spoof " + k.get("mark", "").encode("ascii")
        body = struct.pack(">HHHH", 4444, int(k["dport"]), 8 + len(body), 0) + body
        ethertype, packet = over_ip(k["src"], k["dst"], 17, 64, body, 6)
    elif kind == "arp":
        ip, mac = socket.inet_aton(k["ip"]), bytes.fromhex(k["mac"].replace(":", ""))
        ethertype, packet = 0x0806, struct.pack(">HHBBH", 1, 0x0800, 6, 4, 2) + mac + ip + dmac + ip
    else:
        target, mac = socket.inet_pton(socket.AF_INET6, k["ip"]), bytes.fromhex(k["mac"].replace(":", ""))
        body = struct.pack(">BBHI", 136, 0, 0, 0x20000000) + target + b"\x02\x01" + mac
        ethertype, packet = over_ip(k["src"], k["dst"], 58, 255, body, 2)
    tag = struct.pack(">HH", 0x8100, int(k["vlan"])) if "vlan" in k else b""
    frame = dmac + smac + tag + struct.pack(">H", ethertype) + packet
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((ifname, 0))
        s.send(frame.ljust(60, b"\0"))
    return 0


def paced(per_s, seconds, send):
    """Call send(i) per_s times a second, evenly, as far as the machine keeps up."""
    start = time.monotonic()
    i = 0
    while True:
        now = time.monotonic() - start
        if now >= seconds:
            return i
        if i >= now * per_s:
            time.sleep(0.001)
            continue
        for _ in range(min(100, int(now * per_s) - i + 1)):
            send(i)
            i += 1


def hello(i):
    """A first ClientHello of DTLS 1.2, another one for each i."""
    body = b"\xfe\xfd" + struct.pack(">I", i) + b"r" * 28 + b"\0\0" + b"\0\x02\xc0\x2b" + b"\x01\0"
    groups = b"\0\x0a\0\x04\0\x02\0\x17"
    signatures = b"\0\x0d\0\x04\0\x02\x04\x03"
    body += struct.pack(">H", len(groups + signatures)) + groups + signatures
    size = struct.pack(">I", len(body))[1:]
    body = b"\x01" + size + b"\0\0" + b"\0\0\0" + size + body
    return b"\x16\xfe\xff" + b"\0" * 8 + struct.pack(">H", len(body)) + body


def flood_frames(kind, k):
    """Different source ports and destination ports: each frame another flow. smac, dmac; src, dst; dport, sport if
    fixed"""
    smac, dmac = (bytes.fromhex(k[m].replace(":", "")) for m in ("smac", "dmac"))
    frames = []
    for i in range(4000):
        sport = int(k.get("sport", 1024 + i * 13 % 60000))
        dport = int(k.get("dport", 1 + i * 7 % 65000))
        if kind == "arp":
            ip, want = socket.inet_aton(k["src"]), socket.inet_aton(k["dst"])
            ethertype = 0x0806
            packet = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + smac + ip + b"\0" * 6 + want
        elif kind in ("syn", "ack"):
            body = struct.pack(">HHIIBBHHH", sport, dport, i, 0, 0x50, 2 if kind == "syn" else 16, 65535, 0, 0)
            ethertype, packet = over_ip(k["src"], k["dst"], 6, 64, body, 16)
        elif kind == "hello":  # few flows, or the dataplane lets no more of them through
            body = struct.pack(">HHHH", 1024 + i % 16, dport, 8 + len(hello(i)), 0) + hello(i)
            ethertype, packet = over_ip(k["src"], k["dst"], 17, 64, body, 6)
        else:
            body = struct.pack(">HHHH", sport, dport, 8 + 18, 0) + b"x" * 18
            ethertype, packet = over_ip(k["src"], k["dst"], 17, 64, body, 6)
        frames.append((dmac + smac + struct.pack(">H", ethertype) + packet).ljust(60, b"\0"))
    return frames


def flood(ifname, kind, per_s, seconds, *pairs):
    frames = flood_frames(kind, dict(p.split("=", 1) for p in pairs))
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((ifname, 0))

        def one(i):
            nonlocal sent
            try:
                s.send(frames[i % len(frames)])
                sent += 1
            except OSError:  # the interface's queue is full
                pass

        paced(int(per_s), float(seconds), one)
    print(sent)
    return 0


def udp_count(addr, port, path):
    s = listener(addr, port, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    packets = size = last = 0
    header = 48 if family(addr) == socket.AF_INET6 else 28
    while True:
        packets += 1
        size += len(s.recv(65536)) + header
        now = time.monotonic()
        if now - last >= 0.02:
            last = now
            report(path, packets, size, int(time.time() * 1000))


def udp_blast(addr, port, seconds, per_s, size):
    s = socket.socket(family(addr), socket.SOCK_DGRAM)
    s.connect((addr, int(port)))
    payload = b"x" * int(size)

    def one(_):
        try:
            s.send(payload)
        except OSError:
            pass

    print(paced(int(per_s), float(seconds), one))
    return 0


def udp_ports(addr, first, last):
    answered = 0
    socks = []
    for port in range(int(first), int(last) + 1):
        s = socket.socket(family(addr), socket.SOCK_DGRAM)
        s.settimeout(0.025)
        s.connect((addr, port))
        socks.append(s)
        start = time.monotonic()
        try:
            s.send(b"hello")
            s.recv(100)
            answered += 1
        except OSError:
            pass
        time.sleep(max(0, 0.025 - (time.monotonic() - start)))
    print(answered)
    return 0


class Tls:
    """A TLS 1.3 client whose every flight is under the caller's control."""

    def __init__(self, addr, port, folder, name, window=0, sport=0):
        context = ssl.create_default_context(cafile=folder + "/ca.pem")
        context.check_hostname = False
        context.load_cert_chain("%s/%s.pem" % (folder, name), "%s/%s.key" % (folder, name))
        self.inward, self.outward = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.inward, self.outward)
        self.s = socket.socket(family(addr), socket.SOCK_STREAM)
        if window:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.s.settimeout(10)
        if sport:
            self.s.bind(("::" if family(addr) == socket.AF_INET6 else "0.0.0.0", sport))
        self.s.connect((addr, int(port)))

    def step(self):
        """One step of the handshake; false: it waits for the server."""
        try:
            self.tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            return False

    def flush(self):
        self.s.sendall(self.outward.read())

    def handshake(self):
        """All but the last flight, which is in `outward`."""
        while not self.step():
            self.flush()
            self.inward.write(self.s.recv(65536))

    def close_notify(self):
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass

    def plaintext(self, data):
        """What these bytes from the wire say."""
        self.inward.write(data)
        out = b""
        try:
            data = self.tls.read(65536)
            while data:
                out += data
                data = self.tls.read(65536)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        return out


def tls_bulk(addr, port, folder, name, size, window=0):
    """Reads nothing until it can send no more, so every buffer on the way fills."""
    sent, answer = os.urandom(int(size)), b""
    c = Tls(addr, port, folder, name, int(window))
    c.handshake()
    c.s.setblocking(False)
    at = c.tls.write(sent[:900])
    wire = c.outward.read()
    blocked = False
    end = time.monotonic() + 45
    while len(answer) < len(sent) and time.monotonic() < end:
        if not wire and at < len(sent):
            at += c.tls.write(sent[at:at + 16384])
            if at == len(sent):
                c.close_notify()
            wire = c.outward.read()
        blocked |= at == len(sent)
        readable, writable, _ = select.select([c.s] if blocked else [], [c.s] if wire else [], [], 0.2)
        blocked |= not writable
        if writable:
            wire = wire[c.s.send(wire):]
            if not wire and at == len(sent):
                c.s.shutdown(socket.SHUT_WR)
        if not readable:
            continue
        data = c.s.recv(65536)
        if not data:
            break
        answer += c.plaintext(data)
    print("%d bytes sent, %d came back" % (at, len(answer)))
    return 0 if answer == sent else 1


def tls_reset(addr, port, folder, name, when):
    """Ends in the middle, without a word; the socket's end of time is a reset."""
    c = Tls(addr, port, folder, name)
    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    states = ["connected", "hello", "flight", "finished", "open", "full", "half"]
    far = states.index(when)
    if far >= 1:
        c.step()
        c.flush()
    if far >= 2:
        c.inward.write(c.s.recv(65536))
    if far >= 3:
        if not c.step():
            c.handshake()
        c.flush()
    if far >= 4:
        c.tls.write(b"hello")
        c.flush()
        answer = b""
        while b"hello" not in answer:
            answer += c.plaintext(c.s.recv(65536))
    if when == "full":
        c.s.setblocking(False)
        c.tls.write(bytes(16384))
        wire = c.outward.read()
        while select.select([], [c.s], [], 1)[1]:
            if not wire:
                c.tls.write(bytes(16384))
                wire = c.outward.read()
            wire = wire[c.s.send(wire):]
    if when == "half":
        c.close_notify()
        c.flush()
        c.s.shutdown(socket.SHUT_WR)
    c.s.close()
    return 0


def report(path, sent, received, last):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write("%d %d %s\n" % (sent, received, last))
    os.rename(path + ".new", path)


def flow(addr, port, path, kind):
    """Ask 50 times a second, note every answer; a broken TCP connection is noted by no more answers."""
    s = socket.socket(family(addr), kind)
    if kind == socket.SOCK_STREAM:
        s.settimeout(5)
    s.connect((addr, int(port)))
    s.setblocking(False)
    sent = received = last = 0
    pending = b""
    while True:
        sent += 1
        message = b"%010d\n" % sent
        try:
            s.send(message)
        except OSError:
            pass
        end = time.monotonic() + 0.02
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([s], [], [], left)[0]:
                break
            try:
                data = s.recv(65536)
            except OSError:
                data = b""
            if not data:
                time.sleep(max(0, end - time.monotonic()))
                break
            pending = (pending + data) if kind == socket.SOCK_STREAM else data
            received += pending.count(b"\n")
            pending = pending[pending.rfind(b"\n") + 1:]
            last = int(time.time() * 1000)
        report(path, sent, received, last)


def many(addr, port, flows, path, kind):
    """Ask over each flow in turn; FILE as flow()'s, and in the end how many flows have had an answer."""
    socks = {}
    for _ in range(int(flows)):
        s = socket.socket(family(addr), kind)
        s.settimeout(5)
        s.connect((addr, int(port)))
        s.setblocking(False)
        socks[s] = b""
    sent = received = last = 0
    answered = set()
    poll = select.poll()
    by_fd = {s.fileno(): s for s in socks}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    while True:
        for asker in list(socks):
            sent += 1
            try:
                asker.send(b"%010d\n" % sent)
            except OSError:
                pass
            end = time.monotonic() + 0.004
            while (left := end - time.monotonic()) > 0:
                for fd, _ in poll.poll(left * 1000):
                    s = by_fd[fd]
                    try:
                        data = s.recv(65536)
                    except OSError:
                        data = b""
                    if not data:  # broken: no more answers of it
                        poll.unregister(fd)
                        continue
                    text = socks[s] + data
                    received += text.count(b"\n")
                    socks[s] = text[text.rfind(b"\n") + 1:]
                    answered.add(fd)
                    last = int(time.time() * 1000)
            report(path, sent, received, "%d %d" % (last, len(answered)))


def exactly(c, n):
    data = b""
    while len(data) < n:
        more = c.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def proxy_header(c):
    """PROXY protocol version 2, from its specification; independent of the gateway's encoder."""
    head = exactly(c, 16)
    if head[:12] != b"\r\n\r\n\0\r\nQUIT\n" or head[12] != 0x21:
        raise ValueError("no PROXY v2 header")
    body = exactly(c, struct.unpack(">H", head[14:])[0])
    n, fam = (4, socket.AF_INET) if head[13] == 0x11 else (16, socket.AF_INET6)
    out = ["src=%s" % socket.inet_ntop(fam, body[:n]), "dst=%s" % socket.inet_ntop(fam, body[n:2 * n])]
    out.append("sport=%d dport=%d" % struct.unpack(">HH", body[2 * n:2 * n + 4]))
    at = 2 * n + 4
    while at < len(body):
        kind, size = struct.unpack(">BH", body[at:at + 3])
        value = body[at + 3:at + 3 + size]
        at += 3 + size
        if kind == 0x20:
            out.append("ssl.client=%d ssl.verify=%d" % struct.unpack(">BI", value[:5]))
            sub = 5
            while sub < len(value):
                k, m = struct.unpack(">BH", value[sub:sub + 3])
                out.append("ssl.%02x=%s" % (k, value[sub + 3:sub + 3 + m].decode("ascii")))
                sub += 3 + m
        elif kind == 0xe3:
            out.append("e3=%s" % value.hex())
        else:
            out.append("%02x=%s" % (kind, value.decode("ascii")))
    return " ".join(out)


def proxy_dump(addr, port, path):
    s = listener(addr, port, socket.SOCK_STREAM)
    s.listen(16)
    while True:
        c, _ = s.accept()
        try:
            text = proxy_header(c)
        except (EOFError, ValueError, struct.error) as e:
            text = "error=%r" % e
        with open(path, "a", encoding="ascii") as f:
            f.write(text + "\n")
        try:
            while True:
                data = c.recv(65536)
                if not data:
                    break
                c.sendall(data)
        except OSError:
            pass
        c.close()


def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == "udp-flow":
        return flow(*args, socket.SOCK_DGRAM)
    if what == "tcp-flow":
        return flow(*args, socket.SOCK_STREAM)
    if what == "udp-many":
        return many(*args, socket.SOCK_DGRAM)
    if what == "tcp-many":
        return many(*args, socket.SOCK_STREAM)
    commands = {"flood": flood, "udp-count": udp_count, "udp-blast": udp_blast, "udp-ports": udp_ports,
                "frame": raw_frame, "tls-bulk": tls_bulk, "tls-reset": tls_reset, "udp-large": udp_large, "udp-answer": udp_answer,
                "udp-sized": udp_sized, "udp-error": udp_error, "tcp-echo": tcp_echo, "udp-echo": udp_echo,
                "listening": listening, "tcp-try": tcp_try, "udp-try": udp_try, "proxy-dump": proxy_dump}
    return commands[what](*args)


if __name__ == "__main__":
    sys.exit(main())
