"""`python -m bench.backups`: whole backups of folders, compared with restic and borg on local repositories.

Each program backs up the same folder, backs it up again unchanged, restores it, and verifies all stored data. The page
cache is warmed once before the first program. Wall time, CPU seconds and peak resident memory are the kernel's figures
for the processes of the program. Progress goes to stderr, the tables to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine.description import describe
from bench.peers.backup_tools import TOOLS, Command, Cryo, Tool
from bench.table import table

OURS = {tool.name for tool in TOOLS if tool.ours}
PIECE_BYTES = 1 << 20
WANTED = {"first": 0.5, "again": 0.35, "restore": 0.6, "verify": 0.8}
WANTED_OVER_SERVER = 0.8
SETTLE_SECONDS = 3.0
"""A pause before the first run: our second run would read very young files again, and the measurement would show it."""
COLUMNS = ("case", "step", "program", "s", "CPU s", "peak MB", "stored MB", "ours/fastest peer", "wanted")


@dataclass(frozen=True)
class Figure:
    """One step of one program."""

    case: str
    step: str
    tool: str
    seconds: float
    cpu_seconds: float
    memory_peak_bytes: int
    stored_bytes: int


def tree(folder: Path) -> Path:
    """Return the libraries of the machine: tens of thousands of files of all sizes."""
    del folder
    return Path("/usr/lib")


def large(folder: Path) -> Path:
    """Make one file of 4 GB, half of which cannot be compressed."""
    folder.mkdir()
    rng = random.Random(1)
    with (folder / "large").open("wb") as file:
        for _ in range(2_000):
            file.write(rng.randbytes(PIECE_BYTES))
            file.write((rng.randbytes(64) * (PIECE_BYTES // 64))[:PIECE_BYTES])
    return folder


def small(folder: Path) -> Path:
    """Make 200,000 files of 1 KB."""
    rng = random.Random(2)
    for directory in range(200):
        place = folder / f"{directory:03}"
        place.mkdir(parents=True)
        for number in range(1_000):
            (place / f"{number:04}").write_bytes(rng.randbytes(512) * 2)
    return folder


CASES: dict[str, Callable[[Path], Path]] = {"tree": tree, "large": large, "small": small}


def run(command: Command, environment: dict[str, str]) -> tuple[float, float, int]:
    """Run a program to its end. Returns wall seconds, CPU seconds, and its peak memory in bytes."""
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.chdir(command.folder)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1):
            os.dup2(nowhere, stream)
        os.execve(command.arguments[0], command.arguments, environment)  # noqa: S606 - by its full path
    _, status, used = os.wait4(pid, 0)
    seconds = time.monotonic() - begun
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):  # 1: some files could not be read
        raise SystemExit(f"{command.arguments} ended with {code}")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def stored_bytes(folder: Path) -> int:
    """Return the bytes on disk of all files below a folder."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def measure(case: str, tool: Tool, source: Path, target: Path) -> Iterator[Figure]:
    """Measure all steps of one program on one folder, which is restored to `target`."""
    tool.folder.mkdir()
    with tool.running():
        yield from _measure_steps(case, tool, source, target)


def _measure_steps(case: str, tool: Tool, source: Path, target: Path) -> Iterator[Figure]:
    for command in tool.prepare():
        run(command, tool.environment)
    steps: dict[str, Callable[[], Command]] = {
        "first": lambda: tool.backup(source, 1),
        "again": lambda: tool.backup(source, 2),
        "restore": lambda: tool.restore(source, target),
        "verify": tool.verify,
    }
    for step, command_of in steps.items():
        seconds, cpu_seconds, memory = run(command_of(), tool.environment)
        memory += tool.memory_beside_bytes
        yield Figure(case, step, tool.name, seconds, cpu_seconds, memory, stored_bytes(tool.repository))
        shutil.rmtree(target, ignore_errors=True)


def warm(source: Path) -> None:
    """Read everything once, so that the first program does not pay for the disk."""
    for place, _, names in os.walk(source):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    while file.read(PIECE_BYTES):
                        pass


def fastest_peer(figures: Sequence[Figure], figure: Figure, value: Callable[[Figure], float]) -> float | None:
    """Return the ratio of our figure to that of the best peer in this step; None if there is no peer."""
    others = [
        value(each)
        for each in figures
        if (each.case, each.step) == (figure.case, figure.step) and each.tool not in OURS
    ]
    return value(figure) / min(others) if others and figure.tool in OURS else None


def rows(figures: Sequence[Figure]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table."""
    for figure in figures:
        ratio = fastest_peer(figures, figure, lambda each: each.seconds)
        cells = (f"{figure.seconds:.1f}", f"{figure.cpu_seconds:.1f}", f"{figure.memory_peak_bytes / 1e6:.0f}")
        wanted = f"{WANTED[figure.step] if figure.tool == Cryo.name else WANTED_OVER_SERVER}" if ratio else ""
        shown = "" if ratio is None else f"{ratio:.2f}"
        yield (figure.case, figure.step, figure.tool, *cells, f"{figure.stored_bytes / 1e6:,.0f}", shown, wanted)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.backups", description=__doc__)
    parser.add_argument("--dir", type=Path, default=Path(".build/bench"), help="where all is stored (%(default)s)")
    parser.add_argument(
        "--restore-dir",
        type=Path,
        metavar="DIR",
        help="where to restore to; /dev/shm, if the disk's own file system is what one would measure",
    )
    parser.add_argument("--case", action="append", choices=CASES, help="only this; repeatable")
    parser.add_argument("--tool", action="append", choices=[tool.name for tool in TOOLS], help="only this; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(argv)
    options.dir.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for case in options.case or CASES:
        folder = Path(tempfile.mkdtemp(prefix="cryo-backups-", dir=options.dir)).absolute()
        try:
            source = CASES[case](folder / "source")
            warm(source)
            time.sleep(SETTLE_SECONDS)
            for kind in TOOLS:
                tool = kind(folder / kind.name)
                if tool.installed and (not options.tool or tool.name in options.tool):
                    target = Path(tempfile.mkdtemp(prefix="cryo-restored-", dir=options.restore_dir or folder))
                    for figure in measure(case, tool, source, target / "tree"):
                        figures.append(figure)
                        print(f"bench: {figure}", file=sys.stderr, flush=True)
                    target.rmdir()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(table(("machine", ""), sorted(describe(options.dir).items())))
    print()
    print(table(COLUMNS, rows(figures)))
    if options.json:
        options.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
