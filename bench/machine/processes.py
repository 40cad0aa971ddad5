"""Processes under measurement: start, stop, and their resource usage by the kernel's figures."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 20.0


class StartError(Exception):
    """A program did not start."""


@dataclass(frozen=True)
class Usage:
    """CPU time and peak memory of a process and its descendants so far."""

    cpu_seconds: float
    memory_peak_bytes: dict[int, int]  # of each process (VmHWM)


def program(name: str) -> str | None:
    """Return the path of a program, from beside this Python or from PATH; None if it is not installed."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def free_port() -> int:
    """Return a free port of the loopback address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the port accepts connections. Raises StartError if the process ends or the time is over."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise StartError(f"{process.args!r} did not start")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process by SIGTERM, and by SIGKILL to its process group if it does not end in time."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def usage(pid: int) -> Usage:
    """Return the usage of a process and all its descendants, including those that ended and were waited for."""
    ticks = 0
    memory = {}
    for number, fields in _tree(pid):
        ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime: proc(5), fields 14 to 17
        memory[number] = _memory_peak_bytes(number)
    return Usage(ticks / TICKS_PER_SECOND, memory)


def _tree(root: int) -> list[tuple[int, list[str]]]:
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process has ended
        stats[int(path.parent.name)] = stat_fields(text)
    members = {root}
    grown = True
    while grown:
        more = {number for number, fields in stats.items() if int(fields[1]) in members} - members
        members |= more
        grown = bool(more)
    return [(number, stats[number]) for number in sorted(members) if number in stats]


def stat_fields(text: str) -> list[str]:
    """Return the fields of /proc/PID/stat from the third on (state, ppid, ...); the second may contain blanks."""
    return text[text.rindex(")") + 2 :].split()


def _memory_peak_bytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
