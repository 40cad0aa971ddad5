"""The interface of a server under measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from bench.load.payload import Payload
from bench.load.plan import LoadPlan
from bench.machine.processes import Usage


class Target(Protocol):
    """A running server. `Plan`s of one target may be run one after the other, never at once."""

    name: str

    def start(self, directory: Path) -> None:
        """Start the server with all its data below the directory. Raises StartError."""

    def stop(self) -> None:
        """Stop the server. Does nothing if it is not running."""

    def write_plan(self, operation: str, payload: Payload, count: int, connections: int) -> LoadPlan:
        """Return requests that store the first `count` bodies under new names."""

    def read_plan(self, payload: Payload, count: int, connections: int) -> LoadPlan:
        """Return requests that read the `count` bodies of the last `write_plan`."""

    def forget(self) -> None:
        """Release what was stored; the bytes may stay until the directory is removed."""

    def usage(self) -> Usage:
        """Return the usage of its processes so far."""
