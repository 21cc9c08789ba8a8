"""Starts servers for the measurements that `pagewire lab` has no experiment for.

A command is started once, in a shell word split, on processor 0, with {port}, {www} and
{pagewire} (the release build of this checkout) filled in.
"""

import shlex
import socket
import subprocess
import time
from pathlib import Path

RELEASE = Path(__file__).resolve().parent.parent / "target" / "release"


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
