#!/usr/bin/python3
"""Two ends of a box in frames: sends those that it is told to, and tells what comes out.

    wires.py LEFT RIGHT     two interfaces

A line in is `LEFT HEX…`: an interface, and frames to send there one after the other. The line out is
a JSON list of `[INTERFACE, HEX]`, the IP packets that come meanwhile and until all is quiet.
"""

import json
import select
import socket
import sys

PATIENCE_S, QUIET_S = 1.0, 0.05
NEIGHBOUR_DISCOVERY = range(130, 138)  # and the groups' listeners


def opened(name):
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    port.bind((name, 0))
    return port


def is_traffic(frame, kind):
    if kind == socket.PACKET_OUTGOING or frame[12:14] not in (b"\x08\x00", b"\x86\xdd"):
        return False
    return not (frame[14] >> 4 == 6 and frame[20] == 58 and frame[54] in NEIGHBOUR_DISCOVERY) and not frame[0] & 1


def main():
    ports = {name: opened(name) for name in sys.argv[1:3]}
    names = {port: name for name, port in ports.items()}
    for line in sys.stdin:
        name, *frames = line.split()
        for frame in frames:
            ports[name].send(bytes.fromhex(frame))
        came, patience = [], PATIENCE_S
        while ready := select.select(list(names), [], [], patience)[0]:
            for port in ready:
                frame, (_, _, kind, _, _) = port.recvfrom(65535)
                if is_traffic(frame, kind):
                    came.append([names[port], frame.hex()])
                    patience = QUIET_S
        print(json.dumps(came), flush=True)


if __name__ == "__main__":
    main()
