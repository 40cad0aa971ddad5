"""A server with the fake backend as a real process, with its calls and its log."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from cryostore.options.configuration import Configuration, to_json
from support import project
from support.requests.raw_http import Answer, RawConnection

WAIT_SECONDS_MAX = 20
LOG_SECONDS_MAX = 5


class FakeServer:
    """A running server. Its fake backend writes to `data_dir`."""

    def __init__(self, configuration: Configuration, log: Path) -> None:
        self.configuration = configuration
        self.data_dir = configuration.data_dir
        self.log_path = log
        with log.open("ab") as log_file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "support.processes.fake_server", to_json(configuration).decode()],
                stdout=subprocess.PIPE,
                stderr=log_file,
                env=environment(),
            )
        try:
            self.first_line = self._first_line()
        except BaseException:
            self.discard()
            raise

    def _first_line(self) -> str:
        ready, _, _ = select.select([self.process.stdout], [], [], WAIT_SECONDS_MAX)
        assert ready, "the server says nothing"
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on http"), self.log_path.read_text()
        return line

    @property
    def url(self) -> str:
        return self.first_line.removeprefix("listening on ").strip()

    @property
    def address(self) -> tuple[str, int]:
        split = urlsplit(self.url)
        return split.hostname, split.port

    def connect(self) -> RawConnection:
        return RawConnection(self.address)

    def exchange(self, request: bytes) -> Answer:
        """Send one request on a new connection."""
        with self.connect() as connection:
            connection.send(request)
            return connection.answer()

    @property
    def calls(self) -> list[str]:
        """Return the calls of the backend, in order: operation, caller, object name."""
        path = self.data_dir / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def log_lines(self) -> list[dict]:
        """Return the log so far; every line must be a JSON object."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def logged(self, **fields) -> dict:
        """Wait for a log line with these fields, and return the first one."""
        return wait_for(lambda: next((line for line in self.log_lines() if fields.items() <= line.items()), None))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        return self.process.wait(WAIT_SECONDS_MAX)

    def stop(self) -> None:
        """Stop it with SIGTERM. It must exit with 0 and print nothing more."""
        self.signal(signal.SIGTERM)
        assert self.end() == 0
        assert self.process.stdout.read() == b""

    def discard(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def environment() -> dict[str, str]:
    """Return the environment of a process that imports from tests/."""
    paths = [str(project.ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def wait_for(condition):
    """Wait until `condition()` is true, and return its value."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return found


@contextmanager
def fake_server(folder: Path, **settings) -> Iterator[FakeServer]:
    """Run a server with these settings. If it still runs at the end, it is stopped with SIGTERM."""
    (folder / "data").mkdir(exist_ok=True)
    settings = {"port": 0, "workers": 1} | settings
    server = FakeServer(Configuration(data_dir=folder / "data", **settings), folder / "log")
    try:
        yield server
        if server.process.poll() is None:
            server.stop()
    finally:
        server.discard()
