#!/usr/bin/env python3
"""Measures what cold downloads do to hot clients: rate and p99 of a hot 4 KiB file, alone and
beside downloads of cold files from a limited disk. As root, with cgroup v1 blkio.

    bench/cold.py OUT.csv --www DIR [--seconds N] [--rounds N] [--limit BYTES] NAME=COMMAND ...

DIR holds `s4k` and the files cold0 to cold3, of 256 MiB or more, on a disk. Commands as in
bench/drive.py. Each server runs in a cgroup of its own whose reads of that disk are limited.
The cold files' pages are dropped before each round; one line of OUT.csv is one round.
"""

import argparse
import csv
import os
import statistics
import subprocess
import time
from pathlib import Path

from drive import FIRST_PORT, RELEASE, start

COLD_FILES = [f"cold{number}" for number in range(4)]
CGROUPS = Path("/sys/fs/cgroup/blkio")


def limited(name, pid, disk, limit):
    group = CGROUPS / f"pagewire-bench-{name}"
    group.mkdir(exist_ok=True)
    (group / "blkio.throttle.read_bps_device").write_text(f"{disk} {limit}")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in [str(pid), *children]:
        (group / "cgroup.procs").write_text(each)
    return group


def disk_of(directory):
    """The whole disk that `directory` lies on, as MAJOR:MINOR."""
    device = os.stat(directory).st_dev
    sys = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve()
    if (sys / "partition").exists():
        sys = sys.parent
    return (sys / "dev").read_text().strip()


def drop_pages(path):
    fd = os.open(path, os.O_RDONLY)
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def hot(port, seconds):
    load = [RELEASE / "examples" / "load", f"127.0.0.1:{port}", "/s4k", "8", seconds]
    words = ["taskset", "-c", "1", *map(str, load)]
    out = subprocess.run(words, capture_output=True, text=True, check=True)
    requests, _, elapsed, _, p99 = out.stdout.split()
    return int(requests) / float(elapsed), int(p99)


def cold_download(port, name, seconds):
    url = f"http://127.0.0.1:{port}/{name}"
    words = ["taskset", "-c", "1", "curl", "-s", "-o", "/dev/null", "-w", "%{size_download}"]
    words += ["--max-time", str(seconds), url]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def one_round(port, www, seconds):
    for name in COLD_FILES:
        drop_pages(www / name)
    alone_rate, alone_p99 = hot(port, seconds)
    downloads = [cold_download(port, name, seconds + 1) for name in COLD_FILES]
    time.sleep(0.5)
    rate, p99 = hot(port, seconds)
    got = sum(int(download.communicate()[0] or 0) for download in downloads)
    return {
        "alone_rate": round(alone_rate),
        "alone_p99_us": alone_p99,
        "rate": round(rate),
        "p99_us": p99,
        "cold_bytes": got,
        "cold_seconds": seconds + 1,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--www", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=40_000_000)
    parser.add_argument("servers", nargs="+")
    flags = parser.parse_args()

    rows, servers, groups = [], {}, []
    try:
        for index, server in enumerate(flags.servers):
            name, command = server.split("=", 1)
            port = FIRST_PORT + index
            process = start(command, port, flags.www)
            servers[name] = (process, port)
            groups.append(limited(name, process.pid, disk_of(flags.www), flags.limit))
        for number in range(flags.rounds):
            for name, (_, port) in servers.items():
                row = {"round": number, "server": name}
                rows.append(row | one_round(port, flags.www, flags.seconds))
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.wait()
        for group in groups:
            group.rmdir()
    with flags.out.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    for name in servers:
        mine = [row for row in rows if row["server"] == name]
        median = {
            key: statistics.median(row[key] for row in mine)
            for key in rows[0]
            if key not in ("round", "server")
        }
        print(
            f"{name:18} alone {median['alone_rate']:7.0f}/s p99 {median['alone_p99_us']:6.0f} us,"
            f" beside cold {median['rate']:7.0f}/s p99 {median['p99_us']:8.0f} us:"
            f" rate x{median['rate'] / median['alone_rate']:.3f},"
            f" p99 x{median['p99_us'] / median['alone_p99_us']:.2f};"
            f" cold {median['cold_bytes'] / median['cold_seconds'] / 1e6:.1f} MB/s"
        )


if __name__ == "__main__":
    main()
