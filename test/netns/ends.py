#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Both ends of a session that is brought into a state and then ended from one side; for scenario 35.

device ADDR PORT FOLDER NAME SPORT STATE FILE    brings a session into STATE, and writes FILE.there; ends as FILE.do says:
                                                 fin, rst, stop (reads no more), or hear (until the other end has ended);
                                                 prints what it heard of the end
upstream ADDR PORT FILE                          echoes; FILE.deaf: reads no more than a line; FILE.keep: says no end when the
                                                 other end has; FILE.flood: talks without end, once it was talked to; FILE.do:
                                                 fin, rst or refuse (an answer before all was read), of every connection
"""
import os
import select
import socket
import ssl
import struct
import sys
import time

from traffic import Tls, listener

STATES = ["connected", "half-hello", "hello", "flight", "finished", "open", "full", "half", "notified", "other-half", "flooded"]
REFUSAL = b"no room"
RESET = struct.pack("ii", 1, 0)


def told(path):
    """What the scenario wants now; empty: nothing yet."""
    try:
        with open(path + ".do", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return ""


def write(path, text):
    with open(path + ".new", "w", encoding="ascii") as f:
        f.write(text)
    os.rename(path + ".new", path)


class Device(Tls):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.word = ""
        self.open = False

    def hello(self, part):
        self.step()
        data = self.outward.read()
        self.s.sendall(data[:len(data) // 2] if part else data)

    def opened(self):
        self.handshake()
        self.flush()
        self.open = True

    def echoed(self):
        self.tls.write(b"hello\n")
        self.flush()
        answer = b""
        while b"hello" not in answer:
            answer += self.plaintext(self.s.recv(65536))

    def fill(self):
        self.tls.write(b"hello\n" + bytes(16000))
        wire = self.outward.read()
        self.s.setblocking(False)
        while select.select([], [self.s], [], 0.3)[1]:
            if not wire:
                self.tls.write(bytes(16384))
                wire = self.outward.read()
            wire = wire[self.s.send(wire):]
        self.s.setblocking(True)

    def heard(self, word):
        if not self.word.endswith(word):
            self.word += word

    def listen(self, data):
        self.inward.write(data)
        try:
            while data := self.tls.read(65536):
                if REFUSAL in data:
                    self.word = "refused "
            self.heard("notify ")
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.heard("notify ")
        except ssl.SSLError as e:
            self.heard("alert ")
            print(e.reason, file=sys.stderr)

    def hear(self, until):
        """Until the other end has ended, or until() is true."""
        while not until():
            self.s.settimeout(0.05)
            try:
                data = self.s.recv(65536)
            except socket.timeout:
                continue
            except OSError:
                return self.word + "reset"
            if not data:
                return self.word + "fin"
            if self.open:
                self.listen(data)
        return self.word + "nothing"

    def reach(self, state):
        far = STATES.index(state)
        if far == 1:
            self.hello(True)
        if far >= 2:
            self.hello(False)
        if far >= 3:
            self.inward.write(self.s.recv(65536))
        if far >= 4:
            if not self.step():
                self.handshake()
            self.flush()
            self.open = True
        if state in ("open", "half", "notified", "other-half"):
            self.echoed()
        if state == "full":
            self.fill()
        if state == "flooded":
            self.tls.write(b"hello\n")
        if state in ("half", "notified", "flooded"):
            self.close_notify()
            self.flush()
        if state in ("half", "flooded"):
            self.s.shutdown(socket.SHUT_WR)
        if state == "flooded":
            select.select([self.s], [], [])


def device(addr, port, folder, name, sport, state, path):
    c = Device(addr, port, folder, name, sport=int(sport))
    c.reach(state)
    write(path + ".there", "")
    if state == "other-half":
        end = time.monotonic() + 10
        c.hear(lambda: c.word or time.monotonic() > end)
        write(path + ".word", c.word)
    while not told(path):
        time.sleep(0.01)
    how = told(path)
    end = time.monotonic() + 15
    if how == "rst":
        c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        c.s.close()
        print("nothing")
        return 0
    if how == "fin":
        try:
            c.s.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    if how == "stop":
        end = time.monotonic()
    print(c.hear(lambda: time.monotonic() > end))
    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    c.s.close()
    return 0


def upstream_ends(clients, how):
    for c, state in list(clients.items()):
        if state["done"] == how or state["done"] and how == "fin":
            continue
        state["done"] = how
        if how == "rst":
            c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if how == "refuse":
            c.sendall(REFUSAL)
        if how in ("rst", "refuse") or state["over"]:
            c.close() # of what was not read, a reset
            del clients[c]
        else:
            c.shutdown(socket.SHUT_WR)


def upstream_reads(c, clients, deaf, keep):
    state = clients[c]
    try:
        data = c.recv(100 if deaf else 65536)
        state["heard"] = True
        if data:
            if not state["done"] and not deaf:
                c.sendall(data)
            return
        if keep and not state["done"]:
            state["over"] = True
            return
    except OSError:
        pass
    del clients[c]
    c.close()


def upstream_floods(clients):
    for c in [c for c in clients if clients[c]["heard"] and not clients[c]["done"]]:
        try:
            c.send(bytes(16384), socket.MSG_DONTWAIT)
        except OSError:
            pass


def upstream(addr, port, path):
    s = listener(addr, port, socket.SOCK_STREAM)
    s.listen(64)
    clients = {}
    while True:
        if told(path):
            upstream_ends(clients, told(path))
        if os.path.exists(path + ".flood"):
            upstream_floods(clients)
        deaf, keep = os.path.exists(path + ".deaf"), os.path.exists(path + ".keep")
        for c in [c for c in clients if clients[c]["over"] and not keep]:
            del clients[c]
            c.close()
        wanted = [c for c in clients if not clients[c]["over"] and not (deaf and clients[c]["heard"])]
        for c in select.select([s] + wanted, [], [], 0.02)[0]:
            if c is s:
                clients[s.accept()[0]] = {"done": "", "heard": False, "over": False}
            else:
                upstream_reads(c, clients, deaf, keep)


def main():
    return {"device": device, "upstream": upstream}[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
