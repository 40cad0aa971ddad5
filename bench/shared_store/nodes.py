"""Nodes of a fresh shared store: identical `cryo serve` processes over one PostgreSQL and one S3."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from bench.load.payload import Payload
from bench.load.plan import LoadPlan
from bench.machine.processes import StartError, Usage, program, stop, usage
from bench.peers.control import Control
from bench.peers.cryo import credentials_of, first_line
from bench.shared_store import raw_s3, services

LISTENING = "listening on "


class Nodes:
    """A fresh shared store and its nodes, one worker each. A context manager that removes all of them."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._controls: list[Control] = []
        self._ports: list[int] = []
        self.catalog = self.blobs = ""

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self.catalog = opened.enter_context(services.fresh_database(os.environ[services.POSTGRES]))
            self.blobs = services.fresh_prefix(os.environ[services.S3])
            opened.callback(self._delete_blobs)
            opened.callback(self._stop)
            self._prepare()
            for _ in range(self._count):
                self.start(self.catalog)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def start(self, catalog: str) -> int:
        """Start one more node with its catalog at this URL. Returns its number."""
        log_path = self._folder / f"node-{len(self._processes)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [self._program(), "serve", "--workers", "1", "--listen", "127.0.0.1:0"],
                env=self._environment_at(catalog),
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._processes.append(process)
        assert process.stdout is not None
        line = first_line(process.stdout)
        if not line.startswith(LISTENING):
            raise StartError(f"cryo serve said {line!r}: {log_path.read_text(errors='replace')[-500:]}")
        self._ports.append(int(line.rpartition(":")[2]))
        self._controls.append(Control(self._ports[-1], credentials_of(self._folder / "credentials")))
        return len(self._processes) - 1

    def stop(self, number: int) -> None:
        """Stop a node."""
        self._controls[number].close()
        stop(self._processes[number])

    def write_plans(
        self, operation: str, payload: Payload, count: int, connections: int, numbers: list[int], *, jobs: int
    ) -> list[LoadPlan]:
        """Return a plan for each of these nodes. The nodes share the bodies, the connections and the jobs."""
        control = self._controls[numbers[0]]
        open_jobs = [control.start_backup_job() for _ in range(jobs)]
        uploads = [control.start_object(job, "measured") if operation == "put-chunk" else "" for job in open_jobs]
        plans = []
        for place, number in enumerate(numbers):
            share = connections // len(numbers) + (place < connections % len(numbers))
            mine = range(place, count, len(numbers))
            job, upload = open_jobs[place % jobs], uploads[place % jobs]
            plans.append(self._plan(number, operation, payload, mine, share, job, upload))
        return plans

    def usage(self, numbers: list[int]) -> Usage:
        """Return the usage of these nodes so far."""
        found = [usage(self._processes[number].pid) for number in numbers]
        memory = {pid: peak for each in found for pid, peak in each.memory_peak_bytes.items()}
        return Usage(sum(each.cpu_seconds for each in found), memory)

    def _plan(
        self, number: int, operation: str, payload: Payload, mine: range, connections: int, job: str, upload: str
    ) -> LoadPlan:
        signer = self._controls[number].signer()
        heads = []
        for index in mine:
            checksum = payload.digest(index).hex()
            query = {"length": str(payload.body_bytes), "checksum": checksum, "checksum-algorithm": "SHA256"}
            path = f"/backup-jobs/{job}/object/file-{index:08}/put-object"
            if operation == "put-chunk":
                path = f"/backup-jobs/{job}/chunk/{upload}/{index}"
            heads.append(signer.head("PUT", path, query, checksum, payload.body_bytes))
        return LoadPlan(
            port=self._ports[number],
            connections=connections,
            heads=heads,
            tails=[payload.suffix(index) for index in mine],
            base=payload.base,
            seconds_max=60.0,
        )

    def _prepare(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [self._program(), "init", "--credentials", str(self._folder / "credentials")],
            env=self._environment_at(self.catalog),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise StartError(f"cryo init: {done.stderr.decode(errors='replace')[-500:]}")

    def _environment_at(self, catalog: str) -> dict[str, str]:
        place = {"CRYO_CATALOG": catalog, "CRYO_BLOBS": self.blobs, "CRYO_KEYRING": str(self._folder / "keyring.json")}
        return os.environ | services.S3_CREDENTIALS | place

    def _program(self) -> str:
        found = program("cryo")
        if found is None:
            raise StartError("cryo is not installed")
        return found

    def _stop(self) -> None:
        for control in self._controls:
            control.close()
        for process in self._processes:
            stop(process)
            assert process.stdout is not None
            process.stdout.close()

    def _delete_blobs(self) -> None:
        os.environ.update(services.S3_CREDENTIALS)
        raw_s3.delete_all(self.blobs)
