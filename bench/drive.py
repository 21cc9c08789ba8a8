#!/usr/bin/env python3
"""Measures servers side by side: interleaved rounds, the server on processor 0, the load on 1.

    bench/drive.py OUT.csv --www DIR --paths /a:4,/b:32 [--seconds N] [--rounds N] NAME=COMMAND ...

A path is followed by the number of connections. COMMAND is started once, in a shell word split,
with {port} and {www} filled in; `{pagewire}` and `{load}` are the release builds of this checkout
(`cargo build --release --workspace --examples`). Every line of OUT.csv is one run: CPU is user
and system time of the server and its children from /proc, bytes and requests are the load's.
A summary of medians (and the spread of CPU per GB) goes to standard output.
"""

import argparse
import csv
import shlex
import socket
import statistics
import subprocess
import time
from pathlib import Path

RELEASE = Path(__file__).resolve().parent.parent / "target" / "release"
FIRST_PORT = 9300


def start(command, port, www):
    words = shlex.split(command.format(port=port, www=www, pagewire=RELEASE / "pagewire"))
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(["taskset", "-c", "0", *words], stdout=quiet, stderr=quiet)
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"does not listen on port {port}: {command}") from None
            time.sleep(0.02)


def cpu_seconds(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each in [pid, *children]:
        fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / 100


def run(server, port, path, connections, seconds):
    load = [RELEASE / "examples" / "load", f"127.0.0.1:{port}", path, connections, seconds]
    before = cpu_seconds(server.pid)
    words = ["taskset", "-c", "1", *map(str, load)]
    out = subprocess.run(words, capture_output=True, text=True, check=True)
    cpu = cpu_seconds(server.pid) - before
    requests, count, elapsed, p50, p99 = out.stdout.split()
    return {
        "requests": int(requests),
        "bytes": int(count),
        "seconds": float(elapsed),
        "cpu_seconds": round(cpu, 2),
        "p50_us": int(p50),
        "p99_us": int(p99),
    }


def summary(rows, path, name):
    mine = [row for row in rows if row["path"] == path and row["server"] == name]
    rate = statistics.median(row["requests"] / row["seconds"] for row in mine)
    speed = statistics.median(row["bytes"] / row["seconds"] / 1e9 for row in mine)
    cost = [row["cpu_seconds"] * 100 / (row["bytes"] / 1e9) for row in mine]
    return (
        f"{path:12} {name:16} {speed:7.2f} GB/s {statistics.median(cost):8.1f} cs/GB"
        f" [{min(cost):.1f} to {max(cost):.1f}] {rate:10.0f} req/s"
        f" p99 {statistics.median(row['p99_us'] for row in mine):.0f} us"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--www", type=Path, required=True)
    parser.add_argument("--paths", required=True)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("servers", nargs="+")
    flags = parser.parse_args()

    servers = {}
    rows = []
    try:
        for index, server in enumerate(flags.servers):
            name, command = server.split("=", 1)
            port = FIRST_PORT + index
            servers[name] = (start(command, port, flags.www), port)
        for pair in flags.paths.split(","):
            path, connections = pair.split(":")
            for number in range(flags.rounds):
                for name, (server, port) in servers.items():
                    row = {"round": number, "path": path, "connections": connections}
                    row |= {"server": name, **run(server, port, path, connections, flags.seconds)}
                    rows.append(row)
            for name in servers:
                print(summary(rows, path, name), flush=True)
    finally:
        for server, _ in servers.values():
            server.terminate()
    with flags.out.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
