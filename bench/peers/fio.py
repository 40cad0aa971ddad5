"""fio: the rate of the disk for one sequential writer that syncs once, at the end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from bench.machine.processes import StartError, program


def sequential_write_megabytes_per_second(directory: Path, block_bytes: int, total_bytes: int) -> float:
    """Return MB per second, including the final fsync. Leaves its file. Raises StartError if fio fails."""
    executable = program("fio")
    if executable is None:
        raise StartError("not installed")
    directory.mkdir(parents=True, exist_ok=True)
    command = [
        executable,
        "--name=sequential",
        f"--directory={directory}",
        "--rw=write",
        f"--bs={block_bytes}",
        f"--size={total_bytes}",
        "--end_fsync=1",
        "--ioengine=psync",
        "--refill_buffers=1",
        "--output-format=json",
    ]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        raise StartError(result.stderr.decode(errors="replace")[-300:])
    return parse(result.stdout.decode())


def parse(output: str) -> float:
    """Return MB per second from the JSON of fio, by its own clock, which runs until the fsync is done."""
    write = json.loads(output[output.index("{") :])["jobs"][0]["write"]
    return float(write["io_bytes"]) / (float(write["runtime"]) / 1000) / 1e6
