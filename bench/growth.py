"""`python -m bench.growth`: how call times and bytes per chunk grow with the catalog.

It makes two stores with the same few readable bytes, one small and one as large as after years of use. Each call is
timed on one and right afterwards on the other, so that other load of the machine affects both. The stores run in this
process, in a directory in memory, with one caller at a time, so that the time of a call is mostly that of its
statements.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.shared_store import services
from bench.shared_store.grown_store import GrownStore
from bench.table import table

MEMORY_DIRECTORY = Path("/dev/shm")  # noqa: S108 - the store needs a memory file system
CHUNKS_PER_OBJECT = 10
"""The number of made chunks for each made object."""
CHUNKS_PER_PACK = 16
RATIO_MAX = 1.5
CHUNK_BYTES_MAX = 200
WARM_UP = 3

Call = Callable[[GrownStore], Callable[[], object]]
CALLS: dict[str, tuple[Call, int]] = {
    "PutChunk 4 KiB": (GrownStore.put_chunk, 200),
    "GetChunk 4 KiB": (GrownStore.get_chunk, 200),
    "ListObjects, a page of 100": (GrownStore.list_objects, 100),
    "PutObject over an inherited one": (GrownStore.put_object, 100),
    "Commit of 10 changes": (GrownStore.commit, 25),
}


@dataclass(frozen=True)
class Growth:
    """The median times of a call on the small and on the large catalog."""

    engine: str
    call: str
    times: int
    small_ms: float
    large_ms: float

    @property
    def ratio(self) -> float:
        """The time on the large catalog relative to the small one."""
        return self.large_ms / self.small_ms


@contextmanager
def grown(engine: str, folder: Path, chunk_rows: int, per_pack: int = CHUNKS_PER_PACK) -> Iterator[GrownStore]:
    """Make a store with so many chunks, and a tenth as many objects. It is removed afterwards."""
    with ExitStack() as opened:
        catalog = str(folder / "catalog.sqlite")
        if engine == "postgres":
            catalog = opened.enter_context(services.fresh_database(os.environ[services.POSTGRES]))
        opened.callback(shutil.rmtree, folder)
        store = GrownStore(catalog, folder)
        opened.callback(store.close)
        store.grow(chunk_rows=chunk_rows, per_pack=per_pack, object_rows=chunk_rows // CHUNKS_PER_OBJECT)
        yield store


def times_ms(stores: Sequence[GrownStore], call: Call, times: int) -> list[float]:
    """Return the median time of a call on each store, measured in turns."""
    taken: list[list[float]] = [[] for _ in stores]
    for _ in range(WARM_UP + times):
        for store, mine in zip(stores, taken, strict=True):
            act = call(store)
            begun = time.perf_counter()
            act()
            mine.append((time.perf_counter() - begun) * 1e3)
    return [median(mine[WARM_UP:]) for mine in taken]


def measure(
    engine: str, folder: Path, rows: tuple[int, int], share: float = 1.0, per_pack: int = CHUNKS_PER_PACK
) -> tuple[list[Growth], dict[int, dict[str, float]]]:
    """Measure all calls, each `share` times as often as usual. Returns the times, and the bytes per chunk by rows."""
    with ExitStack() as opened:
        stores = [opened.enter_context(grown(engine, folder / f"{count}-rows", count, per_pack)) for count in rows]
        growths = []
        for name, (call, times) in CALLS.items():
            counted = max(1, round(times * share))
            small, large = times_ms(stores, call, counted)
            growths.append(Growth(engine, name, counted, small, large))
            _progress(str(growths[-1]))
        return growths, dict(zip(rows, (store.made_chunk_bytes for store in stores), strict=True))


def time_rows(growths: Sequence[Growth]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of times."""
    for growth in growths:
        verdict = "holds" if growth.ratio <= RATIO_MAX else "MISSED"
        figures = (f"{growth.small_ms:.2f}", f"{growth.large_ms:.2f}", f"{growth.ratio:.2f}")
        yield (growth.engine, growth.call, *figures, f"<= {RATIO_MAX}", verdict)


def byte_rows(engine: str, by_rows: dict[int, dict[str, float]]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of bytes."""
    for count, sizes in by_rows.items():
        of_chunk = sum(size for name, size in sizes.items() if name.startswith(("chunk", "pack", "file")))
        parts = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items() if size >= 0.05)
        verdict = "holds" if of_chunk <= CHUNK_BYTES_MAX else "MISSED"
        yield (engine, f"{count:,}", f"{of_chunk:.0f}", f"<= {CHUNK_BYTES_MAX}", verdict, parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement. Returns 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=[10_000, 10_000_000], metavar=("SMALL", "LARGE"))
    parser.add_argument("--engine", choices=("postgres", "sqlite"), default="postgres", help="(%(default)s)")
    parser.add_argument("--per-pack", type=int, default=CHUNKS_PER_PACK, help="chunks in a pack (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--quick", action="store_true", help="fewer rows, and coarser figures")
    options = parser.parse_args(argv)
    if options.engine == "postgres":
        services.start_if_missing("bench.growth", list(sys.argv[1:] if argv is None else argv), services.POSTGRES)
    rows = (1_000, 100_000) if options.quick else (options.rows[0], options.rows[1])
    folder = Path(tempfile.mkdtemp(prefix="cryo-growth-", dir=MEMORY_DIRECTORY))
    try:
        growths, by_rows = measure(options.engine, folder, rows, 0.3 if options.quick else 1.0, options.per_pack)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    small, large = (f"{count:,} chunks, ms" for count in rows)
    print(table(("engine", "call", small, large, "ratio", "wanted", ""), time_rows(growths)))
    print()
    columns = (
        "engine",
        "chunks",
        "bytes each, with its pack's",
        "wanted",
        "",
        "of which, and of others for each chunk",
    )
    print(table(columns, byte_rows(options.engine, by_rows)))
    if options.json:
        document = {"times": [asdict(growth) for growth in growths], "bytes": by_rows}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _progress(words: str) -> None:
    print(f"bench: {words} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
