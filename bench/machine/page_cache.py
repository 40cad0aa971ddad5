"""Brings memory into the state it has on a machine that has run for a while: full of clean file pages.

A virtual machine may get its memory from the host page by page, when a page is touched for the first time, and that can
cost ten times what the work on the page costs. Who writes first would pay for all. Reading holes of a sparse file takes
the memory without any disk traffic; afterwards every write to the page cache recycles a page that is there already.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

READ_BYTES = 4 * 1024 * 1024
SPARSE_NAME = "page-cache"


def fill_page_cache(directory: Path, seconds_max: float) -> str:
    """Fills free memory with clean pages of a sparse file in the directory, which should stay until the run is over.

    Returns what was done, in words. Stops early after `seconds_max`.
    """
    wanted = free_bytes(Path("/proc/meminfo").read_text())
    start = time.monotonic()
    done = 0
    with (directory / SPARSE_NAME).open("wb+", buffering=0) as file:
        file.truncate(wanted)
        buffer = bytearray(READ_BYTES)
        while done < wanted and time.monotonic() - start < seconds_max:
            done += os.preadv(file.fileno(), [buffer], done) or wanted
    share = "all of it" if done >= wanted else "stopped there"
    return f"{done / 2**30:.0f} GiB of free memory filled in {time.monotonic() - start:.0f} s ({share})"


def free_bytes(meminfo: str) -> int:
    """MemFree of /proc/meminfo."""
    for line in meminfo.splitlines():
        if line.startswith("MemFree:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no MemFree in /proc/meminfo")
