"""What the cases need of an HTTP server, ours and the peers' alike."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from bench.load.payload import Payload
from bench.load.plan import Plan
from bench.machine.processes import Usage


class Target(Protocol):
    """A running server. `Plan`s of one target may be run one after the other, never at once."""

    name: str

    def start(self, directory: Path) -> None:
        """Starts the server with all its data below the directory. Raises StartError."""

    def stop(self) -> None:
        """Stops it; harmless if it does not run."""

    def write_plan(self, operation: str, payload: Payload, count: int, connections: int) -> Plan:
        """Requests that store the first `count` bodies, under names that were never used before."""

    def read_plan(self, payload: Payload, count: int, connections: int) -> Plan:
        """Requests that read the `count` bodies which a plan of `write_plan` has just stored."""

    def forget(self) -> None:
        """Ends the use of what was stored; the bytes may stay until the directory goes."""

    def usage(self) -> Usage:
        """What its processes have used so far."""
