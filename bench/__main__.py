"""`python -m bench`: runs the HTTP cases and prints the figures. Progress goes to stderr, the report to stdout."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.http import floor, report
from bench.http.cases import CASES, MIB, Case
from bench.http.result import BenchmarkResult
from bench.http.runner import Runner
from bench.load.generator import LoadProcess
from bench.machine.description import describe
from bench.machine.page_cache import fill_page_cache
from bench.peers.packages import install_missing_with_apt

MEMORY_DIRECTORY = Path("/dev/shm")  # noqa: S108 - the memory rows need a memory file system
FILL_SECONDS_MAX = 90.0
FREE_BYTES_MIN = {"disk": 20 * 10**9, "memory": 2 * 10**9}


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--dir", type=Path, default=Path(".build/bench"), help="where the disk cases store (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there; - for stdout instead")
    parser.add_argument("--quick", action="store_true", help="one short round: a minute, and coarser figures")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each case, whose median counts (%(default)s)")
    parser.add_argument(
        "--case",
        action="append",
        choices=[case.name for case in CASES],
        metavar="NAME",
        help="only this case; repeatable",
    )
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--fill", action="store_true", help="fill the page cache first; takes a minute or so more")
    parser.add_argument("--no-install", action="store_true", help="do not install missing peers")
    return parser.parse_args(argv)


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases that the command line asks for."""
    cases = [case for case in CASES if not options.case or case.name in options.case]
    return [case.quick() for case in cases] if options.quick else cases


@contextmanager
def directories(disk: Path) -> Iterator[dict[str, Path]]:
    """Make a fresh directory in each place that has enough space; remove them afterwards."""
    disk.mkdir(parents=True, exist_ok=True)
    places = {}
    try:
        for place, parent in (("disk", disk), ("memory", MEMORY_DIRECTORY)):
            if parent.is_dir() and shutil.disk_usage(parent).free >= FREE_BYTES_MIN[place]:
                places[place] = Path(tempfile.mkdtemp(prefix="cryo-bench-", dir=parent))
            else:
                _progress(f"too little space in {parent}: its cases are skipped")
        yield places
    finally:
        for directory in places.values():
            shutil.rmtree(directory, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark. Returns 0; 1 if a request to Cryostore failed or none was measured."""
    options = arguments(argv)
    if options.list:
        print("\n".join(f"{case.name:28} {case.title}" for case in CASES))
        return 0
    if not options.no_install:
        install_missing_with_apt()
    started = time.monotonic()
    with directories(options.dir) as places, LoadProcess() as load:
        machine = describe(options.dir)
        if "disk" in places and options.fill:
            _progress("filling the page cache")
            machine["page cache"] = fill_page_cache(places["disk"], FILL_SECONDS_MAX)
        result = BenchmarkResult(machine, floor.measure(4 * MIB, 0.3 if options.quick else 1.0))
        Runner(result, load, 1 if options.quick else options.rounds, _progress).run(chosen(options), places)
    _progress(f"took {time.monotonic() - started:.0f} s")
    document = json.dumps(result.document(), indent=2)
    if options.json == Path("-"):
        print(document)
    else:
        print(report.text(result))
    if options.json and options.json != Path("-"):
        options.json.write_text(document + "\n")
    return int(result.ours_failed())


def _progress(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
