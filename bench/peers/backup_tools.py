"""Backup programs as users start them, with their defaults: `cryo --data-dir`, `cryo serve`, restic, borg."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.machine.processes import program
from bench.peers.cryo import Cryostore

PASSWORD = "measured"  # noqa: S105 - the repository lives for a minute


@dataclass(frozen=True)
class Command:
    """A command line and its working directory."""

    arguments: list[str]
    folder: Path


class Tool:
    """A program and its repository below a folder. Commands are run one after the other."""

    name = ""
    program = ""
    ours = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"

    @property
    def installed(self) -> bool:
        """Return whether the program is installed."""
        return program(self.program) is not None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its processes, with caches of this measurement only."""
        home = {"HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache")}
        return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **home}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the processes that the commands need, such as a server."""
        yield

    @property
    def memory_beside_bytes(self) -> int:
        """The peak memory so far of the processes beside the commands."""
        return 0

    def prepare(self) -> list[Command]:
        """Return the commands that create the repository."""
        raise NotImplementedError

    def backup(self, source: Path, number: int) -> Command:
        """Return the command of the backup with this number."""
        raise NotImplementedError

    def restore(self, source: Path, target: Path) -> Command:
        """Return the command that restores the first backup into an empty folder."""
        raise NotImplementedError

    def verify(self) -> Command:
        """Return the command that reads and checks all stored data."""
        raise NotImplementedError

    def _command(self, *arguments: str | Path, folder: Path | None = None) -> Command:
        return Command([program(self.program) or self.program, *map(str, arguments)], folder or self.folder)


class Cryo(Tool):
    """Cryostore, with agent and store in one process."""

    name = program = "cryo"
    ours = True

    def prepare(self) -> list[Command]:
        return []

    def backup(self, source: Path, number: int) -> Command:  # noqa: ARG002 - the store assigns the id
        return self._command("backup", source, "--data-dir", self.repository)

    def restore(self, source: Path, target: Path) -> Command:  # noqa: ARG002 - the archive has the path
        return self._command("restore", "latest", target, "--data-dir", self.repository)

    def verify(self) -> Command:
        return self._command("verify", "latest", "--data", "--data-dir", self.repository)


class CryoServer(Tool):
    """Cryostore with `cryo serve` on loopback. The CPU time of the server is not included."""

    name = "cryo server"
    program = "cryo"
    ours = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._server = Cryostore()

    @contextmanager
    def running(self) -> Iterator[None]:
        self._server.start(self.repository)
        try:
            yield
        finally:
            self._server.stop()

    @property
    def memory_beside_bytes(self) -> int:
        return sum(self._server.usage().memory_peak_bytes.values())

    @property
    def environment(self) -> dict[str, str]:
        credentials = str(self.repository / "data" / "credentials")
        aws = {"AWS_ENDPOINT_URL": self._server.endpoint_url, "AWS_SHARED_CREDENTIALS_FILE": credentials}
        return super().environment | aws | {"XDG_STATE_HOME": str(self.folder / "state")}

    def prepare(self) -> list[Command]:
        return []

    def backup(self, source: Path, number: int) -> Command:  # noqa: ARG002 - the store assigns the id
        return self._command("backup", source)

    def restore(self, source: Path, target: Path) -> Command:  # noqa: ARG002 - the archive has the path
        return self._command("restore", "latest", target)

    def verify(self) -> Command:
        return self._command("verify", "latest", "--data")


class Restic(Tool):
    """restic on a local repository."""

    name = program = "restic"

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "RESTIC_PASSWORD": PASSWORD}

    def prepare(self) -> list[Command]:
        return [self._command("-r", self.repository, "init")]

    def backup(self, source: Path, number: int) -> Command:  # noqa: ARG002 - restic assigns the id
        return self._command("-r", self.repository, "-q", "backup", source)

    def restore(self, source: Path, target: Path) -> Command:  # noqa: ARG002 - the archive has the path
        return self._command("-r", self.repository, "-q", "restore", "latest", "--target", target)

    def verify(self) -> Command:
        return self._command("-r", self.repository, "-q", "check", "--read-data")


class Borg(Tool):
    """borg on a local repository, encrypted."""

    name = program = "borg"

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(self.folder)}

    def prepare(self) -> list[Command]:
        return [self._command("init", "-e", "repokey-blake2", self.repository)]

    def backup(self, source: Path, number: int) -> Command:
        return self._command("create", f"{self.repository}::{number}", source)

    def restore(self, source: Path, target: Path) -> Command:  # noqa: ARG002 - the archive has the path
        target.mkdir()
        return self._command("extract", f"{self.repository}::1", folder=target)

    def verify(self) -> Command:
        return self._command("check", "--verify-data", self.repository)


class BorgCurrent(Borg):
    """The current release of borg, built by `scripts/install-borg`."""

    name = "borg current"
    program = str(Path(".build/borg/bin/borg").absolute())


TOOLS = (Cryo, CryoServer, Restic, Borg, BorgCurrent)
