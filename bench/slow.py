#!/usr/bin/env python3
"""Measures what many slow downloads cost a server: each reads 10 kB a second of a large file.

    bench/slow.py OUT.csv --www DIR [--clients N] [--seconds N] [--ways WAY,...]

DIR holds `big` (1 GiB) and `4k`. The server is the example `side_by_side` of pagewire-http. With
and without the slow clients, one hot client asks for `4k` as fast as it can, on a connection of
its own. Memory is VmRSS, and the part of it that is no file's (RssAnon), from /proc; sockets are
what /proc/net/sockstat says the kernel holds for TCP. The client's receive buffers are small, so
that the kernel does not take the downloads for it.
"""

import argparse
import csv
import resource
import socket
import time
from pathlib import Path

from server import RELEASE, start

RATE = 10_000
BEAT = 0.5
WAYS = ["tower-http", "pagewire-without-wires", "pagewire"]


def memory(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {key: int(fields[key].split()[0]) for key in ["VmRSS", "RssAnon", "RssFile"]}


def tcp_pages():
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        if line.startswith("TCP:"):
            return int(line.split()[-1])
    return 0


def connect(port):
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    client.connect(("127.0.0.1", port))
    return client


def hot(port, seconds):
    """Requests a second of one connection, one after the other, and the slowest of them."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    count, worst, until = 0, 0.0, time.monotonic() + seconds
    while (began := time.monotonic()) < until:
        client.sendall(b"GET /4k HTTP/1.1\r\nHost: a\r\n\r\n")
        head, body = b"", 0
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        body = len(head.split(b"\r\n\r\n", 1)[1])
        while body < 4096:
            body += len(client.recv(65536))
        worst = max(worst, time.monotonic() - began)
        count += 1
    return count / seconds, worst * 1e3


def read_slowly(clients, seconds):
    """Takes what is due from each client, each beat; returns the bytes taken."""
    share, taken = int(RATE * BEAT), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.monotonic()
        for client in clients:
            try:
                taken += len(client.recv(share))
            except BlockingIOError:
                pass
        time.sleep(max(0.0, BEAT - (time.monotonic() - began)))
    return taken


def measure(way, port, www, clients, seconds):
    binary = RELEASE / "examples" / "side_by_side"
    server = start(f"{binary} {way} {{port}} {{www}}", port, www)
    try:
        alone_rate, alone_worst = hot(port, 2)
        before, pages = memory(server.pid), tcp_pages()
        slow = []
        for _ in range(clients):
            client = connect(port)
            client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            client.setblocking(False)
            slow.append(client)
        taken = read_slowly(slow, seconds)
        after, pages = memory(server.pid), tcp_pages() - pages
        rate, worst = hot(port, 2)
        each = {key: (after[key] - before[key]) / clients for key in before}
        row = {
            "way": way, "clients": clients, "taken_bytes_per_second": taken / clients / seconds,
            "rss_kib_each": each["VmRSS"], "anon_kib_each": each["RssAnon"],
            "tcp_kib_each": pages * 4 / clients, "hot_alone": alone_rate,
            "hot_worst_ms_alone": alone_worst, "hot": rate, "hot_worst_ms": worst,
        }
        return {key: value if isinstance(value, str) else round(value, 1) for key, value in row.items()}
    finally:
        server.kill()
        server.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--www", type=Path, required=True)
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--ways", default=",".join(WAYS))
    options = parser.parse_args()
    # A server has one descriptor for each client, and tower-http one more for its file. Who may
    # not raise the limit asks for fewer clients.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, 2 * options.clients + 1000), limit))
    with options.out.open("w", newline="") as out:
        table = None
        for index, way in enumerate(options.ways.split(",")):
            row = measure(way, 9500 + index, options.www, options.clients, options.seconds)
            table = table or csv.DictWriter(out, row)
            if index == 0:
                table.writeheader()
            table.writerow(row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
