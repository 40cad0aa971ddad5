"""Installation of missing peers, only on Debian as root. Elsewhere the row of a missing peer says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from bench.machine.processes import program

PACKAGES = {"fio": "fio", "nginx": "nginx-light", "rclone": "rclone"}


def missing() -> list[str]:
    """Return the programs of peers that are not installed."""
    return [name for name in PACKAGES if program(name) is None]


def install_missing_with_apt() -> None:
    """Install missing peers with apt, without starting a service. Does nothing where that is not possible."""
    wanted = [PACKAGES[name] for name in missing()]
    if not wanted or os.geteuid() != 0 or shutil.which("apt-get") is None or not Path("/etc/debian_version").exists():
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # runlevel 1 starts no service
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=60"]
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *wanted]):
        subprocess.run([*command, *arguments], env=environment, check=False, stdout=subprocess.DEVNULL)
