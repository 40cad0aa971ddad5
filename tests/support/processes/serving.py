"""A real `cryo serve` process for tests, on its own data directory and a free port."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cryostore.client.client import Client
from cryostore.client.settings import ClientSettings, resolve

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
# -P: as the installed script, which does not look for modules in the current directory.
CRYO = (sys.executable, "-P", "-c", "from cryostore.cli import main; main()")
LISTENING = "listening on "


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that has printed its address."""

    url: str
    data_dir: Path
    log: Path
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of a client's process. Its AWS settings are only those of this server."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return kept | {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_SHARED_CREDENTIALS_FILE": str(self.data_dir / "credentials"),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def settings(self) -> ClientSettings:
        """Return address and root access key, for a client in this process."""
        return resolve(self.environment)

    def client(self) -> Client:
        """Return a new client with the root access key. The caller closes it."""
        return Client.of(self.settings)

    def kill(self) -> None:
        """Kill the server, as a power loss would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(data_dir: Path, *options: str, listen: str = "127.0.0.1:0") -> Iterator[RunningServer]:
    """Start `cryo serve` with further `options`; check at the end that SIGTERM makes it exit with 0, unless killed.

    Fails with the server's log if it does not start or does not stop in time.
    """
    log = data_dir.parent / f"{data_dir.name}.log"
    with log.open("a", encoding="utf-8") as log_file:
        process = subprocess.Popen(
            [*CRYO, "serve", "--data-dir", str(data_dir), "--listen", listen, *options],
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        )
    try:
        yield RunningServer(_address(process, log), data_dir, log, process)
        if process.returncode != -signal.SIGKILL:
            stop(process, log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stop(process: subprocess.Popen[str], log: Path) -> None:
    """Stop a server with SIGTERM. It must finish its requests, print nothing more on stdout, and exit with 0."""
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        pytest.fail(f"no end {STOP_SECONDS_MAX} s after SIGTERM:\n{_end_of(log)}")
    assert code == 0, f"exit code {code}:\n{_end_of(log)}"
    assert process.stdout.read() == ""


def _address(process: subprocess.Popen[str], log: Path) -> str:
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS_MAX)
    line = process.stdout.readline() if ready else ""
    assert line.startswith(f"{LISTENING}http"), f"{line!r} instead of an address:\n{_end_of(log)}"
    return line.removeprefix(LISTENING).strip()


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for a complete test session. Import it into the `conftest.py` of the folder that uses it."""
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running
