"""Filler of the page cache: it makes memory full of clean file pages, as on a machine that has run for a while.

A virtual machine may get its memory from the host page by page, at the first access to each page. That can cost ten
times as much as the work on the page, and only the first program that writes would pay for it. Reading the holes of a
sparse file takes the memory without disk traffic; then every write to the page cache reuses an existing page.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

READ_BYTES = 4 * 1024 * 1024
SPARSE_NAME = "page-cache"


def fill_page_cache(directory: Path, seconds_max: float) -> str:
    """Fill free memory with clean pages of a sparse file in the directory, which must stay until the run is over.

    Returns a description. Stops early after `seconds_max`.
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
    """Return MemFree of /proc/meminfo in bytes."""
    for line in meminfo.splitlines():
        if line.startswith("MemFree:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no MemFree in /proc/meminfo")
