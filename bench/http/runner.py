"""Runner of the cases: it starts the servers, sends each the same load in turn, and reads their usage."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

from bench.http.cases import Case
from bench.http.result import OURS, BenchmarkResult, Round, Row
from bench.load.generator import LoadProcess, StalledError
from bench.load.payload import Payload
from bench.load.plan import LoadPlan
from bench.machine.processes import StartError
from bench.peers import fio
from bench.peers.control import CallError
from bench.peers.cryo import Cryostore
from bench.peers.file_servers import Nginx, Rclone
from bench.peers.target import Target

SERVERS: dict[str, Callable[[], Target]] = {OURS: Cryostore, "nginx": Nginx, "rclone": Rclone}
MEASUREMENT_ERRORS = (StartError, StalledError, CallError, OSError, HTTPException)
STORE_SECONDS_MAX = 30.0
STORE_CONNECTIONS = 8


class Runner:
    """Fills a result. Calls `progress` with a few words before each step."""

    def __init__(
        self, result: BenchmarkResult, load: LoadProcess, rounds: int, progress: Callable[[str], None]
    ) -> None:
        self._result = result
        self._load = load
        self._rounds = rounds
        self._progress = progress

    def run(self, cases: Sequence[Case], directories: dict[str, Path]) -> None:
        """Run the cases, grouped by place. `directories` has an empty directory for each existing place."""
        for place, directory in directories.items():
            here = [case for case in cases if case.place == place]
            names = {name for case in here for name in (OURS, *case.peers)}
            with self._servers(names, directory) as (servers, notes):
                for case in here:
                    self._case(case, servers, notes, directory)
                for name, server in servers.items():
                    peaks = server.usage().memory_peak_bytes.values()
                    self._result.memory_peak_bytes[f"{name} {place}"] = max(peaks, default=0)

    @contextmanager
    def _servers(self, names: set[str], directory: Path) -> Iterator[tuple[dict[str, Target], dict[str, str]]]:
        servers: dict[str, Target] = {}
        notes: dict[str, str] = {}
        with ExitStack() as stack:
            for name, make in SERVERS.items():
                if name not in names:
                    continue
                server = make()
                stack.callback(server.stop)
                try:
                    server.start(directory / name)
                    servers[name] = server
                except MEASUREMENT_ERRORS as error:
                    notes[name] = str(error)
            yield servers, notes
        shutil.rmtree(directory, ignore_errors=True)

    def _case(self, case: Case, servers: dict[str, Target], notes: dict[str, str], directory: Path) -> None:
        self._progress(case.title)
        rows = {name: Row(case, name, note=notes.get(name, "")) for name in (OURS, *case.peers)}
        self._result.rows += rows.values()
        measured = {name: server for name, server in servers.items() if name in rows}
        if case.is_read:
            self._reads(case, measured, rows)
            return
        for _ in range(self._rounds):
            if "fio" in rows:
                self._fio(case, directory, rows["fio"])
            for name, server in measured.items():
                with _noting(rows[name]):
                    self._write(case, server, rows[name])

    def _fio(self, case: Case, directory: Path, row: Row) -> None:
        os.sync()
        with _noting(row):
            total = case.body_bytes * case.requests
            row.rounds.append(
                Round(
                    fio.sequential_write_megabytes_per_second(
                        Path(tempfile.mkdtemp(prefix="fio-", dir=directory)), case.body_bytes, total
                    )
                )
            )

    def _write(self, case: Case, server: Target, row: Row) -> None:
        payload = Payload(case.body_bytes, case.kind)  # new bytes, because deduplication would distort the figures
        plan = server.write_plan(case.operation, payload, case.requests, case.connections)
        os.sync()  # so that no server writes dirty pages of another
        self._measure(server, replace(plan, seconds_max=case.seconds_max), row)
        server.forget()

    def _reads(self, case: Case, servers: dict[str, Target], rows: dict[str, Row]) -> None:
        payload = Payload(case.body_bytes, case.kind)
        plans = {}
        for name, server in servers.items():
            with _noting(rows[name]):
                stored = server.write_plan("put-chunk", payload, case.requests, STORE_CONNECTIONS)
                load = self._load.run(replace(stored, seconds_max=STORE_SECONDS_MAX))
                if load.failures or load.requests != case.requests:
                    raise CallError(f"storing what is to be read: {load.first_failure}")
                plan = server.read_plan(payload, case.requests, case.connections)
                plans[name] = replace(plan, seconds_max=case.seconds_max)
        os.sync()
        for _ in range(self._rounds):
            for name, plan in plans.items():
                with _noting(rows[name]):
                    self._measure(servers[name], plan, rows[name])
        for name in plans:
            with _noting(rows[name]):
                servers[name].forget()

    def _measure(self, server: Target, plan: LoadPlan, row: Row) -> None:
        before = server.usage().cpu_seconds
        load = self._load.run(plan)
        cpu_seconds = server.usage().cpu_seconds - before
        row.rounds.append(Round(load.megabytes_per_second, load, cpu_seconds))
        if load.first_failure:
            row.note = row.note or load.first_failure


@contextmanager
def _noting(row: Row) -> Iterator[None]:
    """Turn an error of one server into a note in its row, so that the others continue."""
    try:
        yield
    except MEASUREMENT_ERRORS as error:
        row.note = row.note or str(error)
