"""`python -m bench.nodes`: one, two and three nodes over one PostgreSQL and one S3, compared with that S3 alone.

Everything runs on this machine: the nodes, PostgreSQL, S3 (Ceph) and the load generator share its cores, so more nodes
are faster only where a node waits. The table shows the CPU time of each part beside its rate. Progress goes to stderr,
the tables to stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from psycopg.conninfo import conninfo_to_dict

from bench.http.cases import KIB, MIB
from bench.load.generator import LoadProcess
from bench.load.payload import Payload
from bench.load.plan import LoadPlan, LoadResult
from bench.machine.description import describe
from bench.shared_store import raw_s3, services
from bench.shared_store.nodes import Nodes
from bench.shared_store.wire_count import WireCount
from bench.table import table

NODES_MAX = 3
RAW = "raw S3"
RAW_RATIO_MIN = 0.8
ROUND_TRIPS_MAX = 2
ALONE = 40
QUICK_DIVISOR = 8


@dataclass(frozen=True)
class Case:
    """One operation: how often, and how many at once."""

    title: str
    operation: str
    body_bytes: int
    connections: int
    requests: int


CASES = (
    Case("PutChunk 4 MiB x16", "put-chunk", 4 * MIB, 16, 64),
    Case("PutObject 4 KiB x32", "put-object", 4 * KIB, 32, 1_500),
)


@dataclass(frozen=True)
class Row:
    """One round of one case: the servers and jobs, the rates, and the CPU time of each part."""

    case: str
    servers: str
    requests: int
    requests_per_second: float
    megabytes_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    cpu_ms: dict[str, float]
    """Milliseconds per request."""
    failures: int
    note: str
    machine_load: float


@dataclass(frozen=True)
class Trips:
    """Round trips to PostgreSQL and statements per PutChunk."""

    title: str
    chunks: int
    round_trips: float
    statements: float


class Measurement:
    """Measures all rounds on one set of nodes."""

    def __init__(self, nodes: Nodes, loads: Sequence[LoadProcess], divisor: int) -> None:
        self._nodes = nodes
        self._loads = loads
        self._divisor = divisor
        self.rows: list[Row] = []

    def round(self, case: Case) -> None:
        """Measure S3 alone, then one, two and three nodes; several nodes also with one job each."""
        if case.operation == "put-chunk":
            self._raw(case)
        for count in range(1, NODES_MAX + 1):
            for jobs in sorted({1, count}):
                self._some(case, list(range(count)), jobs)

    def trips(self) -> list[Trips]:
        """Count the round trips of one node, with one client and with many."""
        given = conninfo_to_dict(self._nodes.catalog)
        with WireCount(str(given["host"]), int(given["port"])) as wire:
            number = self._nodes.start(services.at(self._nodes.catalog, str(given["dbname"]), wire.port))
            self._loads[0].run(self._plan(number, 16, 16))  # statements that run only once must run before the count
            found = []
            for connections in (1, 16):
                plan = self._plan(number, connections, max(ALONE * connections // 4, ALONE) // self._divisor)
                before = wire.so_far()  # starting a job and an upload does not count
                load = self._loads[0].run(plan)
                counts = wire.so_far() - before
                each = [count / max(load.requests, 1) for count in counts]
                found.append(Trips(f"PutChunk 4 KiB, {connections} in flight", load.requests, each[0], each[1]))
            self._nodes.stop(number)
            return found

    def _plan(self, number: int, connections: int, count: int) -> LoadPlan:
        (plan,) = self._nodes.write_plans("put-chunk", Payload(4 * KIB), count, connections, [number], jobs=1)
        return plan

    def _raw(self, case: Case) -> None:
        payload = Payload(case.body_bytes)
        before = self._used([])
        load = raw_s3.put_all(self._nodes.blobs, payload, case.requests // self._divisor, case.connections)
        self._add(case, RAW, [load], before, self._used([]))

    def _some(self, case: Case, numbers: list[int], jobs: int) -> None:
        payload, count = Payload(case.body_bytes), case.requests // self._divisor
        plans = self._nodes.write_plans(case.operation, payload, count, case.connections, numbers, jobs=jobs)
        before = self._used(numbers)
        loads = self._run(plans)
        words = f"{len(numbers)} node{'s' * (len(numbers) > 1)}, {jobs} job{'s' * (jobs > 1)}"
        self._add(case, words, loads, before, self._used(numbers))

    def _run(self, plans: Sequence[LoadPlan]) -> list[LoadResult]:
        with ThreadPoolExecutor(len(plans)) as threads:
            return list(threads.map(lambda pair: pair[0].run(pair[1]), zip(self._loads, plans, strict=False)))

    def _used(self, numbers: list[int]) -> dict[str, float]:
        return {"nodes": self._nodes.usage(numbers).cpu_seconds, **services.cpu_seconds(os.environ)}

    def _add(
        self, case: Case, servers: str, loads: Sequence[LoadResult], before: dict[str, float], after: dict[str, float]
    ) -> None:
        requests = sum(load.requests for load in loads)
        seconds = max(load.seconds for load in loads)
        used = {name: after[name] - before[name] for name in after}
        used["client"] = sum(load.client_cpu_seconds for load in loads)
        row = Row(
            case=case.title,
            servers=servers,
            requests=requests,
            requests_per_second=requests / seconds,
            megabytes_per_second=sum(load.payload_bytes for load in loads) / seconds / 1e6,
            latency_p50_ms=median(load.latency_p50_seconds for load in loads) * 1e3,
            latency_p99_ms=max(load.latency_p99_seconds for load in loads) * 1e3,
            cpu_ms={name: seconds_used / max(requests, 1) * 1e3 for name, seconds_used in used.items()},
            failures=sum(load.failures for load in loads),
            note=next((load.first_failure for load in loads if load.first_failure), ""),
            machine_load=os.getloadavg()[0],
        )
        self.rows.append(row)
        _progress(str(row))


def ratio(rows: Sequence[Row], case: str, servers: str, other: str) -> float | None:
    """Return the median over the rounds of one rate over the other; None if one was not measured."""
    ours, theirs = (
        [row.requests_per_second for row in rows if (row.case, row.servers) == (case, name)]
        for name in (servers, other)
    )
    ratios = [our / their for our, their in zip(ours, theirs, strict=False) if their]
    return median(ratios) if ratios else None


def rate_rows(rows: Sequence[Row]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of rates: medians over the rounds."""
    for case, servers in dict.fromkeys((row.case, row.servers) for row in rows):
        mine = [row for row in rows if (row.case, row.servers) == (case, servers)]
        to_raw, to_one = (ratio(rows, case, servers, other) for other in (RAW, "1 node, 1 job"))
        yield (
            case,
            servers,
            f"{median(row.requests_per_second for row in mine):,.0f}",
            f"{median(row.megabytes_per_second for row in mine):,.1f}",
            f"{median(row.latency_p50_ms for row in mine):.0f}",
            f"{max(row.latency_p99_ms for row in mine):.0f}",
            "-" if to_raw is None else f"{to_raw:.2f}",
            "-" if to_one is None else f"{to_one:.2f}",
            ", ".join(f"{name} {median(row.cpu_ms[name] for row in mine):.1f}" for name in mine[0].cpu_ms),
            f"{sum(row.failures for row in mine) or ''}",
            f"{median(row.machine_load for row in mine):.1f}",
        )


def trip_rows(trips: Sequence[Trips]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table of round trips."""
    for each in trips:
        verdict = "holds" if round(each.round_trips, 1) <= ROUND_TRIPS_MAX else "MISSED"  # includes background reads
        figures = (f"{each.chunks}", f"{each.round_trips:.1f}", f"{each.statements:.1f}")
        yield (each.title, *figures, f"<= {ROUND_TRIPS_MAX}", verdict)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the measurement. Returns 0; 1 if a request to Cryostore failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.nodes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="rounds, each of 2 GB, whose median counts (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round, and coarser figures")
    parser.add_argument("--trips", action="store_true", help="only count round trips")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(argv)
    arguments = list(sys.argv[1:] if argv is None else argv)
    services.start_if_missing("bench.nodes", arguments, services.POSTGRES, services.S3)
    os.environ.update(services.S3_CREDENTIALS)
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="cryo-nodes-")))
        loads = [opened.enter_context(LoadProcess()) for _ in range(NODES_MAX)]
        nodes = opened.enter_context(Nodes(folder, NODES_MAX))
        measurement = Measurement(nodes, loads, QUICK_DIVISOR if options.quick else 1)
        for _ in range(0 if options.trips else 1 if options.quick else options.rounds):
            for case in CASES:
                measurement.round(case)
        trips = measurement.trips()
    rows = measurement.rows
    print(table(("machine", ""), sorted(describe(Path.cwd()).items())))
    print()
    columns = ("per s", "MB/s", "p50 ms", "p99 ms", f"/{RAW}", "/1 node", "CPU ms each", "failed", "load")
    print(table(("case", "servers", *columns), rate_rows(rows)))
    print()
    print(table(("catalog", "chunks", "round trips each", "statements each", "wanted", ""), trip_rows(trips)))
    print("".join(f"- {row.servers}: {row.note}\n" for row in rows if row.note))
    if options.json:
        document = {"rows": [asdict(row) for row in rows], "trips": [asdict(each) for each in trips]}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return int(any(row.failures for row in rows))


def _progress(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
