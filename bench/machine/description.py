"""Description of the machine: processor, memory, kernel, file system, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from bench.machine.processes import program

VERSION_ARGUMENTS = {"fio": "--version", "nginx": "-v", "rclone": "version"}


def describe(directory: Path) -> dict[str, str]:
    """Return facts about the machine, the file system of the directory, and the versions of the peers."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = {
        "processor": f"{len(os.sched_getaffinity(0))} x {_processor()}",
        "memory": f"{memory_bytes / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file system": file_system(directory, Path("/proc/self/mounts").read_text()),
    }
    return facts | {name: _version(name, argument) for name, argument in VERSION_ARGUMENTS.items()}


def file_system(directory: Path, mounts: str) -> str:
    """Return the type of the file system of the directory."""
    resolved = directory.resolve()
    best, kind = -1, "unknown"
    for line in mounts.splitlines():
        point, fstype = line.split()[1:3]
        if resolved.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), fstype
    return kind


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _version(name: str, argument: str) -> str:
    executable = program(name)
    if executable is None:
        return "not installed"
    result = subprocess.run([executable, argument], capture_output=True, check=False)
    lines = (result.stdout + result.stderr).decode(errors="replace").splitlines()
    return lines[0].strip() if lines else "unknown"
