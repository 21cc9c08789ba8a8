#!/usr/bin/env python3
"""Measures the ways in which HTTP/2 could carry a file: interleaved rounds, the server on
processor 0, h2load or curl on 1.

    bench/http2.py OUT.csv --www DIR [--rounds N] [--client h2load|curl]

DIR holds `big` (1 GiB) and `64k`. The server is the example `side_by_side` of pagewire-http
(`cargo build --release -p pagewire-http --example side_by_side`); its ways are buffers that were
read (pagewire), mapped bytes of which each frame goes by sendmsg (mapped-write) or by sendfile
(mapped-sendfile), and tower-http. h2load offers frames of 16 KiB, which is what browsers and curl
leave it at, and of 1 MiB.
"""

import argparse
import csv
import re
import statistics
import subprocess
import time
from pathlib import Path

from server import RELEASE, cpu_seconds, start

WAYS = ["tower-http", "pagewire", "mapped-write", "mapped-sendfile"]
SIZES = {"/big": 1 << 30, "/64k": 1 << 16}
FRAMES = [1 << 14, 1 << 20]


def loads(client):
    """The client's command for a URL, its requests, and what names the run."""
    if client == "curl":
        yield "/big", FRAMES[0], 1, ["curl", "-sSf", "--http2-prior-knowledge", "-o", "/dev/null"]
        return
    for frame in FRAMES:
        each = ["h2load", "-t1", "-f", str(frame)]
        yield "/big", frame, 2, [*each, "-n2", "-c2"]
        yield "/64k", frame, 8000, [*each, "-n8000", "-c8", "-m4"]


def run(server, port, path, requests, words):
    before, started = cpu_seconds(server.pid), time.monotonic()
    url = f"http://127.0.0.1:{port}{path}"
    out = subprocess.run(["taskset", "-c", "1", *words, url], capture_output=True, text=True)
    elapsed, cpu = time.monotonic() - started, cpu_seconds(server.pid) - before
    whole = out.returncode == 0
    if words[0] == "h2load":
        succeeded = re.search(r"(\d+) succeeded", out.stdout)
        whole = bool(succeeded) and int(succeeded[1]) == requests
    if not whole:
        raise SystemExit(f"not all was received: {words} {url}\n{out.stdout}{out.stderr}")
    return {"requests": requests, "bytes": requests * SIZES[path], "seconds": elapsed, "cpu": cpu}


def summary(rows):
    runs = {}
    for row in rows:
        runs.setdefault((row["path"], row["frame"], row["way"]), []).append(row)
    for (path, frame, way), each in runs.items():
        cost = sorted(100 * row["cpu"] / row["bytes"] * 1e9 for row in each)
        rate = statistics.median(row["bytes"] / row["seconds"] for row in each) / 1e9
        print(
            f"{path:6} {frame // 1024:5} KiB frames  {way:16} {rate:5.2f} GB/s "
            f"{statistics.median(cost):6.1f} cs/GB [{cost[0]:.1f} to {cost[-1]:.1f}]"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--www", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--client", choices=["h2load", "curl"], default="h2load")
    options = parser.parse_args()
    binary = RELEASE / "examples" / "side_by_side"
    servers = {}
    for index, way in enumerate(WAYS):
        port = 9400 + index
        servers[way] = start(f"{binary} {way} {{port}} {{www}}", port, options.www), port
    rows = []
    try:
        for round_ in range(options.rounds):
            for path, frame, requests, words in loads(options.client):
                for way, (server, port) in servers.items():
                    row = {"round": round_, "way": way, "path": path, "frame": frame}
                    rows.append(row | run(server, port, path, requests, words))
    finally:
        for server, _ in servers.values():
            server.kill()
    with options.out.open("w", newline="") as out:
        table = csv.DictWriter(out, rows[0])
        table.writeheader()
        table.writerows(rows)
    summary(rows)


if __name__ == "__main__":
    main()
