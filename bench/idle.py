#!/usr/bin/env python3
"""Measures the resident memory of a server per idle keep-alive connection.

    bench/idle.py --www DIR [--connections N] [--wait SECONDS] NAME=COMMAND ...

DIR holds `s1k`. Every connection asks for it once and then falls silent. Commands as in
bench/drive.py.
"""

import argparse
import resource
import socket
import time
from pathlib import Path

from drive import FIRST_PORT, start


def resident(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    kib = 0
    for each in [pid, *children]:
        status = Path(f"/proc/{each}/status").read_text().splitlines()
        kib += int(next(line for line in status if line.startswith("VmRSS")).split()[1])
    return kib


def ask(connection):
    connection.sendall(b"GET /s1k HTTP/1.1\r\nHost: x\r\n\r\n")
    got = b""
    while b"\r\n\r\n" not in got or len(got.split(b"\r\n\r\n", 1)[1]) < 1024:
        read = connection.recv(65536)
        if not read:
            raise SystemExit("the server closed a connection")
        got += read


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--www", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--wait", type=float, default=5)
    parser.add_argument("servers", nargs="+")
    flags = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for index, server in enumerate(flags.servers):
        name, command = server.split("=", 1)
        port = FIRST_PORT + index
        process = start(command, port, flags.www)
        try:
            connections = []
            rest = resident(process.pid)
            for _ in range(flags.connections):
                connections.append(socket.create_connection(("127.0.0.1", port)))
                ask(connections[-1])
            time.sleep(flags.wait)
            grown = resident(process.pid) - rest
            for connection in connections:
                connection.close()
            print(
                f"{name:16} at rest {rest} KiB, {grown / flags.connections:.2f} KiB"
                f" an idle connection ({flags.connections} of them)"
            )
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
