"""Cryostore as a user starts it: `cryo serve` on an empty directory."""

from __future__ import annotations

import configparser
import select
import subprocess
from pathlib import Path
from typing import IO

from bench.load.payload import Payload
from bench.load.plan import LoadPlan
from bench.machine.processes import START_SECONDS_MAX, StartError, Usage, program, stop, usage
from bench.peers.control import EMPTY_HASH, Control
from cryostore.wire.sigv4 import Credentials

WORKERS = 2


class Cryostore:
    """`cryo serve --workers 2`. A write plan is a backup job, and a read plan is a restore job of that backup."""

    name = "cryo"

    def __init__(self) -> None:
        self.endpoint_url = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Control | None = None
        self._port = 0
        self._job = ""
        self._upload = ""
        self._restore_job = ""

    def start(self, directory: Path) -> None:
        """Start the server and read its new access key. Raises StartError with the end of its log."""
        executable = program(self.name)
        if executable is None:
            raise StartError("not installed")
        directory.mkdir(parents=True, exist_ok=True)
        data = directory / "data"
        command = [executable, "serve", "--data-dir", str(data), "--listen", "127.0.0.1:0", "--workers", str(WORKERS)]
        log_path = directory / "log"
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        assert self._process.stdout is not None
        line = first_line(self._process.stdout)
        if not line.startswith("listening on http://"):
            self.stop()
            raise StartError(f"cryo serve said {line!r}: {log_path.read_text(errors='replace')[-500:]}")
        self.endpoint_url = line.removeprefix("listening on ").strip()
        self._port = int(line.rsplit(":", 1)[1])
        self._control = Control(self._port, credentials_of(data / "credentials"))

    def stop(self) -> None:
        """Stop the server."""
        if self._process:
            stop(self._process)
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None

    def write_plan(self, operation: str, payload: Payload, count: int, connections: int) -> LoadPlan:
        """Return a plan of PutChunk into one upload of a new job, or of PutObject with distinct names."""
        control = self._started()
        self._job = control.start_backup_job()
        self._upload = control.start_object(self._job, "measured") if operation == "put-chunk" else ""
        signer = control.signer()
        heads = []
        for index in range(count):
            checksum = payload.digest(index).hex()
            query = {"length": str(payload.body_bytes), "checksum": checksum, "checksum-algorithm": "SHA256"}
            heads.append(signer.head("PUT", self._path(operation, index), query, checksum, payload.body_bytes))
        return LoadPlan(
            port=self._port,
            connections=connections,
            heads=heads,
            tails=[payload.suffix(index) for index in range(count)],
            base=payload.base,
        )

    def read_plan(self, payload: Payload, count: int, connections: int) -> LoadPlan:
        """Return a plan of GetChunk for every chunk of the upload of the last write plan."""
        control = self._started()
        recovery_point = control.complete(self._job, self._upload, payload, count)
        self._job = ""
        self._restore_job = control.start_restore_job(recovery_point)
        signer = control.signer()
        tokens = control.chunk_tokens(self._restore_job)
        paths = [f"/restore-jobs/{self._restore_job}/chunk/{token}" for token in tokens]
        return LoadPlan(
            port=self._port,
            connections=connections,
            heads=[signer.head("GET", path, {}, EMPTY_HASH, 0) for path in paths],
            tails=[payload.suffix(index) for index in range(len(paths))],
            answer_bytes=payload.body_bytes,
            repeat=True,
        )

    def forget(self) -> None:
        """End the jobs of the last plans; their chunks become garbage."""
        control = self._started()
        if self._job:
            control.stop_backup_job(self._job)
        if self._restore_job:
            control.complete_restore_job(self._restore_job)
        self._job = self._restore_job = ""

    def usage(self) -> Usage:
        """Return the usage of the processes of the server."""
        return usage(self._process.pid) if self._process else Usage(0.0, {})

    def _started(self) -> Control:
        assert self._control is not None
        return self._control

    def _path(self, operation: str, index: int) -> str:
        if operation == "put-chunk":
            return f"/backup-jobs/{self._job}/chunk/{self._upload}/{index}"
        return f"/backup-jobs/{self._job}/object/file-{index:08}/put-object"


def first_line(stream: IO[bytes]) -> str:
    """Return the first line that a server prints; empty if it ends or prints nothing in time."""
    readable, _, _ = select.select([stream], [], [], START_SECONDS_MAX)
    return stream.readline().decode().strip() if readable else ""


def credentials_of(path: Path) -> Credentials:
    """Return the root access key of a credentials file."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path)
    section = parser["default"]
    return Credentials(section["aws_access_key_id"], section["aws_secret_access_key"])
