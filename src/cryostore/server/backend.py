"""The backend of a server: the interface through which it reaches the service.

The server depends on these protocols alone, so a test can put a backend in memory behind a whole server. The backend of
`cryo serve` is `store_backend`.
"""

from __future__ import annotations

from typing import Any, Protocol

from cryostore.core.time import Clock
from cryostore.model.operation import Operation
from cryostore.server.monitoring.metrics import Meter


class AccessKeys(Protocol):
    """The access keys that may sign requests."""

    def known(self, access_key_id: str) -> str | None:
        """The secret of an enabled access key if it is in memory and was looked up lately. Never blocks."""
        ...

    def secret(self, access_key_id: str) -> str | None:
        """The secret of an enabled access key; None if the key is unknown or disabled. May block."""
        ...

    def caller(self, access_key_id: str) -> Any:
        """The caller that an access key stands for."""
        ...


class Backend(Protocol):
    """Carries out operations, and tells the server how it is. Methods are thread safe."""

    @property
    def access(self) -> AccessKeys:
        """The access keys that may sign requests."""
        ...

    @property
    def clock(self) -> Clock | None:
        """The clock by which signatures are judged; None for the clock of this machine. Never blocks."""
        ...

    def call(self, operation: Operation[Any], caller: Any) -> Any:
        """Carry out an operation and return its output. May block."""
        ...

    @property
    def takes_writes(self) -> bool:
        """Whether new data is accepted; false while the disk is full. Never blocks."""
        ...

    def publish(self, meter: Meter) -> None:
        """Copy the counters and gauges of the service to a meter. Never blocks."""
        ...

    def recover(self) -> None:
        """Check whether an outage or a full disk is over. Cheap if there is none; may be called at any time."""
        ...

    def report(self) -> None:
        """Report the state of this node to the other nodes of a shared store. Takes as long as the store does."""
        ...

    def maintain(self) -> None:
        """Do a round of periodic duties. May be called at any time, from any process."""
        ...

    def close(self) -> None:
        """Release the store and everything else that is held."""
        ...
